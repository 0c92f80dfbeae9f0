"""Networks in int8, and export.py --int8 as a user runs it."""
import contextlib
import functools
import json
import os
import re
import shutil

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
from tests.test_export import train_in
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
    assert len(np.unique(thetas[:, 0])) > 97  # of 100 pictures


def layer(name):
    """A function that makes a layer of what it gets."""
    if name == "convolution":
        return functools.partial(mx.sym.Convolution, num_filter=8, kernel=(3, 3), pad=(1, 1))
    return functools.partial(mx.sym.FullyConnected, num_hidden=16)


ACTIVATIONS = {
    **{name: functools.partial(mx.sym.Activation, act_type=name)
       for name in ("relu", "sigmoid", "tanh", "softrelu")},
    **{name: functools.partial(mx.sym.LeakyReLU, act_type=name)
       for name in ("leaky", "elu", "selu", "gelu")},
    "leaky by default": mx.sym.LeakyReLU, "square": mx.sym.square, "abs": mx.sym.abs,
    "clip": lambda net: mx.sym.clip(net, 0, 6),
    "clip of most": lambda net: mx.sym.clip(net, 0, 1),
    "swish": lambda net: net * mx.sym.sigmoid(net),
    "two dropouts": lambda net: mx.sym.Dropout(mx.sym.Dropout(net))}


