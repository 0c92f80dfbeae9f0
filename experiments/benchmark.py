"""How fast the LeNet is here, with MXNet as usually written, and with PyTorch, side by side.

    make bench        # sets up PyTorch in an environment of its own; about 20 minutes

Each throughput is the median of several rounds, in which the competitors take turns. What is
finished is in the result file, and is not measured again when the command is given again.
"""
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial

from common import cli, files, markdown

BATCHES = {"train": (64, 256, 1024), "predict": (1, 64, 256, 1024)}
EPOCHS = (15000, 30000, 60000)  # images
TARGETS = (0.9852, 0.99)  # test accuracy: of the reference network as published, and beyond
COMPETITORS = {  # name -> the worker's module and flags
    "here": ["experiments.mxnet_worker"],
    "MXNet": ["experiments.mxnet_worker", "--plain"],
    "PyTorch": ["experiments.torch_worker"],
    "compiled": ["experiments.torch_worker", "--compile"],
}
MXNETS_OWN = {  # settings, for the worker with --plain; common/find_mxnet.py has better ones
    "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // 2)),
    "MXNET_CPU_TEMP_COPY": "4",
    "MXNET_CPU_PRIORITY_NTHREADS": "4",
    "MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_FWD": "15",
    "MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_BWD": "15",
}
LEARNERS = {  # name -> the module and flags of a training that logs its test accuracy
    "here": ["train_mnist", "--add-stn", "--seed"],
    "here, in a hurry": ["train_mnist", "--add-stn", "--num-epochs", "2", "--lr", "0.01", "--seed"],
    "PyTorch": ["experiments.torch_worker", "--learn"],
}


class Worker:
    """A process that measures what it is asked to."""

    def __init__(self, command):
        settings = MXNETS_OWN if "--plain" in command else {}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        universal_newlines=True, env=dict(os.environ, **settings))

    def ask(self, **question):
        try:
            print(json.dumps(question), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            raise OSError(f"{' '.join(self.process.args)}: stopped; its message is above") from None

    def close(self):
        self.process.kill()
        self.process.wait()


def cases():
    """What is compared: (what, add_stn, batch_size)."""
    return [(what, add_stn, batch_size) for what, batches in BATCHES.items()
            for add_stn in (True, False) for batch_size in batches]


def key(what, add_stn, batch_size):
    return f"{what}, {'with' if add_stn else 'without'} transformer, batch {batch_size}"


def learn(command):
    """Trains until the last of ``TARGETS`` is reached, or the command ends.

    Args:
        command: to run; logs an accuracy as ``train_mnist.py`` does after each epoch.

    Returns:
        Seconds to each target from the start of the process (None if not reached), and the peak
        memory in MiB.

    Raises:
        OSError: the command failed; with its last line.
    """
    begin, reached, line = time.monotonic(), dict.fromkeys(map(str, TARGETS)), ""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               universal_newlines=True)
    for line in process.stdout:
        found = re.search(r"Validation-accuracy=([0-9.]+)", line)
        for target in TARGETS if found else ():
            if float(found.group(1)) >= target and reached[str(target)] is None:
                reached[str(target)] = time.monotonic() - begin
        if None not in reached.values():
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)  # Popen's own wait would lose the usage
    process.returncode = 0  # nobody needs to wait for it again
    if status and None in reached.values():
        raise OSError(f"{' '.join(command)}: failed: {line.strip()}")
    return dict(reached, peak_mib=usage.ru_maxrss / 1024)


def table(results):
    """The Markdown table of the throughputs."""
    names = list(COMPETITORS)
    rows = []
    for case in filter(results.__contains__, (key(*case) for case in cases())):
        throughputs = results[case]
        over = throughputs["here"] / max(throughputs["PyTorch"], throughputs["compiled"])
        rows.append([case, *(f"{throughputs[name]:,.0f}" for name in names), f"{over:.2f}",
                     f"{throughputs['here'] / throughputs['MXNet']:.2f}"])
    return markdown.table(["images/s", *names, "here / faster PyTorch", "here / MXNet"], rows)


def learning_table(results):
    """The Markdown table of the times to an accuracy, medians over the seeds."""
    rows = []
    for name in LEARNERS:
        runs = [run for case, run in results.items() if case.startswith(f"learn, {name}, seed ")]
        if runs:
            cells = [_median_time([run[str(target)] for run in runs]) for target in TARGETS]
            peak = statistics.median(run["peak_mib"] for run in runs)
            rows.append([name, *cells, f"{peak:.0f}"])
    return markdown.table(["", *(f"s to {target:.2%}" for target in TARGETS), "peak MiB"], rows)


def _median_time(times):
    """As text; a run that did not get there took longest."""
    median = statistics.median_high([float("inf") if value is None else value for value in times])
    return "not reached" if median == float("inf") else f"{median:.0f}"


