"""symbols/blocks.py: transformers and networks as blocks of Gluon."""
import re
from itertools import product

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from mxnet.gluon import nn

import symbols
import train_mnist
from common.graph.rewrite import label_free
from common.models import export_folder, trained
from common.training.recipe import SeededInit
from symbols import stn
from symbols.blocks import SpatialTransformer, as_block, get_params
from tests.conftest import SMALL
from tests.pairwise import pairwise

SHAPE = (12, 14)
TRANSFORMS = [*stn.TRANSFORMS, "tps:3"]
NETWORKS = [(network, {"transform": transform}) for network, transform in product(
    symbols.NETWORKS, stn.TRANSFORMS)] + [("lenet", {"add_stn": False}), ("cnn", {"stable": True})]


def images(count=4, shape=(1, *SHAPE), seed=0):
    return mx.nd.array(np.random.RandomState(seed).rand(count, *shape))


def features():
    return nn.Conv2D(4, 5, strides=2, activation="relu")


def own_network(*transformers):
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(*(make() for make in transformers), nn.Dense(10))
    net.initialize(SeededInit(mx.init.Xavier(), 0))
    return net


def step(net, batch, optimizer="sgd", **options):
    """A step of training on labels 0, 1, ...; returns what the network gave and its gradients."""
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), optimizer, {"learning_rate": 0.05, **options})
    with autograd.record():
        output = net(batch)
        losses = loss(output, mx.nd.arange(len(batch), dtype=batch.dtype))
    losses.backward()
    gradients = {name: parameter.grad().asnumpy()
                 for name, parameter in net.collect_params().items()
                 if parameter.grad_req != "null"}  # which moving means have
    trainer.step(len(batch))
    return output.asnumpy(), gradients


def values(net):
    return {name: parameter.data().asnumpy() for name, parameter in net.collect_params().items()}


def run_module(symbol, params, batch):
    module = mx.mod.Module(symbol, label_names=None)
    module.bind([("data", batch.shape)], for_training=False)
    module.set_params(*params)
    module.forward(mx.io.DataBatch([batch]))
    return module.get_outputs()[0].asnumpy()


@pytest.mark.parametrize(("transform", "bounded", "stable"),
                         pairwise(TRANSFORMS, [False, True], [False, True]))
def test_a_transformer(transform, bounded, stable, tmp_path):
    """It starts at the identity, every parameter learns, hybridized the same, also exported."""
    nets = [own_network(lambda: SpatialTransformer(features(), SHAPE, transform, bounded=bounded,
                                                   stable=stable)) for _ in range(2)]
    batch = images()
    np.testing.assert_allclose(nets[0][0](batch).asnumpy(), batch.asnumpy(), atol=1e-5)
    identity = np.tile(stn.get_transform(transform).identity, (len(batch), 1))
    np.testing.assert_allclose(nets[0][0].theta(batch).asnumpy(), identity, atol=1e-6)
    nets[1].hybridize()
    step(nets[0], batch), step(nets[1], batch)  # the last layer, whose weight of 0 lets nothing by
    (output, gradients), (hybrid, hybrid_gradients) = (step(net, batch) for net in nets)
    np.testing.assert_array_equal(output, hybrid)
    for name, gradient in gradients.items():
        assert gradient.any(), name
        np.testing.assert_array_equal(gradient, hybrid_gradients[name])

    trained = nets[1](batch).asnumpy()
    nets[1].export(str(tmp_path / "net"))
    block = gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"],
                                      str(tmp_path / "net-0000.params"))
    np.testing.assert_array_equal(block(batch).asnumpy(), trained)
    symbol, *params = mx.model.load_checkpoint(str(tmp_path / "net"), 0)
    np.testing.assert_allclose(run_module(symbol, params, batch), trained, atol=1e-5)


