import mxnet as mx
import numpy as np
import pytest

import symbols
from common.data import synthetic
from common.models import export_folder, metrics, trained
from common.storage import checkpoint
from tests.test_networks import bound

IMAGES, _ = synthetic.draw(30, seed=0)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """An export and the prefix of two checkpoints of one network, and its module."""
    folder, symbol = tmp_path_factory.mktemp("models"), symbols.get_symbol("lenet")
    module = bound(symbol, (1, 28, 28), batch_size=30)
    params = module.get_params()
    export_folder.export(str(folder / "export"), symbol, *params, (1, 28, 28))
    prefix = str(folder / "a")
    for epoch in (1, 12):
        checkpoint.save(prefix, epoch, symbol, *params, {}, {})
    return str(folder / "export"), prefix, module


def test_an_export_and_a_checkpoint_predict_alike(paths):
    export, prefix, module = paths
    module.forward(mx.io.DataBatch([mx.nd.array(IMAGES[:, None] / 255)]), is_train=False)
    expected = module.get_outputs()[0].asnumpy()
    for path in (export, prefix):
        answers = trained.load(path).predictor((1, 28, 28), batch_size=8)(IMAGES)
        np.testing.assert_allclose(answers, expected, atol=1e-6)


def test_both_say_in_one_way_what_images_they_were_trained_on(paths, tmp_path):
    export, _, module = paths
    checkpoint.save(str(tmp_path / "b"), 1, symbols.get_symbol("lenet"),
                    *module.get_params(), {}, {"image_shape": (1, 28, 28)})
    for path in (export, str(tmp_path / "b")):
        network = trained.load(path)
        assert network.made_for() == (1, 28, 28)
        assert network.predictor(network.made_for())(IMAGES).shape == (30, 10)


@pytest.mark.parametrize("network", ["lenet", "resnet"])  # one with padded layers, and BatchNorm
def test_parameters_of_float64_predict_as_those_of_float32(tmp_path, network):
    symbol = symbols.get_symbol(network)
    params = bound(symbol, (1, 28, 28), batch_size=2).get_params()
    answers = []
    for dtype in ("float32", "float64"):
        checkpoint.save(str(tmp_path / dtype), 1, symbol, *(
            {name: value.astype(dtype) for name, value in part.items()} for part in params), {}, {})
        answers.append(trained.load(str(tmp_path / dtype)).predictor((1, 28, 28))(IMAGES))
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize(("path", "expected"), [
    ("a-0001.params", True), ("a-0012.json", True), ("a-stopped.state", True),
    ("a-symbol.json", True), ("b/../a-0001.state", True), ("a-export/model-0000.params", True),
    ("a-export/README.md", True), ("a/SHA256SUMS", True), ("a-export/score.json", False),
    ("a-export", True), ("a.lock", True), ("a-film", True), ("a-film.gif", True),
    ("a-film/0001.png", True), ("a-films/0001.png", False),
    ("a-b-0001.params", False), ("a-result.json", False), ("b/a-0001.params", False),
    ("a-00012.json", False)])
def test_which_files_are_of_a_network(path, expected):
    assert trained.is_file_of("a", path) == expected


def test_an_export_is_called_by_its_folder_also_from_within(paths, monkeypatch):
    export = paths[0]
    monkeypatch.chdir(export)
    for path in ("model", ".", "./", export):
        assert trained.as_folder(path) == export
    assert trained.as_folder("../export/model") == "../export"
    assert trained.as_folder("../export//") == "../export"
    assert trained.as_folder("/") == "/"
    assert trained.as_folder("") == ""


def test_the_newest_checkpoint_is_taken(paths):
    assert trained.load(paths[1]).path.endswith("a-0012.params")
    assert trained.load(paths[1], epoch=1).path.endswith("a-0001.params")
    assert checkpoint.epochs(paths[1]) == [1, 12]


def test_inner_outputs(paths):
    network = trained.load(paths[0])
    theta = network.predictor((1, 28, 28), "stn_theta_output")(IMAGES)
    np.testing.assert_allclose(theta, np.tile([1, 0, 0, 0, 1, 0], (30, 1)), atol=1e-6)
    picture = network.predictor((1, 28, 28), "stn_output")(IMAGES)
    np.testing.assert_allclose(picture[:, 0], IMAGES / 255, atol=1e-4)
    with pytest.raises(ValueError, match="model-0000.params: the network has no output stn9"):
        network.predictor((1, 28, 28), "stn9_output")


