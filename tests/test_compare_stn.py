"""Comparisons of real runs; one of them killed in the middle."""
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

import pytest
from PIL import Image

import compare_stn
import train_mnist
from common.data.batches import ImageIter
from common.training import fit
from tests.conftest import ROOT, run_script

TINY = ["--dataset", "synthetic", "--num-examples", 400, "--network", "mlp", "--num-epochs", 3,
        "--cpus", 1]


def compare(folder, *flags):
    return run_script("compare_stn.py", *TINY, "--seeds", 2, "--output", folder, *flags,
                      cwd=str(folder.parent))


def figures(folder):
    """What the comparison in a folder found, without what depends on the time."""
    compared = json.loads((folder / "comparison.json").read_text())
    for arm in compared["arms"].values():
        del arm["seconds_per_epoch"]
        for epoch in sum(arm["history"], []):
            del epoch["seconds"]
    return {name: compared[name] for name in ("arms", "difference", "interval")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "a"
    done = compare(folder, "--transform", "translation")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_table_is_what_the_runs_say(undisturbed):
    folder, printed = undisturbed
    accuracies = {arm: [100 * json.loads((folder / arm / f"seed-{seed}.json").read_text())[
        "test_accuracy"] for seed in (0, 1)] for arm in compare_stn.ARMS}
    found = figures(folder)
    for arm, values in accuracies.items():
        assert found["arms"][arm]["mean"] == pytest.approx(statistics.mean(values))
        assert found["arms"][arm]["spread"] == pytest.approx(statistics.stdev(values))
        assert f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}" in printed
    gains = [b - a for a, b in zip(accuracies["without"], accuracies["with"])]
    assert found["difference"] == pytest.approx(statistics.mean(gains))
    assert found["interval"] == pytest.approx(12.71 * statistics.stdev(gains) / math.sqrt(2))
    assert (folder / "comparison.md").read_text().strip() in printed
    assert Image.open(folder / "curves.png").size[0] > 500


def test_the_arms_differ_in_the_transformer_alone(undisturbed):
    folder, _ = undisturbed
    without, with_it = (
        [word for word in json.loads((folder / arm / "seed-1.json").read_text())["command"].split()
         if "/" not in word] for arm in compare_stn.ARMS)
    assert sorted(with_it) == sorted([*without, "--add-stn", "--transform", "translation"])


def test_the_arms_see_the_same_batches_and_start_from_the_same_classifier(tmp_path, monkeypatch):
    seen = []
    take, start = ImageIter.next, fit.start

    def recorded_take(batches):
        batch = take(batches)
        if batches.raw:  # and no diagnosis of the transformer
            arrays = batch.data + batch.label
            seen[-1]["batches"].append([part.asnumpy().tobytes() for part in arrays])
        return batch

    def recorded_start(*args):
        module, run = start(*args)
        seen[-1]["start"] = {name: value.asnumpy().tobytes()
                             for name, value in module.get_params()[0].items()}
        return module, run

    monkeypatch.setattr(ImageIter, "next", recorded_take)
    monkeypatch.setattr(fit, "start", recorded_start)
    given = {"dataset": "synthetic", "num_examples": 400, "num_epochs": 2, "network": "cnn",
             "distort": "R", "cpus": 1, "transform": "affine"}
    for run in compare_stn.runs_of(given, seeds=1):
        seen.append({"batches": []})
        prefix = ["--model-prefix", str(tmp_path / run.name)]
        monkeypatch.setattr(sys, "argv", ["train_mnist.py", *run.flags, *prefix])
        train_mnist.main()
    without, with_it = seen
    trained = 2 * (400 // 128 + 1)  # and the test images, in a batch that is filled up
    assert len(without["batches"]) == trained
    assert with_it["batches"][:3] == without["batches"][:3]
    assert with_it["batches"] == without["batches"]
    assert all(with_it["start"][name] == value for name, value in without["start"].items())
    assert len(with_it["start"]) > len(without["start"])


@pytest.mark.slow
def test_a_killed_comparison_goes_on_to_the_same_figures(undisturbed, tmp_path):
    folder = tmp_path / "b"
    flags = [*map(str, TINY), "--seeds", "2", "--output", str(folder), "--transform", "translation"]
    process = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, "compare_stn.py"), *flags], cwd=str(tmp_path),
        stdout=subprocess.DEVNULL, start_new_session=True)
    while not (folder / "with" / "seed-0.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "comparison.json").exists()
    done = compare(folder, "--transform", "translation")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] in ("2 of 4 runs are done", "3 of 4 runs are done")
    assert figures(folder) == figures(undisturbed[0])


