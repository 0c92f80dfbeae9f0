"""Pictures of what transformers do: the numbers in them, and the script that draws them."""
import io

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

import symbols
import visualize_stn
from common.data import records, synthetic
from common.graph import rewrite
from common.models import export_folder, trained
from common.reports import pictures, visualise
from common.storage import checkpoint
from symbols import stn
from tests.conftest import run_script
from tests.test_networks import bound

IMAGES, LABELS = synthetic.draw(12, seed=0)


def network_with(theta, transform, network="lenet", **options):
    """An untrained network whose transformers all give one theta."""
    shape = options.get("image_shape", (1, 28, 28))
    symbol = symbols.get_symbol(network, transform=transform, **options)
    arg_params, aux_params = bound(symbol, shape).get_params()
    for name in arg_params:
        if name.endswith("_loc_fc2_bias"):
            arg_params[name] = mx.nd.array(theta)
    return trained.Trained("here", rewrite.label_free(symbol), arg_params, aux_params)


@pytest.mark.parametrize(("transform", "theta"), [
    ("translation", [0.5, -0.25]), ("affine", [0.5, 0.2, 0.1, -0.3, 0.8, -0.4]),
    ("projective", [0.9, 0.1, 0, 0, 1.1, 0, 0.2, -0.1]), ("rotation", [1.2])])
def test_the_outline_is_where_numpy_says(transform, theta):
    seen = visualise.look(network_with(theta, transform), IMAGES)
    view, = seen.views
    assert view.name == "stn"
    np.testing.assert_allclose(view.theta, np.tile(theta, (12, 1)), atol=1e-6)
    expected = stn.outline(view.theta, (28, 28), (28, 28), transform)
    np.testing.assert_allclose(view.outlines, expected, atol=1e-3)
    assert seen.probabilities.shape == (12, 10)
    assert (view.shown, view.output.shape) == ("stn", (12, 1, 28, 28))


def test_a_half_zoom_is_a_centred_square():
    view, = visualise.look(network_with([0.5, 0, 0], "attention"), IMAGES).views
    corners = view.outlines[0][[0, 27, 54, 81, 108]]
    np.testing.assert_allclose(
        corners, [[6.75, 6.75], [20.25, 6.75], [20.25, 20.25], [6.75, 20.25], [6.75, 6.75]],
        atol=1e-4)


@pytest.mark.parametrize(("scale", "turn", "mirror"), [(0.8, 40, 1), (1.2, -130, 1), (0.5, 0, -1)])
@pytest.mark.parametrize("shape", [(28, 28), (20, 40)])
def test_poses_say_how_frames_lie(scale, turn, mirror, shape):
    y, x = np.meshgrid(*(np.arange(size) - (size - 1) / 2 for size in shape), indexing="ij")
    turned = scale * np.exp(1j * np.radians(turn)) * (mirror * x + 1j * y)  # clockwise: y is down
    points = np.stack([turned.real + 3, turned.imag - 2], axis=-1) * 2 / np.subtract(shape[::-1], 1)
    pose, = visualise.poses(points[None], shape)
    np.testing.assert_allclose(pose, [turn, mirror * scale, 3, -2], atol=1e-9)


def test_a_spline_s_outline_is_curved_and_drawn_as_it_is():
    theta = np.array(stn.get_transform("tps:3").identity)
    theta[1] += 0.2  # the middle point of the upper border moves to the right ...
    theta[10] -= 0.3  # ... and up
    seen = visualise.look(network_with(theta, "tps:3"), IMAGES)
    upper = seen.views[0].outlines[0][:28]
    assert upper[:, 1].min() == pytest.approx(-0.15 * 27, abs=0.1)
    figure = visualise.draw(seen, LABELS)
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xydata(), seen.views[0].outlines[0])


def test_two_transformers_on_two_channels():
    network = network_with([1, 0, 0, 0, 1, 0], "affine", "addition", image_shape=(2, 30, 40))
    seen = visualise.look(network, np.zeros((3, 2, 30, 40), np.uint8))
    assert [view.name for view in seen.views] == ["stn0", "stn1"]
    figure = visualise.draw(seen, [1, 2, 3], "a title")
    assert len(figure.axes) == 3 * 3
    outlines = figure.axes[0].lines[::2]  # behind each its dot
    labels = [text for text in figure.texts if text.get_text().startswith("stn")]
    assert [text.get_text() for text in labels] == ["stn0", "stn1"]
    assert [text.get_color() for text in labels] == [line.get_color() for line in outlines]
    assert len({line.get_linestyle() for line in outlines}) == 2
    assert "a title: true → predicted class" in texts(figure)
    lines = list(visualise.describe(seen, [1, 2, 3]))
    assert len(lines) == 3
    assert "stn1 theta 1.000 0.000" in lines[0]


def texts(figure):
    """Text -> colour of what stands beside the pictures."""
    return {text.get_text(): text.get_color() for text in figure.texts}