@pytest.mark.parametrize("image_shape", [(1, 42, 42), (3, 28, 28), (1, 5, 5)])
def test_images_of_another_size_are_refused(paths, capsys, image_shape):
    with pytest.raises(ValueError, match="(of another network|not for images of).*; it was trained "
                                         "on images of 1 x 28 x 28$"):
        trained.load(paths[0]).predictor(image_shape)
    with pytest.raises(ValueError, match="not for images of") as refusal:
        trained.load(paths[1]).predictor(image_shape)  # whose checkpoint does not say it
    assert "trained on" not in str(refusal.value)
    assert capsys.readouterr().out == ""  # where MXNet's infer_shape would print


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_refused(paths, tmp_path, value):
    args, aux_states = paths[2].get_params()
    args = dict(args, stn_loc_fc2_bias=mx.nd.full(args["stn_loc_fc2_bias"].shape, value))
    checkpoint.save(str(tmp_path / "a"), 1, symbols.get_symbol("lenet"), args, aux_states, {}, {})
    with pytest.raises(ValueError, match="a-0001.params: stn_loc_fc2_bias is not finite"):
        trained.load(str(tmp_path / "a"))


def test_what_is_no_network_is_refused(paths, tmp_path):
    with pytest.raises(FileNotFoundError, match="neither the folder of an export nor the prefix"):
        trained.load(str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="a-0003.params: there is no such"):
        trained.load(paths[1], epoch=3)
    for name in ("b-symbol.json", "b-0001.params"):
        (tmp_path / name).write_bytes(b"\xff\xfe not this")
    with pytest.raises(ValueError, match="b-symbol.json: not a symbol"):
        trained.load(str(tmp_path / "b"))


def test_a_node_may_be_called_as_that_which_scales_pixels(tmp_path):
    data = mx.sym.var("data")
    symbol = mx.sym.softmax(mx.sym.flatten(mx.sym.square(data, name="data_scaled")))
    mx.nd.save(str(tmp_path / "a-0001.params"), {"arg:unused": mx.nd.ones(1)})
    (tmp_path / "a-symbol.json").write_text(symbol.tojson())
    answers = trained.load(str(tmp_path / "a")).predictor((1, 28, 28), batch_size=2)(IMAGES[:2])
    pixels = mx.nd.array(IMAGES[:2].reshape(2, 784) / 255)
    np.testing.assert_allclose(answers, mx.nd.softmax(pixels ** 2).asnumpy(), atol=1e-7)


def features(name="data"):
    """(N, 4, 8, 8)."""
    return mx.sym.Convolution(mx.sym.Variable(name), kernel=(3, 3), pad=(1, 1), num_filter=4,
                              name="conv")


def scores(name="data"):
    """(N, 4), of the pixels (N, 4, 8, 8)."""
    return mx.sym.FullyConnected(features(name), num_hidden=4, name="fc")


def pixel():
    """(N, 4, 1, 1)."""
    return mx.sym.Pooling(features(), global_pool=True, kernel=(1, 1), pool_type="avg")


def softmax(net, **attrs):
    return mx.sym.SoftmaxOutput(net, name="softmax", **attrs)


def loss_and_answers():
    answers = mx.sym.softmax(scores(), name="answers")
    errors = mx.sym.square(answers - mx.sym.Variable("softmax_label"))
    return mx.sym.Group([mx.sym.MakeLoss(errors, name="loss"), mx.sym.BlockGrad(answers)])


def map_and_answers():
    answers = softmax(scores())
    return mx.sym.Group([mx.sym.BlockGrad(answers.get_internals()["conv_output"]), answers])


