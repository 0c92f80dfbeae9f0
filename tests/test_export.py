"""export.py as a user runs it."""
import functools
import hashlib
import json
import os
import shutil

import mxnet as mx
import numpy as np
import pytest

import export as script
import symbols
from common.graph import rewrite
from common.models import export_folder
from common.storage import checkpoint
from symbols import stn
from tests.conftest import run_script
from tests.test_export_folder import NAMES, loaded, network


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """A folder in which train_mnist.py has trained models/a."""
    return train_in(tmp_path_factory.mktemp("trained"), "--num-examples", 300, "--num-epochs", 1,
                    "--transform", "tps:3", "--distort", "RTS")


def train_in(folder, *flags):
    """Trains models/a in a folder on drawn digits, by train_mnist.py; returns the folder."""
    done = run_script("train_mnist.py", "--dataset", "synthetic", *flags, "--add-stn",
                      "--model-prefix", "models/a", cwd=str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run(run_main):
    return functools.partial(run_main, script)


def test_the_files_of_a_training(trained_once):
    folder = trained_once / "models" / "a-export"
    assert sorted(os.listdir(folder)) == NAMES
    assert json.loads((folder / "model-shapes.json").read_text()) == [
        {"name": "data", "shape": [1, 1, 42, 42]}]
    assert json.loads((folder / "signature.json").read_text()) == {
        "inputs": [{"data_name": "data", "data_shape": [0, 1, 42, 42]}]}
    assert (folder / "synset.txt").read_text() == "".join(f"{number}\n" for number in range(10))
    assert ((folder / "model-train-symbol.json").read_text()
            == (trained_once / "models" / "a-symbol.json").read_text())
    card = (folder / "README.md").read_text()
    for words in ("# a-export", "images (N, 1, 42, 42)", "divided by 255", "(N, 10)",
                  "Network: lenet with transformer, tps:3", "Data: synthetic, distorted by RTS",
                  "Test accuracy: 0.", "train_mnist.py --dataset synthetic", "mxnet 1.9.1"):
        assert words in card
    sums = [(hashlib.sha256((folder / name).read_bytes()).hexdigest(), name)
            for name in export_folder.FILES]
    assert (folder / "SHA256SUMS").read_text() == "".join(map("{0[0]}  {0[1]}\n".format, sums))
    for value, name in sums:
        assert f"{name} | {export_folder.FILES[name]} | {value}" in card


def test_the_exported_graph_is_the_plain_one(trained_once):
    symbol = mx.sym.load(str(trained_once / "models" / "a-symbol.json"))
    exported = (trained_once / "models" / "a-export" / "model-symbol.json").read_text()
    assert exported == rewrite.label_free(symbol).tojson()


def test_a_checkpoint_gives_the_export_of_its_training(trained_once, run, tmp_path):
    folder = trained_once / "models" / "a-export"
    done = run(trained_once / "models" / "a", "--output", "new/out")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Exported: new/out/model-symbol.json new/out/model-0000.params\n"
    for name in export_folder.FILES:
        assert (folder / name).read_bytes() == (tmp_path / "new" / "out" / name).read_bytes()
    card = (tmp_path / "new" / "out" / "README.md").read_text()
    for words in ("Test accuracy: 0.", "Data: synthetic, distorted by RTS", "Written by: `python "):
        assert words in card


def test_the_export_of_another_network_is_not_replaced_by_a_slip(run, refused, tmp_path):
    for name, classes in (("a", 10), ("b", 4)):
        symbol, module = network((2, 30, 28), num_classes=classes)
        checkpoint.save(str(tmp_path / name), 1, symbol, *module.get_params(), {}, {})
    flags = ["--image-shape", "2,30,28", "--output", "out"]
    for more in ([], [], ["--raw-input"], ["--raw-input"], []):
        assert run("a", *flags, *more).returncode == 0
    refused(run("b", *flags), "out: the export of another network: --overwrite replaces it")
    assert (tmp_path / "out" / "synset.txt").read_text().endswith("9\n")
    assert run("b", *flags, "--overwrite").returncode == 0


def test_an_export_from_before_is_of_the_same_network(run, refused, tmp_path, monkeypatch):
    """Theta's numbers were put together along axis 1, which is -1 now."""
    with monkeypatch.context() as before:
        before.setattr(stn, "COLUMNS", 1)
        older = network(transform="similarity")
    for name, (symbol, module) in (("older", older), ("newer", network(transform="similarity")),
                                   ("other", network(transform="attention"))):
        checkpoint.save(str(tmp_path / name), 1, symbol, *module.get_params(), {}, {})
    for name in ("older", "newer", "older"):
        done = run(name, "--output", "out")
        assert done.returncode == 0, done.stderr
    refused(run("other", "--output", "out"),
            "out: the export of another network: --overwrite replaces it")


def test_an_export_of_an_export(trained_once, run, tmp_path, caplog):
    folder = trained_once / "models" / "a-export"
    shutil.copytree(str(folder), str(tmp_path / "first"))
    for flags in (["first", "--raw-input", "--output", "second"], ["second", "--output", "third"],
                  ["first/model"]):
        caplog.clear()
        done = run(*flags)
        assert done.returncode == 0, done.stderr
        assert ("second takes pixels from 0 to 255, what is written takes them divided by 255"
                in caplog.text) == (flags[0] == "second")
    for name in export_folder.FILES:
        for last in ("third", "first-export"):
            assert (tmp_path / last / name).read_bytes() == (folder / name).read_bytes()
    cards = [(tmp_path / name / "README.md").read_text().splitlines()
             for name in ("first", "second", "third")]
    assert "pixels from 0 to 255\n" in "\n".join(cards[1])
    written_by = {line for line in cards[2] if line.startswith("- Written by")}
    assert set(cards[2]) - set(cards[0]) == {"# third", *written_by}


def test_an_export_is_replaced(run, tmp_path):
    for epoch, classes in ((1, 10), (12, 4)):
        symbol, module = network((2, 30, 28), num_classes=classes)
        checkpoint.save(str(tmp_path / "a"), epoch, symbol, *module.get_params(), {}, {})
        names = ",".join(f"class {number}" for number in range(classes))
        done = run("a", "--image_shape", "2,30,28", "--class-names", names, "--raw-input")
        assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "a-export")) == NAMES
    assert (tmp_path / "a-export" / "synset.txt").read_text().split("\n")[3] == "class 3"
    batch = mx.io.DataBatch([mx.nd.random.uniform(0, 255, (7, 2, 30, 28))])
    answers = loaded(str(tmp_path / "a-export"), batch)
    module.forward(mx.io.DataBatch([batch.data[0] / 255]), is_train=False)
    np.testing.assert_allclose(answers, module.get_outputs()[0].asnumpy(), atol=1e-6)


