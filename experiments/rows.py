"""Experiments of a few rows: networks on one dataset, by one recipe, over seeds.

Each run is a ``train_mnist.py`` on one device; all can be stopped and go on. A finished run leaves
its figures in ``results/<name>/<row>/seed-<n>.json``, one that chooses the rate, on held-out
training images, in ``results/<name>-choice``.
"""
from typing import Mapping, NamedTuple, Sequence, Tuple

from common import cli, markdown
from common.find_mxnet import usable_cores
from common.reports import training_runs


class Rows(NamedTuple):
    """An experiment.

    Attributes:
        name: of the program, and of the folder of the results.
        rows: name -> flags of ``train_mnist.py``.
        recipe: the flags that all rows have.
        lr: the rate, one of ``rates``.
        held_out: training images to choose by.
        choice_seed: of the runs that choose; by default the first of the table's.
    """

    name: str
    rows: Mapping[str, Sequence[str]]
    recipe: Sequence[str]
    lr: str
    rates: Tuple[str, ...]
    held_out: str
    seeds: Sequence[int] = range(3)
    choice_seed: int = 0

    @property
    def folder(self):
        return f"results/{self.name}"

    @property
    def choice(self):
        return f"results/{self.name}-choice"

    def all_runs(self):
        """The runs of the table, seed by seed."""
        return [training_runs.Run(f"{row}/seed-{seed}",
                                  [*self.recipe, "--lr", self.lr, "--seed", str(seed), *flags])
                for seed in self.seeds for row, flags in self.rows.items()]

    def choices(self):
        """The runs that tell rates apart: of one seed, without some of the training images."""
        return {(row, rate): training_runs.Run(
            f"{row}/lr-{rate}", [*self.recipe, "--lr", rate, "--validation", self.held_out,
                                 "--seed", str(self.choice_seed), *flags])
            for rate in self.rates for row, flags in self.rows.items()}

    def table_of_choices(self, folder):
        """The accuracies on held-out images, in %, as Markdown; nothing for what has not been run.
        """
        def cell(run):
            figures = training_runs.figures(run, folder)
            return "" if figures is None else f"{100 * figures['validation_accuracy']:.2f}"

        runs = self.choices()
        return markdown.table(["held-out accuracy, %", *(f"--lr {rate}" for rate in self.rates)],
                              [[row, *(cell(runs[row, rate]) for rate in self.rates)]
                               for row in self.rows])

    def parser(self, doc):
        """The flags that all of these experiments have; ``doc`` is the module's."""
        parser = cli.Parser(prog=f"experiments.{self.name}", description=doc.splitlines()[0])
        flag = parser.add_argument
        flag("--print", action="store_true", help="train nothing, print the table of what there is")
        flag("--choose", action="store_true", help="the runs that choose the rate, and their table")
        flag("--jobs", type=cli.number(int, least=1), default=usable_cores(), help="runs at a time")
        return parser

    def run(self, args, table):
        """Trains what the flags say and is missing, and prints its table.

        Args:
            args: of ``parser``.
            table: a function that makes the table of the folder of results, and of the runs.
        """
        runs, folder = self.all_runs(), self.folder
        if args.choose:
            runs, folder = list(self.choices().values()), self.choice
        if not args.print:
            training_runs.train(runs, folder, f"models/{folder}", args.jobs)
        print(self.table_of_choices(folder) if args.choose else table(folder, runs))
