"""Images/s of the LeNet, here, with MXNet as usually written, and with PyTorch, side by side.

    make bench        # sets up PyTorch in an environment of its own; about 15 minutes

Each figure is the median of several rounds, in which the competitors take turns. Finished cases are
in the result file, and are not measured again when the command is given again.
"""
import json
import os
import statistics
import subprocess
import sys

from common import cli, files

BATCHES = {"train": (64, 256, 1024), "predict": (1, 64, 256, 1024)}
COMPETITORS = {  # name -> the worker's module and flags
    "here": ["bench.mxnet_worker"],
    "MXNet": ["bench.mxnet_worker", "--plain"],
    "PyTorch": ["bench.torch_worker"],
    "compiled": ["bench.torch_worker", "--compile"],
}


class Worker:
    """A process that measures what it is asked to."""

    def __init__(self, python, arguments):
        self.process = subprocess.Popen([python, "-m", *arguments], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, universal_newlines=True)

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
    """What is measured: (what, add_stn, batch_size)."""
    return [(what, add_stn, batch_size) for what, batches in BATCHES.items()
            for add_stn in (True, False) for batch_size in batches]


def key(what, add_stn, batch_size):
    return f"{what}, {'with' if add_stn else 'without'} transformer, batch {batch_size}"


def measure(workers, what, add_stn, batch_size, rounds, seconds):
    """Median images/s by competitor."""
    rates = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            rates[name].append(worker.ask(what=what, add_stn=add_stn, batch_size=batch_size,
                                          seconds=seconds))
    return {name: statistics.median(values) for name, values in rates.items()}


def table(results):
    """The Markdown table."""
    names = list(COMPETITORS)
    lines = ["| images/s | " + " | ".join(names) + " | here / faster PyTorch | here / MXNet |",
             "| --- |" + " --- |" * (len(names) + 2)]
    for case in filter(results.__contains__, (key(*case) for case in cases())):
        rates = results[case]
        over = rates["here"] / max(rates["PyTorch"], rates["compiled"])
        lines.append(" | ".join([f"| {case}", *(f"{rates[name]:,.0f}" for name in names),
                                 f"{over:.2f}", f"{rates['here'] / rates['MXNet']:.2f} |"]))
    return "\n".join(lines)


def load(path):
    try:
        with open(path, encoding="utf-8") as file:
            return dict(json.load(file))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        raise ValueError(f"{path}: not a result of benchmark.py; move it away") from None


def main():
    parser = cli.Parser(prog="benchmark.py", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("--torch-python", default=".venv-torch/bin/python", help="interpreter that has PyTorch")
    flag("--result", default="results/benchmark.json", help="file of the figures")
    flag("--rounds", type=cli.number(int, least=1), default=5, help="to take the median of")
    flag("--seconds", type=cli.number(float, above=0), default=2.0, help="of each measurement")
    args = parser.parse_args()
    files.check_writable(args.result)
    results = load(args.result)
    if not os.path.exists(args.torch_python):
        raise FileNotFoundError(f"{args.torch_python}: there is no PyTorch; make bench sets it up")
    workers = {name: Worker(args.torch_python if "torch" in arguments[0] else sys.executable,
                            arguments) for name, arguments in COMPETITORS.items()}
    try:
        for case in cases():
            if key(*case) not in results:
                results[key(*case)] = measure(workers, *case, args.rounds, args.seconds)
                files.write_json(args.result, results)
                print(key(*case), {name: round(value) for name, value in
                                   results[key(*case)].items()}, file=sys.stderr, flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    print(table(results))


if __name__ == "__main__":
    cli.run(main)
