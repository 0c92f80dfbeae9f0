"""Networks in int8, and export.py --int8 as a user runs it."""
import contextlib
import functools
import json
import os
import re

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

import export as script
import symbols
from common.data import datasets, distort, records, synthetic
from common.data.batches import PIXEL
from common.graph import rewrite
from common.models import card, export_folder, quantize, trained
from common.storage import checkpoint, symbol_file
from symbols import stn
from tests.conftest import SMALL, run_script
from tests.test_export_folder import NAMES, loaded, network

SHAPES = {"addition": (1, 42, 84), "svhn": (3, 64, 64)}
PUBLISHED = os.path.join(trained.PUBLISHED, "mnist-lenet-stn")


def pictures(count, image_shape):
    return np.random.RandomState(0).randint(0, 256, (count, *image_shape)).astype(np.uint8)


def pair(image_shape=(1, 28, 28), **options):
    """A network whose transformer moves pictures, and the same in int8."""
    symbol, module = network(image_shape, **options)
    before = trained.Trained("a.params", rewrite.label_free(symbol), *module.get_params())
    small = quantize.quantized(*before[1:4], pictures(64, image_shape) * PIXEL)
    return before, before._replace(training=small)


def nodes(symbol):
    """The nodes of a graph with their attributes."""
    return [(node, node.get("attrs", {})) for node in json.loads(symbol.tojson())["nodes"]]


@pytest.mark.parametrize("options", [
    *({"network": name, "image_shape": SHAPES.get(name, (1, 28, 28)), **SMALL.get(name, {})}
      for name in symbols.NETWORKS),
    *({"transform": name} for name in (*stn.TRANSFORMS, "tps:3")),
    {"network": "cnn", "pool": 2, "image_shape": (1, 42, 42)}, {"add_stn": False},
    {"stable": True}, {"stn_steps": 2}, {"transform": "tps", "bounded": True}], ids=str)
def test_the_answers_are_nearly_the_same(options):
    before, after = pair(**options)
    image_shape = options.get("image_shape", (1, 28, 28))
    images = pictures(100, image_shape)
    wanted, answers = (each.predictor(image_shape)(images) for each in (before, after))
    assert 0 < np.abs(answers - wanted).max() < 0.1 * wanted.max()
    assert np.abs(answers - wanted).mean() < 0.02 * wanted.mean()
    among_others = after.predictor(image_shape)(images[::-1])[::-1]
    assert np.isclose(among_others, answers, atol=1e-6).mean() > 0.9
    np.testing.assert_allclose(among_others, answers, rtol=0.01)  # a theta is rounded otherwise


@pytest.mark.parametrize(("transform", "steps"), [
    ("affine", 1), ("affine", 2), ("projective", 1), ("projective", 2), ("tps", 1)])
