"""The models in published/ are what their cards and the README say."""
import functools
import hashlib
import os
import re
import subprocess

import mxnet as mx
import pytest

import score
from common.data import datasets
from common.data.distort import augmentation
from common.models import export_folder, metrics, quantize, trained
from common.models.card import training_images
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

FOLDER = os.path.join(ROOT, "published")
PUBLISHED = sorted(entry.name for entry in os.scandir(FOLDER) if entry.is_dir())
DATA = os.path.join(ROOT, "data", "mnist")


def read(*path):
    with open(os.path.join(FOLDER, *path), encoding="utf-8") as file:
        return file.read()


def card(name):
    """What the card of a model says: what -> text."""
    return dict(re.findall("^- (.*?): (.*)$", read(name, "README.md"), flags=re.M))


def distortion(name):
    """What its images are distorted by, or None."""
    return re.search("distorted by (.*)|$", card(name)["Data"]).group(1)


@functools.lru_cache(maxsize=None)
def mnist(distorted_by=None):
    """The test images of MNIST and their labels, distorted as training with seed 0 does."""
    images, labels = datasets.load("mnist", DATA)[2:4]
    return datasets.for_evaluation(images, labels, 0, augmentation(distorted_by)[0])


def test_set(name):
    """The images (N, C, H, W), uint8, and the labels that a model is tested on."""
    images, labels = mnist(distortion(name))
    return images[:, None], labels


test_set.__test__ = False  # it is no test


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_files_are_those_that_the_card_tells_of(name):
    listed = re.findall(r"^\| (\S+) \| .* \| (\w{64}) \|$", read(name, "README.md"), flags=re.M)
    assert [file for file, _ in listed] == list(export_folder.FILES)
    for file, value in listed:
        with open(os.path.join(FOLDER, name, file), "rb") as content:
            assert hashlib.sha256(content.read()).hexdigest() == value
    assert read(name, "SHA256SUMS") == "".join(f"{value}  {file}\n" for file, value in listed)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_accuracy_is_that_of_the_card(run_main, name):
    done = run_main(score, os.path.join(FOLDER, name), "--data-dir", DATA)
    assert done.returncode == 0, done.stderr
    accuracy = card(name)["Test accuracy"]
    assert done.stdout.startswith(f"Test accuracy: {accuracy} "
                                  f"({round(10000 * float(accuracy))} of 10000)\n")
    distorted = f", distorted by {distortion(name)}, seed 0" if distortion(name) else ""
    assert f"Test images: mnist{distorted}, as in the training\n" in done.stdout


@pytest.mark.parametrize("name", PUBLISHED)
def test_in_int8_as_many_are_right(name):
    network, (images, labels) = trained.load(os.path.join(FOLDER, name)), test_set(name)
    image_shape = images.shape[1:]
    symbol, _ = quantize.in_int8(network, image_shape, training_images(
        os.path.join(FOLDER, name), None, quantize.IMAGES, DATA))
    right = [metrics.are_right(each.predictor(image_shape)(images), labels).sum()
             for each in (network, network._replace(training=symbol))]
    assert abs(right[0] - right[1]) <= 5  # 3 at most where the page was written


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_accuracy_is_the_same_elsewhere(name):
    images, labels = test_set(name)
    module = mx.mod.Module.load(os.path.join(FOLDER, name, "model"), 0, label_names=None)
    module.bind([("data", (500, *images.shape[1:]))], for_training=False)
    answers = module.predict(mx.io.NDArrayIter(images / 255, batch_size=500)).asnumpy()
    accuracy = metrics.evaluate(answers, labels, top_k=1)["test_accuracy"]
    assert f"{accuracy:.4f}" == card(name)["Test accuracy"]


def test_one_command_trains_them():
    done = subprocess.run(["make", "--dry-run", "--always-make", "published"], cwd=ROOT, check=True,
                          stdout=subprocess.PIPE, universal_newlines=True)
    for name in PUBLISHED:
        for what in ("Trained by", "Written by"):
            assert card(name)[what].strip("`").replace("python", "/python", 1) in done.stdout


def test_the_page_tells_of_them():
    with open(os.path.join(ROOT, "docs", "export.md"), encoding="utf-8") as file:
        page = file.read()
    sizes = []
    for name in PUBLISHED:
        params = trained.load(os.path.join(FOLDER, name)).arg_params.values()
        sizes.append(sum(os.path.getsize(os.path.join(FOLDER, name, file))
                         for file in os.listdir(os.path.join(FOLDER, name))))
        row = (f"| `{name}` | {card(name)['Network']} | {card(name)['Data']} "
               f"| {100 * float(card(name)['Test accuracy']):.2f} "
               f"| {sum(value.size for value in params):,} | {sizes[-1] / 1000:.0f} |\n")
        assert row in page
    assert sum(sizes) < 2.5e6


def test_a_clone_has_the_same_bytes_where_git_turns_line_ends(tmp_path):
    if not os.path.exists(os.path.join(ROOT, ".git")):
        pytest.skip("not a git checkout")
    clone = str(tmp_path / "clone")
    subprocess.run(["git", "clone", "-q", "-c", "core.autocrlf=true", ROOT, clone], check=True)
    listed = subprocess.run(["git", "ls-files", "--eol"], cwd=clone, stdout=subprocess.PIPE,
                            universal_newlines=True, check=True)
    ends = [line.split() for line in listed.stdout.splitlines()]  # of index and working tree
    assert len(ends) > 100
    assert [name for index, tree, *_, name in ends if index[2:] != tree[2:]] == []
