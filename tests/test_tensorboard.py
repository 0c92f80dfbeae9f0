import filecmp
import io
import os
import struct
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

import symbols
import train_mnist
from common.training.tensorboard import Board, _visible
from tests.test_fit import parsed, run
from tests.test_train_mnist import QUICK

TRANSFORMER = [f"stn_theta_{kind}/{number}" for kind in ("mean", "spread") for number in range(6)]


def events(folder):
    """The events of all files in a folder, oldest first."""
    found = []
    for name in sorted(os.listdir(folder), key=lambda name: os.path.getmtime(folder / name)):
        content, start = (folder / name).read_bytes(), 0
        while start < len(content):
            length, = struct.unpack_from("<Q", content, start)
            found.append(event_pb2.Event.FromString(content[start + 12:start + 12 + length]))
            start += length + 16  # with the length and two checksums
    return found


def values(folder):
    """(tag, step) -> value of all that was written."""
    return {(value.tag, event.step): value
            for event in events(folder) for value in event.summary.value}


@pytest.mark.slow
def test_a_run_and_its_continuation(train, tmp_path):
    flags = [*QUICK, "--add-stn", "--model-prefix"]
    assert train(*flags, tmp_path / "plain").returncode == 0
    logged = [*flags, tmp_path / "a", "--tensorboard", tmp_path / "board" / "a"]
    done = train(*logged)
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(tmp_path / "plain-0002.params", tmp_path / "a-0002.params", shallow=False)

    before = values(tmp_path / "board" / "a")
    assert {step for _, step in before} == {1, 2}
    assert {tag for tag, _ in before} == {
        "learning_rate", "accuracy/train", "accuracy/validation", "loss/train", "loss/validation",
        "stn/inside", "stn/before", "stn/after", *TRANSFORMER}
    for epoch in (0, 1):
        accuracy = before["accuracy/validation", epoch + 1].simple_value
        assert f"Epoch[{epoch}] Validation-accuracy={accuracy:f}" in done.stderr
    assert before["learning_rate", 1].simple_value > before["learning_rate", 2].simple_value > 0
    pictures = [np.asarray(Image.open(io.BytesIO(before[tag, 1].image.encoded_image_string)))
                for tag in ("stn/before", "stn/after")]
    assert pictures[0].shape == pictures[1].shape == (28, 8 * 28, 3)
    assert np.abs(np.subtract(*pictures, dtype=float)).mean() < 10 < pictures[0].mean()

    assert train(*logged, "--load-epoch", 1, "--overwrite").returncode == 0
    after = values(tmp_path / "board" / "a")
    assert set(after) == set(before)
    assert after["loss/train", 2] == before["loss/train", 2]
    starts = [event.step for event in events(tmp_path / "board" / "a")
              if event.HasField("session_log")]
    assert starts == [1, 2]


def test_without_a_transformer(tmp_path):
    run(parsed(tmp_path, "--tensorboard", str(tmp_path / "board")),
        symbols.get_symbol("lenet", add_stn=False))
    assert {tag.partition("/")[0] for tag, _ in values(tmp_path / "board")} == {
        "learning_rate", "accuracy", "loss"}


def test_a_missing_package_is_named_before_the_training(run_main, refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    refused(run_main(train_mnist, *QUICK, "--model-prefix", "a", "--tensorboard", "board"),
            "pip install tensorboardX")
    assert os.listdir(tmp_path) == []


def test_without_the_flag_the_package_is_not_needed(train, tmp_path, monkeypatch):
    (tmp_path / "tensorboardX.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = train(*QUICK, "--network", "mlp", "--model-prefix", "a", cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_a_folder_that_cannot_be_written_is_refused(run_main, refused, tmp_path):
    (tmp_path / "file").write_text("in the way of a folder")
    refused(run_main(train_mnist, *QUICK, "--model-prefix", "a", "--tensorboard",
                     tmp_path / "file" / "board"), str(tmp_path / "file"))
    refused(run_main(train_mnist, *QUICK, "--model-prefix", "a", "--tensorboard", "a-export"),
            "a-export: a file of a itself")
    with pytest.raises(OSError, match="file"):
        Board(str(tmp_path / "file"))
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 1), (3, 3), (64, 1)])
def test_pictures_of_any_range_and_number_of_channels(channels, shown):
    images = np.tile(np.array([-1, 0, 0.5, 9]).reshape(1, 1, 2, 2), (2, channels, 1, 1))
    visible = _visible(images)
    assert visible.dtype == np.uint8
    np.testing.assert_array_equal(visible, np.tile([[0, 0], [128, 255]], (2, shown, 1, 1)))
