"""Every network of the zoo, with and without its transformer."""
import inspect
import json
import re
from itertools import product
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest

import symbols
from common.data import synthetic
from common.data.batches import ImageIter
from common.training.recipe import SeededInit
from symbols import stn
from tests.conftest import DEVICE, SMALL
from tests.pairwise import pairwise

SIZES = [(1, 28, 28), (1, 40, 30), (3, 32, 32)]
TRANSFORMS = [*stn.TRANSFORMS, "tps:3"]
VARIANTS = [{"add_stn": False}, *({"transform": transform} for transform in TRANSFORMS),
            {"transform": "projective", "bounded": True}, {"stable": True}, {"outside": "border"}]
STEPS = [(network, {"stn_steps": 2}) for network in symbols.networks_with("stn_steps")]
EVERY = [*((network, variant) for network in symbols.NETWORKS for variant in VARIANTS), *STEPS]
OTHERS = [network for network in symbols.NETWORKS if network != "lenet"]
STARTS = [*product(["lenet"], VARIANTS[1:], SIZES), *pairwise(OTHERS, VARIANTS[1:], SIZES),
          *((network, variant, (1, 40, 30)) for network, variant in STEPS)]
RATES = [*product(["lenet"], TRANSFORMS), *product(OTHERS, ["affine"])]
POOLING = symbols.networks_with("pool")


def cases(names, rows):
    """Parametrises a test by rows, whose words and numbers name the case."""
    def words(value):
        return map(str, value.values() if isinstance(value, dict) else [value])

    return pytest.mark.parametrize(names, [
        pytest.param(*row, id=" ".join(word for value in row for word in words(value)))
        for row in rows])


def build(network, **options):
    """A network in which operators without a name are counted from 0: one test asks for names."""
    with mx.name.NameManager():
        return symbols.get_symbol(network, **{**SMALL.get(network, {}), **options})


def transformers(symbol):
    """The names of a network's transformers."""
    ending = "_theta_output"
    names = [name[:-len(ending)] for name in symbol.get_internals().list_outputs()
             if name.endswith(ending)]
    assert names, "there is no node <name>_theta, which stn.spatial_transformer makes"
    return names


def bound(symbol, image_shape, batch_size=4, seed=0):
    """A Module that is ready to train, started as training starts it."""
    module, data = mx.mod.Module(symbol, context=DEVICE), (batch_size, *image_shape)
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=data)[0]))
    module.bind([("data", data)], [("softmax_label", shapes["softmax_label"])])
    module.init_params(SeededInit(mx.init.Xavier(), seed))
    return module


def batch_of(image_shape, batch_size=4, seed=0):
    rng = np.random.RandomState(seed)
    return mx.io.DataBatch([mx.nd.array(rng.rand(batch_size, *image_shape))],
                           [mx.nd.array(np.arange(batch_size) % 10)])


def predict(module, batch):
    module.forward(batch, is_train=False)
    return module.get_outputs()[0].asnumpy()


@pytest.mark.parametrize("network", symbols.NETWORKS)
def test_every_operator_has_a_name_of_its_own(network):
    unnamed = sorted({words for variant in VARIANTS for words in unnamed_in(network, variant)})
    assert not unnamed, (
        f"{network} has operators without a name of their own: {', '.join(unnamed)}. Give each a "
        "name=\"...\"; instead of a + b, write mx.sym.elemwise_add(a, b, name=\"...\")")


def unnamed_in(network, variant):
    """Says which operators MXNet has named by a count that goes on from one build to the next."""
    first, second = (json.loads(symbols.get_symbol(network, **variant).tojson())["nodes"]
                     for _ in range(2))
    unnamed = [one["name"] != other["name"] for one, other in zip(first, second)]
    for place, node in enumerate(first):
        if unnamed[place] and node["op"] != "null":  # not its weights, which are named after it
            inputs = [f"an unnamed {first[index]['op']}" if unnamed[index] else first[index]["name"]
                      for index, *_ in node["inputs"]
                      if not unnamed[index] or first[index]["op"] != "null"]
            yield f"the {node['op']} of {' and '.join(inputs)}"


