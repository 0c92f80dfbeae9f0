"""Writes a trained network for other programs: for MXNet's loaders, or as ONNX.

    python export.py models/mnist-lenet-stn                     # models/mnist-lenet-stn-export
    python export.py models/mnist-lenet-stn --onnx stn.onnx
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
from common import cli, files
from common.data import class_list
from common.graph import rewrite
from common.models import card, export_folder, to_onnx, trained
from common.storage import checkpoint, sandbox

DEFAULT_SHAPE = (1, 28, 28)  # of checkpoints that do not say theirs


def parse_flags():
    parser = cli.Parser(prog="export.py", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("model", type=trained.as_folder,
         help="prefix of checkpoints; with --onnx the folder of an export will do")
    flag("--load-epoch", type=cli.number(int, least=0),
         help="epoch of the checkpoint; by default the newest")
    flag("--output", help="folder to write; by default <model>-export")
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
    args = parser.parse_args()
    if args.onnx is not None and (args.output or args.class_names or args.overwrite):
        raise ValueError("--output, --overwrite and --class-names are of the folder: they have no "
                         "meaning with --onnx")
    return args


def write_folder(args, network, image_shape, meta):
    """Writes what MXNet's loaders want."""
    if not rewrite.ends_in_loss(network.training):
        raise ValueError(f"{args.model}: an export already, or another network that ends in "
                         f"{rewrite.ending(network.training)}, not in a SoftmaxOutput; --onnx "
                         "takes those too")
    params = network.checked_params(network.symbol, image_shape)
    count = export_folder.answer_shape(network.symbol, image_shape)[0]
    classes = (class_list.given_names(args.class_names)
               or card.class_names(args.model, args.load_epoch, count))
    folder = args.output or f"{args.model}-export"
    if args.output and not args.overwrite and export_folder.is_of_another(folder, network.training):
        raise ValueError(f"{folder}: the export of another network: --overwrite replaces it")
    exported = export_folder.export(folder, network.training, *params, image_shape, classes,
                                    args.raw_input, export_folder.about(meta))
    print("Exported: {} {}".format(*exported))


def write_onnx(args, network, image_shape):
    """Writes an ONNX model."""
    files.prepare_output(args.onnx)
    params = network.checked_params(network.symbol, image_shape)
    difference = float(sandbox.run_in_child(network.path, lambda: to_onnx.save(
        args.onnx, network.training, *params, image_shape, args.raw_input)))
    print(f"Exported: {args.onnx}")
    print(f"Largest difference from MXNet: {difference:.1e}")


def main():
    args = parse_flags()
    prefix, epoch = trained.find(args.model, args.load_epoch)
    network = trained.load(args.model, epoch)
    meta = checkpoint.load_state(prefix, epoch)[1] or {}
    image_shape = args.image_shape
    if image_shape is None and os.path.isdir(args.model):
        image_shape = export_folder.image_shape(args.model)
    elif image_shape is None:
        image_shape = tuple(meta.get("image_shape", DEFAULT_SHAPE))
    if args.onnx is not None:
        write_onnx(args, network, image_shape)
    else:
        write_folder(args, network, image_shape, meta)


if __name__ == "__main__":
    cli.run(main)
