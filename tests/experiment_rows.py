"""What is true of every experiment of ``experiments/rows.py``."""
import functools
import math
import os

import numpy as np

import symbols
import train_mnist
from common import cli
from common.data import datasets
from common.data.batches import as_pixels
from tests.conftest import ROOT


@functools.lru_cache(maxsize=None)
def some_of(dataset):
    return datasets.load(dataset, num_examples=100)


def check_drawing(draw):
    """Drawing is a function of the seed."""
    images, labels = draw(300, seed=5)
    again, other = draw(300, seed=5), draw(300, seed=6)
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(labels, again[1])
    assert (images != other[0]).mean() > 0.9
    assert (labels != other[1]).any()


def parameters(run):
    """How many parameters the network of a run has."""
    parser = cli.Parser()
    train_mnist.add_flags(parser)
    args = parser.parse_args(run.flags)
    train_mnist.check(args)
    dataset = some_of(args.dataset)
    shape = (1, *as_pixels(dataset.train_images).shape[1:])
    symbol = symbols.get_symbol(args.network, num_classes=len(dataset.class_names),
                                add_stn=args.add_stn, image_shape=shape[1:],
                                **train_mnist.network_options(vars(args)),
                                **train_mnist.options_for(dataset.train_labels, args))
    shapes, _, _ = symbol.infer_shape(data=shape)
    return sum(math.prod(shape) for name, shape in zip(symbol.list_arguments(), shapes)
               if name not in ("data", "softmax_label"))


def check_runs(experiment):
    """The runs differ; returns the numbers of parameters of the rows."""
    runs = experiment.all_runs()
    assert len({run.name for run in runs}) == len(runs) == 3 * len(experiment.rows)
    assert experiment.lr in experiment.rates
    for run in experiment.choices().values():
        assert run.flags[run.flags.index("--validation") + 1] == experiment.held_out
        parameters(run)
    return list(map(parameters, runs[:len(experiment.rows)]))


def check_more_and_more_transformers(experiment):
    """The runs of the table differ from each other in transformers alone."""
    assert (np.diff(check_runs(experiment)) > 0).all()


def check_page(experiment, table):
    """The page has the tables of what is there."""
    with open(os.path.join(ROOT, "docs", f"{experiment.name}.md"), encoding="utf-8") as file:
        page = file.read()
    assert table(os.path.join(ROOT, experiment.folder), experiment.all_runs()) in page
    choice = os.path.join(ROOT, experiment.choice)
    if os.path.isdir(choice):  # signs has none
        assert experiment.table_of_choices(choice) in page