@cases(("network", "variant", "image_shape"), STARTS)
def test_it_starts_as_the_function_that_it_is_without_transformers(network, variant, image_shape):
    plain, transformed = (build(network, num_classes=7, image_shape=image_shape, **options)
                          for options in ({"add_stn": False}, variant))
    own, others = (set(symbol.get_internals().list_outputs()) for symbol in (transformed, plain))
    assert others < own
    assert all(re.match(r"stn\d*_", name) for name in own - others)
    modules = [bound(symbol, image_shape) for symbol in (plain, transformed)]
    expected, outputs = (predict(module, batch_of(image_shape)) for module in modules)
    for probabilities in (expected, outputs):
        assert probabilities.shape == (4, 7)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    if len(transformers(transformed)) > 1:
        return  # the classifier sees more pixels
    values, transformed_values = (module.get_params()[0] for module in modules)
    for name, value in values.items():
        np.testing.assert_array_equal(value.asnumpy(), transformed_values[name].asnumpy())
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


@cases(("network", "variant"), EVERY)
def test_two_builds_are_one_and_survive_json(network, variant):
    symbol = build(network, **variant)
    assert symbol.tojson() == build(network, **variant).tojson()
    reloaded = mx.sym.load_json(symbol.tojson())
    before, after = (bound(s, (1, 28, 28)).get_params()[0] for s in (symbol, reloaded))
    for name in before:
        np.testing.assert_array_equal(before[name].asnumpy(), after[name].asnumpy())


@cases(("network", "variant"), EVERY)
def test_every_parameter_learns(network, variant):
    module = bound(build(network, **variant), (1, 28, 28), batch_size=20)
    module.init_optimizer(optimizer="adam", optimizer_params={"learning_rate": 0.01, "wd": 0.01})
    images, labels = synthetic.draw(40, seed=0)
    batches = list(ImageIter(images, labels, 20))
    mx.random.seed(0)
    module.forward_backward(batches[0])  # moves the last layer, whose weight of 0 lets nothing by
    module.update()
    before = {name: value.copy() for name, value in module.get_params()[0].items()}
    module.forward_backward(batches[1])
    module.update()
    for name, value in module.get_params()[0].items():
        assert (value != before[name]).sum().asscalar() > 0, name


@cases(("network", "transform"), RATES)
def test_the_localisation_layers_learn_at_their_own_rate(network, transform):
    steps = []
    for lr_mult in (1, 0.01):
        symbol = with_lr_mult(network, transform, lr_mult)
        module = bound(symbol, (1, 28, 28), batch_size=20)
        module.init_optimizer(optimizer="sgd", optimizer_params={"learning_rate": 1})
        start = {name: value.copy() for name, value in module.get_params()[0].items()}
        mx.random.seed(0)
        module.forward_backward(next(ImageIter(*synthetic.draw(20, seed=0), batch_size=20)))
        module.update()
        steps.append({name: (value - start[name]).asnumpy()
                      for name, value in module.get_params()[0].items()})
    full, scaled = steps
    bias, = (name for name in full if name.endswith("_loc_fc2_bias"))
    np.testing.assert_allclose(scaled[bias], full[bias] * 0.01, rtol=1e-2,
                               atol=1.2e-7)  # a bias of 1 is rounded to that
    np.testing.assert_array_equal(scaled["fc1_weight"], full["fc1_weight"])
    assert np.abs(full[bias]).max() > 0


def with_lr_mult(network, transform, lr_mult):
    """A network whose localisation layers have another lr_mult than it gives them."""
    module = symbols.NETWORKS[network]
    image = mx.sym.Variable("data")
    loc = module.get_loc(image, attr={"lr_mult": str(lr_mult)}, transform=transform)
    net = mx.sym.Flatten(stn.spatial_transformer(image, loc, (28, 28), transform))
    net = mx.sym.FullyConnected(net, num_hidden=10, name="fc1")
    return mx.sym.SoftmaxOutput(net, name="softmax")


