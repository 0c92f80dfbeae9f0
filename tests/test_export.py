"""export.py as a user runs it, and its folders in other programs."""
import functools
import hashlib
import itertools
import json
import os
import resource
import shutil
from random import Random

import mxnet as mx
import numpy as np
import pytest

import export as script
import symbols
from common import checkpoint, data, export, graph, synthetic, trained
from symbols import stn
from tests.conftest import run_script
from tests.test_networks import bound, predict

IMAGES = synthetic.draw(7, seed=0)[0][:, None]
RAW = mx.io.DataBatch([mx.nd.array(IMAGES)])
SCALED = mx.io.DataBatch([mx.nd.array(IMAGES / 255)])
NAMES = sorted([*export.FILES, "SHA256SUMS", "README.md"])


def network(image_shape=(1, 28, 28), batch_size=7, spread=0.1, **options):
    """A symbol and a Module for it; theta differs from image to image, the more the ``spread``."""
    symbol = symbols.get_symbol(**dict({"network": "lenet", "image_shape": image_shape}, **options))
    module = bound(symbol, image_shape, batch_size)
    arg_params, aux_params = module.get_params()
    for name, value in arg_params.items():
        if name.endswith("loc_fc2_weight"):
            value[:] = np.random.RandomState(0).normal(0, spread, value.shape)
    module.set_params(arg_params, aux_params)
    return symbol, module


def loaded(folder, batch):
    """What an export says, by MXNet alone."""
    module = mx.mod.Module.load(os.path.join(folder, "model"), 0, label_names=None)
    module.bind([("data", batch.data[0].shape)], for_training=False)
    assert module.output_names == ["softmax_output"]
    return predict(module, batch)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """A folder in which train_mnist.py has trained models/a."""
    folder = tmp_path_factory.mktemp("trained")
    done = run_script("train_mnist.py", "--dataset", "synthetic", "--num-examples", 300,
                      "--num-epochs", 1, "--add-stn", "--transform", "tps:3", "--distort", "RTS",
                      "--model-prefix", "models/a", cwd=str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run(run_main):
    return functools.partial(run_main, script)


@pytest.mark.parametrize("options", [{"add_stn": False}, *({"transform": transform} for transform in
                                                           (*stn.TRANSFORMS, "tps:3"))], ids=str)
@pytest.mark.parametrize("raw_input", [False, True])
def test_exports_load_in_mxnets_ways(tmp_path, options, raw_input):
    symbol, module = network(**options)
    json_path, params_path = export.export(str(tmp_path), symbol, *module.get_params(),
                                           (1, 28, 28), raw_input=raw_input)
    expected, batch = predict(module, SCALED), RAW if raw_input else SCALED
    np.testing.assert_allclose(loaded(str(tmp_path), batch), expected, atol=1e-6)
    block = mx.gluon.SymbolBlock.imports(json_path, ["data"], params_path)
    np.testing.assert_allclose(block(batch.data[0]).asnumpy(), expected, atol=1e-6)
    answers = trained.load(str(tmp_path)).predictor((1, 28, 28))(IMAGES)
    np.testing.assert_allclose(answers, expected, atol=1e-6)


def test_params_of_float64_are_exported_as_float32(tmp_path):
    symbol, module = network()
    export.export(str(tmp_path), symbol, *({name: value.astype("float64") for name, value in
                                            params.items()} for params in module.get_params()),
                  (1, 28, 28))
    loaded = mx.nd.load(str(tmp_path / "model-0000.params"))
    for name, value in module.get_params()[0].items():
        assert loaded[f"arg:{name}"].dtype == np.float32
        np.testing.assert_array_equal(loaded[f"arg:{name}"].asnumpy(), value.asnumpy())


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
            for name in export.FILES]
    assert (folder / "SHA256SUMS").read_text() == "".join(map("{0[0]}  {0[1]}\n".format, sums))
    for value, name in sums:
        assert f"{name} | {export.FILES[name]} | {value}" in card


def test_the_exported_graph_is_the_plain_one(trained_once):
    symbol = mx.sym.load(str(trained_once / "models" / "a-symbol.json"))
    exported = (trained_once / "models" / "a-export" / "model-symbol.json").read_text()
    assert exported == graph.label_free(symbol).tojson()


