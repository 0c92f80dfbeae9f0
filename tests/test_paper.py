import glob
import itertools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import symbols
from common.data import synthetic
from common.data.distort import augmentation, distort
from common.reports import training_runs
from experiments import paper
from symbols import stn
from tests.conftest import ROOT

IMAGES, _ = synthetic.draw(50, seed=0)
TABLES = {**paper.TABLES, **paper.LONG_TABLES}
EVERY = paper.all_runs(paper.TABLES) + paper.all_runs(paper.LONG_TABLES)


def value(flags, name):
    return flags[flags.index(name) + 1] if name in flags else None


def parameters(run, column):
    """How many parameters the network of a run has."""
    flags, (augment, num_classes) = run.flags, augmentation(column)
    images, _ = augment(*synthetic.draw(1, seed=0), 0)
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
    counts = {run.name: parameters(run, column) for run in EVERY
              if run.name.startswith(f"{column}/") and family.lower() in run.name
              and run.name.endswith("seed-0")}
    assert max(counts.values()) < 1.01 * min(counts.values())
    if family == "FCN" or column == "addition":
        assert 0.99 * 400_000 < min(counts.values()) < 1.01 * 400_000


def test_the_tables_are_complete():
    names = [run.name for run in paper.all_runs(paper.TABLES)]
    assert len(set(names)) == len(names) == 3 * (8 * 5 + 6 + 6)
    assert [name[-1] for name in names] == sorted(name[-1] for name in names)
    assert {run.name for run in paper.quick_runs()} < set(names)
    assert len(paper.all_runs(paper.LONG_TABLES)) == 3 * (9 * 2 + 3 * 2) + 2 * 3 + 3 * 2


def test_the_committed_results_are_of_these_runs():
    paths = glob.glob(os.path.join(ROOT, f"{paper.RESULTS}*", "*", "*", "*"))
    assert paths
    folder = os.path.join(ROOT, paper.RESULTS)
    flags = {training_runs.result_path(paper.folder_of(table.epochs, folder), run.name): run.flags
             for title, table in TABLES.items() for run in paper.all_runs({title: table})}
    for path in paths:
        command = training_runs.read(path)["command"]
        assert command.startswith(f"python train_mnist.py {' '.join(flags[path])} "), path
        assert "--load-epoch" not in command, path


def test_the_order_of_the_rows_is_the_paper_s_but_in_three_pairs():
    """Where the paper's errors differ by more than their last digit."""
    reversed_pairs = []
    for table in TABLES.values():
        folder = paper.folder_of(table.epochs, os.path.join(ROOT, paper.RESULTS))
        for place, column in enumerate(table.columns):
            found = {row: paper.errors_of(folder, [
                paper.run_of(row, column, seed, table.epochs) for seed in table.seeds])
                for row in table.rows}
            for one, other in itertools.combinations(filter(found.get, found), 2):
                theirs = [table.rows[row][place] for row in (one, other)]
                ours = [statistics.mean(found[row]) for row in (one, other)]
                if None not in theirs and (theirs[0] - theirs[1]) * (ours[0] - ours[1]) < 0 \
                        and abs(theirs[0] - theirs[1]) > 0.11:
                    reversed_pairs.append((column, one, other))
    assert sorted(reversed_pairs) == [
        ("TC", "CNN", "ST-CNN affine"), ("TC", "CNN", "ST-FCN affine"),
        ("addition", "CNN", "ST-FCN affine")]


def test_a_table_compares_with_the_paper(tmp_path):
    commands = {run.name: f"python train_mnist.py {run.command_line} --resume"
                for run in paper.all_runs(paper.TABLES)}
    for name, accuracy in (("TC/st-cnn-tps/seed-0", 0.97), ("R/st-cnn-tps/seed-0", 0.98),
                           ("R/st-cnn-tps/seed-1", 0.99)):
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        figures = {"test_accuracy": accuracy, "parameters": 1, "command": commands[name]}
        path.write_text(json.dumps(figures))
    path.with_name("seed-0-symbol.json").write_text("{}")  # --quick leaves it beside its results
    table = paper.tables(paper.TABLES, str(tmp_path))
    cells = "1.50 ± 0.71, 2 seeds (0.7, +0.80) | (0.5) | (0.8) | (1.1) | 3.00"
    assert f"| ST-CNN tps | {cells} |" in table.splitlines()
    with pytest.raises(ValueError, match="seed-0.json: of other flags than .* --num-epochs 3 "):
        paper.tables(paper.TABLES, str(tmp_path), epochs=3)
    path.write_text("{}")
    with pytest.raises(ValueError, match="seed-1.json: not a result"):
        paper.tables(paper.TABLES, str(tmp_path))


