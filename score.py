"""Scores a trained network on test images, or says what it sees in pictures.

    python score.py models/mnist-lenet-stn-export
    python score.py models/mnist-lenet-stn-export --predict four.png seven.png
"""
import csv
import io
import logging
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
from common import cli, files
from common.data import class_list, datasets, image_files
from common.models import card, metrics, trained
from common.provenance import provenance
from common.reports import pictures
from common.training import flags

SCORING = ("dataset", "data_dir", "data_train", "data_val", "broken", "num_examples", "distort",
           "seed", "top_k", "confusion", "mistakes")  # flags that have no meaning with --predict
PREDICTING = ("invert", "csv")  # nor these without
MOST_MISTAKES = 40  # in a picture


def parse_flags():
    parser = cli.Parser(prog="score.py", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("model", type=trained.as_folder, help="folder of an export, or prefix of checkpoints")
    flag("--load-epoch", type=cli.number(int, least=0),
         help="epoch of the checkpoint; by default the newest")
    flag("--batch-size", type=cli.number(int, least=1), default=256, help="images at once")
    flag("--result", help="file to write the figures or the predictions to, as JSON")
    flags.add_device_flags(parser)

    flag = parser.add_argument_group("scoring, on the test images of train_mnist.py").add_argument
    card.add_flags(flag)
    flag("--top-k", type=cli.number(int, least=1),
         help="also count images whose class is among that many most probable ones; by default 3, "
              "or as many as there are classes")
    flag("--confusion", metavar="PNG", help="file to draw the confusion matrix in")
    flag("--mistakes", metavar="PNG",
         help=f"file to draw the mistakes in, highest loss first, up to {MOST_MISTAKES}")

    flag = parser.add_argument_group("prediction").add_argument
    flag("--predict", nargs="+", metavar="FILE",
         help="pictures, and idx files of images, to predict the classes of; they are taken in "
              "grey or in colour as the network wants them, and in their own size unless those of "
              "the training were resized; digits white on black, as MNIST's are")
    flag("--invert", action="store_true", help="the pictures are black on white")
    flag("--csv", type=cli.path_ending_in(".csv"), metavar="FILE",
         help="file to write the predictions to, as CSV")
    args = parser.parse_args()
    useless = [cli.flag_of(name) for name in (SCORING if args.predict else PREDICTING)
               if getattr(args, name) != parser.get_default(name)]
    if useless:
        raise ValueError(f"{useless[0]} has no meaning {'with' if args.predict else 'without'} "
                         "--predict")
    return args


def score(args, network):
    """Scores a network on the test images that the flags name; draws, writes and prints that."""
    chosen = card.test_images(args)
    images, labels = chosen.images, chosen.labels
    answers = metrics.probabilities(network, images, **devices(args))
    figures = metrics.evaluate(answers, labels, args.top_k or min(3, answers.shape[1]))
    if args.confusion is not None:
        title = f"{figures['correct']} of {figures['images']} right"
        pictures.save(pictures.confusion(figures["confusion"], title), args.confusion)
    if args.mistakes is not None:
        pictures.save(draw_mistakes(images, labels, answers), args.mistakes)
    if args.result is not None:
        files.write_json(args.result, {"model": network.path, "dataset": chosen.origin,
                                       "distort": chosen.distort, "seed": chosen.seed,
                                       **figures, **provenance()})
    print(f"Test accuracy: {figures['test_accuracy']:.4f} "
          f"({figures['correct']} of {figures['images']})")
    print(f"Top-{figures['top_k']} accuracy: {figures['top_k_accuracy']:.4f}")
    print(f"Test loss: {figures['test_loss']:.4f}")
    print(f"Test images: {chosen.words}")
    names = card.class_names(args.model, args.load_epoch, answers.shape[1])
    for number, row in enumerate(figures["confusion"]):
        print(f"Class {names[number]}: {row[number]} of {sum(row)}")


def draw_mistakes(images, labels, answers):
    """The figure of the worst mistakes among images (N, [C,] H, W), from their probabilities."""
    predicted, chances = metrics.most_probable(answers)
    worst = metrics.worst_mistakes(answers, labels, MOST_MISTAKES)
    as_text = class_list.as_text
    captions = [f"{as_text(labels[which])} → {as_text(predicted[which])}  {chances[which]:.2f}"
                for which in worst]
    wrong = len(labels) - metrics.are_right(answers, labels).sum()
    title = (f"{len(worst)} of {wrong} mistakes, highest loss first: "
             "true → predicted class, its probability")
    return pictures.sheet(images[worst], captions, title)


def predict(args, network):
    """Predicts the classes of the images in files; writes and prints them."""
    images, sources, doubts = image_files.read_all(
        args.predict, args.invert, *card.wanted_images(args, network))
    answers = metrics.probabilities(network, images, **devices(args))
    for doubt in doubts:
        logging.warning(doubt)
    names = card.class_names(args.model, args.load_epoch, answers.shape[1])
    found = [{"file": path, "index": index, "class": predicted.tolist(),
              "name": class_list.as_text(predicted, names), "probability": float(chance)}
             for (path, index), predicted, chance in zip(sources, *metrics.most_probable(answers))]
    if args.csv is not None:
        text = io.StringIO()
        table = csv.DictWriter(text, found[0], lineterminator="\n")
        table.writeheader()
        table.writerows(found)
        files.write_bytes(args.csv, text.getvalue().encode(errors="surrogateescape"))
    if args.result is not None:
        files.write_json(args.result, {"model": network.path, "predictions": found,
                                       **provenance()})
    for image in found:
        index = "" if image["index"] is None else f"[{image['index']}]"
        print(f"{cli.printable(image['file'])}{index}: {image['name']} "
              f"({image['probability']:.4f})")


def prepare_outputs(args):
    """Raises OSError or ValueError if a file cannot be written, or would replace another one."""
    for picture in filter(None, (args.confusion, args.mistakes)):
        pictures.check_suffix(picture, pictures.SUFFIXES)
    taken = set(map(os.path.realpath, args.predict or ()))
    for path in (args.confusion, args.mistakes, args.csv, args.result):
        if path is None:
            continue
        trained.check_not_file_of(args.model, path)
        datasets.check_not_read(path, args)
        if os.path.realpath(path) in taken:
            raise ValueError(f"{path} is named twice, and would be lost: write elsewhere")
        taken.add(os.path.realpath(path))
        files.prepare_output(path)


def devices(args):
    """The options of a ``Predictor`` among the flags."""
    return {"batch_size": args.batch_size, "gpus": args.gpus, "cpus": args.cpus}


def main():
    args = parse_flags()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_outputs(args)
    network = trained.load(args.model, args.load_epoch)
    if args.predict:
        predict(args, network)
    else:
        score(args, network)


if __name__ == "__main__":
    cli.run(main)