@pytest.mark.parametrize("network", symbols.NETWORKS)
@pytest.mark.parametrize("stable", [False, True])
def test_the_localisation_layers_have_a_rate_of_their_own(network, stable):
    symbol = build(network, stable=stable)
    module = bound(symbol, (1, 28, 28))
    module.init_optimizer()
    rates = module._optimizer.lr_mult
    assert set(rates.values()) == ({1.0} if stable else default_rates(network))
    layers = [node["name"] for node in json.loads(symbol.tojson())["nodes"]
              if node["op"] == "FullyConnected" and node["name"].startswith("stn")]
    assert sorted(rates) == sorted(f"{layer}_{part}" for layer in layers
                                   for part in ("weight", "bias"))


def default_rates(network):
    """What a localisation network writes on its layers, if it is not told."""
    attributes = symbols.NETWORKS[network].get_loc(mx.sym.Variable("data")).attr_dict()
    return {float(own["__lr_mult__"]) for own in attributes.values() if "__lr_mult__" in own}


@cases(("network", "rate"), [("lenet", 0.01), ("cnn", 0.1), ("mlp", 1), ("addition", 0.3),
                            ("resnet", 1), ("svhn", 0.1)])
def test_rates_stay_those_that_the_figures_were_made_with(network, rate):
    assert default_rates(network) == {rate}