def test_errors_and_slopes_are_drawn_of_what_has_been_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for epochs, done, accuracy in ((None, 16, 0.99), (64, 64, 0.995)):
        run = paper.run_of("ST-CNN affine, stable", "R", 0, epochs)
        path = tmp_path / (f"{paper.RESULTS}-64-epochs" if epochs else paper.RESULTS)
        path = path / f"{run.name}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({
            "test_accuracy": accuracy, "parameters": 1, "epochs": done,
            "command": f"python train_mnist.py {run.command_line} --resume"}))
    (tmp_path / paper.SLOPES).write_text(json.dumps(
        {"paper-64-epochs/R/st-cnn-affine-stable/seed-0": 0.5}))
    errors, undone = paper.errors_and_slopes().values()
    assert errors["CNN"] == []
    assert [epochs for epochs, _ in errors["ST-CNN affine, stable"]] == [16, 64]
    assert [error for _, error in errors["ST-CNN affine, stable"]] == pytest.approx([1, 0.5])
    assert undone == {"CNN": [], "ST-CNN affine, stable": [(64, 0.5)],
                      "ST-CNN affine, stable, 4 steps": []}


@pytest.mark.parametrize("content", ["[1]", '{"a": "b"}', '{"a": {}}', "{"])
def test_what_are_no_slopes_is_left_alone(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / paper.SLOPES).write_text(content)
    with pytest.raises(ValueError, match="slopes.json: not a result of experiments.paper"):
        paper.load_slopes()


def test_a_slope_is_measured_once(tmp_path, monkeypatch):
    export = tmp_path / "models" / "paper" / "R" / "st-cnn-affine" / "seed-0-export"
    shutil.copytree(os.path.join(ROOT, "published", "mnist-R-cnn-stn"), export)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(os.path.join(ROOT, "data"))
    for _ in range(2):
        paper.measure_slopes(os.path.join("models", "paper"))
        found, = json.loads((tmp_path / paper.SLOPES).read_text()).items()
        assert found == ("paper/R/st-cnn-affine/seed-0", pytest.approx(0.25, abs=0.01))
        shutil.rmtree(export, ignore_errors=True)


def test_pictures_are_drawn(tmp_path):
    paper.draw(str(tmp_path))
    for name in ("angles", "distortions", "epochs"):
        assert Image.open(tmp_path / f"{name}.png").size[0] >= 500


def test_the_angle_of_a_turn():
    _, theta = distort("R", IMAGES[:50], seed=0, with_theta=True)
    angles = paper.angle_of(theta)
    np.testing.assert_allclose(theta[:, 0], np.cos(np.radians(angles)), atol=1e-6)
    np.testing.assert_allclose(theta[:, 3], np.sin(np.radians(angles)), atol=1e-6)
    assert angles.min() < -60
    assert angles.max() > 60
    np.testing.assert_allclose(paper.angle_of(stn.invert(theta)), -angles, atol=1e-6)


def test_the_slope_is_of_what_is_undone():
    true = np.random.RandomState(0).uniform(-90, 90, 200)
    for wanted, offset in ((1, 0), (0.4, 170), (0, 20)):
        found = (wanted * true + offset + 180) % 360 - 180
        assert paper.slope(true, found) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("flags", "words"), [
    (["--jobs", "0"], "at least 1"), (["--print", "--quick"], "not allowed with")])
def test_bad_flags_are_refused(refused, flags, words):
    refused(subprocess.run([sys.executable, "-m", "experiments.paper", *flags], cwd=ROOT,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           universal_newlines=True), flags[0], words)
