"""Trains a network of the zoo, with or without its spatial transformer, on MNIST-like data.

    python train_mnist.py --add-stn            # on the CPU, all cores
    python train_mnist.py --add-stn --gpus 0   # on the first GPU
"""
import argparse
import contextlib
import dataclasses
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import symbols
from common import cli, files
from common.data import augment, class_list, datasets
from common.data.batches import ImageIter
from common.data.distort import TASKS, augmentation
from common.graph import layers
from common.models import export_folder, trained
from common.training import fit, flags, resume, workers
from symbols import stn

TRANSFORMER = ("transform", "bounded", "stable", "outside", "pool", "stn_at", "stn_steps")
OF_TRANSFORMER = (*TRANSFORMER, "loc_lr_mult")  # flags that need one: options of it, and this
OF_NETWORK = (*TRANSFORMER, "width", "depth", "dropout")  # flags that are options of networks
# Flags that decide the network and the images:
DECISIVE = (*OF_NETWORK, "add_stn", "brightness", "data_dir", "data_train", "data_val", "dataset",
            "distort", "image_shape", "network", "num_examples", "pad_size", "random_crop",
            "random_mirror", "validation")


def add_flags(parser):
    """Adds the flags of this script to a parser."""
    flag = parser.add_argument
    places = [f"{', '.join(symbols.NETWORKS[network].PLACES)} in {network}"
              for network in symbols.networks_with("stn_at")]
    flag("--network", choices=sorted(symbols.NETWORKS), default="lenet", help="network")
    flag("--add-stn", action="store_true", help="put the spatial transformer before it")
    flag("--transform", type=_transform, metavar="NAME",
         help=f"its family of warps: {', '.join(stn.TRANSFORMS)}, or tps:K for a spline with K x K "
              "points; by default affine")
    flag("--bounded", action="store_true",
         help="keep the warp near the identity: scales positive, denominators away from 0")
    flag("--stable", action="store_true",
         help="a localisation head that bears the usual rates: see docs/when-a-transformer-dies.md")
    flag("--outside", choices=stn.OUTSIDE,
         help="what is sampled outside the picture: 0, or its border; by default zero")
    flag("--pool", type=cli.number(int, least=1),
         help="average its output over squares of that many pixels; 2 in the paper for RTS and TC")
    flag("--stn-at", metavar="PLACES",
         help=f"where a network has transformers, one of these or several, such as input,stage1: "
              f"{'; or '.join(places)}; by default input")
    flag("--stn-steps", type=cli.number(int, least=1, most=100), metavar="N",
         help="find the warp in N steps, each of which sees what those before have made; by "
              "default 1")
    flag("--width", type=cli.number(int, least=1, most=2**16),
         help="hidden units of mlp and addition, filters of cnn's second convolution, of resnet's "
              "first stage and of svhn's first convolution")
    flag("--depth", type=cli.number(int, least=1, most=1000), help="blocks in each stage of resnet")
    flag("--dropout", type=cli.number(float, least=0, below=1),
         help="the part of its units that svhn drops in training; by default 0.5")
    flag("--dataset", choices=datasets.DATASETS, default="mnist",
         help="dataset, fetched if need be")
    datasets.add_flags(flag)
    flag("--num-classes", type=cli.number(int, least=2, most=class_list.MOST),
         help="classes of the network; by default as many as the data have")
    flag("--class-names", metavar="FILE|A,B,C",
         help="names of the classes in their order, in a file one a line; by default as the data "
              "name them, or numbers")
    flag("--num-examples", type=cli.number(int, least=1),
         help="training images to use; by default all, or 10000 of drawn ones")
    flag("--validation", type=cli.number(int, least=0), default=0, metavar="N",
         help="hold out the last N training images: they are scored after each epoch, and the test "
              "images in the end alone; for choosing flags and checkpoints")
    flag("--distort", choices=TASKS,
         help="distort the images as the paper does, those for training anew in each epoch; "
              "addition: two digits in two channels, to be added")
    flag("--result", help="file to write the figures to, as JSON")
    flag("--test-io", type=int, choices=(0, 1), default=0,
         help="1 to measure how fast batches can be read, without training")
    flag("--benchmark", type=int, choices=(0, 1), default=0,
         help="1 to measure how fast noise is trained on, of --image-shape and --num-classes; "
              "nothing is written")
    flag("--summary", action="store_true",
         help="print the network's layers, parameters and FLOPs, without training")
    flag("--draw-graph", metavar="FILE",
         help="draw the network's graph (.dot, .pdf, .png, .svg), without training; needs graphviz")
    augment.add_augmentation_flags(parser)
    flags.add_training_flags(parser)