@pytest.mark.parametrize("network", symbols.NETWORKS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_nodes_can_be_found_by_name(network, transform):
    symbol = build(network, image_shape=(1, 28, 28), transform=transform)
    for name in transformers(symbol):
        assert found(symbol, name) == [
            (2, 1, 28, 28), (2, len(stn.get_transform(transform).identity))]


@pytest.mark.parametrize("network", symbols.NETWORKS)
@pytest.mark.parametrize(("option", "values", "part"), [
    ("bounded", (False, True), "loc_bounded"), ("stable", (False, True), "loc_fc1_unit"),
    ("outside", stn.OUTSIDE, "grid_border")])
def test_each_transformer_gets_its_options(network, option, values, part):
    for wanted, value in enumerate(values):
        symbol = build(network, **{option: value})
        outputs = symbol.get_internals().list_outputs()
        for name in transformers(symbol):
            assert any(output.startswith(f"{name}_{part}") for output in outputs) == wanted


@pytest.mark.parametrize("network", symbols.NETWORKS)
def test_a_network_names_all_its_options(network):
    kinds = {option.kind for option in inspect.signature(
        symbols.NETWORKS[network].get_symbol).parameters.values()}
    assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


@pytest.mark.parametrize("network", symbols.networks_with("stn_at"))
def test_each_place_has_a_transformer_of_its_own(network):
    places = symbols.NETWORKS[network].PLACES
    symbol = build(network, image_shape=(3, 64, 64), stn_at=",".join(places))
    assert transformers(symbol) == [f"stn{number}" for number in range(len(places))]
    for place in places:
        symbol = build(network, image_shape=(3, 64, 64), stn_at=place)
        assert transformers(symbol) == ["stn"]


def found(symbol, name, image_shape=(1, 28, 28)):
    """The shapes of the picture and of theta of the transformer of that name."""
    internals = symbol.get_internals()
    nodes = [internals[f"{name}_output"], internals[f"{name}_theta_output"]]
    return mx.sym.Group(nodes).infer_shape(data=(2, *image_shape))[1]


def test_addition_has_two_transformers():
    symbol = symbols.get_symbol("addition", target_shape=(20, 24), transform="tps:3")
    assert transformers(symbol) == ["stn0", "stn1"]
    assert [found(symbol, name) for name in ("stn0", "stn1")] == [[(2, 1, 20, 24), (2, 18)]] * 2


@cases(("places", "shapes"), [
    ("input", {"stn": (1, 28, 30)}), ("stage1", {"stn": (4, 14, 15)}),
    ("stage3", {"stn": (8, 7, 8)}),
    ("stage2,input", {"stn0": (1, 28, 30), "stn1": (4, 14, 15)}),
    ("input,stage1,stage2,stage3", {"stn0": (1, 28, 30), "stn1": (4, 14, 15),
                                    "stn2": (4, 14, 15), "stn3": (8, 7, 8)})])
@pytest.mark.parametrize("transform", ["affine", "tps:3"])
def test_resnet_has_transformers_at_its_stages(places, shapes, transform):
    image_shape, options = (1, 28, 30), {"width": 4, "depth": 2}
    symbol = build("resnet", stn_at=places, transform=transform, image_shape=image_shape, **options)
    assert transformers(symbol) == list(shapes)
    parameters = len(stn.get_transform(transform).identity)
    for name, shape in shapes.items():
        assert found(symbol, name, image_shape) == [(2, *shape), (2, parameters)]
    plain = build("resnet", add_stn=False, image_shape=image_shape, **options)
    np.testing.assert_allclose(*(predict(bound(each, image_shape), batch_of(image_shape))
                                 for each in (symbol, plain)), atol=1e-5)


@cases(("places", "shapes"), [
    ("input", {"stn": (3, 64, 48)}), ("conv3", {"stn": (64, 32, 24)}),
    ("conv4,input,conv2,conv3", {"stn0": (3, 64, 48), "stn1": (48, 32, 24), "stn2": (64, 32, 24),
                                 "stn3": (128, 16, 12)})])
def test_svhn_has_transformers_at_its_convolutions(places, shapes):
    symbol = symbols.get_symbol("svhn", digits=5, stn_at=places, image_shape=(3, 64, 48))
    assert transformers(symbol) == list(shapes)
    for name, shape in shapes.items():
        assert found(symbol, name, (3, 64, 48)) == [(2, *shape), (2, 6)]
    convolutional = "stn_loc_conv2_output" in symbol.get_internals().list_outputs()
    assert convolutional == (len(shapes) == 1)


def test_svhn_is_the_paper_s_network():
    symbol = symbols.get_symbol("svhn", digits=5, add_stn=False)
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=(2, 3, 64, 64))[0]))
    weights = {name[:-7]: shape for name, shape in shapes.items() if name.endswith("_weight")}
    assert weights == {
        "conv1": (48, 3, 5, 5), "conv2": (64, 48, 5, 5), "conv3": (128, 64, 5, 5),
        "conv4": (160, 128, 5, 5), "conv5": (192, 160, 5, 5), "conv6": (192, 192, 5, 5),
        "conv7": (192, 192, 5, 5), "conv8": (192, 192, 5, 5),
        "fc1": (3072, 3072), "fc2": (3072, 3072), "fc3": (55, 3072)}
    assert shapes["softmax_label"] == (2, 5)
    assert symbol.infer_shape(data=(2, 3, 64, 64))[1] == [(2, 11, 5)]
    dropped = [node["name"] for node in json.loads(symbol.tojson())["nodes"]
               if node["op"] == "Dropout"]
    assert dropped == [*(f"conv{number}_dropout" for number in range(2, 9)), "fc1_dropout",
                       "fc2_dropout"]


def test_the_gradient_of_several_digits_is_that_of_their_sum():
    symbol = build("svhn", digits=3, num_classes=4, image_shape=(3, 16, 16), add_stn=False,
                   dropout=0)
    grads = []
    for part in (symbol, mx.sym.MakeLoss(-mx.sym.sum(mx.sym.pick(mx.sym.log_softmax(
            symbol.get_internals()["digits_output"], axis=1), mx.sym.Variable("softmax_label"),
            axis=1)))):
        executor = part.simple_bind(mx.cpu(), data=(2, 3, 16, 16), softmax_label=(2, 3))
        rng = np.random.RandomState(0)
        for _, array in sorted(executor.arg_dict.items()):
            array[:] = rng.normal(0, 0.1, array.shape)
        executor.arg_dict["softmax_label"][:] = [[0, 1, 2], [3, 3, 0]]
        executor.forward(is_train=True)
        executor.backward()
        grads.append(executor.grad_dict["fc3_weight"].asnumpy())
    assert np.abs(grads[0]).max() > 0.01
    np.testing.assert_allclose(*grads, atol=1e-5)


