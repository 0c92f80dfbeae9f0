"""Trains a network of the zoo, with or without its spatial transformer, on MNIST-like data.

    python train_mnist.py --add-stn            # on the CPU, all cores
    python train_mnist.py --add-stn --gpus 0   # on the first GPU
"""
import argparse
import logging
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import symbols
from common import cli, files
from common.data import datasets
from common.data.batches import ImageIter
from common.data.distort import TASKS, augmentation
from common.graph import layers
from common.models import export_folder
from common.training import fit, flags
from symbols import stn


def add_flags(parser):
    """Adds the flags of this script to a parser."""
    flag = parser.add_argument
    flag("--network", choices=sorted(symbols.NETWORKS), default="lenet", help="network")
    flag("--add-stn", action="store_true", help="put the spatial transformer before it")
    flag("--transform", type=_transform, metavar="NAME",
         help=f"its family of warps: {', '.join(stn.TRANSFORMS)}, or tps:K for a spline with K x K "
              "points; by default affine")
    flag("--bounded", action="store_true",
         help="keep the warp near the identity: scales positive, denominators away from 0")
    flag("--stable", action="store_true",
         help="a localisation head that bears the usual rates: see docs/when-a-transformer-dies.md")
    flag("--pool", type=cli.number(int, least=1),
         help="average its output over squares of that many pixels; 2 in the paper for RTS and TC")
    flag("--width", type=cli.number(int, least=1),
         help="hidden units of mlp and addition, filters of cnn's second convolution")
    flag("--dataset", choices=datasets.DATASETS, default="mnist", help="dataset")
    flag("--data-dir", help="folder of its idx files, raw or .gz; by default data/<dataset>")
    flag("--num-examples", type=cli.number(int, least=1),
         help="training images to use; by default all, or 10000 of the synthetic ones")
    flag("--distort", choices=TASKS,
         help="distort the images as the paper does, those for training anew in each epoch; "
              "addition: two digits in two channels, to be added")
    flag("--result", help="file to write the figures to, as JSON")
    flag("--test-io", type=int, choices=(0, 1), default=0,
         help="1 to measure how fast batches can be read, without training")
    flag("--summary", action="store_true",
         help="print the network's layers, parameters and FLOPs, without training")
    flag("--draw-graph", metavar="FILE",
         help="draw the network's graph (.dot, .pdf, .png, .svg), without training; needs graphviz")
    flags.add_training_flags(parser)


def complete(args):
    """Checks the flags against each other and fills in what depends on others."""
    flags.complete(args)
    if not args.add_stn and (args.transform or args.bounded or args.stable or args.pool):
        raise ValueError("--transform, --bounded, --stable and --pool are of the transformer: "
                         "they need --add-stn")
    if args.visualize_every and not args.add_stn:
        raise ValueError("--visualize-every draws what the transformer does: it needs --add-stn")
    names = ("transform", "bounded", "stable", "pool", "width")
    args.network_options = {name: value for name, value in vars(args).items()
                            if name in names and value}
    for name in args.network_options:
        able = [network for network in symbols.NETWORKS if name in symbols.options_of(network)]
        if args.network not in able:
            raise ValueError(f"--{name}: {args.network} has no such option, {', '.join(able)} have")
    if args.model_prefix is None:
        parts = [args.dataset, args.distort, args.network, "stn" if args.add_stn else None,
                 args.transform, "bounded" if args.bounded else None,
                 "stable" if args.stable else None]
        args.model_prefix = "models/" + "-".join(filter(None, parts)).replace(":", "")


def _transform(name):
    try:
        stn.get_transform(name)
    except ValueError as error:
        hint = cli.did_you_mean(name, stn.TRANSFORMS)
        raise argparse.ArgumentTypeError(f"{error}{hint}") from None
    return name


def main():
    started = time.monotonic()
    parser = cli.Parser(prog="train_mnist.py", description=__doc__.splitlines()[0])
    add_flags(parser)
    args = parser.parse_args()
    complete(args)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.result is not None:
        files.prepare_output(args.result)
    folder = f"{args.model_prefix}-export"
    export_folder.check_free(folder)

    dataset = datasets.load(args.dataset, args.data_dir, args.num_examples)
    args.data_origin = dataset.origin
    args.data_sha256 = None if args.dataset == "synthetic" else dataset.sha256
    fresh, num_classes = augmentation(args.distort)
    train = ImageIter(dataset.train_images, dataset.train_labels, args.batch_size,
                      seed=args.seed, dtype=args.dtype, fresh=fresh)
    test = ImageIter(*datasets.held_out(dataset, args.seed, fresh), args.batch_size,
                     dtype=args.dtype)
    if args.test_io:
        print(f"{fit.reading_speed(train):.0f} images/s read")
        return

    symbol = symbols.get_symbol(args.network, num_classes=num_classes, add_stn=args.add_stn,
                                image_shape=train.image_shape, **args.network_options)
    if args.draw_graph is not None:
        layers.draw(symbol, args.draw_graph, train.image_shape)
    if args.summary:
        print(layers.table(symbol, train.image_shape))
    if args.summary or args.draw_graph is not None:
        return

    with files.exclusive(f"{args.model_prefix}.lock"):
        module, figures = fit.fit(args, symbol, train, test)
        params = module.get_params()
        figures.update(parameters=sum(array.size for array in params[0].values()), seed=args.seed)
        exported = export_folder.export(folder, symbol, *params, train.image_shape,
                                        classes=datasets.class_names(dataset.origin, num_classes),
                                        about=export_folder.about(dict(figures, flags=vars(args))))
    if args.result is not None:
        files.write_json(args.result, figures)
    print(f"Test accuracy: {figures['test_accuracy']:.4f}")
    print(f"Wall time: {time.monotonic() - started:.0f} s")
    print("Exported: {} {}".format(*exported))


if __name__ == "__main__":
    cli.run(main)