def test_any_number_of_transformers_at_the_input_and_within():
    net = own_network(lambda: SpatialTransformer(features(), SHAPE),
                      lambda: SpatialTransformer(features(), SHAPE, "tps"),
                      lambda: nn.Conv2D(3, 3),
                      lambda: SpatialTransformer(nn.Flatten(), (5, 6), "similarity", pool=2))
    step(net, images())
    _, gradients = step(net, images())
    assert all(gradient.any() for gradient in gradients.values())
    outputs = net(mx.sym.Variable("data")).get_internals().list_outputs()
    assert len(set(outputs)) == len(outputs)
    thetas = [name for name in outputs if name.endswith("_stn_theta_output")]
    assert len(thetas) == 3
    assert net[:4](images()).shape == (4, 3, 2, 3)


def test_behind_a_dropout_an_export_predicts_in_a_module(tmp_path):
    net = own_network(lambda: nn.Dropout(0.3), lambda: SpatialTransformer(features(), SHAPE))
    net.hybridize()
    output = net(images()).asnumpy()
    net.export(str(tmp_path / "net"))
    symbol, *params = mx.model.load_checkpoint(str(tmp_path / "net"), 0)
    np.testing.assert_allclose(run_module(symbol, params, images()), output, atol=1e-5)


def test_one_transformer_twice_in_a_network_has_its_parameters_once(tmp_path):
    shared = SpatialTransformer(nn.Conv2D(1, 3, padding=1), SHAPE, prefix="shared_")
    net = own_network(lambda: shared, lambda: shared)
    net.hybridize()
    output = net(images())
    symbol = net(mx.sym.Variable("data"))
    assert len(set(symbol.list_arguments())) == len(symbol.list_arguments()) == 9
    label = mx.sym.Variable("softmax_label")
    export_folder.export(str(tmp_path / "net"), mx.sym.SoftmaxOutput(symbol, label, name="softmax"),
                         *get_params(net, symbol), (1, *SHAPE))
    loaded = trained.load(str(tmp_path / "net"))
    answers = run_module(loaded.symbol, (loaded.arg_params, loaded.aux_params), images())
    np.testing.assert_allclose(answers, mx.nd.softmax(output).asnumpy(), atol=1e-5)


def test_an_export_has_the_multipliers_of_the_parameters(tmp_path):
    net = own_network(lambda: SpatialTransformer(features(), SHAPE))
    net.collect_params().setattr("lr_mult", 0.25)
    net.hybridize()
    net(images())
    net.export(str(tmp_path / "net"))
    noted = mx.sym.load(str(tmp_path / "net-symbol.json")).attr_dict()
    assert {float(noted[name]["__lr_mult__"]) for name in net.collect_params()} == {0.25}


def test_options_reach_the_sampler_and_the_head():
    block = SpatialTransformer(features(), SHAPE, outside="border", num_hidden=7,
                               attr={"lr_mult": 0.5}, prefix="my_")
    assert "my_stn_grid_border_output" in block(
        mx.sym.Variable("data")).get_internals().list_outputs()
    parameters = block.head.collect_params()
    assert {parameter.lr_mult for parameter in parameters.values()} == {0.5}
    block.initialize()
    block(images())
    assert parameters["my_stn_loc_fc1_weight"].shape[0] == 7


def test_float64():
    net = own_network(lambda: SpatialTransformer(features(), SHAPE, "tps"))
    net.cast("float64")
    assert net(images().astype("float64")).dtype == np.float64


@pytest.mark.parametrize(("options", "word"), [
    ({"transform": "no-such-one"}, "no-such-one"), ({"target_shape": 28}, "target_shape"),
    ({"attr": {"wd_mult": 0}}, "wd_mult"), ({"outside": "black"}, "outside")])
def test_bad_options(options, word):
    with pytest.raises(ValueError, match=word):
        SpatialTransformer(features(), **{"target_shape": SHAPE, **options})


@pytest.mark.parametrize("localisation", [None, lambda data: data, nn.Sequential()])
def test_a_localisation_network_that_is_no_hybrid_block(localisation):
    with pytest.raises(ValueError, match="expected a HybridBlock"):
        SpatialTransformer(localisation, SHAPE)


