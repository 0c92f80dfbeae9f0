"""How fast the LeNet is here, with MXNet as usually written, PyTorch and onnxruntime, side by side.

    make bench                       # sets up PyTorch in an environment of its own; 25 minutes
    make bench ARGS=--quick          # ratios alone, beside the committed ones; without PyTorch
    make bench ARGS="--quick --keep" # likewise, and they are the ones to commit
    make bench ARGS=--print          # prints the tables, and writes them into docs/speed.md

Each throughput is the median of several rounds, in which the competitors take turns. What is
finished is in the result file, and is not measured again when the command is given again. At the
end it is as with --print, unless --result names another file.
"""
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial

from common import agent, cli, files, markdown
from experiments import competitors, machine, pages, ratios
from experiments.competitors import COMPETITORS, OURS, best

BATCHES = {"train": (64, 256, 1024), "predict": (1, 16, 64, 256, 1024)}
EPOCHS = (15000, 30000, 60000)  # images
TARGETS = (0.9852, 0.99)  # test accuracy: of the reference network as published, and beyond
LEARNERS = {  # name -> the module and flags of a training that logs its test accuracy
    "here": ["train_mnist", "--add-stn", "--seed"],
    "here, in a hurry": ["train_mnist", "--add-stn", "--num-epochs", "2", "--lr", "0.01", "--seed"],
    "PyTorch": ["experiments.torch_worker", "--learn"],
}
RESULT, PAGE, PROGRAM = "results/benchmark.json", "docs/speed.md", "experiments/benchmark.py"


def cases():
    """What is compared: (what, add_stn, batch_size)."""
    return [(what, add_stn, batch_size) for what, batches in BATCHES.items()
            for add_stn in (True, False) for batch_size in batches]


def measured(results):
    """The names of those cases that there are figures of."""
    return [name for name in (competitors.case_name(*case) for case in cases()) if name in results]


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
                               universal_newlines=True, env=competitors.environment(command),
                               preexec_fn=agent.die_with(os.getpid()))
    try:
        for line in process.stdout:
            found = re.search(r"Validation-accuracy=([0-9.]+)", line)
            for target in TARGETS if found else ():
                if float(found.group(1)) >= target and reached[str(target)] is None:
                    reached[str(target)] = time.monotonic() - begin
            if None not in reached.values():
                os.kill(process.pid, signal.SIGKILL)
                break
    except BaseException:  # Ctrl-C: the folder that it writes into is removed next
        process.kill()
        process.wait()
        raise
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)  # Popen's own wait would lose the usage
    process.returncode = 0  # nobody needs to wait for it again
    if status and None in reached.values():
        raise OSError(f"{' '.join(command)}: failed: {line.strip()}")
    return dict(reached, peak_mib=usage.ru_maxrss / 1024)


def table(results):
    """The Markdown table of the throughputs; of several settings of a competitor, the best."""
    rows = []
    for case in measured(results):
        throughputs = results[case]
        here, mxnet = throughputs["here"], throughputs["MXNet"]
        setting, pytorch = best(throughputs, "PyTorch")
        _, onnx = best(throughputs, "onnxruntime") or ("", None)
        rows.append([case, f"{here:,.0f}", f"{mxnet:,.0f}", f"{pytorch:,.0f}", setting,
                     f"{onnx:,.0f}" if onnx else "", f"{here / mxnet:.2f}", f"{here / pytorch:.2f}",
                     f"{here / onnx:.2f}" if onnx else ""])
    return markdown.table(["images/s", "here", "MXNet", "PyTorch", "its setting", "onnxruntime",
                           "here / MXNet", "here / PyTorch", "here / onnxruntime"], rows)


def settings_table(results):
    """The Markdown table of predictions here in all settings; "" without any.

    The fastest of them is compared with the fastest of the other programs in its best setting.
    """
    rows = []
    for case in measured(results):
        throughputs = results[case]
        ours = [throughputs["here"], *(throughputs.get(f"here, {name}") for name in OURS)]
        if any(ours[1:]):
            others = filter(None, (best(throughputs, program, in_int8=True)
                                   for program in ("PyTorch", "onnxruntime")))
            other = max(throughput for _, throughput in others)
            rows.append([case, *(f"{own:,.0f}" if own else "" for own in ours),
                         f"{other:,.0f}", f"{max(filter(None, ours)) / other:.2f}"])
    head = ["images/s", "here", *OURS, "the fastest other", "the fastest here / it"]
    return markdown.table(head, rows) if rows else ""


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
        lines.append(_peaks(results["roofline"]["peaks"]) + "; ".join(
            _share(results, what, add_stn) for what in BATCHES for add_stn in (True, False)) + ".")
    for count in EPOCHS:
        epoch = results.get(f"epoch of {count}")
        if epoch:
            lines.append(f"- Epoch of {count:,} images, batch 128: {epoch['epoch']:,.0f} images/s, "
                         f"{epoch['ratio']:.2f} of the bare steps'")
    return "\n".join(lines)


def _peaks(peaks):
    """Which library multiplies matrices fastest, and the others."""
    first, *others = sorted(peaks.items(), key=lambda item: -item[1])
    lower = ", ".join(f"{name} {speed:.0f}" for name, speed in others)
    return (f"- Peak of matrix products: {first[1]:.0f} GFLOP/s, by {first[0]}"
            f"{f' ({lower})' if lower else ''}. Of it: ")


