"""Several workers that train one network, as real processes on this machine."""
import filecmp
import functools
import itertools
import json
import os
import re
import signal
import sys
import time

import mxnet as mx
import numpy as np
import pytest

import train_mnist
from common.training import workers
from symbols import stn
from tests import groups
from tests.conftest import ROOT, run_script
from tests.test_train_mnist import write_digits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

EPOCHS = 20
WORKER = {"DMLC_ROLE": "worker", "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": "1",
          "DMLC_NUM_SERVER": "1", "DMLC_NUM_WORKER": "2"}
LONG = ["--num-epochs", EPOCHS]  # some seconds, to send signals in


def params(prefix, epoch=2):
    return mx.nd.load(f"{prefix}-{epoch:04d}.params")


def same(one, other, epoch=2):
    return filecmp.cmp(f"{one}-{epoch:04d}.params", f"{other}-{epoch:04d}.params", shallow=False)


def history(prefix, epoch=2):
    """The figures after each epoch that a checkpoint knows, without the times."""
    with np.load(f"{prefix}-{epoch:04d}.state") as state:
        figures = json.loads(str(state["meta"]))["history"]
    return [dict(one, seconds=None) for one in figures]


def train(prefix, *more, **options):
    """Trains, and expects all to go well; returns what was printed and complained of."""
    status, stdout, stderr = groups.train(prefix, *more, **options)
    assert status == 0, stderr
    return stdout, stderr


def in_epoch(prefix, epoch, limit=groups.LIMIT):
    """Waits for the checkpoint after an epoch."""
    end = time.monotonic() + limit
    while not os.path.exists(f"{prefix}-{epoch:04d}.json"):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_two_workers_are_one_process_with_two_devices(tmp_path):
    stdout, stderr = train(tmp_path / "a", "--result", tmp_path / "result.json")
    done = run_script("train_mnist.py", *groups.TRAIN[2:-2], "--batch-size", 40, "--cpus", 2,
                      "--model-prefix", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    one, other = params(tmp_path / "a"), params(tmp_path / "b")
    for name, value in one.items():
        np.testing.assert_allclose(value.asnumpy(), other[name].asnumpy(), rtol=0, atol=1e-5)
    # What the first worker says and writes, it says and writes alone.
    assert len(re.findall(r"Epoch\[\d\] Validation-accuracy", stderr)) == 2
    assert len(stdout.splitlines()) == 3
    assert "Training 277936 parameters with 240 images in each of 2 workers" in stderr
    for ours, theirs in zip(history(tmp_path / "a"), history(tmp_path / "b")):
        assert ours["test_accuracy"] == theirs["test_accuracy"]
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-5)
    figures = json.loads((tmp_path / "result.json").read_text())
    assert figures["test_accuracy"] == history(tmp_path / "a")[-1]["test_accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "servers", "more"), [
    (1, 1, []), (2, 2, ["--cpus", 2, "--kv-store", "dist_device_sync"]),
    (3, 1, []), (4, 2, ["--network", "lenet", "--kv-store", "dist_sync_device"])])
def test_a_repetition_has_the_same_bits(tmp_path, workers, servers, more):
    for name in "ab":
        train(tmp_path / name, *more, launch=["-n", workers, "-s", servers])
    assert same(tmp_path / "a", tmp_path / "b")
    assert history(tmp_path / "a") == history(tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "batch"), [(1, 60), (3, 20), (4, 15)])
