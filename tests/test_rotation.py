"""The experiment on digits turned by any angle."""
import os
import shutil

import numpy as np
import pytest

from common.reports import results
from experiments import rotation
from tests.conftest import ROOT
from tests.experiment_rows import check_page, check_runs


def test_the_networks_have_as_many_parameters():
    counts = check_runs(rotation.EXPERIMENT)
    assert max(counts) < 1.01 * min(counts)


def test_the_tables_of_the_page_are_those_of_the_results():
    check_page(rotation.EXPERIMENT, results.table)


def test_digits_that_end_upside_down_are_along_the_axis_too():
    rng = np.random.RandomState(0)
    true = rng.uniform(-180, 180, 3000)
    undone = true - 70 + 180 * rng.randint(2, size=3000) + rng.uniform(-25, 25, 3000)
    assert rotation.along_an_axis(true, undone) == 1
    assert rotation.along_an_axis(true, np.full(3000, 47)) == pytest.approx(1 / 3, abs=0.03)
    undone[:600] = true[:600] - 160  # across
    assert rotation.along_an_axis(true, undone) == pytest.approx(0.8, abs=0.01)


def test_what_the_transformers_turn_back_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(rotation, "DRAWN", 50)
    rows = [row for row, flags in rotation.EXPERIMENT.rows.items() if "--add-stn" in flags]
    for row in rows:
        shutil.copytree(os.path.join(ROOT, "published", "mnist-R-cnn-stn"),
                        tmp_path / row / "seed-0-export")
    rotation.draw(str(tmp_path), str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    shutil.rmtree(tmp_path / rows[-1])
    with pytest.raises(FileNotFoundError, match=f"{rows[-1]}/seed-0-export"):
        rotation.draw(str(tmp_path), str(tmp_path / "a.png"))


def test_a_picture_of_what_is_not_trained_is_refused(run_main, refused, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    refused(run_main(rotation, "--draw"), "neither the folder of an export")