def test_a_checkpoint_gives_the_export_of_its_training(trained_once, run, tmp_path):
    folder = trained_once / "models" / "a-export"
    done = run(trained_once / "models" / "a", "--output", "new/out")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Exported: new/out/model-symbol.json new/out/model-0000.params\n"
    for name in export.FILES:
        assert (folder / name).read_bytes() == (tmp_path / "new" / "out" / name).read_bytes()
    card = (tmp_path / "new" / "out" / "README.md").read_text()
    for words in ("Test accuracy: 0.", "Data: synthetic, distorted by RTS", "export.py"):
        assert words in card


def test_an_export_is_replaced(run, tmp_path):
    for epoch, classes in ((1, 10), (12, 4)):
        symbol, module = network((2, 30, 28), num_classes=classes)
        checkpoint.save(str(tmp_path / "a"), epoch, symbol, *module.get_params(), {}, {})
        (tmp_path / "names").write_text("".join(f"class {n}\n" for n in range(classes)))
        done = run("a", "--image_shape", "2,30,28", "--class-names", "names", "--raw-input")
        assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "a-export")) == NAMES
    assert (tmp_path / "a-export" / "synset.txt").read_text().split("\n")[3] == "class 3"
    batch = mx.io.DataBatch([mx.nd.random.uniform(0, 255, (7, 2, 30, 28))])
    answers = loaded(str(tmp_path / "a-export"), batch)
    module.forward(mx.io.DataBatch([batch.data[0] / 255]), is_train=False)
    np.testing.assert_allclose(answers, module.get_outputs()[0].asnumpy(), atol=1e-6)


class Killed(BaseException):
    """In place of a SIGKILL: nothing is tidied up after it."""


def test_killed_at_any_step_no_mixture_of_two_exports_loads(tmp_path, monkeypatch):
    old, new = network(add_stn=False), network(add_stn=False, num_classes=10)
    new[1].init_params(mx.init.Uniform(0.1), force_init=True)
    answers = {name: predict(module, SCALED) for name, (_, module) in (("old", old), ("new", new))}
    folder, found = str(tmp_path / "out"), []

    def write(network, raw_input):
        export.export(folder, network[0], *network[1].get_params(), (1, 28, 28),
                      raw_input=raw_input)

    def state():
        """Which export MXNet itself finds, and we."""
        try:
            seen = loaded(folder, RAW), loaded(folder, SCALED)
        except (mx.MXNetError, OSError):
            with pytest.raises(FileNotFoundError):
                trained.load(folder)
            return "none"
        name = "old" if np.allclose(seen[1], answers["old"], atol=1e-6) else "new"
        np.testing.assert_allclose(seen[name == "old"], answers[name], atol=1e-6)
        ours = trained.load(folder).predictor((1, 28, 28))(IMAGES)
        np.testing.assert_allclose(ours, answers[name], atol=1e-6)
        return name

    for steps in itertools.count():
        write(old, raw_input=False)
        assert sorted(os.listdir(folder)) == NAMES
        countdown = itertools.count(-steps)

        def step(call, *args, countdown=countdown, **options):
            if next(countdown) >= 0:
                raise Killed
            return call(*args, **options)

        with monkeypatch.context() as patch:
            for name in ("replace", "remove", "fsync", "makedirs"):
                patch.setattr(os, name, functools.partial(step, getattr(os, name)))
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            try:
                write(new, raw_input=True)
                break
            except Killed:
                found.append(state())
    assert state() == "new"
    kinds = [name for name, _ in itertools.groupby(found)]
    assert kinds == ["old", "none", "new"]
    assert len(found) > 15


def test_a_failed_export_leaves_the_older_one(tmp_path):
    symbol, module = network()
    export.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (0, 1000, 50000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(OSError):  # noqa: PT011  the words are the system's
                export.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28),
                              raw_input=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["model-symbol.json", "model-0000.params"])
def test_a_damaged_export_is_refused(tmp_path, name):
    symbol, module = network(add_stn=False)
    export.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28))
    whole, random = (tmp_path / name).read_bytes(), Random(name)
    for _ in range(50):
        changed, bit = bytearray(whole), random.randrange(8 * len(whole))
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / name).write_bytes(changed)
        with pytest.raises(ValueError, match=f"{name}: not the file that .*SHA256SUMS lists"):
            trained.load(str(tmp_path))
    (tmp_path / "SHA256SUMS").write_bytes(b"\xff\n")
    (tmp_path / name).write_bytes(whole)
    with pytest.raises(ValueError, match="model-symbol.json: not the file"):
        trained.load(str(tmp_path))
    (tmp_path / "SHA256SUMS").unlink()  # as older versions wrote it
    trained.load(str(tmp_path))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    symbol, module = network(add_stn=False)
    with pytest.raises(FileExistsError, match="holds something else than an export"):
        export.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28))
    assert os.listdir(tmp_path) == ["README.md"]
    (tmp_path / "README.md").unlink()
    (tmp_path / ".new").mkdir()  # of an export that was killed
    export.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28))
    (tmp_path / "mine").write_text("mine")
    export.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28))
    assert sorted(os.listdir(tmp_path)) == sorted([*NAMES, "mine"])