def test_any_number_of_workers_comes_to_the_same(tmp_path, workers, batch):
    train(tmp_path / "a", "--batch-size", batch, launch=["-n", workers])
    done = run_script("train_mnist.py", *groups.TRAIN[2:-2], "--batch-size", 60,
                      "--model-prefix", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    other = params(tmp_path / "b")
    for name, value in params(tmp_path / "a").items():
        np.testing.assert_allclose(value.asnumpy(), other[name].asnumpy(), rtol=0, atol=1e-5)


def stopped(prefix, tell, *more, launch=("-n", 2)):
    """Trains until an epoch is under way, then tells the group to stop; returns its status."""
    launcher = groups.start(launch, [*groups.TRAIN, "--model-prefix", prefix, *LONG, *more])
    try:
        in_epoch(prefix, 2)
        members = groups.members(launcher)
        tell(launcher, members)
        sent = time.monotonic()
        status, _, stderr = groups.finish(launcher)
    finally:
        launcher.kill()
    assert time.monotonic() - sent < 10
    groups.wait_until_gone([pid for pids in members.values() for pid in pids], 2)
    assert "Traceback" not in stderr
    return status, stderr


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Trains a group to the end, once for the same flags; returns the prefix."""
    @functools.lru_cache(maxsize=None)
    def train_once(*more, launch=("-n", 2)):
        prefix = tmp_path_factory.mktemp("undisturbed") / "b"
        train(prefix, *LONG, *more, launch=launch)
        return prefix
    return train_once


def resumes_to_the_same(prefix, undisturbed, *more):
    train(prefix, *LONG, *more, "--resume")
    whole = undisturbed(*more)
    assert same(prefix, whole, EPOCHS)
    assert history(prefix, EPOCHS) == history(whole, EPOCHS)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["launcher", "worker 1"])
def test_a_stop_is_one_of_all_and_resumed_exactly(tmp_path, undisturbed, to):
    def tell(launcher, members):
        os.kill(launcher.pid if to == "launcher" else members[to][0], signal.SIGTERM)

    status, stderr = stopped(tmp_path / "a", tell, "--network", "lenet")
    assert status == 143
    assert re.search(r"terminated in epoch \d+, after \d+ of 12 batches; --resume goes", stderr)
    assert stderr.count("terminated") == 1
    assert (tmp_path / "a-stopped.params").exists()
    resumes_to_the_same(tmp_path / "a", undisturbed, "--network", "lenet")  # which draws dropout


@pytest.mark.slow
@pytest.mark.parametrize("who", ["scheduler", "server", "worker 0", "worker 1"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_loss_ends_all_and_is_resumed_exactly(tmp_path, undisturbed, who, number):
    status, stderr = stopped(tmp_path / "a", lambda _, members: os.kill(members[who][0], number))
    assert status == 137
    assert len(re.findall(r"^launch\.py: error: ", stderr, flags=re.M)) == 1
    assert number.name in stderr
    resumes_to_the_same(tmp_path / "a", undisturbed)


@pytest.mark.slow
def test_it_starts_again_by_itself(tmp_path, undisturbed):
    def tell(_, members):
        os.kill(members["worker 1"][0], signal.SIGKILL)

    launcher = groups.start(["-n", 3, "--restarts", 1],
                            [*groups.TRAIN, "--model-prefix", tmp_path / "a", *LONG, "--overwrite"])
    in_epoch(tmp_path / "a", 2)
    tell(launcher, groups.members(launcher))
    status, _, stderr = groups.finish(launcher)
    assert status == 0, stderr
    assert "Resumes from the checkpoint after" in stderr
    assert same(tmp_path / "a", undisturbed(launch=("-n", 3)), EPOCHS)


@pytest.mark.slow
def test_an_ssh_that_drops_is_started_again(tmp_path, undisturbed):
    launch = ["-n", 2, "--restarts", 1, *groups.by_ssh(tmp_path / "ssh")]
    launcher = groups.start(launch, [*groups.TRAIN, "--model-prefix", tmp_path / "a", *LONG])
    in_epoch(tmp_path / "a", 2)
    os.kill(groups.children(launcher.pid)[-1], signal.SIGKILL)
    status, _, stderr = groups.finish(launcher)
    assert status == 0, stderr
    assert "worker 1 on localhost is out of reach" in stderr
    assert "Resumes from the checkpoint after" in stderr
    assert same(tmp_path / "a", undisturbed(), EPOCHS)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["scheduler", "server", "worker 1"])
@pytest.mark.parametrize("delay", [0, 0.5, 1.5])
def test_a_loss_at_the_start_ends_all(tmp_path, who, delay):
    launcher = groups.start(["-n", 2], [*groups.TRAIN, "--model-prefix", tmp_path / "a", *LONG])
    members = groups.wait_for_members(launcher, 4)
    time.sleep(delay)
    os.kill(members[who][0], signal.SIGKILL)
    status, _, stderr = groups.finish(launcher, 10)
    assert status == 137
    assert who in stderr
    groups.wait_until_gone([pid for pids in members.values() for pid in pids], 2)


def of_one_worker(number, *flags):
    """A command in which one worker has more flags than the others."""
    return ["python", "-c",
            "import os, runpy, sys\n"
            f"if os.environ.get('DMLC_WORKER_ID') == '{number}': sys.argv += {flags!r}\n"
            "sys.argv.pop(0); sys.path.insert(0, os.path.dirname(sys.argv[0]))\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')", *groups.TRAIN[1:]]


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "words"), [
    (["--lr", "0.004"], "worker 1 has other flags or data than worker 0 (there): --lr 0.003 there"),
    (["--num-examples", "500"], "--num-examples 480 there, --num-examples 500 here"),
    (["--batch-size", "10"], "--batch-size 20 there, --batch-size 10 here"),
])
def test_a_worker_with_other_flags_is_refused(tmp_path, flags, words):
    status, stdout, stderr = groups.run(["-n", 2], [*of_one_worker(1, *flags), "--model-prefix",
                                                    tmp_path / "a"])
    assert status == 2
    assert stdout == ""
    assert words in stderr
    assert "Traceback" not in stderr
    assert len(stderr.splitlines()) == 1
    assert not list(tmp_path.glob("*.params"))


@pytest.mark.slow
def test_a_worker_with_other_epochs_is_refused_also_where_a_run_could_be_longer(tmp_path):
    status, _, stderr = groups.run(["-n", 2], [
        *of_one_worker(1, "--num-epochs", "9"), "--lr-schedule", "constant",
        "--model-prefix", tmp_path / "a"])
    assert status == 2
    assert "--num-epochs 9 here" in stderr
    assert len(stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_worker_that_does_not_train_is_refused(tmp_path):
    status, _, stderr = groups.run(["-n", 2], [*of_one_worker(1, "--test-io", "1"),
                                               "--model-prefix", tmp_path / "a"])
    assert status == 2
    assert "one is to train, the other to do something else" in stderr
    assert len(stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_worker_with_other_images_is_refused(tmp_path):
    for version in (0, 1):
        write_digits(tmp_path / str(version), version)
    code = ("import os, runpy, sys\n"
            f"os.chdir({str(tmp_path)!r} + '/' + os.environ.get('DMLC_WORKER_ID', '0'))\n"
            "sys.argv.pop(0); sys.path.insert(0, os.path.dirname(sys.argv[0]))\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')")
    status, _, stderr = groups.run(["-n", 2], [
        "python", "-c", code, *groups.TRAIN[1:2], *groups.TRAIN[6:], "--data-dir", ".",
        "--model-prefix", tmp_path / "a"])
    assert status == 2
    assert re.search(r"worker 1 has other flags or data .* images with the SHA-256 \w+\.\.\. there",
                     stderr)
    assert len(stderr.splitlines()) == 1


@pytest.mark.slow
def test_more_workers_than_batches(tmp_path):
    status, _, stderr = groups.train(tmp_path / "a", "--batch-size", 200, launch=["-n", 3])
    assert status == 2
    assert "a batch of 200 is more than the 160 images there are for each of 3 workers" in stderr
    assert len(stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("transform", "flags"), zip(stn.TRANSFORMS, itertools.cycle([
    ["--network", "lenet"], ["--network", "cnn", "--distort", "R"], ["--network", "mlp"],
    ["--network", "addition", "--distort", "addition"], ["--network", "resnet", "--width", "4"]])))
def test_every_transform_and_network_trains(tmp_path, transform, flags):
    stdout, _ = train(tmp_path / "a", "--num-epochs", 1, "--transform", transform, *flags)
    assert "Test accuracy" in stdout


MOVING_MEANS = """
import os, sys
sys.path.insert(0, os.getcwd())
from common import find_mxnet
import mxnet as mx
from common.data import synthetic
from common.data.batches import ImageIter
from common.training import fit, workers
from common.training.recipe import Recipe
net = mx.sym.Flatten(mx.sym.BatchNorm(mx.sym.Variable("data"), name="norm"), name="flatten")
net = mx.sym.FullyConnected(net, num_hidden=10, name="fc")
with workers.join("dist_sync") as group:
    train = ImageIter(*synthetic.draw(200, seed=0), 20, seed=0, num_parts=group.count,
                      part_index=group.rank)
    test = ImageIter(*group.part(*synthetic.draw(61, seed=1)), 20)
    module, figures = fit.fit(
        mx.sym.SoftmaxOutput(net, name="softmax"), train, test,
        Recipe(num_epochs=1, batch_size=20, num_workers=group.count), fit.Output(sys.argv[1]),
        workers=group)
    print(module.get_params()[1]["norm_moving_mean"].asscalar(), figures["test_loss"])
"""


@pytest.mark.slow
def test_all_workers_have_the_same_moving_means(tmp_path):
    status, stdout, stderr = groups.run(["-n", 3], ["python", "-c", MOVING_MEANS, tmp_path / "a"],
                                        cwd=ROOT)
    assert status == 0, stderr
    assert len(stdout.splitlines()) == 3
    assert len(set(stdout.splitlines())) == 1


@pytest.mark.slow
def test_two_jobs_at_once_do_not_meet(tmp_path):
    jobs = [groups.start(["-n", 2], [*groups.TRAIN, "--seed", seed, "--model-prefix",
                                     tmp_path / str(seed)]) for seed in (1, 2)]
    assert [groups.finish(job)[0] for job in jobs] == [0, 0]
    train(tmp_path / "again", "--seed", 1, env={**os.environ, "PORT": "80"})
    assert same(tmp_path / "1", tmp_path / "again")
    assert not same(tmp_path / "1", tmp_path / "2")


@pytest.mark.slow
def test_without_a_supervisor_a_worker_gives_up(tmp_path):
    launcher = groups.start(
        ["-n", 2, "--restarts", 0],
        [*groups.TRAIN, "--model-prefix", tmp_path / "a", *LONG, "--patience", 2])
    in_epoch(tmp_path / "a", 1)
    members = groups.members(launcher)
    os.kill(members["worker 1"][1], signal.SIGSTOP)  # its agent, so that nobody tells
    os.kill(members["worker 1"][0], signal.SIGSTOP)
    status, _, stderr = groups.finish(launcher, 10)
    assert status == 4
    assert "worker 0: nothing has gone on for 2 s" in stderr


@pytest.mark.parametrize(("flags", "environment", "words"), [
    (["--kv-store", "dist_async"], {}, "use dist_sync"),
    (["--kv-store", "dist_sync", "--dtype", "float64"], WORKER, "round to float32"),
    (["--kv-store", "dist_sink"], {}, "did you mean dist_sync?"),
    (["--kv-store", "dist_sync"], {}, "a launcher starts: python launch.py -n 2"),
    ([], {"DMLC_ROLE": "worker"}, "needs --kv-store dist_sync"),
    (["--kv-store", "dist_sync"], {"DMLC_ROLE": "worker"}, "DMLC_PS_ROOT_URI is not set"),
    (["--kv-store", "dist_sync"], {**WORKER, "DMLC_NUM_WORKER": "two"}, "DMLC_NUM_WORKER='two'"),
])
def test_what_does_not_fit_is_refused(run_main, refused, monkeypatch, flags, environment, words):
    left = []

    def leave(status):
        left.append(status)
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", leave)  # which a process of a group takes
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    refused(run_main(train_mnist, *flags), words)
    assert left == [2] * len(set(environment) & {"DMLC_ROLE"})


@pytest.mark.slow
def test_the_cost_of_communication_is_measured():
    status, stdout, stderr = groups.run(
        ["-n", 3], ["python", "-m", "experiments.communication", "--batch-size", 4], cwd=ROOT)
    assert status == 0, stderr
    rows = [re.findall(r"[\w,.]+", line) for line in stdout.splitlines()[2:]]
    assert [row[:3] for row in rows] == [["lenet", "27,360", "328"], ["cnn", "116,696", "1,400"],
                                         ["mlp", "277,936", "3,335"]]


def test_what_a_worker_does_on_its_own_may_take_long(monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    group = object.__new__(workers.Workers)
    group._watch = workers._Watch(0.4)
    with group.on_its_own():
        time.sleep(1)
    assert not ended
    time.sleep(1)
    group._watch.stop.set()
    group._watch.join()
    assert ended[:1] == [workers.GAVE_UP]
    assert "nothing has gone on for 0.4 s" in capsys.readouterr().err
