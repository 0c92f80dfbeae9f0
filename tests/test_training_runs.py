"""Real processes, one of them stopped."""
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from common import files
from common.reports import training_runs
from common.storage import checkpoint
from tests.conftest import ROOT, hear_interrupts


def run_of(name, *flags, epochs=2):
    return training_runs.Run(name, [
        "--dataset", "synthetic", "--num-examples", "400", "--cpus", "1",
        "--num-epochs", str(epochs), "--network", "mlp", *flags])


RUNS = [run_of("plain/seed-0"), run_of("stn/seed-0", "--add-stn")]


def test_what_is_missing_is_trained(tmp_path, capsys):
    folders = str(tmp_path / "results"), str(tmp_path / "models")
    training_runs.train(RUNS, *folders, jobs=2)
    assert "0 of 2 runs are done" in capsys.readouterr().out
    left = {path.name for path in (tmp_path / "models" / "stn").iterdir()}
    assert left == {"seed-0.log", "seed-0-export", "seed-0-symbol.json"}
    path = tmp_path / "results" / "stn" / "seed-0.json"
    before = path.read_bytes()
    flags = tmp_path / "models" / "stn" / "seed-0.flags"
    flags.write_text("left by a process that was stopped just before the end of the run")
    training_runs.train(RUNS, *folders)
    assert not flags.exists()
    assert capsys.readouterr().out == "2 of 2 runs are done\n"
    assert path.read_bytes() == before
    path.unlink()  # to train it again, though its export is there
    training_runs.train(RUNS, *folders)
    assert "--overwrite" in training_runs.read(str(path))["command"]


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "error"), [
    (lambda process: process.send_signal(signal.SIGTERM), b"cli.Terminated"),
    (lambda process: os.killpg(process.pid, signal.SIGINT), b"KeyboardInterrupt"),  # as a terminal
], ids=["terminated", "interrupted"])
def test_a_run_that_was_stopped_goes_on_to_the_same_figures(tmp_path, stop, error):
    run = run_of("a", "--add-stn", epochs=6)
    training_runs.train([run], str(tmp_path / "undisturbed"), str(tmp_path / "models"))
    folders = [str(tmp_path / "results"), str(tmp_path / "scratch")]
    code = (f"from common import find_mxnet; from common.reports import training_runs; "
            f"training_runs.train([training_runs.Run(*{tuple(run)})], *{folders})")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE,
                               start_new_session=True, preexec_fn=hear_interrupts)
    while not os.path.exists(os.path.join(folders[1], "a-0002.params")):
        assert process.poll() is None
        time.sleep(0.01)
    stop(process)
    assert error in process.communicate(timeout=60)[1].splitlines()[-1]
    assert not os.path.exists(training_runs.result_path(folders[0], "a"))
    assert "terminated in epoch" in (tmp_path / "scratch" / "a.log").read_text()
    changed = run_of("a", "--add-stn", epochs=7)
    with pytest.raises(ValueError, match="a.flags: the run was begun with other flags than .* 7 "):
        training_runs.train([changed], *folders)
    for epoch in checkpoint.epochs(os.path.join(folders[1], "a")):
        checkpoint.remove(os.path.join(folders[1], "a"), epoch)
    with pytest.raises(ValueError, match="a.flags"):  # that within an epoch is still there
        training_runs.train([changed], *folders)
    training_runs.train([run], *folders)
    figures = [json.loads((tmp_path / name / "a.json").read_text())
               for name in ("undisturbed", "results")]
    with pytest.raises(ValueError, match="a.json: of other flags than .* 7 .*: remove it"):
        training_runs.train([changed], *folders)
    assert "Resumes " in (tmp_path / "scratch" / "a.log").read_text()
    for name in ("test_accuracy", "test_loss", "train_loss"):
        assert figures[0][name] == figures[1][name]


@pytest.mark.slow
def test_a_run_does_not_outlive_what_started_it(tmp_path):
    run = run_of("a", epochs=400)
    folders = [str(tmp_path / "results"), str(tmp_path / "scratch")]
    code = (f"from common import find_mxnet; from common.reports import training_runs; "
            f"training_runs.train([training_runs.Run(*{tuple(run)})], *{folders})")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    while not os.path.exists(os.path.join(folders[1], "a-0001.params")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    time.sleep(0.5)  # the system ends the training
    with files.exclusive(os.path.join(folders[1], "a.lock")):
        assert len(checkpoint.epochs(os.path.join(folders[1], "a"))) < 400


def test_failed_runs_are_reported_and_the_others_done(tmp_path, capsys):
    wrong = run_of("wrong", "--pool", "2")
    with pytest.raises(ValueError, match="1 of 2 runs failed: see .*wrong.log"):
        training_runs.train([wrong, RUNS[0]], str(tmp_path / "results"), str(tmp_path / "models"))
    assert re.search("wrong: failed, see .*wrong.log: .* they need --add-stn\n",
                     capsys.readouterr().out)
    assert os.path.exists(training_runs.result_path(str(tmp_path / "results"), RUNS[0].name))
    assert "they need --add-stn" in (tmp_path / "models" / "wrong.log").read_text()


def test_nobody_else_trains_the_same_runs(tmp_path):
    folders = str(tmp_path / "results"), str(tmp_path / "models")
    with files.exclusive(os.path.join(folders[1], "runs.lock")), \
            pytest.raises(ValueError, match="runs.lock: held by another run"):
        training_runs.train(RUNS, *folders)
    assert not os.path.exists(folders[0])


@pytest.mark.parametrize("content", [
    "", "[]", "{}", "{", "\xff", '{"test_accuracy": "0.5", "parameters": 1}',
    '{"test_accuracy": 0.5, "parameters": %s}' % ("9" * 400), "[" * 10**5,
    '{"test_accuracy": 0.5, "parameters": 1, "history": [{"test_accuracy": {}}]}',
    '{"test_accuracy": 0.5, "parameters": 1, "command": []}'])
def test_what_is_no_result_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="a.json: not a result of train_mnist.py"):
        training_runs.read(str(tmp_path / "a.json"))


@pytest.mark.parametrize(("flags", "same"), [
    ("--seed 0 --add-stn --resume --keep-last 2 --model-prefix a --result b", True),
    ("--resume --seed 0 --model-prefix a --result b --overwrite --add-stn", True),
    ("--seed 0 --add-stn --lr 0.1 --model-prefix a", False),
    ("--seed 1 --add-stn --model-prefix a", False), ("--seed 0", False), ("--seed '0", False)])
def test_figures_are_of_the_same_flags_wherever_the_files_are(tmp_path, flags, same):
    run = training_runs.Run("a", ["--seed", "0", "--add-stn"])
    for script in ("train_mnist.py", "score.py"):
        (tmp_path / "a.json").write_text(json.dumps({
            "test_accuracy": 0.5, "parameters": 1, "command": f"python {script} {flags}"}))
        if same and script == "train_mnist.py":
            assert training_runs.figures(run, str(tmp_path))["parameters"] == 1
        else:
            with pytest.raises(ValueError, match="a.json: of other flags than --seed 0 --add-stn"):
                training_runs.figures(run, str(tmp_path))
