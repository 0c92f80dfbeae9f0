"""The programs whose speed is compared, each in a process of its own that answers questions."""
import contextlib
import json
import os
import subprocess
import sys

from experiments import machine

PYTORCH = {  # setting -> flags of the worker
    "eager": [],
    "channels last": ["--channels-last"],
    "compiled": ["--compile"],
    "max-autotune": ["--max-autotune"],
    "bfloat16": ["--compile", "--bfloat16"],
    "int8": ["--int8"],
}
ONNXRUNTIME = {
    "all cores": [],
    "one thread": ["--one-thread"],
    "int8": ["--int8"],
    "int8, one thread": ["--int8", "--one-thread"],
}
OURS = {  # other settings, of prediction -> flags of the worker
    "NaiveEngine": ["--naive-engine"],
    "int8": ["--int8"],
    "int8, NaiveEngine": ["--int8", "--naive-engine"],
}
FEW_IMAGES = 16  # for more, the NaiveEngine is slow: one core, in the thread that asks
# On a CPU, max-autotune only tries out products of matrices one of which is constant.
FOR_PREDICTION = ("PyTorch, max-autotune", "PyTorch, int8",
                  *(f"onnxruntime, {name}" for name in ONNXRUNTIME),
                  *(f"here, {name}" for name in OURS))
COMPETITORS = {  # name -> the worker's module and flags
    "here": ["experiments.mxnet_worker"],
    **{f"here, {setting}": ["experiments.mxnet_worker", *flags]
       for setting, flags in OURS.items()},
    "MXNet": ["experiments.mxnet_worker", "--plain"],
    **{f"PyTorch, {setting}": ["experiments.torch_worker", *flags]
       for setting, flags in PYTORCH.items()},
    **{f"onnxruntime, {setting}": ["experiments.onnx_worker", *flags]
       for setting, flags in ONNXRUNTIME.items()},
}
MXNETS_OWN = {  # settings; common/find_mxnet.py has better ones
    "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // 2)),
    "MXNET_CPU_TEMP_COPY": "4",
    "MXNET_CPU_PRIORITY_NTHREADS": "4",
    "MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_FWD": "15",
    "MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_BWD": "15",
}
SETTINGS = {  # flag of a worker -> what its environment has besides
    "--plain": MXNETS_OWN,
    "--naive-engine": {"MXNET_ENGINE_TYPE": "NaiveEngine"},
}
NOT_PASSED_ON = ("OMP_NUM_THREADS", "OPENBLAS_CORETYPE")  # each program chooses for itself


def environment(command):
    """What a worker is to find in its environment."""
    found = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
    for flag in SETTINGS.keys() & set(command):
        found.update(SETTINGS[flag])
    return found


class Worker:
    """A process that measures what it is asked to."""

    def __init__(self, command):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True,
            env=environment(command), start_new_session=True)  # Ctrl-C is not for it

    def ask(self, **question):
        self.send(**question)
        return self.receive()

    def send(self, **question):
        with self._naming_who_stopped():
            print(json.dumps(question), file=self.process.stdin, flush=True)

    def receive(self):
        with self._naming_who_stopped():
            return json.loads(self.process.stdout.readline())

    @contextlib.contextmanager
    def _naming_who_stopped(self):
        try:
            yield
        except (OSError, ValueError):
            raise OSError(f"{' '.join(self.process.args)}: stopped; its message is above") from None

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Crew:
    """The workers by their names in ``COMPETITORS``; each starts when it is first asked.

    Args:
        torch_python: path of the interpreter that has PyTorch.
    """

    def __init__(self, torch_python):
        self._pythons = {"experiments.torch_worker": torch_python}
        self._workers = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def command(self, module, *flags):
        return [self._pythons.get(module, sys.executable), "-m", module, *flags]

    def ask(self, name, **question):
        """The answer of one."""
        return self._worker(name).ask(**question)

    def prepare(self, names, **question):
        """Lets several at once bind and compile what they will be asked for."""
        for name in names:
            self._worker(name).send(**question, seconds=0)
        for name in names:
            self._worker(name).receive()

    def about(self, program, names):
        """``machine.about``, with the versions that some of them have."""
        versions = {}
        for name in {COMPETITORS[name][0]: name for name in names}.values():
            versions.update(self.ask(name, what="about"))
        return machine.about(program, versions)

    def close(self):
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def _worker(self, name):
        if name not in self._workers:
            self._workers[name] = Worker(self.command(*COMPETITORS[name]))
        return self._workers[name]


def case_name(what, add_stn, batch_size):
    """What a case is called where its figures are."""
    return f"{what}, {'with' if add_stn else 'without'} transformer, batch {batch_size}"


def asked(names, what, batch_size):
    """Those of some competitors that a case is for."""
    return [name for name in names if (what == "predict" or name not in FOR_PREDICTION)
            and (batch_size <= FEW_IMAGES or "NaiveEngine" not in name)]


def best(throughputs, program, in_int8=False):
    """The best setting of a program with several, and its throughput; None if there is none.

    Of those in int8 only if so told: they are less exact.
    """
    settings = {name.partition(", ")[2]: value for name, value in throughputs.items()
                if name.startswith(f"{program}, ") and (in_int8 or "int8" not in name)}
    return max(settings.items(), key=lambda item: item[1]) if settings else None