def _share(results, what, add_stn):
    """What part of the peak a case uses at batch 256, by the operations of its layers."""
    case = competitors.case_name(what, add_stn, 256)
    passes = {"train": 3, "predict": 1}  # backward: 2 forward passes
    roofline = results["roofline"]
    flops = passes[what] * roofline["flops"][str(add_stn)] * results[case]["here"]
    return f"{case}: {1e-9 * flops:.0f}, {1e-9 * flops / max(roofline['peaks'].values()):.0%}"


def report(results):
    """All of it, in Markdown."""
    parts = table(results), settings_table(results), learning_table(results), notes(results)
    return "\n\n".join(part for part in (machine.sentence(results["about"]), *parts) if part)


def load(path):
    """The figures in a file, none if there is no such file; ValueError for another file."""
    return files.figures(path, "experiments.benchmark", lambda found: found and report(found))


class Benchmark:
    """All that is measured: ``todo`` has a function for each name in the results."""

    def __init__(self, crew, rounds, seconds, seeds):
        self.crew, self.rounds, self.seconds = crew, rounds, seconds
        self.names = list(COMPETITORS)
        self.todo = {competitors.case_name(*case): partial(self._throughputs, *case)
                     for case in cases()}
        self.todo["roofline"] = self._roofline
        self.todo.update({f"epoch of {count}": partial(self._epoch, count) for count in EPOCHS})
        self.todo.update({f"learn, {name}, seed {seed}": partial(self._learn, name, seed)
                          for seed in range(seeds) for name in LEARNERS})

    def run(self, results, path):
        """Measures what is not in the results, and writes them after each of its figures.

        Raises ValueError if those that are there were measured elsewhere.
        """
        left = [name for name in self.todo if name not in results]
        if not left:
            return
        about = self.crew.about("experiments.benchmark", self.names)
        about["settings"] = {name: " ".join(command) for name, command in COMPETITORS.items()}
        if results:
            machine.check_same(path, results.get("about", {}), about)
        results["about"] = about
        if not self.crew.ask("PyTorch, eager", what="bfloat16"):  # it would only lose
            self.names.remove("PyTorch, bfloat16")
        for name in left:
            results[name] = self.todo[name]()
            files.write_json(path, results)
            print(name, results[name], file=sys.stderr, flush=True)

    def _throughputs(self, what, add_stn, batch_size):
        names = competitors.asked(self.names, what, batch_size)
        case = {"what": what, "add_stn": add_stn, "batch_size": batch_size}
        self.crew.prepare(names, **case)
        throughputs = {name: [] for name in names}
        for _ in range(self.rounds):  # in turns, since the machine's own speed changes
            for name in names:
                throughputs[name].append(self.crew.ask(name, **case, seconds=self.seconds))
        return {name: statistics.median(values) for name, values in throughputs.items()}

    def _roofline(self):
        peaks = {}
        for _ in range(self.rounds):
            for name in ("here", "PyTorch, eager"):
                for library, speed in self.crew.ask(name, what="roofline",
                                                    seconds=self.seconds).items():
                    peaks[library] = max(speed, peaks.get(library, 0))
        return {"peaks": peaks, "flops": self.crew.ask("here", what="flops")}

    def _epoch(self, count):
        answers = [self.crew.ask("here", what="epoch", count=count, seconds=self.seconds)
                   for _ in range(self.rounds)]
        return {"epoch": statistics.median(answer["epoch"] for answer in answers),
                "ratio": statistics.median(answer["epoch"] / answer["steps"]
                                           for answer in answers)}

    def _learn(self, name, seed):
        self.crew.close()  # their memory too should not be in the way
        with tempfile.TemporaryDirectory() as folder:
            own = ["--model-prefix", f"{folder}/model"] if "train_mnist" in LEARNERS[name] else []
            return learn([*self.crew.command(*LEARNERS[name]), str(seed), *own])


def measure(args):
    """Measures what is missing in the file of results."""
    if not os.path.exists(args.torch_python):
        raise FileNotFoundError(f"{args.torch_python}: there is no PyTorch; make bench sets it up")
    files.prepare_output(args.result)
    with files.exclusive(f"{args.result}.lock"), competitors.Crew(args.torch_python) as crew:
        Benchmark(crew, args.rounds, args.seconds, args.seeds).run(load(args.result), args.result)


def main():
    parser = cli.Parser(prog="experiments.benchmark", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("--torch-python", default=".venv-torch/bin/python", help="interpreter that has PyTorch")
    flag("--result", default=RESULT, help="file of the figures")
    flag("--rounds", type=cli.number(int, least=1), default=5, help="to take the median of")
    flag("--seconds", type=cli.number(float, above=0), default=0.6, help="of each measurement")
    flag("--seeds", type=cli.number(int, least=1), default=3, help="of the runs that learn")
    flag("--print", action="store_true",
         help="measure nothing, print the tables and write them into docs/speed.md")
    flag("--quick", action="store_true", help="ratios alone, beside the committed ones")
    flag("--keep", action="store_true", help="with --quick: they are the ones to commit")
    args = parser.parse_args()
    if args.keep and not args.quick:
        raise ValueError("--keep is of the ratios: it needs --quick")
    if args.quick and args.print:
        raise ValueError("--quick measures, --print measures nothing: give one of them")
    if args.quick and args.result != RESULT:
        raise ValueError(f"--quick compares with {ratios.RESULT}: leave out --result")
    if args.quick:
        ratios.run(args.rounds, args.keep)
        return
    if not args.print:
        measure(args)
    results = load(args.result)
    if not results:
        raise ValueError(f"{args.result}: no figures yet: leave out --print")
    pages.publish(PAGE, PROGRAM, report(results), write=args.result == RESULT)


if __name__ == "__main__":
    cli.run(main)
