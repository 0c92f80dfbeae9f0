"""Draws what the transformers of a trained network do to images.

    python visualize_stn.py models/mnist-lenet-stn                  # the newest checkpoint
    python visualize_stn.py models/mnist-lenet-stn-export           # an exported model
    python visualize_stn.py models/mnist-lenet-stn --animate        # all checkpoints, as a GIF

The upper pictures are the test images, each with the border of the transformer's grid on it, a dot
at its upper left; the lower ones are what the classifier gets to see.
"""
import logging
import tempfile

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
from common import checkpoint, cli, data, files, pictures, trained, visualise
from common.distort import TASKS, task


def parse_flags():
    parser = cli.Parser(prog="visualize_stn.py", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("model", help="folder of an export, or prefix of checkpoints")
    flag("--load-epoch", type=cli.number(int, least=0), help="of the checkpoint; else the newest")
    flag("--dataset", choices=data.DATASETS, default="mnist", help="whose test images to show")
    flag("--data-dir", help="folder of its idx files; by default data/<dataset>")
    flag("--distort", choices=TASKS, help="as for train_mnist.py")
    flag("--seed", type=cli.number(int, least=0), default=0, help="of the distortion")
    flag("--first", type=cli.number(int, least=0), default=0, help="number of the first image")
    flag("--num-images", type=cli.number(int, least=1, most=100), default=10, help="how many")
    flag("--animate", action="store_true", help="draw all checkpoints of the prefix, as a GIF")
    flag("--output", help="file to write; by default <model>-stn.png or .gif")
    args = parser.parse_args()
    if args.output is None:
        args.output = args.model.rstrip("/") + ("-stn.gif" if args.animate else "-stn.png")
    return args


def shown_images(args):
    """The images (N, ...) and labels (N,) that the flags ask for."""
    dataset = data.load(args.dataset, args.data_dir)
    images, labels = data.held_out(dataset, args.seed, task(args.distort)[0])
    if args.first + args.num_images > len(images):
        raise ValueError(f"--first {args.first} --num-images {args.num_images}: there are only "
                         f"{len(images)} test images")
    chosen = slice(args.first, args.first + args.num_images)
    return images[chosen], labels[chosen]


def animate(args, images, labels):
    """Draws each checkpoint of a prefix and joins the pictures."""
    epochs = checkpoint.epochs(args.model)
    if not epochs:
        raise FileNotFoundError(f"{args.model}: not the prefix of checkpoints, such as "
                                "models/mnist-lenet-stn")
    with tempfile.TemporaryDirectory() as folder:
        film = visualise.Film(folder, images, labels)
        for epoch in epochs:
            film.take(trained.load(args.model, epoch), epoch)
        film.join(args.output)


def main():
    args = parse_flags()
    logging.basicConfig(format="%(message)s")
    files.check_writable(args.output)
    images, labels = shown_images(args)
    if args.animate:
        animate(args, images, labels)
    else:
        seen = visualise.look(trained.load(args.model, args.load_epoch), images)
        pictures.save(visualise.draw(seen, labels), args.output)
        print("\n".join(visualise.describe(seen, labels, args.first)))
    print(f"Drawn: {args.output}")


if __name__ == "__main__":
    cli.run(main)