def pixelwise():
    """A network that gives the classes of each pixel."""
    net = mx.sym.Convolution(mx.sym.Variable("data"), num_filter=8, kernel=(7, 7),
                             name="stn_loc_conv1")
    return mx.sym.SoftmaxOutput(net, multi_output=True, name="softmax")


@pytest.fixture(scope="module")
def bad_files_once(tmp_path_factory):
    """A folder with checkpoints that are not as they should be."""
    folder = tmp_path_factory.mktemp("bad")
    symbol, module = network()
    params = module.get_params()
    foreign = {"words": "words", "label-free": rewrite.label_free(symbol).tojson(),
               "other": symbols.get_symbol("mlp").tojson(), "pixels": pixelwise().tojson()}
    for name in ("good", "half", *foreign):
        checkpoint.save(str(folder / name), 1, symbol, *params, {}, {})
    for name, text in foreign.items():  # as from elsewhere
        (folder / f"{name}-symbol.json").write_text(text)
        (folder / f"{name}-0001.json").unlink()
    half = folder / "half-0001.params"
    half.write_bytes(half.read_bytes()[:5000])
    garbled = folder / "garbled-0001.params"
    garbled.write_bytes(half.read_bytes())
    (folder / "garbled-symbol.json").write_text(symbol.tojson())
    export_folder.export(str(folder / "export"), symbol, *params, (1, 28, 28))
    for name in ("other", "changed"):
        export_folder.export(str(folder / f"{name}-export"), symbol, *params, (1, 28, 28))
        (folder / f"{name}-export" / "model-train-symbol.json").write_text(foreign["pixels"])
    (folder / "other-export" / "SHA256SUMS").unlink()
    (folder / "three").write_text("a\nb\nc\n")
    (folder / "nine").write_text("a\nb\nc\nd\ne\nf\ng\nh\ni\n\n")
    (folder / "twice").write_text("a\na\nb\nc\nd\ne\nf\ng\nh\ni\n")
    (folder / "binary").write_bytes(b"\xff")
    (folder / "escapes").write_text("\x1b[31m\n" * 10)
    return folder