def test_theta_has_all_its_bits(transform, steps):
    _, after = pair(transform=transform, stn_steps=steps)
    fractions = [part["name"] for node, attrs in nodes(after.symbol)
                 if node["op"] == "_sg_mkldnn_fully_connected" and "quantized" not in attrs
                 for part in node["subgraphs"][0]["nodes"]]
    wanted = ["stn_loc_fc2", "stn_loc_fc2_step2"][:steps]
    assert [name for name in fractions if name in wanted] == wanted
    thetas = after.predictor((1, 28, 28), output="stn_theta_output")(pictures(100, (1, 28, 28)))
    assert len(np.unique(thetas[:, 0])) == 100


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """A folder in which train_mnist.py has trained models/a on drawn digits, distorted by R."""
    folder = tmp_path_factory.mktemp("trained")
    done = run_script("train_mnist.py", "--dataset", "synthetic", "--num-examples", 600,
                      "--num-epochs", 3, "--add-stn", "--distort", "R", "--seed", 3,
                      "--model-prefix", "models/a", cwd=str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run(run_main):
    return functools.partial(run_main, script)


def card_of(folder):
    return (folder / "README.md").read_text()


def test_an_export_in_int8(trained_once, run, tmp_path):
    done = run(trained_once / "models" / "a", "--int8", "--output", "small")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said, written = done.stdout.splitlines()
    alike = re.fullmatch("In int8: ([0-9]+) of 300 images get the same class as in float32", said)
    assert int(alike[1]) > 295
    assert written == "Exported: small/model-symbol.json small/model-0000.params"
    folder = tmp_path / "small"
    assert sorted(os.listdir(folder)) == NAMES
    for words in (f"Numbers: int8, for prediction on CPUs; {said[9:]}", "lenet with transformer",
                  "Test accuracy in float32: 0."):
        assert words in card_of(folder)
    whole = trained_once / "models" / "a-export"
    for name in set(export_folder.FILES) - {"model-symbol.json"}:
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    accuracies = []
    for path in (whole, folder):
        done = run_script("score.py", path)
        assert "Test images: synthetic, distorted by R, seed 3, as in the training" in done.stdout
        accuracies.append(float(re.search(r"Test accuracy: ([0-9.]+)", done.stdout)[1]))
    assert abs(accuracies[0] - accuracies[1]) <= 0.02


def test_by_default_it_is_beside_the_other(trained_once, run):
    model = trained_once / "models" / "a"
    assert run(model, "--int8").returncode == 0
    assert card_of(trained_once / "models" / "a-int8").startswith("# a-int8")
    assert (trained_once / "models" / "a-export" / "SHA256SUMS").exists()


def test_it_may_take_pixels(run, tmp_path):
    for name, more in (("a", []), ("b", ["--raw-input"])):
        done = run(PUBLISHED, "--int8", "--output", name, *more)
        assert done.returncode == 0, done.stderr
    images = synthetic.draw(50, seed=0)[0][:, None]
    answers = [loaded(str(tmp_path / name), mx.io.DataBatch([mx.nd.array(given)]))
               for name, given in (("a", images * PIXEL), ("b", images))]
    np.testing.assert_allclose(*answers, atol=1e-6)
    for name in "ab":  # as the scripts here load both
        found = trained.load(str(tmp_path / name)).predictor((1, 28, 28))(images)
        np.testing.assert_allclose(found, answers[0], atol=1e-6)
    assert "Test accuracy in float32: 0.9941" in card_of(tmp_path / "b")


def test_of_images_of_one_s_own(run, refused, tmp_path):
    images, labels = synthetic.draw(60, seed=0)
    np.savez(str(tmp_path / "own.npz"), x_train=images, y_train=labels)
    for number, image in enumerate(images):
        folder = tmp_path / "photos" / str(labels[number])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(str(folder / f"{number}.png"))
    records.write(str(tmp_path / "photos"), str(tmp_path / "own.rec"))
    symbol, module = network()
    checkpoint.save(str(tmp_path / "a"), 1, symbol, *module.get_params(), {}, {})
    refused(run("a", "--int8"), "a: trained on what it does not say: --data-dir or --data-train")
    for name, flags, count in (("b", ["--data-dir", "own.npz"], 25),
                               ("c", ["--data-dir", "photos"], 25),
                               ("d", ["--data-train", "own.rec"], 30)):
        done = run("a", "--int8", "--output", name, *flags)
        assert done.returncode == 0, done.stderr
        assert f" of {count} images get the same class" in done.stdout


@pytest.mark.parametrize(("flags", "words"), [
    (["--data-dir", "own.npz"], ["--data-dir has no meaning without --int8"]),
    (["--int8", "--onnx", "a.onnx"], ["--int8 is of the folder: it has no meaning with --onnx"]),
    (["--int8", "--data-dir", "absent"], ["absent: there is no such folder or file"]),
    (["--int8", "--data-dir", "wide.npz"], ["images of 1 x 28 x 28, got 40 of 1 x 30 x 28"]),
    (["--int8", "--data-dir", "own.npz", "--data-train", "x.rec"], ["--data-dir does not go with"]),
    (["--int8", "--image-shape", "1,30,30"], ["not for images of 1 x 30 x 30"]),
    (["--int8", "--output", "."], [".: holds something else than an export"]),
])
def test_bad_input_is_refused(run, refused, tmp_path, flags, words):
    images, labels = synthetic.draw(50, seed=0)
    np.savez(str(tmp_path / "own.npz"), x_train=images, y_train=labels)
    np.savez(str(tmp_path / "wide.npz"), x_train=np.pad(images, ((0, 0), (1, 1), (0, 0))),
             y_train=labels)
    before = {str(path) for path in tmp_path.rglob("*")}
    refused(run(PUBLISHED, *flags), *words)
    assert {str(path) for path in tmp_path.rglob("*")} == before


def test_what_is_in_int8_stays_so(run, refused, tmp_path):
    assert run(PUBLISHED, "--int8", "--output", "small").returncode == 0
    for flags in (["--int8"], ["--raw-input", "--output", "b"]):
        refused(run("small", *flags), "small: in int8 already: give the network that it was made")
    refused(run("small", "--onnx", "a.onnx"), "the operator _contrib_quantize_v2 cannot be")
    with pytest.raises(ValueError, match="in int8, which MXNet computes on CPUs alone"):
        trained.load(str(tmp_path / "small")).predictor((1, 28, 28), gpus=[0])


@pytest.fixture(scope="module")
def in_int8():
    """The JSON of a network in int8."""
    return pair()[1].symbol.tojson()


def read(tmp_path, text):
    (tmp_path / "a-symbol.json").write_text(text)
    return symbol_file.read(str(tmp_path / "a-symbol.json")).tojson()


def test_its_symbol_comes_back_to_the_byte(tmp_path, in_int8):
    assert read(tmp_path, in_int8) == in_int8


@pytest.mark.parametrize(("name", "key", "value", "words"), [
    ("quantized_pool1", "subgraphs", [], "quantized_pool1 has 'subgraphs'"),
    ("quantized_sg_mkldnn_conv_act_2", "subgraphs", None, "the subgraphs of quantized_sg_mkldnn_c"),
    ("quantized_sg_mkldnn_conv_act_2", "subgraphs", [{}], "nodes are not a list"),
    ("quantized_sg_mkldnn_conv_act_2", "subgraphs", [], "MXNet"),
    ("quantized_sg_mkldnn_conv_act_2", "attrs", {}, "takes output 1 of node"),
    ("softmax", "op", "_sg_mkldnn_conv", "the subgraphs of softmax are not a list")])
def test_a_wrong_graph_is_refused(tmp_path, in_int8, name, key, value, words):
    graph = json.loads(in_int8)
    node, = (node for node in graph["nodes"] if node["name"] == name)
    node[key] = value
    with pytest.raises(ValueError, match=words):
        read(tmp_path, json.dumps(graph))


def test_whole_numbers_go_nowhere_else(tmp_path, in_int8):
    graph = json.loads(in_int8)
    rounded, = (index for index, node in enumerate(graph["nodes"])
                if node["name"] == "quantized_pool2")
    graph["nodes"][-1]["inputs"] = [[rounded, 0, 0]]
    with pytest.raises(ValueError, match="softmax takes whole numbers, those of quantized_pool2"):
        read(tmp_path, json.dumps(graph))


def test_a_layer_that_holds_layers_is_refused(tmp_path, in_int8):
    graph = json.loads(in_int8)
    layer, = (node for node in graph["nodes"] if node["name"] == "quantized_sg_mkldnn_conv_act_2")
    layer["subgraphs"] = [json.loads(in_int8)]
    with pytest.raises(ValueError, match="the operator _contrib_quantize_v2, which is not taken"):
        read(tmp_path, json.dumps(graph))


def test_no_range_is_left_to_the_batches(monkeypatch):
    """Two layers that compute alike are one to MXNet, and the other would have no range."""
    monkeypatch.setattr(quantize, "_each_layer", contextlib.nullcontext)
    with pytest.raises(ValueError, match="no range has been measured for stn1_loc_pixels_0_quant"):
        pair(network="addition", image_shape=SHAPES["addition"])


def test_a_network_that_int8_is_too_coarse_for_is_refused():
    """A feature is ten thousand times the others, which are all 0 then."""
    before = trained.load(os.path.join(trained.PUBLISHED, "mnist-lenet"))
    for name in ("fc1_weight", "fc1_bias"):
        before.arg_params[name][0] *= 1e4
    before.arg_params["fc2_weight"][:, 0] *= 1e-4  # so that the network itself is the same
    with pytest.raises(ValueError, match="int8 is not for this network: only [0-9]+ of 100 images"):
        quantize.in_int8(before, (1, 28, 28), synthetic.draw(200, seed=0)[0])
    with pytest.raises(ValueError, match="two or more images of 1 x 28 x 28, got 1 of"):
        quantize.in_int8(before, (1, 28, 28), synthetic.draw(1, seed=0)[0])


def test_they_are_the_images_of_the_training(trained_once):
    model = str(trained_once / "models" / "a")
    found = card.training_images(model, None, 20)
    images, labels = (part[:600] for part in synthetic.draw(600, seed=0))
    which = np.random.RandomState(3).permutation(600)[:20]
    wanted, _ = datasets.for_evaluation(images[which], labels[which], 3,
                                        distort.augmentation("R")[0])
    np.testing.assert_array_equal(found, wanted)
    assert len(card.training_images(model, None, 10**6)) == 600