def test_a_folder_with_another_comparison_is_refused(undisturbed, run_main, refused):
    folder, _ = undisturbed
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    refused(run_main(compare_stn, *TINY, "--seeds", 2, "--output", folder, "--transform", "tps"),
            "seed-0.json", "other flags", "remove it")
    assert before == {path: path.read_bytes() for path in folder.rglob("*.json")}


@pytest.mark.parametrize(("flags", "words"), [
    (["--seed", 3], ["--seed", "not for a comparison"]),
    (["--add-stn"], ["--add-stn", "not for a comparison"]),
    (["--overwrite"], ["--overwrite", "not for a comparison"]),
    (["--keep-last", 2], ["--keep-last", "not for a comparison"]),
    (["--benchmark", 1], ["--benchmark", "not for a comparison"]),
    (["--seeds", 1000], ["--seeds", "at most 31"]),
    (["--transform", "no-such-transform"], ["--transform", "'no-such-transform'"]),
    (["--warmup-epochs", 5], ["--warmup-epochs 5", "less than --num-epochs"]),
    (["--output", "/proc/a"], ["/proc/a"]),
])
def test_bad_input_is_refused(run_main, refused, tmp_path, flags, words):
    refused(run_main(compare_stn, *TINY, *flags), *words)
    assert not list(tmp_path.iterdir())


def test_patterns_are_of_the_network_as_its_options_make_it():
    given = {"network": "resnet", "stn_at": "input,stage1", "depth": 3, "transform": "tps:3"}
    for fix in ("stn1_", "stage1_block3"):
        compare_stn.check_patterns(dict(given, fix=fix))
    with pytest.raises(ValueError, match="'stn_' matches the name of no parameter: .* stn0_"):
        compare_stn.check_patterns(dict(given, fix="stn_"))


def test_flags_that_change_no_figure_make_no_other_comparison(undisturbed, run_main):
    folder, printed = undisturbed
    done = run_main(compare_stn, *TINY, "--seeds", 2, "--output", folder, "--transform",
                    "translation", "--disp-batches", 1, "--save-period", 2)
    assert done.stdout.splitlines()[0] == "4 of 4 runs are done"
    assert done.stdout.split("\n\n")[1:-1] == printed.split("\n\n")[1:-1]


@pytest.mark.parametrize("lack", ["epochs", "seconds", "history"])
def test_a_result_that_lacks_what_is_compared_is_named(undisturbed, run_main, refused, tmp_path,
                                                       lack):
    shutil.copytree(str(undisturbed[0]), str(tmp_path / "a"))
    path = tmp_path / "a" / "with" / "seed-1.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(dict(result, **{lack: type(result[lack])()})))
    before = (tmp_path / "a" / "comparison.json").read_bytes()
    done = run_main(compare_stn, *TINY, "--seeds", 2, "--output", tmp_path / "a", "--transform",
                    "translation")
    done.stdout = done.stdout.replace("4 of 4 runs are done\n", "")
    refused(done, "with/seed-1.json", "history are missing", "remove it")
    assert (tmp_path / "a" / "comparison.json").read_bytes() == before


def test_networks_that_pool_are_compared():
    given = {"network": "cnn", "pool": 2, "fix": "stn_|conv1"}
    compare_stn.check_patterns(given)
    assert compare_stn.of_classifier(given) == {"network": "cnn", "fix": "stn_|conv1"}


def test_flags_survive_the_way_through():
    given = {"gpus": [0, 1], "bounded": True, "lr": 0.1, "lr_step_epochs": [1.0, 2.0],
             "class_names": "-a,b"}
    assert compare_stn.as_flags(given) == [
        "--bounded", "--class-names=-a,b", "--gpus", "0,1", "--lr", "0.1",
        "--lr-step-epochs", "1.0,2.0"]
