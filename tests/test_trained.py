import mxnet as mx
import numpy as np
import pytest

import symbols
from common import checkpoint, export, synthetic, trained
from tests.test_networks import bound

IMAGES, _ = synthetic.draw(30, seed=0)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """An export and the prefix of two checkpoints of one network, and its module."""
    folder, symbol = tmp_path_factory.mktemp("models"), symbols.get_symbol("lenet")
    module = bound(symbol, (1, 28, 28), batch_size=30)
    params = module.get_params()
    export.export(str(folder / "export"), symbol, *params, (1, 28, 28))
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
    with pytest.raises(ValueError, match="of another network|not for images of"):
        trained.load(paths[0]).predictor(image_shape)
    assert capsys.readouterr().out == ""  # where MXNet's infer_shape would print


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
