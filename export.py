"""Writes a trained network for other programs: for MXNet's loaders, or as ONNX.

    python export.py models/mnist-lenet-stn                     # models/mnist-lenet-stn-export
    python export.py models/mnist-lenet-stn --int8              # models/mnist-lenet-stn-int8
    python export.py models/mnist-lenet-stn --onnx stn.onnx
"""
import logging
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
from common import cli, files, sandbox
from common.data import class_list
from common.graph import rewrite
from common.models import card, export_folder, quantize, to_onnx, trained
from common.storage import checkpoint

DEFAULT_SHAPE = (1, 28, 28)  # of checkpoints that do not say theirs
ACCURACY = "accuracy in float32"  # on the card of a network in int8
OF_FOLDER = ("output", "class_names", "overwrite", "int8", "data_dir", "data_train")  # not of ONNX


def parse_flags():
    parser = cli.Parser(prog="export.py", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("model", type=trained.as_folder, help="prefix of checkpoints, or folder of an export")
    flag("--load-epoch", type=cli.number(int, least=0),
         help="epoch of the checkpoint; by default the newest")
    flag("--output", type=cli.path,
         help="folder to write; by default <model>-export, or with --int8 <model>-int8")
    flag("--onnx", type=cli.path_ending_in(".onnx"), metavar="FILE",
         help="write an ONNX model instead; needs onnx and onnxruntime")
    flag("--image-shape", type=cli.image_shape, metavar="C,H,W",
         help="of the images; by default the training's, or 1,28,28 if an old checkpoint does not "
              "say it")
    flag("--overwrite", action="store_true",
         help="replace also the export of another network in --output")
    flag("--raw-input", action="store_true",
         help="the exported network takes pixels from 0 to 255, not from 0 to 1")
    flag("--class-names", metavar="FILE|A,B,C",
         help="names of the classes, in a file one a line; by default those of the dataset, or "
              "numbers")
    flag("--int8", action="store_true",
         help="the exported network predicts in whole numbers of 8 bits, faster on a CPU; needs "
              "images that it was trained on, to take the ranges of its numbers from")
    flag("--data-dir", metavar="PATH", help="where these are, if they are your own")
    flag("--data-train", metavar="FILE", help="or in RecordIO (.rec)")
    args = parser.parse_args()
    given = [cli.flag_of(name) for name in OF_FOLDER if getattr(args, name)]
    if args.onnx is not None and given:
        raise ValueError(f"{given[0]} is of the folder: it has no meaning with --onnx")
    own = [flag for flag in given if flag in ("--data-dir", "--data-train")]
    if own and not args.int8:
        raise ValueError(f"{own[0]} has no meaning without --int8")
    if len(own) > 1:
        raise ValueError("--data-dir and --data-train are two ways to say where the images are")
    return args


def write_folder(args, network, image_shape, about):
    """Writes what MXNet's loaders want."""
    training, params = network.training, network.checked_params(network.symbol, image_shape)
    if not rewrite.ends_in_loss(training):
        raise ValueError(f"{args.model}: the network ends in {rewrite.ending(training)}, not in a "
                         "SoftmaxOutput; --onnx takes those too")
    classes = class_names(args, export_folder.answer_shape(network.symbol, image_shape)[0])
    folder = args.output or args.model + ("-int8" if args.int8 else "-export")
    export_folder.check_free(folder)
    if args.output and not args.overwrite and export_folder.is_of_another(folder, training):
        raise ValueError(f"{folder}: the export of another network: --overwrite replaces it")
    deployed = None
    if args.int8:
        deployed, about = in_int8(args, network, image_shape, about)
    exported = export_folder.export(folder, training, *params, image_shape, classes,
                                    args.raw_input, about, deployed)
    print("Exported: {} {}".format(*exported))


def class_names(args, count):
    """The names of ``count`` classes, as the flags or else the model say them."""
    given = class_list.given_names(args.class_names)
    if given and len(given) != count:
        raise ValueError(f"--class-names {args.class_names}: {len(given)} names of classes, but "
                         f"the network has {count} classes")
    return given or card.class_names(args.model, args.load_epoch, count)


def in_int8(args, network, image_shape, about):
    """The symbol that predicts so, and what a card tells of it."""
    images = card.training_images(args.model, args.load_epoch, quantize.IMAGES, args.data_dir,
                                  args.data_train, image_shape)
    symbol, words = quantize.in_int8(network, image_shape, images)
    words += f" ({args.data_dir or args.data_train or 'training images'})"
    print(f"In int8: {words}")
    told = {re.sub("accuracy$", ACCURACY, what): text for what, text in about.items()}
    return symbol, {**told, export_folder.NUMBERS: f"int8, for prediction on CPUs; {words}"}


def in_training(model, network):
    """A ``Trained`` as it was trained: an export with its label, and not in int8."""
    found = export_folder.training_symbol(model)
    alike = rewrite.label_free(found).tojson() == network.symbol.tojson()
    if not alike and not rewrite.is_in_int8(network.symbol):
        raise ValueError(f"{model}: {export_folder.TRAIN_SYMBOL} is not of the network that is in "
                         f"{export_folder.SYMBOL}")
    return network._replace(training=found)


def write_onnx(args, network, image_shape):
    """Writes an ONNX model."""
    files.prepare_output(args.onnx)
    params = network.checked_params(network.symbol, image_shape)
    difference = float(sandbox.run_in_child(network.path, lambda: to_onnx.save(
        args.onnx, network.training, *params, image_shape, args.raw_input)))
    print(f"Exported: {args.onnx}")
    print(f"Largest difference from MXNet: {difference:.1e} of the largest answer")


def main():
    args = parse_flags()
    logging.basicConfig(format="%(message)s")
    prefix, epoch = trained.find(args.model, args.load_epoch)
    network = trained.load(args.model, epoch)
    image_shape = args.image_shape
    if os.path.isdir(args.model):
        if args.onnx is None or rewrite.is_in_int8(network.symbol):
            network = in_training(args.model, network)
        about = {what.replace(ACCURACY, "accuracy"): text
                 for what, text in export_folder.about_export(args.model).items()}
        image_shape = image_shape or export_folder.image_shape(args.model)
        if export_folder.takes_bytes(args.model) and not args.raw_input:
            logging.warning("%s takes pixels from 0 to 255, what is written takes them divided by "
                            "255: --raw-input leaves them", args.model)
    else:
        meta = checkpoint.load_state(prefix, epoch)[1] or {}
        about = export_folder.about(meta)
        image_shape = image_shape or tuple(meta.get("image_shape", DEFAULT_SHAPE))
    if args.onnx is not None:
        write_onnx(args, network, image_shape)
    else:
        write_folder(args, network, image_shape, about)


if __name__ == "__main__":
    cli.run(main)