def test_classes_have_their_names(tmp_path):
    assert data.class_names("fashion-mnist", 10)[9] == "ankle boot"
    assert data.class_names("fashion-mnist", 19) == data.class_names("mnist", 19)
    symbol, module = network()
    with pytest.raises(ValueError, match="2 names of classes, but the network has 10"):
        export.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28), ["a", "b"])


def pixelwise():
    """A network that gives the classes of each pixel."""
    net = mx.sym.Convolution(mx.sym.Variable("data"), num_filter=8, kernel=(7, 7),
                             name="stn_loc_conv1")
    return mx.sym.SoftmaxOutput(net, multi_output=True, name="softmax")


@pytest.fixture
def bad_files(tmp_path):
    """A folder with checkpoints that are not as they should be."""
    symbol, module = network()
    params = module.get_params()
    foreign = {"words": "words", "label-free": graph.label_free(symbol).tojson(),
               "other": symbols.get_symbol("mlp").tojson(), "pixels": pixelwise().tojson()}
    for name in ("good", "half", *foreign):
        checkpoint.save(str(tmp_path / name), 1, symbol, *params, {}, {})
    for name, text in foreign.items():  # as from elsewhere
        (tmp_path / f"{name}-symbol.json").write_text(text)
        (tmp_path / f"{name}-0001.json").unlink()
    half = tmp_path / "half-0001.params"
    half.write_bytes(half.read_bytes()[:5000])
    garbled = tmp_path / "garbled-0001.params"
    garbled.write_bytes(half.read_bytes())
    (tmp_path / "garbled-symbol.json").write_text(symbol.tojson())
    export.export(str(tmp_path / "export"), symbol, *params, (1, 28, 28))
    (tmp_path / "three").write_text("a\nb\nc\n")
    (tmp_path / "nine").write_text("a\nb\nc\nd\ne\nf\ng\nh\ni\n\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    return {str(path) for path in tmp_path.rglob("*")}


@pytest.mark.parametrize(("flags", "words"), [
    (["absent"], ["absent: neither the folder of an export nor the prefix of checkpoints"]),
    (["good", "--load-epoch", "2"], ["good-0002.params: there is no such checkpoint"]),
    (["half"], ["half-0001.params: not the file that half-0001.json was written with"]),
    (["words"], ["words-symbol.json: not a symbol"]),
    (["label-free"], ["label-free: an export already, or another network"]),
    (["export"], ["export: an export already"]),
    (["garbled"], ["garbled-0001.params: not a whole params file"]),
    (["other"], ["other-0001.params: of another network", "hidden1_weight is missing"]),
    (["pixels"], ["expected class probabilities", "(N, 8, 22, 22)"]),
    (["good", "--image-shape", "1,42,42"], ["good-0001.params", "not for images of 1 x 42 x 42"]),
    (["good", "--image-shape", "3,28,28"], ["not for images of 3 x 28 x 28"]),
    (["good", "--image-shape", "28,28"], ["--image-shape", "C,H,W"]),
    (["good", "--image-shape", "1,28,0"], ["--image-shape", "at least 1"]),
    (["good", "--class-names", "three"], ["three: 3 names", "10 classes"]),
    (["good", "--class-names", "nine"], ["nine: a line without a name"]),
    (["good", "--class-names", "binary"], ["binary: not UTF-8"]),
    (["good", "--class-names", "nothing"], ["nothing: No such file"]),
    (["good", "--output", "."], [".: holds something else than an export"]),
    (["good", "--output", "three"], ["three"]),
    (["good", "--onnx", "/dev/null"], ["/dev/null: cannot be written"]),
    (["good", "--output", "/proc/out"], ["/proc/out"]),
])
def test_bad_input_is_refused(run, refused, tmp_path, bad_files, flags, words):
    refused(run(*flags), *words)
    assert {str(path) for path in tmp_path.rglob("*")} == bad_files