def test_what_is_drawn_is_what_the_classifier_sees():
    network = network_with([0.5, 0, 0, 0, 0.5, 0], "affine", "mlp", pool=2)
    view, = visualise.look(network, IMAGES).views
    assert (view.name, view.shown, view.output.shape) == ("stn", "stn_pool", (12, 1, 14, 14))
    warped = network.predictor((1, 28, 28), "stn_output", batch_size=12)(IMAGES[:, None])
    np.testing.assert_allclose(
        view.output, warped.reshape(12, 1, 14, 2, 14, 2).mean(axis=(3, 5)), atol=1e-6)


def test_predictions_are_drawn_and_mistakes_stand_out():
    seen = visualise.look(network_with([0, 0], "translation"), IMAGES)
    answers = seen.probabilities.argmax(axis=1)
    labels = answers.copy()
    labels[0] = (labels[0] + 1) % 10
    drawn = texts(visualise.draw(seen, labels))
    assert drawn[f"{labels[0]} → {answers[0]}"] == visualise.WRONG
    assert drawn[f"{labels[1]} → {answers[1]}"] == visualise.RIGHT != visualise.WRONG
    assert {"input", "stn"} <= set(drawn)


def test_classes_are_told_by_their_names():
    names = [f"shape {number}" for number in range(10)]
    network = network_with([0, 0], "translation")
    seen = visualise.look(network, IMAGES)
    answer = seen.probabilities[0].argmax()
    line = next(visualise.describe(seen, [3, 4], names=names))
    assert line.startswith(f"0: shape 3, predicted shape {answer} (")


@pytest.mark.parametrize("shape", [(28, 28), (20, 40), (40, 20)])
def test_images_are_as_large_wherever_outlines_are_and_near_their_own_pictures(shape):
    images = np.zeros((12, 1, *shape))
    figures = [pictures.transformed(
        images, 12 * [("1", "black")],
        {"stn": (scale * np.tile([[-9, -9], [50, -9], [50, 50]], (12, 1, 1)), images)})
        for scale in (0.1, 3)]
    (image, picture, beside, *_), (other, *_) = (figure.axes for figure in figures)
    assert (image.get_xlim(), image.get_ylim()) == (other.get_xlim(), other.get_ylim())
    assert image.get_position().bounds == other.get_position().bounds
    left, top = image.transData.transform((-0.5, -0.5))
    right, bottom = image.transData.transform(np.subtract(shape[::-1], 0.5))
    box = picture.get_window_extent()
    np.testing.assert_allclose((box.x0, box.x1), (left, right))  # drawn as large as its image
    np.testing.assert_allclose(box.height, top - bottom)
    next_left = beside.transData.transform((-0.5, -0.5))[0]
    assert 0 < bottom - box.y1 < next_left - right


def sampled_by_grid_generator(transform_type, loss=None):
    """A network from elsewhere: theta, or a flow in pixels, is the same for each image."""
    data = mx.sym.Variable("data")
    affine = {"num_hidden": 6} if transform_type == "affine" else {"num_hidden": 2 * 28 * 28}
    theta = mx.sym.FullyConnected(data, name="loc", **affine)
    if transform_type == "warp":
        theta = mx.sym.Reshape(theta, shape=(-1, 2, 28, 28))
    grid = mx.sym.GridGenerator(theta, transform_type, target_shape=(28, 28))
    net = mx.sym.BilinearSampler(data, grid, name="sampler")
    symbol = (loss or mx.sym.SoftmaxOutput)(
        mx.sym.FullyConnected(net, num_hidden=10, name="fc"), name="softmax")
    arg_shapes, _, _ = symbol.infer_shape(data=(1, 1, 28, 28))
    params = {name: mx.nd.random.uniform(-0.1, 0.1, shape)
              for name, shape in zip(symbol.list_arguments(), arg_shapes)}
    params["loc_weight"][:] = 0
    if transform_type == "affine":
        params["loc_bias"] = mx.nd.array([0.5, 0.2, 0.1, -0.3, 0.8, -0.4])
    else:  # 2.7 pixels to the right, 1.35 up
        params["loc_bias"] = mx.nd.array(np.repeat([2.7, -1.35], 28 * 28))
    return trained.Trained("here", symbol, params, {})


@pytest.mark.parametrize(("transform_type", "words", "upper_left"), [
    ("affine", "sampler theta 0.500 0.200 0.100 -0.300 0.800 -0.400", (-0.6, -0.9)),
    ("warp", "sampler grid x from -0.800 to 1.200, y from -1.100 to 0.900", (-0.8, -1.1))])
def test_a_grid_generator_from_elsewhere(transform_type, words, upper_left):
    seen = visualise.look(sampled_by_grid_generator(transform_type), IMAGES)
    np.testing.assert_allclose(seen.views[0].outlines[:, 0],
                               np.tile((np.array(upper_left) + 1) / 2 * 27, (12, 1)), atol=1e-4)
    lines = list(visualise.describe(seen, LABELS, 5))
    answer, probability = seen.probabilities[1].argmax(), seen.probabilities[1].max()
    assert lines[1] == f"6: {LABELS[1]}, predicted {answer} ({probability:.3f}), {words}"


