import glob
import os
import shutil
import subprocess
import sys

from common.reports import training_runs
from experiments import accuracy
from tests.conftest import ROOT


def committed():
    return [path for row in accuracy.ROWS
            for path in glob.glob(os.path.join(ROOT, "results", row, "*"))]


def test_the_committed_results_are_of_these_runs():
    folder = os.path.join(ROOT, "results")
    runs = accuracy.all_runs()
    assert {training_runs.result_path(folder, run.name) for run in runs} == set(committed())
    for run in runs:
        assert training_runs.figures(run, folder)["seed"] == int(run.name.rpartition("-")[2])


def test_what_is_done_is_not_trained_again(tmp_path):
    for path in committed():
        copy = tmp_path / os.path.relpath(path, ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, str(copy))
    done = subprocess.run([sys.executable, "-m", "experiments.accuracy"], cwd=str(tmp_path),
                          env={**os.environ, "PYTHONPATH": ROOT}, stdout=subprocess.PIPE,
                          check=True, universal_newlines=True)
    first, *table = done.stdout.splitlines()
    assert first == "45 of 45 runs are done"
    with open(os.path.join(ROOT, "docs", "training.md"), encoding="utf-8") as page:
        assert "\n".join(table) in page.read()
    with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as makefile:
        assert "-m experiments.accuracy" in makefile.read()