@cases(("size", "stem"), [(8, 1), (24, 1), (28, 1), (48, 1), (49, 2), (224, 4)])
def test_resnet_fits_its_stem_to_the_image(size, stem):
    symbol = build("resnet", image_shape=(3, size, size))
    internals = symbol.get_internals()
    assert f"stem{stem}_output" in internals.list_outputs()
    assert f"stem{stem + 1}_output" not in internals.list_outputs()
    _, (shape,), _ = internals["stage3_block1_relu_output"].infer_shape(data=(1, 3, size, size))
    assert shape[1] == 64
    assert 2 <= shape[2] == shape[3] <= 6
    weights, _, _ = symbol.infer_shape(data=(1, 3, size, size))
    assert 5e4 < sum(map(np.prod, weights)) < 3e5


def test_the_transformers_of_addition_come_to_look_at_different_places():
    symbol = symbols.get_symbol("addition")
    module, batch = bound(symbol, (2, 42, 42)), batch_of((2, 42, 42))
    module.init_optimizer(optimizer="adam", optimizer_params={"learning_rate": 0.1})
    for _ in range(3):
        module.forward_backward(batch)
        module.update()
    internals = symbol.get_internals()
    thetas = mx.sym.Group([internals[f"stn{index}_theta_output"] for index in (0, 1)])
    params = {name: value for name, value in module.get_params()[0].items()
              if name.startswith("stn")}
    first, second = thetas.eval(data=batch.data[0], **params)
    assert np.abs((first - second).asnumpy()).max() > 0.01


@pytest.mark.parametrize("network", symbols.NETWORKS)
def test_the_transformer_can_have_another_size(network):
    image_shape = (1, 60, 40)
    symbol = build(network, num_classes=10, image_shape=image_shape, target_shape=(24, 22))
    for name in transformers(symbol):
        assert found(symbol, name, image_shape)[0] == (2, 1, 24, 22)
    assert predict(bound(symbol, image_shape), batch_of(image_shape)).shape == (4, 10)


@pytest.mark.parametrize("image_shape", [(1, 42, 42), (1, 43, 60)])
@pytest.mark.parametrize("network", POOLING)
def test_a_pooling_behind_the_transformer(network, image_shape):
    symbol = build(network, num_classes=10, image_shape=image_shape, pool=2)
    for name in transformers(symbol):
        output = symbol.get_internals()[f"{name}_pool_output"]
        assert output.infer_shape(data=(4, *image_shape))[1] == [
            (4, 1, *(size // 2 for size in image_shape[1:]))]
    assert predict(bound(symbol, image_shape), batch_of(image_shape)).shape == (4, 10)


def test_lenet_is_the_seed_network():
    symbol = symbols.get_symbol("lenet")
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=(1, 1, 28, 28))[0]))
    weights = {name[:-7]: shape for name, shape in shapes.items() if name.endswith("_weight")}
    assert weights == {
        "stn_loc_conv1": (8, 1, 7, 7), "stn_loc_conv2": (10, 8, 5, 5),
        "stn_loc_fc1": (32, 90), "stn_loc_fc2": (6, 32),
        "conv1": (10, 1, 5, 5), "conv2": (20, 10, 5, 5), "fc1": (50, 320), "fc2": (10, 50)}


@pytest.mark.parametrize("flag", ["training", "always"])
def test_both_dropouts_are_in_the_mode_of_the_flag(flag):
    attributes = symbols.get_symbol("lenet", flag=flag).attr_dict()
    assert [attributes[f"dropout{number}"]["mode"] for number in (1, 2)] == [flag, flag]


