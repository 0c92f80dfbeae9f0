import json
import subprocess
import sys

import numpy as np
import pytest

from experiments import recover_theta
from experiments.recover_theta import SHAPE, draw, point_errors, residuals
from symbols import stn
from tests.conftest import ROOT


def identities(transform, count):
    return np.tile(stn.get_transform(transform).identity, (count, 1))


@pytest.mark.parametrize("transform", ["translation", "affine"])
def test_the_exact_inverse_has_no_error(transform):
    distortion = draw(transform, 5, np.random.RandomState(0))
    inverse = -distortion if transform == "translation" else stn.invert(distortion)
    ink = np.ones((5, 1, *SHAPE))
    assert point_errors(transform, distortion, inverse, ink) < 1e-4
    assert all(error < 1e-9 for error in residuals(transform, distortion, inverse).values())


def test_the_figures_are_in_their_units():
    ink = np.ones((1, 1, *SHAPE))
    shift = np.array([[4 / 13.5, 3 / 13.5]])  # 5 pixels
    nothing = identities("translation", 1)
    assert point_errors("translation", shift, nothing, ink) == pytest.approx(5)
    assert residuals("translation", shift, nothing)["shift"] == pytest.approx(5)
    similar = np.array([[1.1, np.radians(20), 0, 0]])
    left = residuals("similarity", similar, identities("similarity", 1))
    assert left == pytest.approx({"angle": 20, "scale": 10, "shift": 0}, abs=1e-9)


@pytest.mark.parametrize("transform", stn.TRANSFORMS)
def test_there_is_a_distortion_for_every_transform(transform):
    drawn, identity = draw(transform, 100, np.random.RandomState(0)), identities(transform, 100)
    assert drawn.shape == identity.shape
    assert (np.ptp(drawn, axis=0) > 0.1).all()
    assert (np.abs(drawn - identity) <= stn.get_transform(transform).reach).all()


@pytest.mark.slow
def test_rotations_are_learnt(tmp_path):
    done = subprocess.run([sys.executable, "-m", "experiments.recover_theta",
                           "--transforms", "rotation",
                           "--num-epochs", "3", "--num-examples", "5000",
                           "--result", str(tmp_path / "a.json")],
                          cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].startswith("| rotation | ")
    figures = json.loads((tmp_path / "a.json").read_text())["transforms"]["rotation"]
    before, after = figures["angle"]
    assert 28 < before < 32
    assert after < 0.7 * before
    upright, distorted, straightened = figures["accuracy"]
    assert upright > straightened > distorted


def test_a_stopped_one_goes_on(run_main, refused, tmp_path, monkeypatch):
    asked = []

    def stopped(transform, images, *_):
        asked.append(transform)
        if asked == ["rotation", "affine"]:
            raise KeyboardInterrupt
        return learnt(transform, images, 1, 0)

    learnt = recover_theta.train
    monkeypatch.setattr(recover_theta, "train", stopped)
    flags = ["--num-epochs", 1, "--num-examples", 200, "--result", tmp_path / "a.json"]
    assert run_main(recover_theta, *flags, "--transforms", "rotation", "affine").returncode == 130
    done = run_main(recover_theta, *flags, "--transforms", "affine", "rotation")
    assert done.returncode == 0, done.stderr
    assert asked == ["rotation", "affine", "affine"]
    assert [line[2:8] for line in done.stdout.splitlines()[2:]] == ["affine", "rotati"]
    refused(run_main(recover_theta, *flags[2:]), "of other settings")
    assert set(json.loads((tmp_path / "a.json").read_text())["transforms"]) == {
        "rotation", "affine"}


def test_batches_are_whole():
    images, labels = recover_theta.whole_batches(np.zeros((150, *SHAPE)), np.zeros(150))
    assert images.shape == (100, 1, *SHAPE)
    assert labels.shape == (100,)