def notes(results):
    """The other figures, in lines of Markdown."""
    lines = []
    if "roofline" in results:
        lines.append(f"- Peak of matrix products: {results['roofline']['peak']:.0f} GFLOP/s. "
                     + "; ".join(_share(results, what, add_stn) for what in BATCHES
                                 for add_stn in (True, False)))
    for count in EPOCHS:
        epoch = results.get(f"epoch of {count}")
        if epoch:
            lines.append(f"- Epoch of {count:,} images, batch 128: {epoch['epoch']:,.0f} images/s, "
                         f"{epoch['ratio']:.2f} of the bare steps'")
    return "\n".join(lines)


def _share(results, what, add_stn):
    """What part of the peak a case uses at batch 256, by the operations of its layers."""
    case, passes = key(what, add_stn, 256), {"train": 3, "predict": 1}  # backward: 2 forward passes
    flops = passes[what] * results["roofline"][f"flops, {add_stn}"] * results[case]["here"]
    return f"{case}: {1e-9 * flops:.0f}, {1e-9 * flops / results['roofline']['peak']:.0%}"


def report(results):
    """All of it, in Markdown."""
    return "\n\n".join((table(results), learning_table(results), notes(results)))


def load(path):
    try:
        return dict(files.parse_json(files.read(path)))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        raise ValueError(f"{path}: not a result of the benchmark; move it away") from None


class Benchmark:
    """All that is measured: ``todo`` has a function for each name in the results."""

    def __init__(self, torch_python, rounds, seconds, seeds):
        self.rounds, self.seconds = rounds, seconds
        self._pythons = {"experiments.torch_worker": torch_python}
        self._workers = {}
        self.todo = {key(*case): partial(self._throughputs, *case) for case in cases()}
        self.todo["roofline"] = self._roofline
        self.todo.update({f"epoch of {count}": partial(self._epoch, count) for count in EPOCHS})
        self.todo.update({f"learn, {name}, seed {seed}": partial(self._learn, name, seed)
                          for seed in range(seeds) for name in LEARNERS})

    def close(self):
        for worker in self._workers.values():
            worker.close()

    def _command(self, module, *flags):
        return [self._pythons.get(module, sys.executable), "-m", module, *flags]

    def _ask(self, name, **question):
        if name not in self._workers:
            self._workers[name] = Worker(self._command(*COMPETITORS[name]))
        return self._workers[name].ask(**question)

    def _throughputs(self, what, add_stn, batch_size):
        throughputs = {name: [] for name in COMPETITORS}
        for _ in range(self.rounds):  # in turns, since the machine's own speed changes
            for name in COMPETITORS:
                throughputs[name].append(self._ask(name, what=what, add_stn=add_stn,
                                             batch_size=batch_size, seconds=self.seconds))
        return {name: statistics.median(values) for name, values in throughputs.items()}

    def _roofline(self):
        return self._ask("here", what="roofline", seconds=self.seconds)

    def _epoch(self, count):
        answers = [self._ask("here", what="epoch", count=count, seconds=self.seconds)
                   for _ in range(self.rounds)]
        return {"epoch": statistics.median(answer["epoch"] for answer in answers),
                "ratio": statistics.median(answer["epoch"] / answer["steps"]
                                           for answer in answers)}

    def _learn(self, name, seed):
        self.close()  # their memory too should not be in the way
        self._workers.clear()
        with tempfile.TemporaryDirectory() as folder:
            own = ["--model-prefix", f"{folder}/model"] if "train_mnist" in LEARNERS[name] else []
            return learn([*self._command(*LEARNERS[name]), str(seed), *own])


def main():
    parser = cli.Parser(prog="experiments.benchmark", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("--torch-python", default=".venv-torch/bin/python", help="interpreter that has PyTorch")
    flag("--result", default="results/benchmark.json", help="file of the figures")
    flag("--rounds", type=cli.number(int, least=1), default=5, help="to take the median of")
    flag("--seconds", type=cli.number(float, above=0), default=1.0, help="of each measurement")
    flag("--seeds", type=cli.number(int, least=1), default=3, help="of the runs that learn")
    args = parser.parse_args()
    files.prepare_output(args.result)
    results = load(args.result)
    if not os.path.exists(args.torch_python):
        raise FileNotFoundError(f"{args.torch_python}: there is no PyTorch; make bench sets it up")
    benchmark = Benchmark(args.torch_python, args.rounds, args.seconds, args.seeds)
    try:
        for name, measure in benchmark.todo.items():
            if name not in results:
                results[name] = measure()
                files.write_json(args.result, results)
                print(name, results[name], file=sys.stderr, flush=True)
    finally:
        benchmark.close()
    print(report(results))


if __name__ == "__main__":
    cli.run(main)
