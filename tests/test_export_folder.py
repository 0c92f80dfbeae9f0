"""The folders that other programs load a network from."""
import functools
import itertools
import os
import resource
import shutil
from random import Random

import mxnet as mx
import numpy as np
import pytest

import symbols
from common import files
from common.data import class_list, datasets, synthetic
from common.models import export_folder, trained
from symbols import stn
from tests.test_networks import bound, predict

IMAGES = synthetic.draw(7, seed=0)[0][:, None]
RAW = mx.io.DataBatch([mx.nd.array(IMAGES)])
SCALED = mx.io.DataBatch([mx.nd.array(IMAGES / 255)])
NAMES = sorted([*export_folder.FILES, "SHA256SUMS", "README.md"])


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


def values(outputs, module, batch):
    """What outputs of a network are for a batch in prediction, with the parameters of a Module."""
    executor = outputs.simple_bind(mx.cpu(1), grad_req="null", data=batch.data[0].shape)
    executor.copy_params_from(*module.get_params(), allow_extra_params=True)
    return [value.asnumpy() for value in executor.forward(is_train=False, data=batch.data[0])]


def loaded(folder, batch):
    """What an export says, by MXNet alone."""
    module = mx.mod.Module.load(os.path.join(folder, "model"), 0, label_names=None)
    module.bind([("data", batch.data[0].shape)], for_training=False)
    assert module.output_names == ["softmax_output"]
    return predict(module, batch)


@pytest.mark.parametrize("options", [{"add_stn": False}, *({"transform": transform} for transform in
                                                           (*stn.TRANSFORMS, "tps:3"))], ids=str)
@pytest.mark.parametrize("raw_input", [False, True])
def test_exports_load_in_mxnets_ways(tmp_path, options, raw_input):
    symbol, module = network(**options)
    json_path, params_path = export_folder.export(str(tmp_path), symbol, *module.get_params(),
                                                  (1, 28, 28), raw_input=raw_input)
    expected, batch = predict(module, SCALED), RAW if raw_input else SCALED
    np.testing.assert_allclose(loaded(str(tmp_path), batch), expected, atol=1e-6)
    in_training = mx.mod.Module(mx.sym.load(str(tmp_path / "model-train-symbol.json")))
    in_training.bind([("data", IMAGES.shape)], [("softmax_label", (7,))])
    in_training.set_params(*module.get_params())
    np.testing.assert_allclose(predict(in_training, batch), expected, atol=1e-6)
    in_training.save_checkpoint(str(tmp_path / "further"), 1)
    answers = trained.load(str(tmp_path / "further")).predictor((1, 28, 28))(IMAGES)
    np.testing.assert_allclose(answers, expected, atol=1e-6)
    block = mx.gluon.SymbolBlock.imports(json_path, ["data"], params_path)
    np.testing.assert_allclose(block(batch.data[0]).asnumpy(), expected, atol=1e-6)
    answers = trained.load(str(tmp_path)).predictor((1, 28, 28))(IMAGES)
    np.testing.assert_allclose(answers, expected, atol=1e-6)


def test_params_of_float64_are_exported_as_float32(tmp_path):
    symbol, module = network()
    params = [{name: value.astype("float64") for name, value in params.items()}
              for params in module.get_params()]
    export_folder.export(str(tmp_path), symbol, *params, (1, 28, 28))
    loaded = mx.nd.load(str(tmp_path / "model-0000.params"))
    for name, value in module.get_params()[0].items():
        assert loaded[f"arg:{name}"].dtype == np.float32
        np.testing.assert_array_equal(loaded[f"arg:{name}"].asnumpy(), value.asnumpy())


class Killed(BaseException):
    """In place of a SIGKILL: nothing is tidied up after it."""


@pytest.mark.slow
def test_killed_at_any_step_no_mixture_of_two_exports_loads(tmp_path, monkeypatch):
    old, new = network(add_stn=False), network(add_stn=False, num_classes=10)
    new[1].init_params(mx.init.Uniform(0.1), force_init=True)
    answers = {name: predict(module, SCALED) for name, (_, module) in (("old", old), ("new", new))}
    folder, found = str(tmp_path / "out"), []

    def write(network, raw_input):
        export_folder.export(folder, network[0], *network[1].get_params(), (1, 28, 28),
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
    export_folder.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (0, 1000, 50000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(OSError):  # noqa: PT011  the words are the system's
                export_folder.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28),
                                     raw_input=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["model-symbol.json", "model-0000.params"])