# What MXNet answers with: the symbol, the shape of its label, the number of the output.
CLASSIFIERS = {
    "in training alone": (lambda: softmax(scores(), grad_scale=2, use_ignore=True, ignore_label=1,
                                          normalization="batch", smooth_alpha=0.1), (5,), 0),
    "multi_output": (lambda: softmax(scores(), multi_output="true"), (5,), 0),
    "preserve_shape": (lambda: softmax(scores(), preserve_shape=True), (5,), 0),
    "multi_output of a pixel": (lambda: softmax(pixel(), multi_output=1), (5, 1), 0),
    "the second of a group": (map_and_answers, (5,), 1),
    "a loss of one's own": (loss_and_answers, (5, 4), 1),
    "flattened": (lambda: mx.sym.Flatten(softmax(pixel(), multi_output=True)), (5, 1), 0),
    "another input": (lambda: softmax(scores("data0")), (5,), 0),
}
OTHERS = {
    "logits": (scores, None, "ends in FullyConnected fc, whose answers (N, 4) are not"),
    "log_softmax": (lambda: mx.sym.log_softmax(scores(), name="log"), None, "ends in log_softmax"),
    "logistic": (lambda: mx.sym.LogisticRegressionOutput(scores(), name="softmax"), (5, 4),
                 "ends in LogisticRegressionOutput softmax, whose answers (N, 4) are not"),
    "linear": (lambda: mx.sym.LinearRegressionOutput(scores(), name="softmax"), (5, 4),
               "ends in LinearRegressionOutput softmax"),
    "MAE": (lambda: mx.sym.MAERegressionOutput(scores(), name="softmax"), (5, 4),
            "ends in MAERegressionOutput softmax"),
    "pixels": (lambda: softmax(features(), multi_output=True), (5, 64), "(N, 4, 8, 8)"),
    "rows of pixels": (lambda: softmax(features(), preserve_shape=True), (5, 4, 8), "(N, 4, 8, 8)"),
}
SMALL = np.random.RandomState(0).randint(0, 256, (5, 8, 8)).astype(np.uint8)


def saved(folder, symbol, label_shape=None):
    """A checkpoint that MXNet itself writes: its prefix, and all that its Module answers SMALL."""
    name = next(name for name in symbol.list_arguments() if name.startswith("data"))
    module = mx.mod.Module(symbol, [name], label_shape and ["softmax_label"], context=mx.cpu(1))
    module.bind([(name, (5, 1, 8, 8))], label_shape and [("softmax_label", label_shape)],
                for_training=False)
    mx.random.seed(0)
    module.init_params(mx.init.Xavier(magnitude=6))
    module.save_checkpoint(str(folder / "a"), 1)
    module.forward(mx.io.DataBatch([mx.nd.array(SMALL[:, None] / 255)]), is_train=False)
    return str(folder / "a"), [output.asnumpy() for output in module.get_outputs()]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_class_probabilities_are_those_of_mxnets_module(tmp_path, name):
    build, label_shape, number = CLASSIFIERS[name]
    prefix, expected = saved(tmp_path, build(), label_shape)
    answers = metrics.probabilities(trained.load(prefix), SMALL)
    np.testing.assert_allclose(answers, expected[number].reshape(5, 4), atol=1e-6)
    assert answers.std(axis=0).max() > 0.001


@pytest.mark.parametrize("name", OTHERS)
def test_other_answers_are_no_class_probabilities(tmp_path, name):
    build, label_shape, words = OTHERS[name]
    prefix, (expected,) = saved(tmp_path, build(), label_shape)
    network = trained.load(prefix)
    np.testing.assert_allclose(network.predictor((1, 8, 8))(SMALL), expected, atol=1e-6)
    with pytest.raises(metrics.NoProbabilities) as error:
        metrics.probabilities(network, SMALL)
    assert words in str(error.value)


def test_of_two_softmaxes_neither_is_taken(tmp_path):
    one = scores()
    both = mx.sym.Group([mx.sym.softmax(one, name="a"), mx.sym.softmax(one * 2, name="b")])
    network = trained.load(saved(tmp_path, both)[0])
    with pytest.raises(metrics.NoProbabilities, match="softmax a and softmax b; of several"):
        metrics.probabilities(network, SMALL)
    with pytest.raises(ValueError, match="one output, got a_output, b_output"):
        network.predictor((1, 8, 8))


def test_a_network_of_two_inputs_is_refused(tmp_path):
    symbol = softmax(scores("data0") + mx.sym.FullyConnected(mx.sym.Variable("more"), num_hidden=4))
    prefix, _ = saved(tmp_path, softmax(scores()), (5,))
    symbol.save(f"{prefix}-symbol.json")
    with pytest.raises(ValueError, match="a-symbol.json: expected one input .* got data0, more"):
        trained.load(prefix)