@pytest.mark.parametrize("lr_mult", [0, 0.01, 1])
def test_steps_are_scaled_by_lr_mult(lr_mult):
    def moves(attr):
        net = own_network(lambda: SpatialTransformer(features(), SHAPE, attr=attr))
        net(images())
        before = values(net[0].head)
        step(net, images())
        return {name: value - before[name] for name, value in values(net[0].head).items()}

    scaled, whole = moves({"lr_mult": lr_mult}), moves(None)
    assert sum(move.any() for move in whole.values()) == 2  # behind a weight of 0
    for name, move in scaled.items():
        np.testing.assert_allclose(move, lr_mult * whole[name], rtol=1e-4, atol=1e-7)


def network(name, **options):
    shape = (2, 28, 28) if name == "addition" else (1, 28, 28)
    return symbols.get_symbol(name, image_shape=shape, **SMALL.get(name, {}), **options), shape


def test_several_digits_have_a_softmax_each():
    symbol = symbols.get_symbol("svhn", digits=3, image_shape=(3, 16, 16), width=2)
    deployed = label_free(symbol)
    for ending in (symbol, deployed):
        block = as_block(ending, logits=False)
        block.initialize(SeededInit(mx.init.Xavier(), 3))
        answers = block(images(2, (3, 16, 16)))
        assert answers.shape == (2, 11, 3)
        np.testing.assert_allclose(answers.sum(axis=1).asnumpy(), 1, rtol=1e-5)


def test_a_loss_behind_several_digits_has_the_gradient_of_a_module():
    symbol = symbols.get_symbol("svhn", digits=3, image_shape=(3, 16, 16), width=2, dropout=0)
    data, label = images(4, (3, 16, 16)), mx.nd.array(np.arange(12).reshape(4, 3) % 11)
    own = as_block(symbol, own_loss=True)
    own.initialize(SeededInit(mx.init.Xavier(), 3))
    own(data, label)
    block = as_block(symbol, get_params(own, symbol))
    loss = gluon.loss.SoftmaxCrossEntropyLoss(axis=1)
    with autograd.record():
        losses = 3 * loss(block(data), label), own(data, label)
    autograd.backward(losses)
    for name, parameter in block.collect_params().items():
        np.testing.assert_allclose(parameter.grad().asnumpy(),
                                   own.collect_params()[name].grad().asnumpy(), atol=1e-5)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_a_network_starts_and_learns_as_in_a_module(name, options):
    """In float64, as roundings of float32 grow; and without dropouts, which draw anew."""
    symbol, shape = network(name, **options)
    symbol = without_dropout(symbol)
    batch, labels = images(8, shape).astype("float64"), mx.nd.arange(8, dtype="float64")
    module = mx.mod.Module(symbol)
    module.bind([mx.io.DataDesc("data", batch.shape, "float64")],
                [mx.io.DataDesc("softmax_label", (8,), "float64")])
    module.init_params(SeededInit(mx.init.Xavier(), 3))
    module.init_optimizer(optimizer="sgd", optimizer_params={"learning_rate": 0.05, "wd": 0.01})
    block = as_block(symbol)
    block.cast("float64")
    block.initialize(SeededInit(mx.init.Xavier(), 3))
    block(batch)
    for part, same in zip(module.get_params(), get_params(block, symbol)):
        assert list(part) == list(same)
        for key in part:
            np.testing.assert_array_equal(part[key].asnumpy(), same[key].asnumpy())
    start = values(block)
    for _ in range(3):
        module.forward_backward(mx.io.DataBatch([batch], [labels]))
        module.update()
        step(block, batch, wd=0.01)
    learnt = values(block)
    for key, value in {**module.get_params()[0], **module.get_params()[1]}.items():
        assert (learnt[key] != start[key]).any(), key
        np.testing.assert_allclose(value.asnumpy(), learnt[key], rtol=0, atol=1e-12, err_msg=key)


