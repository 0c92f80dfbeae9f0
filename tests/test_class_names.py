"""The same class has the same number in training and in scoring, whatever the data call it."""
import argparse
import functools
import io
import os

import numpy as np
import pytest

import train_mnist
from common.data import arrays, datasets
from common.models import card, export_folder
from common.training import resume
from common.training.recipe import Recipe
from tests.conftest import ROOT
from tests.own_data import as_im2rec

QUICK = ["--network", "mlp", "--width", 4, "--batch-size", 8, "--cpus", 1, "--num-epochs", 1,
         "--model-prefix", "a"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(run_main):
    return functools.partial(run_main, train_mnist, *QUICK)


def image(number):
    """As bright as the number says, which all data of a test mean by it."""
    return np.full((28, 28), 20 * number, np.uint8)


def png(number):
    file = io.BytesIO()
    arrays.to_pillow(image(number)).save(file, "PNG")
    return file.getvalue()


def folder(path, train, test):
    """A folder for each number; returns the flags to read them by."""
    for part, numbers in (("train", 4 * train), ("test", 2 * test)):
        for copy, number in enumerate(numbers):
            os.makedirs(f"{path}/{part}/{number}", exist_ok=True)
            with open(f"{path}/{part}/{number}/{copy}.png", "wb") as file:
                file.write(png(number))
    return ["--data-dir", path]


def npz(path, train, test):
    """The numbers are the labels."""
    found = {}
    for part, labels in (("train", 4 * train), ("test", 2 * test)):
        found[f"x_{part}"], found[f"y_{part}"] = np.stack(list(map(image, labels))), labels
    np.savez(f"{path}.npz", **found)
    return ["--data-dir", f"{path}.npz"]


def rec(path, train, test, named=(True, True)):
    """Of (label, number): the numbers are the names in the .lst, if a part is to have one."""
    for part, rows, has_names in zip(("train", "test"), (4 * train, 2 * test), named):
        as_im2rec(f"{path}-{part}", [(label, f"{number}/a.png", png(number))
                                     for label, number in rows])
        if not has_names:
            os.remove(f"{path}-{part}.lst")
    return ["--data-train", f"{path}-train.rec", "--data-val", f"{path}-test.rec"]


def scored(flags, model):
    """The images that a model is scored on, and their labels."""
    parser = argparse.ArgumentParser()
    card.add_flags(parser.add_argument)
    args = parser.parse_args(flags)
    args.model, args.load_epoch = model, None
    return card.test_images(args)[:2]


def numbering(flags, models=("a", "a-export")):
    """The class that the picture of each number has in scoring, which is the same by all models."""
    found = [{int(picture.flat[0]) // 20: int(label)
              for picture, label in zip(*scored(flags, model))} for model in models]
    assert found[0] == found[-1]
    return found[0]


ALL = [(0, 1), (1, 2), (2, 3), (3, 4)]
NAMELESS = (False, False)
WORDS = ["--class-names", "one,two,three,four"]


@pytest.mark.parametrize(("trained_on", "flags", "scored_on", "expected"), [
    # labels, with names that are other numbers
    (lambda: npz("x", [0, 1, 2, 3], [0, 3]), ["--class-names", "10,20,50,100"],
     lambda: npz("y", [0], [0, 1, 2, 3]), {0: 0, 1: 1, 2: 2, 3: 3}),
    (lambda: npz("x", [0, 1, 2, 3], [0, 3]), ["--class-names", "1,2,3,4"],
     lambda: npz("y", [1], [1, 2, 3]), {1: 1, 2: 2, 3: 3}),
    (lambda: npz("x", [0, 1, 2, 3], [0, 3]), ["--class-names", "1,2,3,4"],
     lambda: folder("y", [], [1, 3]), {1: 0, 3: 2}),  # whose names are those of the classes
    # labels in another order
    (lambda: npz("x", [1, 2, 3, 4], [1, 4]), ["--class-names", "4,3,2,1"],
     lambda: npz("y", [1], [1, 2]), {1: 3, 2: 2}),
    # labels that got words
    (lambda: npz("x", [0, 1, 2, 3], [0, 3]), WORDS, lambda: folder("y", [], [1, 3]), {1: 1, 3: 3}),
    # folders that got words, or other numbers, or an order
    (lambda: folder("x", [1, 2, 3, 4], [2]), WORDS, lambda: folder("y", [], [2, 4]), {2: 1, 4: 3}),
    (lambda: folder("x", [1, 2, 3, 4], [2]), WORDS, lambda: npz("y", [1], [2, 4]), {2: 1, 4: 3}),
    (lambda: folder("x", [0, 1, 2, 3], [2]), ["--class-names", "1,2,3,4"],
     lambda: folder("y", [], [1, 2]), {1: 1, 2: 2}),
    (lambda: folder("x", [1, 2, 3, 4], [2]), ["--class-names", "4,3,2,1"],
     lambda: folder("y", [], [2, 4]), {2: 2, 4: 0}),
    # more classes than folders
    (lambda: folder("x", [1, 2, 3], [2]), ["--num-classes", "5"],
     lambda: folder("y", [], [2, 3]), {2: 1, 3: 2}),
    # RecordIO whose .lst is gone: its labels are numbers of classes
    (lambda: rec("x", ALL, ALL), [],
     lambda: rec("y", ALL, ALL[1:], NAMELESS)[2:],
     {2: 1, 3: 2, 4: 3}),
    (lambda: rec("x", ALL, ALL, (True, False)), [],
     lambda: rec("y", ALL, ALL[2:], (True, False))[2:],
     {3: 2, 4: 3}),
    # RecordIO without pictures of a class
    (lambda: rec("x", [ALL[0], *ALL[2:]], [ALL[0], *ALL[2:]]), [],
     lambda: rec("y", ALL, [(0, 3), (1, 4)])[2:], {3: 2, 4: 3}),
    # RecordIO with labels alone, in another order
    (lambda: rec("x", ALL, ALL, NAMELESS), ["--class-names", "3,2,1,0"],
     lambda: rec("y", ALL, ALL[1:], NAMELESS)[2:], {2: 2, 3: 1, 4: 0}),
    (lambda: npz("x", [1, 2, 3, 4], [1]), ["--class-names", "4,3,2,1"],
     lambda: rec("y", ALL, [(1, 1), (2, 2)], NAMELESS)[2:], {1: 3, 2: 2}),
    # folders that are not all numbers in a row
    (lambda: folder("x", [0, 2, 4], [2]), ["--class-names", "a,b,c"],
     lambda: npz("y", [0], [0, 2]), {0: 0, 2: 1}),
    # folders that are named as the classes, not as those of the training
    (lambda: folder("x", [1, 2, 3], [2]), ["--class-names", "7,8,9"],
     lambda: folder("y", [], [7, 9]), {7: 0, 9: 2}),
])
def test_a_picture_has_the_class_of_its_kind(run, trained_on, flags, scored_on, expected):
    assert run(*trained_on(), *flags).returncode == 0
    assert numbering(scored_on()) == expected


@pytest.mark.parametrize(("trained_on", "flags", "scored_on", "words"), [
    (lambda: npz("x", [0, 1, 2, 3], [0]), WORDS, lambda: npz("y", [0], [0, 4]),
     "the label 4 is none of 0 to 3, which the network knows"),
    (lambda: npz("x", [0, 1, 2, 3], [0]), ["--class-names", "1,2,3,4"],
     lambda: npz("y", [1], [1, 2, 3, 4]), "the label 4 is none of 0 to 3"),
    (lambda: folder("x", [1, 2, 3, 4], [1]), WORDS, lambda: folder("y", [], [1, 2, 5]),
     "the class 5 is none of 1, 2, 3, 4"),
    (lambda: folder("x", [0, 1, 2], [1]), [], lambda: rec("y", ALL, [(1, 1), (3, 3)],
                                                          NAMELESS)[2:],
     "the label 3 is none of 0 to 2"),
])
def test_classes_that_the_training_lacked_are_refused(run, trained_on, flags, scored_on, words):
    assert run(*trained_on(), *flags).returncode == 0
    with pytest.raises(ValueError, match=words):
        numbering(scored_on())


def test_a_model_that_does_not_say_what_its_data_called_the_classes():
    """Its names decide, and labels beyond them are refused."""
    published = os.path.join(ROOT, "published", "mnist-lenet")
    rows = [(label, label) for label in range(1, 10)]
    assert numbering(rec("y", ALL, rows, NAMELESS)[2:], (published,)) == dict(rows)
    with pytest.raises(ValueError, match="the class 10 is none of 0, 1, 2"):
        numbering(rec("y", ALL, [*rows, (10, 10)], NAMELESS)[2:], (published,))


def test_no_class_without_a_name_has_that_of_another(run):
    assert run(*folder("x", [1, 2, 3], [2]), "--num-classes", 5).returncode == 0
    with open(os.path.join("a-export", export_folder.CLASSES), encoding="utf-8") as file:
        assert file.read().splitlines() == ["1", "2", "3", "unnamed 3", "unnamed 4"]


def test_packed_classes_without_pictures_keep_their_place():
    rows = [ALL[0], *ALL[2:]]
    _, train, _, test = rec("x", rows, rows)
    found = datasets.load("mnist", data_train=train, data_val=test)
    assert found.class_names == ("1", "unnamed 1", "3", "4")
    assert [int(picture.flat[0]) // 20 for picture in found.test_images] == [1, 3, 4] * 2
    assert found.test_labels.tolist() == [0, 2, 3] * 2


def test_digits_that_begin_at_one_have_sums_from_two(run, refused):
    added = ["--network", "addition", "--distort", "addition", "--add-stn", "--width", 16]
    flags = [*folder("x", [1, 2, 3], [2]), *added]
    assert run(*flags).returncode == 0
    with open(os.path.join("a-export", export_folder.CLASSES), encoding="utf-8") as file:
        assert file.read().splitlines() == ["2", "3", "4", "5", "6"]
    assert set(scored(folder("y", [], [3]), "a")[1].tolist()) == {4}  # 3 + 3
    os.rename("x/train/3", "x/train/4")
    refused(run(*flags, "--overwrite"), "--distort addition adds digits, and the classes are not "
                                        "numbers in a row: 1, 2, 4")


@pytest.mark.parametrize(("names", "sums"), [(("00", "01", "02"), "01234"), ("abc", "01234")])
def test_classes_are_added_by_their_numbers(tmp_path, names, sums):
    for name in names:
        for part in ("train", "test"):
            os.makedirs(tmp_path / part / name)
            (tmp_path / part / name / "a.png").write_bytes(png(1))
    dataset = datasets.load("mnist", str(tmp_path))
    assert train_mnist.names_of_answers(dataset, "addition", 5) == list(sums)


def test_older_sums_are_scored_by_the_numbers_of_classes(run):
    assert run(*folder("x", [1, 2, 3], [2]), "--network", "addition", "--distort", "addition",
               "--add-stn", "--width", 16).returncode == 0
    path = os.path.join("a-export", export_folder.CARD)
    with open(path, encoding="utf-8") as file:
        lines = [line for line in file if not line.startswith(("- Labels", "- Classes in the"))]
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)
    assert set(scored(["--data-dir", "x"], "a-export")[1].tolist()) == {2}  # of class 1 and class 1


def test_a_run_goes_on_with_the_names_that_it_began_with(run, refused):
    flags = folder("x", [1, 2, 3], [2])
    assert run(*flags).returncode == 0
    assert run(*flags, "--resume").returncode == 0
    refused(run(*flags, "--resume", "--class-names", "one,two,three"),
            "the classes 1, 2, 3 there, the classes one, two, three here")


def test_older_runs_may_have_named_their_classes_otherwise():
    recipe = Recipe(made_of={"classes": ["1", "unnamed 1"]})
    flags, older = {"classes": ["1", "1"]}, Recipe().as_json()
    assert resume.differences(recipe, {"flags": flags, "recipe": older}) == []
    assert resume.differences(recipe, {"recipe": {**older, **flags}}) == [
        "the classes 1, 1 there, the classes 1, unnamed 1 here"]