def test_always_dropping_makes_predictions_random():
    batch = batch_of((1, 28, 28))
    sampled = bound(symbols.get_symbol("lenet", flag="always"), (1, 28, 28))
    assert (predict(sampled, batch) != predict(sampled, batch)).any()
    fixed = bound(symbols.get_symbol("lenet"), (1, 28, 28))
    np.testing.assert_array_equal(predict(fixed, batch), predict(fixed, batch))


@pytest.mark.parametrize(("network", "wrong", "words"), [
    ("resnet", {"stn_at": "stage4"}, "input, stage1, stage2, stage3, .* got 'stage4'"),
    ("resnet", {"stn_at": "input,input"}, "at most once"),
    ("resnet", {"stn_at": ""}, "stn_at must be of input"),
    ("resnet", {"stn_at": "stage1", "pool": 2}, "need add_stn=True, and input in stn_at"),
    ("resnet", {"target_shape": (8, 8), "add_stn": False}, "need add_stn=True, and input"),
    ("svhn", {"stn_at": "conv1"}, "input, conv2, conv3, conv4, .* got 'conv1'"),
    ("svhn", {"stn_at": "conv2", "target_shape": (32, 32)}, "add_stn=True, and input in stn_at"),
    ("svhn", {"image_shape": (3, 15, 64)}, "needs at least 16 x 16 pixels, got 15 x 64"),
    ("svhn", {"dropout": 1}, "from 0 to less than 1, got 1"),
    ("no-such-network", {}, f"there is {', '.join(symbols.NETWORKS)}"),
    ("lenet", {"pool": 2}, "has no option pool"),
    ("cnn", {"pool": 2}, "classifier needs at least 21 x 21 pixels, got 14 x 14"),
    ("cnn", {"pool": 2, "add_stn": False}, "needs? add_stn=True"),
    ("cnn", {"image_shape": (1, 27, 40)}, "localisation network needs at least 28 x 28"),
    ("cnn", {"image_shape": (1, 20, 40), "add_stn": False}, "classifier needs at least 21"),
    ("mlp", {"pool": 0}, "pool must be a whole number from 1 to 28"),
    ("mlp", {"pool": 29}, "pool must be a whole number from 1 to 28"),
    ("addition", {"pool": 2, "add_stn": False}, "needs? add_stn=True"),
    ("mlp", {"flag": "always"}, "it has num_classes, width, add_stn"),
    ("lenet", {"flag": "sometimes"}, "'training' or 'always'"),
    ("lenet", {"image_shape": (1, 17, 28)}, "localisation network needs at least 18 x 18"),
    ("lenet", {"target_shape": (15, 20)}, "classifier needs at least 16 x 16"),
    ("lenet", {"image_shape": (1, 28, 15), "add_stn": False}, "at least 16 x 16"),
    ("mlp", {"target_shape": (1, 28)}, "at least 2 x 2"),
    ("mlp", {"transform": "tps:1"}, "2 x 2 points or more"),
    ("lenet", {"transform": "no-such-transform"}, "no transform 'no-such-transform'"),
    ("mlp", {"target_shape": (8, 8), "add_stn": False}, "needs? add_stn=True"),
])
def test_wrong_options_are_refused(network, wrong, words):
    with pytest.raises(ValueError, match=words):
        symbols.get_symbol(network, **wrong)


def test_transformers_of_one_name_are_refused(monkeypatch):
    def get_symbol(names):
        data = mx.sym.Variable("data")
        heads = [stn.localisation_head(data, name=name) for name in names]
        parts = [stn.spatial_transformer(data, loc, (6, 7), name=name)
                 for name, loc in zip(names, heads)]
        return mx.sym.concat(*parts, dim=1, name="both")

    monkeypatch.setitem(symbols.NETWORKS, "two", SimpleNamespace(get_symbol=get_symbol))
    assert symbols.get_symbol("two", names=("stn0", "stn1")).list_outputs() == ["both_output"]
    with pytest.raises(ValueError, match="two has more than one stn_loc_fc1_weight: .* names"):
        symbols.get_symbol("two", names=("stn", "stn"))