@pytest.mark.parametrize("name", ["convolution", "full connection"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_layer_is_wrong_by_more_than_rounding(name, activation):
    """MXNet computes some that it fuses wrongly, by a quarter of what they give."""
    net = layer(name)(mx.sym.Variable("data"), name="one")
    net = layer(name)(mx.sym.relu(net), name="two")
    net = layer(name)(ACTIVATIONS[activation](net), name="three")
    check_layers(net)


@pytest.mark.parametrize("options", [
    {"num_group": 2}, {"num_group": 4, "kernel": (1, 1)}, {"num_group": 8}, {"kernel": (3,)}],
    ids=str)
def test_no_kind_of_convolution_is_wrong_by_more_than_rounding(options):
    """MXNet gives filters in groups the scales of others; what has one axis, it does not fuse."""
    net = layer("convolution")(mx.sym.Variable("data"), name="one")
    if len(options.get("kernel", (3, 3))) == 1:
        net = mx.sym.reshape(net, (0, 0, -1))
    net = mx.sym.relu(mx.sym.Convolution(mx.sym.relu(net), name="two", num_filter=8,
                                         **{"kernel": (3, 3), **options}))
    check_layers(layer("full connection")(net, name="three"))


def random_params(net, shape):
    """Parameters of a network for data of a shape: name -> NDArray."""
    rng, shapes = np.random.RandomState(0), net.infer_shape(data=shape)[0]
    return {name: mx.nd.array(rng.normal(0, 0.3, shape))
            for name, shape in zip(net.list_arguments(), shapes) if name != "data"}


def check_layers(net):
    """Fails if a network in int8 is wrong by more than rounding, with some random parameters."""
    params, images = random_params(net, (64, 3, 12, 12)), pictures(64, (3, 12, 12))
    small = quantize.quantized(net, params, {}, images * PIXEL)
    wanted, answers = (trained.Trained("a.params", each, params, {}).predictor((3, 12, 12))(images)
                       for each in (net, small))
    assert 0 < np.abs(answers - wanted).max() < 5 / 127 * np.abs(wanted).max()


def operands(small, images):
    """What layers in int8 multiply by their weights: (operator, array) for each of them."""
    graph = json.loads(small.symbol.tojson())
    layers = [node for node in graph["nodes"] if "quantized" in node.get("attrs", {})]
    heads = mx.sym.load_json(json.dumps(dict(graph, heads=[node["inputs"][0] for node in layers])))
    executor = heads.bind(mx.cpu(), {**small.arg_params, "data": mx.nd.array(images * PIXEL)},
                          aux_states=small.aux_params)
    return [(node["op"], array.asnumpy()) for node, array in zip(layers, executor.forward())]


@pytest.mark.parametrize("options", [
    {}, {"network": "mlp"}, {"network": "resnet"}, {"network": "cnn"}], ids=str)
def test_two_products_fit_into_16_bits(options):
    """Processors without VNNI add them in so many; and oneDNN halves weights for convolutions."""
    _, small = pair(**options)
    found = operands(small, pictures(64, (1, 28, 28)))
    assert found
    for operator, numbers in found:
        if numbers.dtype == np.int8:
            assert operator == "_sg_mkldnn_conv"
        else:
            assert 120 <= numbers.max() <= 129  # 2 x 129 x 127 < 2 ** 15


def test_a_full_connection_of_signed_numbers_stays_in_float32():
    net = layer("full connection")(mx.sym.Variable("data"), name="one")
    net = layer("full connection")(mx.sym.tanh(net), name="two")
    params, numbers = random_params(net, (64, 30)), np.random.RandomState(1).rand(64, 30)
    small = quantize.quantized(net, params, {}, numbers)
    types = [attrs.get("quantized") for node, attrs in nodes(small)
             if node["op"] == quantize.CONNECTION]
    assert types == ["True", None]
    with pytest.raises(ValueError, match="all its layers stay in float32"):
        quantize.quantized(net, params, {}, numbers - 0.5)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """A folder in which train_mnist.py has trained models/a on drawn digits, distorted by R."""
    return train_in(tmp_path_factory.mktemp("trained"), "--num-examples", 600, "--num-epochs", 3,
                    "--distort", "R", "--seed", 3)


@pytest.fixture
def run(run_main):
    return functools.partial(run_main, script)


def card_of(folder):
    return (folder / "README.md").read_text()


def test_an_export_in_int8(trained_once, run, tmp_path, caplog):
    done = run(trained_once / "models" / "a", "--int8", "--output", "small")
    assert done.returncode == 0, done.stderr
    assert done.stderr == caplog.text == ""
    said, written = done.stdout.splitlines()
    alike = re.fullmatch(r"In int8: ([0-9]+) of 300 images get the same class as in float32 "
                         r"\(training images\)", said)
    assert int(alike[1]) > 290
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
        Image.fromarray(image).resize((40, 30)).save(str(folder / f"{number}.png"))
    records.write(str(tmp_path / "photos"), str(tmp_path / "own.rec"))
    symbol = mx.sym.load(os.path.join(PUBLISHED, "model-train-symbol.json"))
    params = trained.load(PUBLISHED)[2:4]
    checkpoint.save(str(tmp_path / "a"), 1, symbol, *params, {}, {})
    refused(run("a", "--int8"), "a: trained on what it does not say: --data-dir or --data-train")
    for name, flags, count in (("b", ["--data-dir", "own.npz"], 25),
                               ("c", ["--data-dir", "photos"], 25),
                               ("d", ["--data-train", "own.rec"], 30)):
        done = run("a", "--int8", "--image-shape", "1,28,28", "--output", name, *flags)
        assert done.returncode == 0, done.stderr
        assert f" of {count} images get the same class as in float32 ({flags[1]})" in done.stdout
        assert f" of {count} images get the same class as in float32 ({flags[1]})" in card_of(
            tmp_path / name)


@pytest.mark.parametrize(("flags", "words"), [
    (["--data-dir", "own.npz"], ["--data-dir has no meaning without --int8"]),
    (["--int8", "--onnx", "a.onnx"], ["--int8 is of the folder: it has no meaning with --onnx"]),
    (["--int8", "--data-dir", "absent"], ["absent: there is no such folder or file"]),
    (["--int8", "--data-dir", "black.npz"], ["40 images", "get one class, tell nothing"]),
    (["--int8", "--data-dir", "own.npz", "--data-train", "x.rec"], ["are two ways to say where"]),
    (["--int8", "--class-names", "a,b"], ["2 names of classes"]),
    (["--int8", "--image-shape", "1,30,30"], ["not for images of 1 x 30 x 30"]),
    (["--int8", "--output", "."], [".: holds something else than an export"]),
    (["--int8", "--output", "own.npz/a"], ["own.npz/a: cannot be written: Not a directory"]),
    (["--int8", "--output", "/proc/a"], ["/proc/a: cannot be written"]),
])
def test_bad_input_is_refused(run, refused, tmp_path, flags, words):
    images, labels = synthetic.draw(50, seed=0)
    np.savez(str(tmp_path / "own.npz"), x_train=images, y_train=labels)
    np.savez(str(tmp_path / "black.npz"), x_train=0 * images, y_train=labels)
    before = {str(path) for path in tmp_path.rglob("*")}
    refused(run(PUBLISHED, *flags), *words)
    assert {str(path) for path in tmp_path.rglob("*")} == before


def test_there_and_back(run, refused, tmp_path):
    """An export in int8 is exported as the network that it was made of."""
    assert run(PUBLISHED, "--output", "float32").returncode == 0
    for flags in (["float32/", "--int8"], ["float32-int8", "--int8", "--output", "again"],
                  ["again", "--output", "back"], ["again", "--onnx", "a.onnx"]):
        done = run(*flags)
        assert done.returncode == 0, done.stderr
    for name in export_folder.FILES:
        for one, other in (("float32", "back"), ("float32-int8", "again")):
            assert (tmp_path / one / name).read_bytes() == (tmp_path / other / name).read_bytes()
    assert "- Test accuracy in float32: 0.9941" in card_of(tmp_path / "again")
    assert "- Test accuracy: 0.9941" in card_of(tmp_path / "back")
    assert "- Numbers" not in card_of(tmp_path / "back")
    small = trained.load(str(tmp_path / "again"))
    with pytest.raises(ValueError, match="in int8, which MXNet computes on CPUs alone"):
        small.predictor((1, 28, 28), gpus=[0])
    for name in ("symbol.json", "0000.params"):  # as checkpoints of another program
        shutil.copy(str(tmp_path / "again" / f"model-{name}"), str(tmp_path / f"alone-{name}"))
    refused(run("alone", "--int8", "--data-dir", "x"), "alone: the network ends in softmax")


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


def test_what_mxnet_is_told_not_to_fuse_stays_in_float32(tmp_path, monkeypatch):
    flags = [PUBLISHED, "--int8", "--output", tmp_path / "small"]
    monkeypatch.setenv("MXNET_DISABLE_MKLDNN_FC_OPT", "1")
    assert run_script("export.py", *flags).returncode == 0
    small = mx.sym.load(str(tmp_path / "small" / "model-symbol.json"))
    assert {node["op"] for node, attrs in nodes(small) if "quantized" in attrs} == {
        "_sg_mkldnn_conv"}
    monkeypatch.setenv("MXNET_DISABLE_MKLDNN_CONV_OPT", "1")
    done = run_script("export.py", *flags)
    assert done.returncode == 2
    assert "no int8 for this network: all its layers stay in float32" in done.stderr


def test_images_that_tell_nothing_are_refused():
    before = trained.load(PUBLISHED)
    for images, words in (
            (synthetic.draw(1, seed=0)[0], "1 images, of which those .* get one class, tell noth"),
            (np.zeros((50, 28, 28), np.uint8), "50 images, of which those .* one class, tell noth"),
            (pictures(50, (1, 30, 28)), "images of 1 x 28 x 28, and those .* are of 1 x 30 x 28")):
        with pytest.raises(ValueError, match=words):
            quantize.in_int8(before, (1, 28, 28), images)


def test_of_several_places_all_are_compared(monkeypatch):
    symbol, module = network((3, 64, 64), network="svhn", width=4, digits=5)
    whole = rewrite.label_free(symbol)
    last = mx.sym.reverse(mx.sym.slice_axis(whole, axis=2, begin=-1, end=None), axis=1)
    other = mx.sym.concat(mx.sym.slice_axis(whole, axis=2, begin=0, end=-1), last, dim=2)
    monkeypatch.setattr(quantize, "quantized", lambda *_: other)
    with pytest.raises(ValueError, match="int8 is not for this network: only 0 of 30 images"):
        quantize.in_int8(trained.Trained("a.params", whole, *module.get_params()), (3, 64, 64),
                         pictures(60, (3, 64, 64)))


def test_they_are_the_images_of_the_training(trained_once):
    model = str(trained_once / "models" / "a")
    found = card.training_images(model, None, 20)
    images, labels = (part[:600] for part in synthetic.draw(600, seed=0))
    which = np.random.RandomState(3).permutation(600)[:20]
    wanted, _ = datasets.for_evaluation(images[which], labels[which], 3,
                                        distort.augmentation("R")[0])
    np.testing.assert_array_equal(found, wanted)
    assert len(card.training_images(model, None, 10**6)) == 600
