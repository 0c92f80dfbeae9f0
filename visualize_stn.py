"""Draws what the transformers of a trained network do to images.

    python visualize_stn.py models/mnist-lenet-stn                  # the newest checkpoint
    python visualize_stn.py models/mnist-lenet-stn-export           # an exported model
    python visualize_stn.py models/mnist-lenet-stn --animate        # all checkpoints, as a GIF

The upper pictures are the test images, each with the border of the transformer's grid on it, a dot
at its upper left; the lower ones are what the classifier gets to see.
"""
import logging
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
from common import cli, files
from common.data import datasets
from common.models import card, trained
from common.reports import pictures, visualise
from common.storage import checkpoint


def parse_flags():
    parser = cli.Parser(prog="visualize_stn.py", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("model", type=trained.as_folder, help="folder of an export, or prefix of checkpoints")
    flag("--load-epoch", type=cli.number(int, least=0), help="of the checkpoint; else the newest")
    card.add_flags(flag)
    flag("--first", type=cli.number(int, least=0), default=0, help="number of the first image")
    flag("--num-images", type=cli.number(int, least=1, most=100), default=10, help="how many")
    flag("--animate", action="store_true", help="draw all checkpoints of the prefix, as a GIF")
    flag("--output", type=cli.path, help="file to write; by default <model>-stn.png or .gif")
    args = parser.parse_args()
    if args.animate and args.load_epoch is not None:
        raise ValueError("--load-epoch has no meaning with --animate, which draws all checkpoints")
    return args


def shown_images(args):
    """The images (N, ...) and labels (N,) that the flags ask for, and what they are."""
    chosen = card.test_images(args)
    if args.first + args.num_images > len(chosen.images):
        raise ValueError(f"--first {args.first} --num-images {args.num_images}: there are only "
                         f"{len(chosen.images)} test images")
    shown = slice(args.first, args.first + args.num_images)
    return chosen.images[shown], chosen.labels[shown], chosen.words


def animate(prefix, images, labels, output):
    """Draws each checkpoint of a prefix and joins the pictures."""
    epochs = checkpoint.epochs(prefix)
    if not epochs:
        raise FileNotFoundError(f"{prefix}: not the prefix of checkpoints, such as "
                                "models/mnist-lenet-stn")
    with tempfile.TemporaryDirectory() as folder:
        film = visualise.Film(folder, images, labels)
        for epoch in epochs:
            film.take(trained.load(prefix, epoch), epoch)
        film.join(output)


def main():
    args = parse_flags()
    logging.basicConfig(format="%(message)s")
    suffix = "-stn.gif" if args.animate else "-stn.png"
    output = args.output or args.model + suffix
    pictures.check_suffix(output, (".gif",) if args.animate else pictures.SUFFIXES)
    trained.check_not_file_of(args.model, output)
    datasets.check_not_read(output, args)
    files.prepare_output(output)
    images, labels, words = shown_images(args)
    if args.animate:
        animate(args.model, images, labels, output)
    else:
        seen = visualise.look(trained.load(args.model, args.load_epoch), images)
        pictures.save(visualise.draw(seen, labels), output)
        names = None
        if seen.probabilities is not None:
            names = card.class_names(args.model, args.load_epoch, seen.probabilities.shape[1])
        print("\n".join(visualise.describe(seen, labels, args.first, names)))
    print(f"Test images: {words}")
    print(f"Drawn: {output}")


if __name__ == "__main__":
    cli.run(main)