@pytest.mark.parametrize(("name", "options", "shape", "places"), [
    ("lenet", {}, (1, 28, 28), ()), ("svhn", {"digits": 3, "width": 2}, (3, 16, 16), (3,))])
def test_with_its_own_loss_a_network_learns_as_in_a_module_to_the_bit(name, options, shape, places):
    symbol = without_dropout(symbols.get_symbol(name, image_shape=shape, **options))
    batch = images(8, shape)
    labels = mx.nd.array(np.random.RandomState(0).randint(10, size=(8, *places)))
    module = mx.mod.Module(symbol)
    module.bind([("data", batch.shape)], [("softmax_label", labels.shape)])
    module.init_params(SeededInit(mx.init.Xavier(), 3))
    module.init_optimizer(optimizer="sgd", optimizer_params={"learning_rate": 0.05})
    block = as_block(symbol, own_loss=True)
    block.initialize(SeededInit(mx.init.Xavier(), 3))
    block.hybridize(static_alloc=True, static_shape=True)
    trainer = gluon.Trainer(block.collect_params(), "sgd", {"learning_rate": 0.05})
    for _ in range(3):
        module.forward_backward(mx.io.DataBatch([batch], [labels]))
        module.update()
        with autograd.record():
            answers = block(batch, labels)
        answers.backward()
        trainer.step(len(batch))
        np.testing.assert_array_equal(answers.asnumpy(), module.get_outputs()[0].asnumpy())
    learnt = values(block)
    for key, value in module.get_params()[0].items():
        np.testing.assert_array_equal(value.asnumpy(), learnt[key], err_msg=key)


def without_dropout(symbol):
    return mx.sym.load_json(re.sub(r'"p": "[^"]+"', '"p": "0"', symbol.tojson()))


def test_from_an_export_to_a_block_and_back(tmp_path):
    """Parameters stay equal to the bit; trained on, it is again what a Module loads."""
    folder = "published/mnist-lenet-stn/model"
    symbol, *params = mx.model.load_checkpoint(folder, 0)
    batch = images(shape=(1, 28, 28))
    expected = run_module(symbol, params, batch)
    block = as_block(symbol, params, logits=False)
    np.testing.assert_allclose(block(batch).asnumpy(), expected, atol=1e-6)
    for part, same in zip(params, get_params(block, symbol)):
        assert sorted(part) == sorted(same)
        for name, value in part.items():
            np.testing.assert_array_equal(value.asnumpy(), same[name].asnumpy())
    block = as_block(symbol, params)
    step(block, batch)
    block.hybridize()
    answers = block(batch).asnumpy()
    block.export(str(tmp_path / "on"))
    other, *others = mx.model.load_checkpoint(str(tmp_path / "on"), 0)
    assert other.list_arguments() == symbol.list_arguments()
    np.testing.assert_allclose(run_module(other, others, batch), answers, atol=1e-5)


def test_from_gluon_to_the_training_script_and_back(run_main, tmp_path):
    """Parameters that the script fixes stay equal to the bit; its export is a block again."""
    symbol = symbols.get_symbol("mlp", width=16)
    block = as_block(symbol)
    block.initialize(mx.init.Xavier())
    block.hybridize()
    block(images(shape=(1, 28, 28)))
    block.export(str(tmp_path / "net"))
    done = run_main(train_mnist, "--network", "mlp", "--width", 16, "--add-stn", "--dataset",
                    "synthetic", "--num-examples", 200, "--num-epochs", 1, "--pretrained", "net",
                    "--fix", "stn_", "--model-prefix", "on")
    assert done.returncode == 0, done.stderr
    exported, *params = mx.model.load_checkpoint(str(tmp_path / "on-export" / "model"), 0)
    again = as_block(exported, params)
    before, after = values(block), values(again)
    assert list(before) == list(after)
    for name in before:
        assert (before[name] == after[name]).all() == name.startswith("stn_"), name