def test_a_damaged_export_is_refused(tmp_path, name):
    symbol, module = network(add_stn=False)
    export_folder.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28))
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
        export_folder.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28))
    assert os.listdir(tmp_path) == ["README.md"]
    (tmp_path / "README.md").unlink()
    (tmp_path / ".new").mkdir()  # of an export that was killed
    export_folder.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28))
    (tmp_path / "mine").write_text("mine")
    export_folder.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28))
    assert sorted(os.listdir(tmp_path)) == sorted([*NAMES, "mine"])


def test_the_card_says_what_mxnet_alone_gets_wrong(tmp_path):
    data = mx.sym.Variable("data")
    convolved = mx.sym.Convolution(data, num_filter=1, kernel=(3, 3), pad=(1, 1), name="conv")
    for name, net in (("sum", data + convolved), ("none", convolved)):
        net = mx.sym.FullyConnected(net, num_hidden=10, name="fc")
        symbol = mx.sym.SoftmaxOutput(net, name="softmax")
        export_folder.export(str(tmp_path / name), symbol,
                             *bound(symbol, (1, 28, 28), 7).get_params(), (1, 28, 28))
        told = "MXNET_DISABLE_MKLDNN_FUSE_CONV_SUM=1" in (tmp_path / name / "README.md").read_text()
        assert told == (name == "sum")


@pytest.mark.parametrize(("options", "told"), [
    ({}, True), ({"stable": True}, False), ({"add_stn": False}, False)])
def test_the_card_says_what_training_it_further_kills(tmp_path, options, told):
    symbol, module = network(**options)
    export_folder.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28))
    assert ("plain SGD may kill" in (tmp_path / "README.md").read_text()) == told


def test_data_of_no_origin_are_those_of_the_flag():
    told = export_folder.about({"flags": {"dataset": "mnist", "data_origin": None}})
    assert told["Data"] == "mnist"


def test_one_export_at_a_time(tmp_path):
    symbol, module = network()
    folder = str(tmp_path / "a")
    with files.exclusive(os.path.join(folder, ".lock")), \
            pytest.raises(ValueError, match="a/.lock: held by another run"):
        export_folder.export(folder, symbol, *module.get_params(), (1, 28, 28))
    export_folder.export(folder, symbol, *module.get_params(), (1, 28, 28))
    assert sorted(os.listdir(folder)) == sorted(NAMES)


def test_a_softmax_over_unknown_axes_is_refused(tmp_path):
    """MXNet takes it over all axes but the first, and a softmax without the label over the last."""
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=10, name="fc")
    net = mx.sym.reshape(net, shape=(0, 10, 1))
    params = {"fc_weight": mx.nd.ones((10, 784)), "fc_bias": mx.nd.ones(10)}
    said = mx.sym.SoftmaxOutput(net, name="softmax", multi_output=True)
    export_folder.export(str(tmp_path), said, params, {}, (1, 28, 28))
    unsaid = mx.sym.SoftmaxOutput(net, name="softmax")
    with pytest.raises(ValueError, match=r"it ends in a softmax of \(N, 10, 1\) that does not "
                                         "say over which axis: give it multi_output=True"):
        export_folder.export(str(tmp_path), unsaid, params, {}, (1, 28, 28))
    beside = mx.sym.SoftmaxOutput(mx.sym.reshape(net, shape=(0, 5, 2)), name="beside")
    both = mx.sym.Group([mx.sym.SoftmaxOutput(mx.sym.flatten(net), name="softmax"), beside])
    export_folder.export(str(tmp_path), both, params, {}, (1, 28, 28))


def test_classes_have_their_names(tmp_path):
    words = datasets.published_names("fashion-mnist")
    assert class_list.fitting(words, 10)[9] == "ankle boot"
    assert class_list.fitting(words, 19) == [str(number) for number in range(19)]
    symbol, module = network()
    with pytest.raises(ValueError, match="2 names of classes, but the network has 10"):
        export_folder.export(str(tmp_path), symbol, *module.get_params(), (1, 28, 28), ["a", "b"])