def check(args):
    """The ``Recipe`` that the flags say; ValueError for flags that do not fit together."""
    recipe = flags.recipe(args)
    augment.from_flags(args)
    if args.benchmark and (args.data_dir or args.data_train or args.data_val):
        raise ValueError("--benchmark 1 trains on noise: it does not go with data of your own")
    if args.benchmark and args.kv_store in workers.KV_STORES:
        raise ValueError(f"--benchmark 1 trains in one process: it does not go with --kv-store "
                         f"{args.kv_store}")
    described = is_described(args)
    if args.benchmark + args.test_io + described > 1:
        raise ValueError("--benchmark 1, --test-io 1 and --summary or --draw-graph do other things "
                         "than train: give one of them")
    if args.result is not None and (args.benchmark or args.test_io or described):
        raise ValueError("--result is for the figures of a training, and nothing is to be trained")
    if not args.add_stn and any(getattr(args, name) for name in OF_TRANSFORMER):
        options = ", ".join(map(cli.flag_of, OF_TRANSFORMER))
        raise ValueError(f"{options} are of the transformer: they need --add-stn")
    if args.visualize_every and not args.add_stn:
        raise ValueError("--visualize-every draws what the transformer does: it needs --add-stn")
    for name in network_options(vars(args)):
        able = symbols.networks_with(name)
        if args.network not in able:
            raise ValueError(f"{cli.flag_of(name)}: {args.network} has no such option: it is for "
                             f"--network {', '.join(able)}")
    return recipe


def network_options(given):
    """The options of the network among flags, name -> value."""
    values = {name: given.get(name) for name in OF_NETWORK}
    return {name: value for name, value in values.items()
            if not (value is None or value is False)}  # a dropout of 0 is given


def options_for(labels, args):
    """The options that the network needs for labels (N,) or (N, places) of images, by name.

    Raises ValueError if it is not for several labels, or nor is what the flags do to the images.
    """
    if labels.ndim == 1:
        return {}
    able = symbols.networks_with("digits")
    if args.network not in able:
        raise ValueError(f"these are whole numbers of up to {labels.shape[1]} digits, which "
                         f"--network {', '.join(able)} is for, not {args.network}")
    if args.distort == "addition":
        raise ValueError("--distort addition adds labels of one digit, these are whole numbers")
    return {"digits": labels.shape[1]}


def model_prefix(args):
    """The path and start of the names of all files, as given or after what is trained."""
    if args.model_prefix:
        return args.model_prefix
    data = datasets.short_name(args.dataset, args.data_dir, args.data_train)
    given = {name: value for name, value in vars(args).items()
             if value != resume.IMPLIED.get(name)}
    steps = given.get("stn_steps")
    parts = [data, args.distort, args.network, "stn" if args.add_stn else None,
             given.get("transform"), "bounded" if args.bounded else None,
             "stable" if args.stable else None, given.get("outside"), given.get("stn_at"),
             steps and f"{steps}-steps"]
    return "models/" + "-".join(filter(None, parts)).replace(":", "").replace(",", "-")


def check_not_written(model, prefix):
    """Raises ValueError if a model to start from, ``trained.Params``, is among a run's own files.
    """
    if trained.is_file_of(prefix, model.path):
        raise ValueError(f"--pretrained {model.model} is what this run would write: give another "
                         "--model-prefix")


def check_output(path, args, pretrained, prefix):
    """Raises ValueError if a file to be written is one of the run itself, or one that it reads."""
    trained.check_not_file_of(prefix, path)
    datasets.check_not_read(path, args)
    if pretrained:
        trained.check_not_file_of(pretrained.path[:-len("-0000.params")], path)


def names_of_answers(dataset, distort, count):
    """The names of a network's ``count`` classes: those of the images, or of their sums.

    Of words, the numbers are added. Raises ValueError if those of the images leave some out.
    """
    if distort != "addition":
        return list(dataset.class_names)
    names = dataset.data_classes
    digits = list(map(int, names)) if class_list.are_numbers(names) else list(range(len(names)))
    if digits != list(range(digits[0], digits[0] + len(digits))):
        raise ValueError("--distort addition adds digits, and the classes are not numbers in a "
                         f"row: {cli.some(names)}")
    return list(class_list.numbers(2 * digits[0], count))