def test_what_is_no_probability_is_not_printed_as_one(caplog):
    network = sampled_by_grid_generator("affine", mx.sym.LogisticRegressionOutput)
    seen = visualise.look(network, IMAGES)
    assert "No predictions are shown" in caplog.text
    assert "ends in LogisticRegressionOutput softmax" in caplog.text
    drawn = texts(visualise.draw(seen, LABELS))
    assert set(drawn) == {"input", "sampler", *map(str, LABELS)}
    assert {drawn[str(label)] for label in LABELS} == {"black"}
    assert next(visualise.describe(seen, LABELS)).startswith(f"0: {LABELS[0]}, sampler theta 0.500")


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_images_of_any_channels_become_colours(channels):
    images = np.random.RandomState(0).uniform(-0.5, 1.5, (2, channels, 4, 5))
    colours = pictures.as_rgb(images)
    assert colours.shape == (2, 4, 5, 3)
    assert colours.min() == 0
    assert colours.max() <= 1


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """Three checkpoints."""
    path, symbol = str(tmp_path_factory.mktemp("models") / "a"), symbols.get_symbol("lenet")
    for epoch in (1, 2, 3):
        params = bound(symbol, (1, 28, 28), seed=epoch).get_params()
        checkpoint.save(path, epoch, symbol, *params, {}, {})
    return path


SYNTHETIC = ["--dataset", "synthetic", "--num-examples", 500]


def test_the_script_draws_and_prints(prefix):
    done = run_script("visualize_stn.py", prefix, *SYNTHETIC, "--num-images", 3, "--first", 7)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
    assert done.stdout.startswith("7: ")
    assert "stn theta 1.000" in done.stdout
    assert done.stdout.endswith(f"Test images: synthetic\nDrawn: {prefix}-stn.png\n")
    with Image.open(f"{prefix}-stn.png") as picture:
        assert 300 < picture.size[0] < 400


def test_the_script_animates_checkpoints(run_main, prefix, tmp_path):
    done = run_main(visualize_stn, prefix, *SYNTHETIC, "--num-images", 2, "--animate",
                    "--output", "a.gif")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 3


@pytest.mark.parametrize(("flags", "words"), [
    (["nothing"], ["nothing", "neither the folder of an export nor the prefix"]),
    (["nothing", "--animate"], ["nothing", "prefix of checkpoints"]),
    (["PREFIX", "--distort", "RTS"], ["0003.params", "not for images of 1 x 42 x 42"]),
    (["PREFIX", "--first", 95], ["--first 95", "only 100 test images"]),
    (["PREFIX", "--load-epoch", 9], ["0009.params", "no such"]),
    (["PREFIX", "--output", "/proc/a.png"], ["/proc/a.png", "cannot be written"]),
    (["PREFIX", "--output", ""], ["--output", "expected a path"]),
    (["PREFIX", "--output", "a.gif"], ["a.gif: the picture is none of that kind", ".png"]),
    (["PREFIX", "--animate", "--output", "a.png"], ["a.png", "none of that kind", ".gif"]),
    (["PREFIX", "--animate", "--load-epoch", "1"], ["--load-epoch", "with --animate"]),
    (["PREFIX", "--num-images", 0], ["--num-images", "at least 1"]),
])
def test_bad_input_is_refused(run_main, refused, prefix, flags, words):
    flags = [prefix if flag == "PREFIX" else flag for flag in flags]
    refused(run_main(visualize_stn, *flags, *SYNTHETIC), *words)


def test_a_network_without_transformer_is_refused(run_main, tmp_path, refused):
    symbol = symbols.get_symbol("lenet", add_stn=False)
    params = bound(symbol, (1, 28, 28)).get_params()
    export_folder.export(str(tmp_path / "a"), symbol, *params, (1, 28, 28))
    refused(run_main(visualize_stn, "a", *SYNTHETIC), "no transformer")


def test_pictures_of_a_file_that_is_read_as_it_is_used_look_alike(tmp_path):
    images = synthetic.noise(5, seed=0, image_shape=(1, 28, 28), num_classes=2)[0]
    with open(tmp_path / "a.rec", "wb") as file:
        for image in images:
            encoded = io.BytesIO()
            Image.fromarray(image[0]).save(encoded, "PNG")
            file.write(records.frame(records.HEADER.pack(0, 1, 0, 0) + encoded.getvalue()))
    stream = records.Stream(records.Reader(str(tmp_path / "a.rec"))).with_ndim(3)
    network = network_with([0.5, 0, 0, 0, 0.5, 0], "affine")
    one, other = (visualise.look(network, few) for few in (images[:3], stream[:3]))
    assert type(other.images) is np.ndarray
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.views[0].output, other.views[0].output)


def test_a_film_without_pictures_is_none(tmp_path):
    film = visualise.Film(str(tmp_path / "film"), IMAGES, LABELS)
    assert not film.join(str(tmp_path / "film.gif"))
    assert not list(tmp_path.glob("*.gif"))
