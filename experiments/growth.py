"""How images/s and memory grow with batches, pictures, transformers, devices, and by family.

    python -m experiments.growth           # measures what is missing, some minutes; then as --print
    python -m experiments.growth --print   # prints the tables, writes them into docs/growth.md

Each cell is measured by a process of its own, and its memory is that process's peak less the peak
of one that does nothing but import the same. What is finished is in the result file, and is not
measured again when the command is given again.
"""
import json
import os
import subprocess
import sys
from typing import NamedTuple, Optional, Tuple

from common import agent, cli, files, markdown
from experiments import competitors, machine, pages

RESULT, PAGE, PROGRAM = "results/growth.json", "docs/growth.md", "experiments/growth.py"
BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
SIZES = (28, 56, 112, 224)
COUNTS = (1, 2, 4, 8, 12)
TRANSFORMS = ("translation", "attention", "rotation", "similarity", "affine", "projective", "tps")


class Cell(NamedTuple):
    """What is measured.

    Attributes:
        network: with its transformer, of ``symbols.NETWORKS``; or transformers without a network:
            "transformers" in a row, or "side by side" on the same input.
        count: number of transformers, where there is no network.
        devices: number of CPU devices; None for as many as the batch fills.
    """

    network: str
    batch: int
    image_shape: Tuple[int, int, int] = (1, 28, 28)
    transform: str = "affine"
    count: int = 1
    devices: Optional[int] = None
    backward: bool = False

    @classmethod
    def of(cls, fields):
        """The cell that JSON holds."""
        cell = cls(**fields)
        return cell._replace(image_shape=tuple(cell.image_shape))

    @property
    def name(self):
        shape = " x ".join(map(str, (self.batch, *self.image_shape)))
        plural = "" if self.devices == 1 else "s"
        devices = f", {self.devices} device{plural}" if self.devices else ""
        return (f"{self.network}, {self.count} x {self.transform}, {shape}{devices}, "
                f"{'with backward' if self.backward else 'forward'}")


def _sizes(network):
    return [(f"{channels} × {size} × {size}", Cell(network, 32, (channels, size, size)))
            for channels in (1, 3) for size in SIZES]


def _families(batch, *image_shape):
    return [(transform, Cell("transformers", batch, image_shape, transform))
            for transform in TRANSFORMS]


TABLES = {  # title -> what its rows differ in, and the rows
    "Batch: the LeNet": ("batch", [(batch, Cell("lenet", batch)) for batch in BATCHES]),
    "Batch: the LeNet on one device": (
        "batch", [(batch, Cell("lenet", batch, devices=1)) for batch in BATCHES]),
    "Batch: the transformer alone": (
        "batch", [(batch, Cell("transformers", batch)) for batch in BATCHES]),
    "Picture: the transformer alone, batch 32": ("picture", _sizes("transformers")),
    "Picture: the residual network, batch 32": ("picture", _sizes("resnet")),
    "Transformers in a row, batch 128 of 1 × 28 × 28": ("transformers", [
        (count, Cell("transformers", 128, count=count)) for count in COUNTS]),
    "Transformers side by side, batch 128 of 32 × 14 × 14": ("transformers", [
        (count, Cell("side by side", 128, (32, 14, 14), count=count)) for count in COUNTS]),
    "Devices, batch 256": ("devices", [
        (f"{network}, {devices}", Cell(network, 256, devices=devices))
        for network in ("lenet", "resnet", "transformers") for devices in (1, 2)]),
    "Family: the transformer alone, batch 32 of 3 × 224 × 224": (
        "family", _families(32, 3, 224, 224)),
    "Family: the transformer alone, batch 128 of 1 × 28 × 28": (
        "family", _families(128, 1, 28, 28)),
}


def all_cells():
    """What is measured, without what two tables share."""
    return list(dict.fromkeys(cell._replace(backward=backward) for _, rows in TABLES.values()
                              for _, cell in rows for backward in (False, True)))


def tables(results):
    """The tables, in Markdown, of what has been measured."""
    parts = [machine.sentence(results["about"])]
    for title, (what, rows) in TABLES.items():
        with_ratios = what == "family"
        head = [what, "forward, images/s", "with backward, images/s", "forward, MiB",
                "with backward, MiB"]
        head += ["forward / affine's", "with backward / affine's"] if with_ratios else []
        lines = [[label, *_figures(results, cell, with_ratios)] for label, cell in rows]
        parts += [f"**{title}**", markdown.table(head, lines)]
        if what == "batch":
            parts += _costs(results, dict(rows))
    return "\n\n".join(parts)


def _costs(results, cells):
    """A line that splits the time of a batch, by those of 1 and 16; none if they are not there."""
    said = []
    for backward in (False, True):
        one, many = (cells[batch]._replace(backward=backward).name for batch in (1, 16))
        if one not in results or many not in results:
            return []
        first, all_of_them = (1e6 * batch / results[name]["throughput"]
                              for batch, name in ((1, one), (16, many)))
        image = (all_of_them - first) / 15
        said.append(f"{'with backward' if backward else 'forward'} {first - image:,.0f} µs for "
                    f"the batch and {image:,.0f} µs for each image")
    return [f"By the batches of 1 and 16: {', '.join(said)}."]


def _figures(results, cell, with_ratios):
    found = [results.get(cell._replace(backward=backward).name) for backward in (False, True)]
    cells = [f"{each['throughput']:,.0f}" if each else "" for each in found]
    cells += [f"{max(0, each['peak_mib'] - results['empty']):,.0f}" if each else ""
              for each in found]
    if with_ratios:
        cells += [f"{each.get('ratio', 1):.2f}" if each else "" for each in found]
    return cells


def ask(*arguments):
    """What a worker says; OSError if it fails."""
    command = [sys.executable, "-m", "experiments.growth_worker", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=competitors.environment(command),
                          encoding="utf-8", check=False, preexec_fn=agent.die_with(os.getpid()),
                          start_new_session=True)  # Ctrl-C is not for it
    if done.returncode:
        raise OSError(f"{' '.join(command)}: failed; its message is above")
    return json.loads(done.stdout)


def measure(path, results):
    """Measures what is not in the results, and writes them after each cell.

    Raises ValueError if those that are there were measured elsewhere, OSError if a worker fails.
    """
    left = [cell for cell in all_cells() if cell.name not in results]
    if not left:
        return
    empty = ask()
    about = machine.about("experiments.growth", empty["versions"])
    if results:
        machine.check_same(path, results.get("about", {}), about)
    results.update(about=about, empty=empty["peak_mib"])
    for number, cell in enumerate(left, start=1):
        results[cell.name] = ask(json.dumps(cell._asdict()))
        files.write_json(path, results)
        print(f"{number} of {len(left)}: {cell.name}: {results[cell.name]}", file=sys.stderr,
              flush=True)


def load(path):
    """The results in a file, none if there is no such file; ValueError for another file."""
    return files.figures(path, "experiments.growth", lambda found: found and tables(found))


def main():
    parser = cli.Parser(prog="experiments.growth", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("--result", default=RESULT, help="file of the figures")
    flag("--print", action="store_true",
         help="measure nothing, print the tables and write them into docs/growth.md")
    args = parser.parse_args()
    if not args.print:
        files.prepare_output(args.result)
        with files.exclusive(f"{args.result}.lock"):
            measure(args.result, load(args.result))
    results = load(args.result)
    if not results:
        raise ValueError(f"{args.result}: no figures yet: leave out --print")
    pages.publish(PAGE, PROGRAM, tables(results), write=args.result == RESULT)


if __name__ == "__main__":
    cli.run(main)
