"""The runs of paper.py: real processes, one of them stopped."""
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import paper
import symbols
from common import checkpoint, synthetic
from common.distort import distort, task
from symbols import stn
from tests.conftest import ROOT
from tests.test_networks import bound

IMAGES, _ = synthetic.draw(50, seed=0)

TINY = ["--cpus", "1", "--batch-size", "20", "--dataset", "synthetic", "--num-examples", "400"]
RUNS = [paper.Run("FCN", "R", 0, epochs=2), paper.Run("ST-FCN affine", "R", 0, epochs=2)]


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(paper, "RECIPE", TINY)
    monkeypatch.chdir(ROOT)


def value(flags, name):
    return flags[flags.index(name) + 1] if name in flags else None


def parameters(run):
    """How many parameters the network of a run has."""
    flags, (fresh, num_classes) = run.flags(), task(run.column)
    images, _ = fresh(*synthetic.draw(1, seed=0), 0)
    shape = images.reshape(1, -1, *images.shape[-2:]).shape[1:]  # (C, H, W)
    options = {name: int(value(flags, f"--{name}")) for name in ("width", "pool")
               if f"--{name}" in flags}
    if "--add-stn" in flags:
        options["transform"] = value(flags, "--transform")
    symbol = symbols.get_symbol(value(flags, "--network"), num_classes=num_classes,
                                image_shape=shape, add_stn="--add-stn" in flags, **options)
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=(1, *shape))[0]))
    return sum(math.prod(shape) for name, shape in shapes.items()
               if name not in ("data", "softmax_label"))


@pytest.mark.parametrize("column", ["R", "RTS", "P", "E", "TC", "addition"])
@pytest.mark.parametrize("family", ["FCN", "CNN"])
def test_the_networks_of_a_column_have_as_many_parameters(column, family):
    counts = {run.row: parameters(run) for run in paper.all_runs()
              if run.column == column and run.seed == 0 and family in run.row}
    assert max(counts.values()) < 1.01 * min(counts.values())


def test_the_tables_are_complete():
    runs = paper.all_runs()
    assert len(set(runs)) == len(runs) == 3 * (36 + 6)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    assert len(paper.quick_runs()) == 4


def test_what_is_missing_is_trained(tiny, tmp_path, capsys):
    paper.train(RUNS, 2, str(tmp_path / "results"), str(tmp_path / "models"))
    assert "0 of 2 runs are done" in capsys.readouterr().out
    left = {path.name for path in (tmp_path / "models" / "R" / "fcn").iterdir()}
    assert left == {"seed-0.log", "seed-0-export", "seed-0-symbol.json"}
    before = (tmp_path / "results" / "R" / "fcn" / "seed-0.json").read_bytes()
    paper.train(RUNS, 2, str(tmp_path / "results"), str(tmp_path / "models"))
    assert "2 of 2 runs are done" in capsys.readouterr().out
    assert (tmp_path / "results" / "R" / "fcn" / "seed-0.json").read_bytes() == before


def test_runs_that_were_stopped_go_on_to_the_same_figures(tiny, tmp_path):
    run = RUNS[1]._replace(epochs=6)
    paper.train([run], 1, str(tmp_path / "undisturbed"), str(tmp_path / "models"))
    folders = [str(tmp_path / "results"), str(tmp_path / "scratch")]
    code = (f"import signal, paper; signal.signal(15, signal.default_int_handler); "
            f"paper.RECIPE = {TINY}; paper.train([paper.{run}], 1, *{folders})")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    prefix = os.path.join(folders[1], run.name)
    while not os.path.exists(f"{prefix}-0002.params"):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert b"KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert not os.path.exists(paper.result_path(folders[0], run))
    paper.train([run], 1, *folders)
    figures = [json.loads((tmp_path / name / f"{run.name}.json").read_text())
               for name in ("undisturbed", "results")]
    assert "--load-epoch" in figures[1]["command"]
    for name in ("test_accuracy", "test_loss", "train_loss"):
        assert figures[0][name] == figures[1][name]


def test_failed_runs_are_reported_and_the_others_done(tiny, tmp_path):
    wrong = paper.Run("CNN", "R", -1, epochs=1)
    with pytest.raises(ValueError, match="1 of 2 runs failed: see .*cnn.seed--1.log"):
        paper.train([wrong, RUNS[0]], 1, str(tmp_path / "results"), str(tmp_path / "models"))
    assert os.path.exists(paper.result_path(str(tmp_path / "results"), RUNS[0]))


def test_a_table_compares_with_the_paper(tmp_path):
    for seed, accuracy in enumerate((0.98, 0.99)):
        path = tmp_path / "R" / "st-cnn-tps" / f"seed-{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"test_accuracy": accuracy}))
    lines = paper.markdown(str(tmp_path)).splitlines()
    assert "| ST-CNN tps | 1.50 ± 0.71 (0.7, +0.80) | (0.5) | (0.8) | (1.1) |  |" in lines
    path.write_text("{}")
    with pytest.raises(ValueError, match="seed-1.json: not a result"):
        paper.markdown(str(tmp_path))


def test_pictures_are_drawn_of_a_trained_network(tmp_path):
    with pytest.raises(FileNotFoundError, match="st-cnn-affine.seed-0-export"):
        paper.draw(str(tmp_path), str(tmp_path))
    symbol = symbols.get_symbol("cnn")
    checkpoint.export(str(tmp_path / "R" / "st-cnn-affine" / "seed-0-export"), symbol,
                      *bound(symbol, (1, 28, 28)).get_params())
    paper.draw(str(tmp_path), str(tmp_path))
    for name in ("distortions", "angles"):
        assert Image.open(tmp_path / f"{name}.png").size[0] >= 500


def test_the_angle_of_a_turn():
    _, theta = distort("R", IMAGES[:50], seed=0, with_theta=True)
    angles = paper.angle_of(theta)
    np.testing.assert_allclose(theta[:, 0], np.cos(np.radians(angles)), atol=1e-6)
    assert angles.min() < -60
    assert angles.max() > 60
    np.testing.assert_allclose(paper.angle_of(stn.invert(theta)), -angles, atol=1e-6)


def test_bad_flags_are_refused(refused):
    refused(subprocess.run([sys.executable, "paper.py", "--jobs", "0"], cwd=ROOT,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           universal_newlines=True), "--jobs", "at least 1")