@pytest.fixture
def bad_files(tmp_path, bad_files_once):
    """The names of all files in a folder with those."""
    shutil.copytree(str(bad_files_once), str(tmp_path), dirs_exist_ok=True)
    return {str(path) for path in tmp_path.rglob("*")}


@pytest.mark.parametrize(("flags", "words"), [
    (["absent"], ["absent: neither the folder of an export nor the prefix of checkpoints"]),
    (["good", "--load-epoch", "2"], ["good-0002.params: there is no such file"]),
    (["half"], ["half-0001.params: not the file that half-0001.json was written with"]),
    (["words"], ["words-symbol.json: not a symbol"]),
    (["label-free"], ["label-free: the network ends in softmax softmax, not in a SoftmaxOutput"]),
    (["other-export"], ["other-export: model-train-symbol.json is not of the network that is"]),
    (["garbled"], ["garbled-0001.params: not a whole params file"]),
    (["other"], ["other-0001.params: of another network", "hidden1_weight is missing"]),
    (["pixels"], ["expected class probabilities", "(N, 8, 22, 22)"]),
    (["good", "--image-shape", "1,42,42"], ["good-0001.params", "not for images of 1 x 42 x 42"]),
    (["good", "--image-shape", "3,28,28"], ["not for images of 3 x 28 x 28"]),
    (["good", "--image-shape", "28,28"], ["--image-shape", "C,H,W"]),
    (["good", "--image-shape", "1,28,0"], ["--image-shape", "at least 1"]),
    (["good", "--class-names", "three"], ["--class-names three: 3 names of classes", "10 classes"]),
    (["good", "--class-names", "nine"], ["nine: a line without a name"]),
    (["good", "--class-names", "escapes"], ["escapes: a line without a name, or with control"]),
    (["good", "--class-names", "binary"], ["binary: not UTF-8"]),
    (["good", "--class-names", "nothing"], ["nothing: neither a file that is there nor names"]),
    (["good", "--class-names", "a,,c"], ["a,,c: '' is not the name of a class"]),
    (["good", "--class-names", "a,b,c"], ["3 names of classes", "10 classes"]),
    (["good", "--class-names", "twice"], ["twice: a is there twice"]),
    (["good", "--output", "good"], ["good: the prefix of checkpoints", "would hide"]),
    (["good", "--output", "half/"], ["half/: the prefix of checkpoints", "would hide"]),
    (["good", "--onnx", "./good-symbol.json"], ["--onnx", "expected a name that ends in .onnx"]),
    (["export", "--onnx", "export/model-0000.params"], ["expected a name that ends in .onnx"]),
    (["good", "--onnx", "/dev/null"], ["expected a name that ends in .onnx"]),
    (["good", "--output", "."], [".: holds something else than an export"]),
    (["good", "--output", "three"], ["three"]),
    (["good", "--output", ""], ["--output", "expected a path"]),
    (["changed-export"], ["changed-export/model-train-symbol.json: not the file that"]),
    (["good", "--onnx", "/proc/a.onnx"], ["/proc/a.onnx: cannot be written"]),
    (["good", "--output", "/proc/out"], ["/proc/out"]),
])
def test_bad_input_is_refused(run, refused, tmp_path, bad_files, flags, words):
    refused(run(*flags), *words)
    assert {str(path) for path in tmp_path.rglob("*")} == bad_files
