"""score.py as a user runs it, on a model that train_mnist.py has just trained."""
import csv
import functools
import gzip
import json
import os
import re
import shutil
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

import score
import symbols
from common.data import datasets, idx
from common.data.batches import derive_seed
from common.data.distort import addition_pairs
from common.models import export_folder, metrics
from common.reports import pictures
from common.storage import checkpoint
from tests.conftest import run_script
from tests.test_networks import bound

DATA = ["--dataset", "synthetic", "--num-examples", "600"]
DATASET = datasets.load("synthetic", num_examples=600)
IMAGES, LABELS = DATASET.test_images, DATASET.test_labels


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a model "a", of images distorted by R, and the figures of its training."""
    folder = tmp_path_factory.mktemp("models")
    done = run_script("train_mnist.py", *DATA, "--distort", "R", "--seed", 5, "--network", "mlp",
                      "--num-epochs", 4, "--model-prefix", "a", "--result", "a.json",
                      cwd=str(folder))
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(folder=folder, export=str(folder / "a-export"), prefix=str(folder / "a"),
                           exported_prefix=str(folder / "a-export" / "model"),
                           figures=json.loads((folder / "a.json").read_text()))


@pytest.fixture
def run(run_main):
    return functools.partial(run_main, score)


def answers_of(export, images):
    """Class probabilities, computed by MXNet alone."""
    module = mx.mod.Module.load(os.path.join(export, "model"), 0, label_names=None)
    module.bind([("data", (len(images), 1, 28, 28))], for_training=False)
    module.forward(mx.io.DataBatch([mx.nd.array(images[:, None] / 255)]))
    return module.get_outputs()[0].asnumpy()


def test_it_scores_what_training_scored(trained, tmp_path):
    done = run_script("score.py", trained.export, *DATA, "--distort", "R", "--seed", 5,
                      "--batch-size", 49, "--top-k", 2, "--result", "new/r.json",
                      "--confusion", "c.png", "--mistakes", "m.png", cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    figures = json.loads((tmp_path / "new" / "r.json").read_text())
    assert set(figures) == {"model", "dataset", "distort", "seed", "images", "correct",
                            "test_accuracy", "test_loss", "top_k", "top_k_accuracy", "confusion",
                            "command", "versions", "processor", "threads"}
    assert figures["images"] == len(IMAGES)
    assert figures["test_accuracy"] == trained.figures["test_accuracy"]
    assert figures["test_loss"] == pytest.approx(trained.figures["test_loss"], rel=1e-5)
    assert figures["command"].startswith("python ")
    accuracy, top_k, loss, test_images, *classes = done.stdout.splitlines()
    assert accuracy == (f"Test accuracy: {figures['test_accuracy']:.4f} "
                        f"({figures['correct']} of {len(IMAGES)})")
    assert top_k == f"Top-2 accuracy: {figures['top_k_accuracy']:.4f}"
    assert loss == f"Test loss: {figures['test_loss']:.4f}"
    assert test_images == ("Test images: synthetic, distorted by R, seed 5, as in the training")
    assert classes[3] == f"Class 3: {figures['confusion'][3][3]} of {(LABELS == 3).sum()}"
    for name in ("c.png", "m.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)


@pytest.mark.parametrize(("flags", "words"), [
    ([], "synthetic, distorted by R, seed 5, as in the training"),
    (["--distort", "none"], "synthetic; the network was trained on synthetic, distorted by R, "),
    (["--seed", 4], "synthetic, distorted by R, seed 4; the network was trained on "),
    (["--num-examples", 700], "synthetic, distorted by R, seed 5; the network was trained on "),
])
@pytest.mark.parametrize("kind", ["export", "prefix", "exported_prefix"])
def test_what_flags_leave_open_is_as_in_the_training(trained, run, tmp_path, kind, flags, words):
    done = run(getattr(trained, kind), *flags, "--result", "r.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "r.json").read_text())
    same = words.endswith("as in the training")
    assert (figures["test_accuracy"] == trained.figures["test_accuracy"]) == same
    assert f"Test images: {words}" in done.stdout


@pytest.mark.parametrize("batch_size", [7, 64, 120, 1000])
def test_it_counts_each_image_once(trained, run, tmp_path, batch_size):
    done = run(trained.prefix, "--load-epoch", 4, *DATA, "--distort", "none", "--batch-size",
               batch_size, "--result", "r.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "r.json").read_text())
    answers = answers_of(trained.export, IMAGES)
    predicted = answers.argmax(axis=1)
    assert figures["correct"] == (predicted == LABELS).sum()
    assert figures["test_accuracy"] == (predicted == LABELS).mean()
    best = answers.argsort(axis=1)[:, -3:]
    assert figures["top_k_accuracy"] == np.mean([a in b for a, b in zip(LABELS, best)])
    assert figures["confusion"] == [
        np.bincount(predicted[true == LABELS], minlength=10).tolist() for true in range(10)]


def test_equal_probabilities_are_guessed_in_order():
    answers, labels = np.full((4, 4), 0.25, np.float32), np.arange(4)
    figures = [metrics.evaluate(answers, labels, top_k) for top_k in (1, 2, 4)]
    assert [each["top_k_accuracy"] for each in figures] == [0.25, 0.5, 1]
    assert figures[0]["test_accuracy"] == 0.25


def test_the_worst_mistakes_come_first():
    answers = np.random.RandomState(0).dirichlet(np.ones(10), 200)
    labels = np.random.RandomState(1).randint(0, 10, 200)
    worst = metrics.worst_mistakes(answers, labels, 200)
    assert set(worst) == set(np.flatnonzero(answers.argmax(axis=1) != labels))
    assert (np.diff(answers[worst, labels[worst]]) >= 0).all()
    np.testing.assert_array_equal(metrics.worst_mistakes(answers, labels, 7), worst[:7])


@pytest.mark.parametrize(("shape", "count"), [
    ((28, 28), 0), ((60, 60), 1), ((28, 28), 40), ((2, 42, 42), 7), ((3, 48, 48), 9)])
def test_mistakes_of_any_size_and_number_are_drawn(tmp_path, shape, count):
    images = np.zeros((50, *shape), np.uint8)
    answers = np.eye(19)[np.full(50, 3)]
    labels = np.where(np.arange(50) < count, 7, 3)
    figure = score.draw_mistakes(images, labels, answers)
    assert [axis.get_title() for axis in figure.axes if axis.images] == ["7 → 3  1.00"] * count
    pictures.save(figure, tmp_path / "m.png")


def test_every_count_is_written_in_the_confusion_matrix():
    matrix = np.arange(19 * 19).reshape(19, 19)
    axis, = pictures.confusion(matrix, "title").axes
    assert {text.get_position(): text.get_text() for text in axis.texts} == {
        (predicted, true): str(count) for (true, predicted), count in np.ndenumerate(matrix)}
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")


def write_pictures(folder, images):
    """Writes images into all kinds of files; returns the names."""
    for number, (image, mode) in enumerate(zip(images, ("L", "RGB", "RGBA", "P"))):
        Image.fromarray(image).convert(mode).save(folder / f"{number}.png")
    Image.fromarray(images[4]).save(folder / "4.bmp")
    (folder / "more").write_bytes(idx.encode(images[5:10]))
    (folder / "rest.gz").write_bytes(gzip.compress(idx.encode(images[10:])))
    return ["0.png", "1.png", "2.png", "3.png", "4.bmp", "more", "rest.gz"]


def test_predictions_of_files_are_those_of_the_arrays(trained, run, tmp_path):
    names = write_pictures(tmp_path, IMAGES)
    done = run(trained.export, "--csv", "p.csv", "--result", "p.json", "--predict", *names)
    assert done.returncode == 0, done.stderr
    answers = answers_of(trained.export, IMAGES)
    found = json.loads((tmp_path / "p.json").read_text())["predictions"]
    assert [image["class"] for image in found] == answers.argmax(axis=1).tolist()
    np.testing.assert_allclose([image["probability"] for image in found], answers.max(axis=1),
                               atol=1e-6)
    sources = [(name, None) for name in names[:5]] + [("more", index) for index in range(5)]
    sources += [("rest.gz", index) for index in range(len(IMAGES) - 10)]
    assert [(image["file"], image["index"]) for image in found] == sources
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{name: "" if value is None else str(value) for name, value in image.items()}
                    for image in found]
    lines = done.stdout.splitlines()
    assert len(lines) == len(IMAGES)
    for line, place in ((lines[0], "0.png"), (lines[6], "more[1]")):
        image = found[lines.index(line)]
        assert line == f"{place}: {image['class']} ({image['probability']:.4f})"


def test_a_picture_whose_name_is_no_text_is_in_the_table(trained, run, tmp_path):
    name = b"b\xff.png"
    with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
        Image.fromarray(IMAGES[0]).save(file, format="png")
    assert run(trained.export, "--predict", os.fsdecode(name), "--csv", "p.csv").returncode == 0
    assert (tmp_path / "p.csv").read_bytes().splitlines()[1].startswith(name + b",,")


def test_a_name_of_several_lines_is_said_in_one(trained, run, tmp_path):
    name = "b\n\x1b[2J.png"
    Image.fromarray(IMAGES[0]).save(tmp_path / name)
    done = run(trained.export, "--predict", name, "--csv", "p.csv")
    assert done.stdout.startswith(r"b\n\x1b[2J.png: ")
    assert len(done.stdout.splitlines()) == 1
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["file"] == name


def test_the_names_of_the_classes_are_said(run, tmp_path):
    symbol = symbols.get_symbol("mlp", width=8)
    params = bound(symbol, (1, 28, 28), batch_size=2).get_params()
    names = list(datasets.published_names("fashion-mnist"))
    export_folder.export(str(tmp_path / "a"), symbol, *params, (1, 28, 28), names)
    checkpoint.save(str(tmp_path / "b"), 1, symbol, *params, {},
                    {"flags": {"dataset": "fashion-mnist"}})
    Image.fromarray(IMAGES[0]).save(tmp_path / "0.png")
    for model in ("a", "b"):
        done = run(model, "--csv", "p.csv", "--result", "p.json", "--predict", "0.png")
        found, = json.loads((tmp_path / "p.json").read_text())["predictions"]
        assert found["name"] == names[found["class"]]
        assert done.stdout == f"0.png: {found['name']} ({found['probability']:.4f})\n"
        assert f",{found['class']},{found['name']}," in (tmp_path / "p.csv").read_text()
        done = run(model, *DATA)
        assert re.findall("^Class (.*):", done.stdout, flags=re.M) == list(names)


@pytest.mark.parametrize("content", [b"a\nb\n", b"\xff", b"a\x1b[2J\n" * 10, None])
def test_without_names_for_its_classes_they_have_numbers(trained, run, tmp_path, caplog, content):
    folder = shutil.copytree(trained.export, str(tmp_path / "a"))
    os.remove(os.path.join(folder, "synset.txt"))
    if content is not None:
        (tmp_path / "a" / "synset.txt").write_bytes(content)
    Image.fromarray(IMAGES[0]).save(tmp_path / "0.png")
    done = run("a", "--predict", "0.png")
    assert done.stdout == run(trained.export, "--predict", "0.png").stdout
    assert ("synset.txt: " in caplog.text) == (content is not None)


def test_black_on_white_and_transparent_pictures(trained, run, tmp_path):
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
    Image.fromarray(255 - IMAGES[0]).save(tmp_path / "b.png")
    ink = np.zeros((28, 28, 4), np.uint8)
    ink[..., 3] = IMAGES[0]
    Image.fromarray(ink).save(tmp_path / "c.png")
    expected = run(trained.export, "--predict", "a.png").stdout.split(": ")[1]
    lines = run(trained.export, "--invert", "--predict", "b.png", "c.png").stdout.splitlines(True)
    assert [line.split(": ")[1] for line in lines] == [expected] * 2


def test_further_frames_and_blank_pictures_are_said(trained, tmp_path):
    ink = np.zeros((28, 28, 4), np.uint8)
    ink[..., 3] = IMAGES[0]
    Image.fromarray(ink).save(tmp_path / "ink.png")
    frames = [Image.fromarray(image) for image in IMAGES[:2]]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    done = run_script("score.py", trained.export, "--predict", "ink.png", "two.gif",
                      cwd=str(tmp_path))
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "ink.png: blank, or nearly so: its greys are from 0 to 0; is it ink on transparency? try "
        "it with --invert", "two.gif: only the first of its frames is taken"]
    assert len(done.stdout.splitlines()) == 2


@pytest.fixture(scope="module")
def bad_files_once(tmp_path_factory):
    """A folder with files that are not as they should be."""
    folder = tmp_path_factory.mktemp("bad")
    Image.fromarray(IMAGES[0]).save(folder / "good.png")
    Image.new("L", (30, 20)).save(folder / "large.png")
    Image.new("I;16", (28, 28)).save(folder / "deep.png")
    (folder / "half.png").write_bytes((folder / "good.png").read_bytes()[:200])
    (folder / "text.png").write_text("no picture")
    (folder / "labels").write_bytes(idx.encode(LABELS))
    (folder / "text.gz").write_text("no gzip")
    for name, network, options in (("two", "mlp", {"image_shape": (2, 42, 42), "num_classes": 19}),
                                   ("few", "mlp", {"num_classes": 5}), ("nan", "mlp", {}),
                                   ("huge", "mlp", {}), ("own", "mlp", {})):
        symbol = symbols.get_symbol(network, **options)
        image_shape = options.get("image_shape", (1, 28, 28))
        module = bound(symbol, image_shape, batch_size=2)
        arg_params, aux_params = module.get_params()
        factor = {"nan": np.nan, "huge": 1e36}.get(name, 1)
        arg_params = {key: value if key.startswith("stn_") else value * factor
                      for key, value in arg_params.items()}
        export_folder.export(str(folder / name), symbol, arg_params, aux_params, image_shape,
                             about={"Data": "own files"} if name == "own" else None)
    return folder


@pytest.fixture
def bad_files(tmp_path, bad_files_once):
    """The names of all files in a folder with those."""
    shutil.copytree(str(bad_files_once), str(tmp_path), dirs_exist_ok=True)
    return {str(path) for path in tmp_path.rglob("*")}


@pytest.mark.parametrize(("flags", "words"), [
    ([], ["model"]),
    (["nothing"], ["nothing: neither the folder of an export nor the prefix"]),
    (["MODEL", "--load-epoch", "9"], ["model-0009.params", "no such"]),
    (["MODEL", "--top-k", "0"], ["--top-k", "at least 1"]),
    (["MODEL", *DATA, "--top-k", "11"], ["--top-k 11", "10 classes"]),
    (["MODEL", "--dataset", "mnist", "--num-examples", "5"], ["--num-examples", "synthetic"]),
    (["own"], ["own: trained on own files: --data-dir or --data-val says where they are"]),
    (["MODEL", *DATA, "--gpus", "0"], ["--gpus", "GPU"]),
    (["MODEL", *DATA, "--cpus", "4", "--batch-size", "3"], ["--batch-size 3", "4 devices"]),
    (["MODEL", *DATA, "--distort", "RTS"], ["model-0000.params", "not for images of 1 x 42 x 42"]),
    (["MODEL", *DATA, "--distort", "addition"], ["not for images of 2 x 42 x 42"]),
    (["two", *DATA], ["not for images of 1 x 28 x 28"]),
    (["few", *DATA], ["label 9", "5 classes"]),
    (["nan", *DATA], ["nan/model-0000.params", "is not finite"]),
    (["huge", *DATA], ["huge/model-0000.params", "does not give class probabilities"]),
    (["MODEL", "--result", "."], ["names no file"]),
    (["MODEL", "--result", "labels/a.json"], ["labels: is no folder"]),
    (["MODEL", *DATA, "--result", "MODEL/model-0000.params"], ["a file of", "would be lost"]),
    (["MODEL", *DATA, "--confusion", "c.png", "--mistakes", "./c.png"], ["c.png is named twice"]),
    (["MODEL", "--predict", "good.png", "--result", "a.csv", "--csv", "./a.csv"],
     ["a.csv is named twice", "would be lost"]),
    (["MODEL", "--predict", "large.png", "--csv", "good.png"],
     ["--csv", "expected a name that ends in .csv, got 'good.png'"]),
    (["MODEL", "--predict", "large.png", "good.png", "--result", "good.png"],
     ["good.png is named twice", "would be lost"]),
    (["MODEL", *DATA, "--mistakes", "m.gif"], ["m.gif: the picture is none of that kind", ".png"]),
    (["nothing", "--confusion", "good.png/c.png"], ["good.png"]),
    (["nothing", "--mistakes", "good.png/m.png"], ["good.png"]),
    (["nothing", "--csv", "good.png/p.csv", "--predict", "good.png"], ["good.png"]),
    (["MODEL", "--csv", "p.csv"], ["--csv", "without --predict"]),
    (["MODEL", "--invert"], ["--invert", "without --predict"]),
    (["MODEL", "--predict", "good.png", "--confusion", "c.png"], ["--confusion", "with --predict"]),
    (["MODEL", "--predict", "good.png", "--top-k", "2"], ["--top-k", "with --predict"]),
    (["MODEL", "--predict", "good.png", "--broken", "skip"], ["--broken", "with --predict"]),
    (["MODEL", "--predict", "absent.png"], ["absent.png: there is no such file"]),
    (["MODEL", "--predict", "."], [".: Is a directory"]),
    (["MODEL", "--predict", "large.png"], ["not for images of 1 x 20 x 30"]),
    (["two", "--predict", "good.png"], ["not for images of 1 x 28 x 28"]),
    (["MODEL", "--predict", "good.png", "large.png"], ["large.png: 20 x 30", "has 28 x 28"]),
    (["MODEL", "--predict", "half.png"], ["half.png: not a whole picture"]),
    (["MODEL", "--predict", "text.png"], ["text.png: not a whole picture"]),
    (["MODEL", "--predict", "deep.png"], ["deep.png", "more than 8 bits"]),
    (["MODEL", "--predict", "labels"], ["labels: expected images", "as labels have"]),
    (["MODEL", "--predict", "text.gz"], ["text.gz", "gzip"]),
])
def test_bad_input_is_refused(trained, run, refused, tmp_path, bad_files, flags, words):
    before = {path: path.read_bytes() for path in trained.folder.rglob("*.*") if path.is_file()}
    refused(run(*(flag.replace("MODEL", trained.export) for flag in flags)), *words)
    assert before == {path: path.read_bytes() for path in before}
    assert {str(path) for path in tmp_path.rglob("*")} == bad_files


def test_a_process_refuses_in_one_line_too(trained, refused, tmp_path):
    refused(run_script("score.py", trained.export, *DATA, "--distort", "TC", cwd=str(tmp_path)),
            "not for images of 1 x 60 x 60")


def test_two_channels_are_scored(run, tmp_path):
    symbol = symbols.get_symbol("addition", width=8)
    params = bound(symbol, (2, 42, 42), batch_size=2).get_params()
    export_folder.export(str(tmp_path / "sum"), symbol, *params, (2, 42, 42))
    done = run("sum", *DATA, "--distort", "addition", "--seed", 1, "--top-k", 19,
               "--mistakes", "m.png", "--confusion", "c.png", "--result", "r.json")
    assert done.returncode == 0, done.stderr
    assert "Top-19 accuracy: 1.0000" in done.stdout
    confusion = np.array(json.loads((tmp_path / "r.json").read_text())["confusion"])
    _, sums = addition_pairs(IMAGES, LABELS, derive_seed(1, datasets.TEST))
    np.testing.assert_array_equal(confusion.sum(axis=1), np.bincount(sums, minlength=19))