def made_of(args, dataset, classes):
    """What decides the network and the images, for the recipe: flags, names, images' SHA-256."""
    drawn = dataset.origin in datasets.DRAWN
    given = {name: getattr(args, name) for name in DECISIVE}
    return dict(given, classes=classes, threads=int(os.environ["OMP_NUM_THREADS"]),
                image_shape=args.image_shape and list(args.image_shape),  # as JSON has it
                num_classes=len(dataset.class_names),
                data_sha256=None if drawn else dataset.sha256)


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
    recipe, prefix = check(args), model_prefix(args)
    if recipe.pretrained:
        check_not_written(recipe.pretrained, prefix)
    if not (args.test_io or is_described(args)):
        datasets.check_not_among(prefix, args)
    for path in filter(None, (args.result, args.draw_graph, args.tensorboard)):
        check_output(path, args, recipe.pretrained, prefix)
    with workers.join(args.kv_store, args.patience) as group:
        group.set_up_log()
        train_network(args, recipe, prefix, group, started)


def train_network(args, recipe, prefix, group, started):
    """Trains and exports what the flags say, as one of a group of ``workers.Workers``."""
    folder = f"{prefix}-export"
    if group.first:
        if args.result is not None:
            files.prepare_output(args.result)
        export_folder.check_free(folder)

    with group.on_its_own():
        dataset = datasets.load("noise" if args.benchmark else args.dataset, args.data_dir,
                                args.num_examples, num_classes=args.num_classes,
                                class_names=class_list.given_names(args.class_names),
                                **datasets.options(args))
    class_list.note_sizes(dataset.train_labels, dataset.class_names)
    options = options_for(dataset.train_labels, args)
    distortion, num_classes = augmentation(args.distort, len(dataset.class_names))
    classes, in_data = names_of_answers(dataset, args.distort, num_classes), dataset.data_classes
    recipe = dataclasses.replace(recipe, made_of=made_of(args, dataset, classes))
    group.check_alike(recipe, trains=not (args.test_io or is_described(args)))
    about = dict(vars(args), model_prefix=prefix, data_origin=dataset.origin, classes=classes,
                 labels=dataset.labels,
                 data_classes=list(in_data) if dataset.named and classes != list(in_data) else None)
    train, validation, test = iterators(args, dataset, distortion, group)
    if args.test_io:
        print(f"{fit.reading_speed(train):.0f} images/s read")
        return
    symbol = symbols.get_symbol(args.network, num_classes=num_classes, add_stn=args.add_stn,
                                image_shape=train.image_shape, **network_options(vars(args)),
                                **options)
    if is_described(args):
        describe(args, symbol, train.image_shape)
        return
    if args.benchmark:
        speed = fit.training_speed(symbol, train, recipe, args.disp_batches)
        print(f"{speed:.0f} images/s trained")
        return

    with files.exclusive(f"{prefix}.lock") if group.first else contextlib.nullcontext():
        module, figures = fit.fit(symbol, train, test, recipe, flags.output(args, prefix, **about),
                                  flags.watch(args), validation, group)
        if not group.first:
            return
        params = module.get_params()
        figures.update(parameters=sum(array.size for array in params[0].values()), seed=args.seed)
        exported = export_folder.export(folder, symbol, *params, train.image_shape,
                                        classes=classes,
                                        about=export_folder.about(dict(figures, flags=about)))
    if args.result is not None:
        files.write_json(args.result, figures)
    print(f"Test accuracy: {figures['test_accuracy']:.4f}")
    print(f"Wall time: {time.monotonic() - started:.0f} s")
    print("Exported: {} {}".format(*exported))


def iterators(args, dataset, distortion, group):
    """A worker's ``ImageIter`` for training, for validation or None, and for the test."""
    def evaluation(images, labels):
        own = group.part(*datasets.for_evaluation(images, labels, args.seed, distortion))
        return ImageIter(*own, args.batch_size, dtype=args.dtype, raw=True)

    kept, held_out = datasets.hold_out(dataset, args.validation)
    train = ImageIter(*kept, args.batch_size, seed=args.seed, dtype=args.dtype, augment=distortion,
                      jitter=augment.from_flags(args), num_parts=group.count,
                      part_index=group.rank, raw=True)
    return (train, evaluation(*held_out) if args.validation else None,
            evaluation(dataset.test_images, dataset.test_labels))


def is_described(args):
    """Whether the network is to be drawn or printed, and not trained."""
    return args.summary or args.draw_graph is not None


def describe(args, symbol, image_shape):
    """Draws and prints the network, as the flags say."""
    if args.draw_graph is not None:
        layers.draw(symbol, args.draw_graph, image_shape)
    if args.summary:
        print(layers.table(symbol, image_shape))


if __name__ == "__main__":
    cli.run(main)