def test_what_is_no_network_of_classes_is_refused():
    symbol = symbols.get_symbol("mlp")
    with pytest.raises(ValueError, match="ends in SoftmaxOutput and"):
        as_block(mx.sym.Group([symbol, symbol.get_internals()["stn_output"]]))
    with pytest.raises(ValueError, match="ends in FullyConnected"):
        as_block(symbol.get_children()[0])
    with pytest.raises(ValueError, match="ends in softmax: this block .* a SoftmaxOutput$"):
        as_block(label_free(symbol), own_loss=True)
    with pytest.raises(ValueError, match="params lack stn_loc"):
        as_block(symbol, ({}, {}))


def test_an_export_gives_what_goes_into_its_softmax():
    symbol, *params = mx.model.load_checkpoint("published/mnist-lenet-stn/model", 0)
    batch = images(shape=(1, 28, 28))
    scores = as_block(symbol, params)(batch)
    assert (np.abs(scores.asnumpy().sum(axis=1) - 1) > 0.1).all()
    np.testing.assert_allclose(
        mx.nd.softmax(scores).asnumpy(),
        as_block(symbol, params, logits=False)(batch).asnumpy(), atol=1e-6)


@pytest.mark.parametrize("options", [{"temperature": 3.0}, {"axis": 0}, {"axis": 1}])
def test_the_probabilities_are_those_of_the_symbol_s_own_softmax(options):
    scores = np.random.RandomState(0).randn(4, 3, 5)
    symbol = mx.sym.softmax(mx.sym.Variable("data"), name="softmax", **options)
    wanted = mx.nd.softmax(mx.nd.array(scores), **options).asnumpy()
    np.testing.assert_array_equal(
        as_block(symbol, ({}, {}), logits=False)(mx.nd.array(scores)).asnumpy(), wanted)


@pytest.mark.parametrize("written", ["True", "true", "1"])
def test_a_softmax_over_places_however_the_graph_says_it(written):
    symbol = mx.sym.SoftmaxOutput(mx.sym.Variable("data"), multi_output=True, name="softmax")
    symbol = mx.sym.load_json(symbol.tojson().replace('"multi_output": "True"',
                                                      f'"multi_output": "{written}"'))
    scores = mx.nd.array(np.random.RandomState(0).randn(4, 3, 5))
    np.testing.assert_array_equal(as_block(symbol, ({}, {}), logits=False)(scores).asnumpy(),
                                  mx.nd.softmax(scores, axis=1).asnumpy())


def test_moving_means_of_several_devices_are_their_mean():
    contexts = [mx.cpu(0), mx.cpu(1)]
    net = nn.HybridSequential()
    net.add(nn.BatchNorm())
    net.initialize(ctx=contexts)
    with autograd.record():
        outputs = [net(mx.nd.full((2, 3), value, ctx)) for value, ctx in zip((0, 10), contexts)]
    autograd.backward(outputs)
    _, means = get_params(net, net(mx.sym.Variable("data")))
    mean, = (value.asnumpy() for name, value in means.items() if name.endswith("mean"))
    np.testing.assert_allclose(mean, 0.5, rtol=1e-5)  # of momentum 0.9: of 0 and 1


def test_a_block_of_its_own_loss_asks_for_labels():
    block = as_block(network("mlp")[0], own_loss=True)
    block.initialize(mx.init.Xavier())
    with pytest.raises(ValueError, match="expected data and softmax_label, got 1"):
        block(images(2, (1, 28, 28)))


def test_moving_means_are_taken_as_the_last_step_left_them():
    symbol = symbols.get_symbol("resnet", add_stn=False)
    block = as_block(symbol, own_loss=True)
    block.initialize(SeededInit(mx.init.Xavier(), 0))
    block.hybridize(static_alloc=True, static_shape=True)
    for _ in range(4):
        with autograd.record():
            output = block(images(128, (1, 28, 28)), mx.nd.arange(128) % 10)
        autograd.backward(output)
        taken = get_params(block, symbol)[1]
        mx.nd.waitall()
        for name, value in taken.items():
            np.testing.assert_array_equal(value.asnumpy(),
                                          block.collect_params()[name].data().asnumpy())
