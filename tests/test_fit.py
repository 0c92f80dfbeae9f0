import argparse
import filecmp
import functools
import io
import os
import platform
import re
import shutil
import signal
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest

import symbols
from common import cli
from common.data import arrays, records, synthetic
from common.data.augment import Jitter
from common.data.batches import ImageIter
from common.models import devices
from common.storage import checkpoint, state_file
from common.training import fit, flags, resume
from common.training.recipe import IN_FLOAT32, INITIALIZERS, Recipe, SeededInit
from symbols import stn
from tests.conftest import ROOT

COUNT, BATCH = 200, 25


def parsed(tmp_path, *given):
    """The parsed flags of a short run, checked."""
    parser = cli.Parser()
    flags.add_training_flags(parser)
    args = parser.parse_args([
        "--batch-size", str(BATCH), "--num-epochs", "2", "--model-prefix", str(tmp_path / "a"),
        "--disp-batches", "1000", *given])
    flags.recipe(args)
    return args


def iterators(args, raw=True):
    return (ImageIter(*synthetic.draw(COUNT, seed=0), args.batch_size, seed=args.seed,
                      dtype=args.dtype, raw=raw),
            ImageIter(*synthetic.draw(60, seed=1), args.batch_size, dtype=args.dtype, raw=raw))


def run(args, symbol=None, batches=None, validation=None):
    """Trains, by default the LeNet with its transformer; the Module and its figures."""
    symbol = symbols.get_symbol("lenet") if symbol is None else symbol
    return fit.fit(symbol, *(batches or iterators(args)),
                   flags.recipe(args), flags.output(args, args.model_prefix), flags.watch(args),
                   validation)


def same(tmp_path, one, other, epoch=2):
    return filecmp.cmp(tmp_path / f"{one}-{epoch:04d}.params",
                       tmp_path / f"{other}-{epoch:04d}.params", shallow=False)


def rename(tmp_path, one, other, epoch=1):
    """Gives the checkpoint of one run to another."""
    shutil.copy(tmp_path / f"{one}-symbol.json", tmp_path / f"{other}-symbol.json")
    for suffix in ("params", "state", "json"):
        shutil.copy(tmp_path / f"{one}-{epoch:04d}.{suffix}",
                    tmp_path / f"{other}-{epoch:04d}.{suffix}")


def without_state(tmp_path):
    """Leaves of a checkpoint what other programs write."""
    for suffix in ("json", "state"):
        (tmp_path / f"a-0001.{suffix}").unlink()


def run_until(args, symbol, epoch, batch, message=None):
    """Trains until a batch is taken, when this process gets a SIGTERM."""
    class Stopping(ImageIter):
        def next(self):
            if (self.epoch, self.position) == (epoch, batch):
                os.kill(os.getpid(), signal.SIGTERM)
            return super().next()

    train, test = iterators(args)
    train.__class__ = Stopping
    with pytest.raises(cli.Terminated, match=message):
        run(args, symbol, (train, test))


def by_turns(runs):
    """Runs with a transformer and without one: (flags, whether with it)."""
    return [(flags, number % 2 == 0) for number, flags in enumerate(runs)]


@pytest.mark.parametrize(("given", "add_stn"), by_turns([
    "--cpus 1", "--cpus 2", "--cpus 3 --dtype float64", "--cpus 2 --dtype float64"]))
def test_pixels_train_as_what_the_host_scales(tmp_path, given, add_stn):
    figures = []
    for name, raw in (("a", True), ("b", False)):
        args = parsed(tmp_path, *given.split(), "--model-prefix", str(tmp_path / name))
        symbol = symbols.get_symbol("lenet", add_stn=add_stn)
        figures.append(run(args, symbol, iterators(args, raw))[1]["history"])
    assert same(tmp_path, "a", "b")
    for one, other in zip(*figures):
        assert dict(one, seconds=0) == dict(other, seconds=0)


# Each optimizer and each schedule, but not each with each: a schedule is told the number of updates
# alone, and an optimizer the rate.
RUNS = [f"--optimizer {flags}" for flags in (
    "adam --lr-schedule linear", "adam --lr-step-epochs 0.5,1.5 --lr-factor 0.3",
    "sgd --lr-schedule cosine", "sgd --lr-schedule constant --warmup-epochs 1.4 --wd 0.01",
    "nag --lr-schedule constant", "nag --lr-step-epochs 0.5,1.5", "sgd --mom 0",
    "rmsprop --wd 0.01", "adagrad", "signum")]
RUNS += ["--cpus 1", "--cpus 3", "--kv-store device", "--dtype float64"]
STOPPED = ["--optimizer adam --lr-step-epochs 0.5,1.5 --cpus 3",
           "--optimizer nag --lr-schedule linear --cpus 1",
           "--optimizer sgd --lr-schedule constant --warmup-epochs 1.4 --wd 0.01",
           "--optimizer rmsprop --kv-store device"]


@pytest.mark.parametrize(("flags", "add_stn"), by_turns(RUNS))
def test_resume_after_an_epoch_is_exact(tmp_path, flags, add_stn):
    flags = [*flags.split(), "--num-epochs", "3"]
    symbol = symbols.get_symbol("lenet", add_stn=add_stn)
    _, undisturbed = run(parsed(tmp_path, *flags), symbol)
    for epoch in (1, 2):
        rename(tmp_path, "a", "b", epoch)
        args = parsed(tmp_path, *flags, "--model-prefix", str(tmp_path / "b"),
                      "--load-epoch", str(epoch), "--overwrite")
        check_same(tmp_path, "b", undisturbed, run(args, symbol)[1])


@pytest.mark.parametrize(("flags", "add_stn"), by_turns(STOPPED))
def test_resume_within_an_epoch_is_exact(tmp_path, caplog, flags, add_stn):
    caplog.set_level("INFO")
    flags = [*flags.split(), "--num-epochs", "3"]
    symbol = symbols.get_symbol("lenet", add_stn=add_stn)
    _, undisturbed = run(parsed(tmp_path, *flags), symbol)
    args = parsed(tmp_path, *flags, "--model-prefix", str(tmp_path / "c"), "--resume")
    for place, message in (((0, 2), "in epoch 0, after 3 of 8 batches"),
                           ((0, 6), "in epoch 0, after 7 of 8 batches"),
                           ((1, 7), "in epoch 2, after 0 of 8 batches"),
                           ((2, 1), "in epoch 2, after 2 of 8 batches")):
        run_until(args, symbol, *place, message)
    caplog.clear()
    check_same(tmp_path, "c", undisturbed, run(args, symbol)[1])
    assert f"Resumes {message}" in caplog.text
    assert not list(tmp_path.glob("*stopped*"))


@pytest.mark.parametrize("cpus", ["2", "3"])
def test_moving_means_of_several_devices_are_resumed_exactly(tmp_path, cpus):
    """Within an epoch each device has its own; what is saved behind it is what was scored."""
    flags, symbol = ["--cpus", cpus, "--num-epochs", "3"], symbols.get_symbol("resnet", width=4)
    module, undisturbed = run(parsed(tmp_path, *flags), symbol)
    for copies in module.statistics().values():
        assert all((copy == copies[0]).all() for copy in copies)
    for name, places in (("b", [(0, 2), (1, 3)]), ("c", [(1, 7)])):
        args = parsed(tmp_path, *flags, "--model-prefix", str(tmp_path / name), "--resume")
        for place in places:
            run_until(args, symbol, *place, "in epoch")
        check_same(tmp_path, name, undisturbed, run(args, symbol)[1])


def test_a_stop_within_an_epoch_keeps_the_moving_means(tmp_path):
    net = mx.sym.Flatten(mx.sym.BatchNorm(mx.sym.Variable("data"), name="norm"), name="flatten")
    net = mx.sym.FullyConnected(mx.sym.Dropout(net, name="drop"), num_hidden=10, name="fc")
    symbol = mx.sym.SoftmaxOutput(net, name="softmax")
    run(parsed(tmp_path), symbol)
    args = parsed(tmp_path, "--model-prefix", str(tmp_path / "b"), "--resume")
    run_until(args, symbol, 1, 5)
    run(args, symbol)
    assert same(tmp_path, "a", "b")


def test_a_checkpoint_of_before_goes_on_exactly(tmp_path, monkeypatch):
    """Theta's numbers were put together along axis 1, which is -1 now."""
    build = functools.partial(symbols.get_symbol, "lenet", transform="similarity")
    run(parsed(tmp_path), build())
    with monkeypatch.context() as before:
        before.setattr(stn, "COLUMNS", 1)
        older = build()
    assert older.tojson() != build().tojson()
    run_until(parsed(tmp_path, "--model-prefix", str(tmp_path / "b")), older, epoch=1, batch=1)
    args = parsed(tmp_path, "--model-prefix", str(tmp_path / "b"), "--resume")
    run(args, build())
    assert same(tmp_path, "a", "b")
    assert (tmp_path / "b-symbol.json").read_text() == older.tojson()
    for epoch in (1, 2):
        checkpoint.load_params(str(tmp_path / "b"), epoch, build(), data=(BATCH, 1, 28, 28),
                               softmax_label=(BATCH,))
    with pytest.raises(ValueError, match="b-symbol.json: of another network than the flags say"):
        checkpoint.load_params(str(tmp_path / "b"), 2, symbols.get_symbol(
            "lenet", transform="similarity", outside="border"), data=(BATCH, 1, 28, 28),
            softmax_label=(BATCH,))


def check_same(tmp_path, name, undisturbed, resumed):
    """Fails unless a run came to the same as one named a, to the bit."""
    assert same(tmp_path, "a", name, epoch=3)
    assert filecmp.cmp(tmp_path / "a-symbol.json", tmp_path / f"{name}-symbol.json", shallow=False)
    for one, other in zip(undisturbed["history"], resumed["history"]):
        assert {**one, "seconds": None} == {**other, "seconds": None}


def stopped(tmp_path):
    """Trains until a SIGTERM within the second epoch."""
    run_until(parsed(tmp_path), symbols.get_symbol("lenet"), 1, 3)


def say_where(tmp_path, place):
    """Lets what a run left within an epoch say something else of where that was."""
    prefix = str(tmp_path / "a")
    arrays, meta = checkpoint.load_state(prefix, checkpoint.STOPPED)
    (tmp_path / "a-stopped.json").unlink()  # as a foreign one has none
    state_file.write(f"{prefix}-stopped.state", arrays,
                     dict(meta, under_way=place and dict(meta["under_way"], **place)))


def test_a_damaged_stop_is_passed_over(tmp_path, caplog):
    caplog.set_level("INFO")
    stopped(tmp_path)
    path = tmp_path / "a-stopped.params"
    path.write_bytes(path.read_bytes()[:-9])
    run(parsed(tmp_path, "--resume"))
    assert f"passed over: {tmp_path}" in caplog.text
    assert "a-stopped.params: not the file" in caplog.text
    assert "Resumes from the checkpoint after 1 epochs" in caplog.text


@pytest.mark.parametrize("place", [None, {"epoch": 2}])
def test_a_stop_that_says_no_place_in_the_run_is_passed_over(tmp_path, caplog, place):
    stopped(tmp_path)
    say_where(tmp_path, place)
    run(parsed(tmp_path, "--resume"))
    assert "a-stopped.state: it does not say where the run was stopped" in caplog.text


def test_a_stop_in_an_epoch_of_other_batches_is_refused(tmp_path):
    stopped(tmp_path)
    say_where(tmp_path, {"num_batches": 9})
    with pytest.raises(ValueError, match="stopped in an epoch of 9 batches, where there are 8 now"):
        run(parsed(tmp_path, "--resume"))


def test_a_stop_before_a_newer_checkpoint_is_not_gone_back_to(tmp_path, caplog):
    caplog.set_level("INFO")
    stopped(tmp_path)
    left = {path: path.read_bytes() for path in tmp_path.glob("a-stopped.*")}
    run(parsed(tmp_path, "--resume"))
    for path, content in left.items():  # as if it had been killed before it could remove them
        path.write_bytes(content)
    run(parsed(tmp_path, "--resume"))
    assert "Resumes from the checkpoint after 2 epochs" in caplog.text


def test_two_epochs_are_one_and_one_more_where_the_schedule_does_not_look_ahead(tmp_path):
    flags = ["--lr-schedule", "constant"]
    run(parsed(tmp_path, *flags))
    other = [*flags, "--model-prefix", str(tmp_path / "b")]
    _, before = run(parsed(tmp_path, *other, "--num-epochs", "1"))
    _, after = run(parsed(tmp_path, *other, "--load-epoch", "1"))
    assert same(tmp_path, "a", "b")
    first, second = (epoch["seconds"] for epoch in after["history"])
    assert first == before["seconds"] < second == after["seconds"]


def test_seeds_decide_everything(tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        run(parsed(tmp_path, "--model-prefix", str(tmp_path / name), "--seed", seed))
    assert same(tmp_path, "a", "b")
    assert not same(tmp_path, "a", "c")


def test_a_run_that_goes_on_with_other_flags_says_so(tmp_path, caplog):
    run(parsed(tmp_path, "--num-epochs", "1"))
    run(parsed(tmp_path, "--load-epoch", "1", "--lr", "0.004"))
    assert "--lr 0.003 there, --lr 0.004 here" in caplog.text
    assert "--num-epochs 1 there, --num-epochs 2 here" in caplog.text


def files_of(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("flags", "words"), [
    ([], "a-stopped.params: this run is there already: --resume goes on with it"),
    (["--lr", "0.004"], "of another run (--lr 0.003 there, --lr 0.004 here): give another "),
    (["--resume", "--batch-size", "20"], "(--batch-size 25 there, --batch-size 20 here)"),
    (["--resume", "--num-epochs", "4"], "--num-epochs 2 there, --num-epochs 4 here"),
    (["--resume", "--lr-step-epochs", "1.5"], "no --lr-step-epochs there, --lr-step-epochs 1.5 h"),
    (["--load-epoch", "1"], "a-stopped.params: what was made of epoch 1 before would be lost"),
])
def test_what_another_run_has_written_is_left_alone(tmp_path, caplog, flags, words):
    caplog.set_level("INFO")
    stopped(tmp_path)
    before = files_of(tmp_path)
    caplog.clear()
    with pytest.raises(ValueError, match=re.escape(words)):
        run(parsed(tmp_path, *flags))
    assert files_of(tmp_path) == before
    assert caplog.text == ""


def test_an_epoch_that_is_not_there_is_said_to_be_so(tmp_path):
    run(parsed(tmp_path))
    (tmp_path / "a-export").mkdir()
    (tmp_path / "a-export" / "made-of-it").touch()
    before = files_of(tmp_path)
    with pytest.raises(FileNotFoundError, match="a-0007.params"):
        run(parsed(tmp_path, "--num-epochs", "8", "--load-epoch", "7"))
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("flags", [[], ["--resume"]])
def test_it_is_overwritten_where_that_is_asked_for(tmp_path, flags):
    run(parsed(tmp_path, "--num-epochs", "3"))
    run(parsed(tmp_path, "--seed", "1", "--model-prefix", str(tmp_path / "b")))
    args = parsed(tmp_path, "--seed", "1", "--overwrite", *flags)
    run(args)
    assert checkpoint.epochs(args.model_prefix) == [1, 2]
    assert same(tmp_path, "a", "b")


def test_the_newest_checkpoints_are_removed_first(tmp_path, monkeypatch):
    """So a kill leaves an earlier state of the run."""
    run(parsed(tmp_path, "--num-epochs", "3"))
    removed = []
    monkeypatch.setattr(checkpoint, "remove", lambda _, name: removed.append(name))
    resume.clear(str(tmp_path / "a"), 1)
    assert removed == [3, 2]


def test_devices_change_the_last_bits_only(tmp_path, caplog):
    symbol = symbols.get_symbol("mlp")  # without dropout, which each device draws for itself
    run(parsed(tmp_path, "--model-prefix", str(tmp_path / "b")), symbol)
    run_until(parsed(tmp_path), symbol, 1, 3)
    run(parsed(tmp_path, "--resume", "--cpus", "3"), symbol)
    assert "not as the run would have: on cpu(0) there, on cpu(0),cpu(1),cpu(2) her" in caplog.text
    one, other = (mx.nd.load(str(tmp_path / f"{name}-0002.params")) for name in "ab")
    for name, value in one.items():
        np.testing.assert_allclose(value.asnumpy(), other[name].asnumpy(), rtol=0, atol=1e-5)
    caplog.clear()
    run(parsed(tmp_path, "--resume", "--cpus", "1"), symbol)
    assert "Goes on" not in caplog.text  # as there is nothing to train


def test_more_epochs_are_the_same_run_where_the_schedule_does_not_look_ahead(tmp_path, caplog):
    flags = ["--lr-schedule", "constant"]
    run(parsed(tmp_path, *flags))
    run(parsed(tmp_path, *flags, "--num-epochs", "1", "--model-prefix", str(tmp_path / "b")))
    run(parsed(tmp_path, *flags, "--resume", "--model-prefix", str(tmp_path / "b")))
    assert same(tmp_path, "a", "b")
    assert "Goes on" not in caplog.text


@pytest.mark.parametrize("flags", [["--resume"], []])
def test_checkpoints_of_another_program_are_left_alone(tmp_path, flags):
    run(parsed(tmp_path, "--num-epochs", "1"))
    without_state(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match="--load-epoch takes one|a-0001.params: there already"):
        run(parsed(tmp_path, *flags))
    assert files_of(tmp_path) == before


def test_a_checkpoint_without_state_goes_on_with_a_warning(tmp_path, caplog):
    run(parsed(tmp_path, "--num-epochs", "1"))
    without_state(tmp_path)
    assert largest_step(parsed(tmp_path, "--load-epoch", "1")) == pytest.approx(1, abs=1e-3)
    run(parsed(tmp_path, "--load-epoch", "1"))
    assert "the optimizer starts anew" in caplog.text


def largest_step(args):
    """How far Adam's first step after a checkpoint moves any parameter, in times the rate.

    One that begins moves each by the rate; one that counts steps which it has no memory of, by half
    to 3 times that.
    """
    (train, _), symbol = iterators(args), symbols.get_symbol("lenet")
    source = resume.Source(args.model_prefix, args.load_epoch, args.load_epoch)
    module, _ = fit.start(symbol, train, flags.recipe(args), source)
    before = {name: value.copy() for name, value in module.get_params()[0].items()}
    module.forward_backward(next(train))
    module.update()
    return max(float(mx.nd.abs(value - before[name]).max().asscalar())
               for name, value in module.get_params()[0].items()) / module.learning_rate


@pytest.mark.parametrize("more", [["--optimizer", "adam"], ["--fix", "stn_"]])
def test_an_optimizer_that_remembers_something_else_starts_anew(tmp_path, caplog, more):
    other = ["--optimizer", "rmsprop"] if more[0] == "--optimizer" else []
    run(parsed(tmp_path, "--num-epochs", "1", *other))
    args = parsed(tmp_path, "--load-epoch", "1", *more)
    assert largest_step(args) == pytest.approx(1, abs=1e-3)
    run(args)
    assert "here; the optimizer starts anew" in caplog.text
    assert checkpoint.load_state(args.model_prefix, 2)[1]["updates"] == COUNT // BATCH


@pytest.mark.parametrize(("one", "other"), [
    ("adagrad", "sgd"), ("signum", "sgd"), ("sgd", "rmsprop"), ("nag", "adagrad"),
    ("sgd", "sgd --mom 0"), ("sgd --mom 0", "sgd")])
def test_no_optimizer_takes_another_s_memory_for_its_own(tmp_path, one, other):
    run(parsed(tmp_path, "--num-epochs", "1", "--optimizer", *one.split()))
    args = parsed(tmp_path, "--load-epoch", "1", "--optimizer", *other.split())
    train, _ = iterators(args)
    module, _ = fit.start(symbols.get_symbol("lenet"), train, flags.recipe(args),
                          resume.Source(args.model_prefix, 1, 1))
    assert module.optimizer_state() == {}


@pytest.mark.parametrize("schedule", [
    ["--lr-schedule", "linear"], ["--lr-schedule", "cosine"],
    ["--lr-schedule", "constant", "--warmup-epochs", "5"],
    ["--lr-step-epochs", "2,5,7", "--lr-factor", "0.5"]])
@pytest.mark.parametrize("batch_size", [10, 100])
def test_the_schedule_goes_on_where_the_run_is_whatever_the_batches(tmp_path, schedule, batch_size):
    run(parsed(tmp_path, "--num-epochs", "8", "--lr", "0.001", *schedule))
    args = parsed(tmp_path, "--num-epochs", "8", "--lr", "0.001", *schedule, "--batch-size",
                  str(batch_size), "--load-epoch", "4", "--overwrite")
    (train, _), recipe = iterators(args), flags.recipe(args)
    module, begun = fit.start(symbols.get_symbol("lenet"), train, recipe,
                              resume.Source(args.model_prefix, 4, 4))
    assert begun.updates == 4 * COUNT // BATCH
    expected = recipe.optimizer_params(train.num_batches)["lr_scheduler"]
    for epoch in range(4, 8):
        train.seek(epoch)
        for number, batch in enumerate(train, start=epoch * train.num_batches + 1):
            module.forward_backward(batch)
            module.update()
            assert module.learning_rate == expected(number)


def test_a_state_that_is_not_of_a_training_is_refused(tmp_path):
    run(parsed(tmp_path, "--num-epochs", "1"))
    prefix = str(tmp_path / "a")
    arrays, meta = checkpoint.load_state(prefix, 1)
    (tmp_path / "a-0001.json").unlink()
    state_file.write(f"{prefix}-0001.state", arrays, {"params_sha256": meta["params_sha256"]})
    with pytest.raises(ValueError, match="it does not say recipe, seconds, updates: not the state"):
        run(parsed(tmp_path, "--load-epoch", "1"))


def test_a_state_that_is_not_of_its_optimizer_is_refused(tmp_path):
    """Before anything is removed."""
    run(parsed(tmp_path, "--num-epochs", "3"))
    prefix = str(tmp_path / "a")
    arrays, meta = checkpoint.load_state(prefix, 1)
    (tmp_path / "a-0001.json").unlink()
    state_file.write(f"{prefix}-0001.state", {"fc1_weight.0": arrays["fc1_weight.0"]}, meta)
    with pytest.raises(ValueError, match="of another optimizer"):
        run(parsed(tmp_path, "--load-epoch", "1", "--overwrite"))
    assert checkpoint.epochs(prefix) == [1, 2, 3]


def test_checkpoints_come_every_save_period_and_at_the_end(tmp_path):
    run(parsed(tmp_path, "--num-epochs", "5", "--save-period", "2"))
    assert sorted(path.name for path in tmp_path.glob("*.params")) == [
        "a-0002.params", "a-0004.params", "a-0005.params"]


def test_the_newest_whole_checkpoint_is_resumed(tmp_path, caplog):
    caplog.set_level("INFO")
    flags = ["--num-epochs", "4", "--resume"]
    run(parsed(tmp_path, *flags))
    assert "No checkpoint to resume from" in caplog.text
    whole = (tmp_path / "a-0004.params").read_bytes()
    (tmp_path / "a-0004.params").unlink()
    (tmp_path / "a-0003.state").write_bytes(b"")
    _, figures = run(parsed(tmp_path, *flags))
    for name in ("a-0004.params: missing", "a-0003.state: not the file"):
        assert name in caplog.text
    assert "Resumes from the checkpoint after 2 epochs" in caplog.text
    assert len(figures["history"]) == 4
    assert (tmp_path / "a-0004.params").read_bytes() == whole


def test_fewer_epochs_than_there_are_is_refused(tmp_path):
    run(parsed(tmp_path))
    with pytest.raises(ValueError, match="a-0002.params is of more epochs than --num-epochs 1"):
        run(parsed(tmp_path, "--num-epochs", "1", "--resume"))


def test_old_checkpoints_are_removed(tmp_path):
    for more in (["--num-epochs", "4"], ["--num-epochs", "5", "--resume"]):
        run(parsed(tmp_path, "--keep-last", "2", "--lr-schedule", "constant", *more))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"a-000{epoch}.{suffix}" for epoch in (4, 5) for suffix in ("json", "params", "state")
    ] + ["a-symbol.json"]


def test_a_damaged_later_checkpoint_does_not_drive_out_a_new_one(tmp_path):
    run(parsed(tmp_path, "--num-epochs", "3"))
    (tmp_path / "a-0003.params").write_bytes(b"")
    output = flags.output(parsed(tmp_path, "--keep-last", "1"), str(tmp_path / "a"))
    fit.remove_old(output, resume.RunSoFar(epochs=2))
    assert checkpoint.epochs(output.prefix) == [2, 3]


@pytest.mark.parametrize(("accuracies", "left"), [
    ([0.9, 0.5, 0.6, 0.7], [1, 4]), ([0.1, 0.9, 0.2, 0.9], [2, 4]), ([0.1, 0.2, 0.3, 0.4], [4])])
def test_the_best_checkpoint_is_kept(tmp_path, monkeypatch, accuracies, left):
    tallies = iter(accuracies)

    def scored(*_):
        return argparse.Namespace(accuracy=next(tallies), loss=0.0)

    monkeypatch.setattr(fit, "score", scored)
    keep = ["--keep-last", "1", "--keep-best", "--lr-schedule", "constant"]
    for more in (["--num-epochs", "2"], ["--num-epochs", "4", "--resume"]):
        run(parsed(tmp_path, *keep, *more), symbols.get_symbol("lenet", add_stn=False))
    assert checkpoint.epochs(str(tmp_path / "a")) == left


def test_an_accuracy_on_other_images_does_not_count():
    history = [{"validation_accuracy": 0.9}, {"test_accuracy": 0.5}, {"test_accuracy": 0.6}]
    begun = resume.RunSoFar(epochs=4, history=history)
    assert [begun.accuracy_after(epoch) for epoch in (1, 2, 3, 4)] == [-1, -1, 0.5, 0.6]


def test_validation_images_are_scored_after_each_epoch_and_the_test_images_once(
        tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    args = parsed(tmp_path, "--keep-last", "1", "--keep-best", "--num-epochs", "3", "--lr", "0.01")
    train, test = iterators(args)
    validation = ImageIter(*synthetic.draw(90, seed=2), args.batch_size, raw=True)
    scored, score = [], fit.score

    def recorded(module, batches):
        scored.append((batches, score(module, batches)))
        return scored[-1][1]

    monkeypatch.setattr(fit, "score", recorded)
    module, figures = run(args, batches=(train, test), validation=validation)
    assert [batches for batches, _ in scored] == [validation] * 3 + [test]
    accuracies = [tally.accuracy for _, tally in scored]
    assert [epoch["validation_accuracy"] for epoch in figures["history"]] == accuracies[:3]
    assert not any("test_accuracy" in epoch for epoch in figures["history"])
    assert figures["test_accuracy"] == accuracies[3] == score(module, test).accuracy
    assert f"Test-accuracy={accuracies[3]:f}" in caplog.text
    best = 1 + int(np.argmax(accuracies[:3]))
    assert checkpoint.epochs(args.model_prefix) == sorted({best, 3})

    again = run(parsed(tmp_path, "--num-epochs", "3", "--lr", "0.01", "--resume"),
                batches=(train, test), validation=validation)[1]
    assert [batches for batches, _ in scored[4:]] == [test]  # of a finished run, too
    assert dict(again, transformers=None) == dict(figures, transformers=None)


def test_training_that_turns_non_finite_stops_before_it_is_saved(tmp_path):
    run(parsed(tmp_path, "--num-epochs", "1"))
    before = (tmp_path / "a-0001.params").read_bytes()
    args = parsed(tmp_path, "--num-epochs", "3", "--load-epoch", "1", "--optimizer", "sgd",
                  "--lr", "1e38", "--lr-schedule", "constant")
    without_state(tmp_path)
    with pytest.raises(cli.Diverged, match=r"non-finite in epoch 1.*--load-epoch 1"):
        run(args)
    assert (tmp_path / "a-0001.params").read_bytes() == before
    assert not list(tmp_path.glob("a-0002*"))


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    args = parsed(tmp_path, "--optimizer", "sgd", "--lr", "1e38", "--lr-schedule", "constant")
    train, _ = iterators(args)
    symbol, recipe = symbols.get_symbol("lenet"), flags.recipe(args)
    module, done = fit.start(symbol, train, recipe)
    for _ in range(3):
        module.forward_backward(next(train))
        module.update()
    done.epochs = 1
    with pytest.raises(cli.Diverged, match="became non-finite in epoch 0"):
        fit.save(symbol, module, recipe, fit.Output(args.model_prefix), done, train.image_shape)
    assert not list(tmp_path.iterdir())


def test_the_train_metric_is_of_the_images_that_were_trained(tmp_path):
    args = parsed(tmp_path, "--lr", "1e-30", "--cpus", "2")
    symbol = symbols.get_symbol("mlp")  # no dropout: training and prediction agree
    train, _ = iterators(args)
    module, _ = fit.start(symbol, train, flags.recipe(args))
    tally = fit.train_epoch(module, train, flags.recipe(args), 0)
    test = ImageIter(train.images, train.labels, BATCH, raw=True)
    assert tally.count == COUNT
    assert tally.correct == fit.score(module, test).correct


@pytest.mark.parametrize(("schedule", "expected"), [
    (["--lr-schedule", "linear"], [0.5, 1, 0.5]),
    (["--lr-schedule", "cosine"], [0.5, 1, 0.5]),
    (["--lr-schedule", "constant"], [1, 1, 1]),
    (["--lr-schedule", "constant", "--warmup-epochs", "4"], [0.25, 0.5, 1]),
    (["--lr-step-epochs", "2,4", "--lr-factor", "0.5"], [1, 0.5, 0.25]),
])
def test_schedules(tmp_path, schedule, expected):
    args = parsed(tmp_path, "--num-epochs", "8", "--lr", "1", *schedule)
    rate = flags.recipe(args).optimizer_params(100)["lr_scheduler"]
    rates = [rate(step) for step in (100, 201, 500)]
    np.testing.assert_allclose(rates, expected, rtol=0.02)


def test_steps_that_fall_on_one_batch_are_refused(tmp_path):
    recipe = flags.recipe(parsed(tmp_path, "--num-epochs", "2", "--lr-step-epochs", "0.1,0.5"))
    with pytest.raises(ValueError, match="--lr-step-epochs: two of them fall on the same of the 1"):
        recipe.optimizer_params(1)


@pytest.mark.parametrize("optimizer", IN_FLOAT32)
def test_what_computes_in_float32_alone_is_refused_in_float64(optimizer):
    with pytest.raises(ValueError, match=f"MXNet's {optimizer} computes in float32 alone"):
        Recipe(optimizer=optimizer, dtype="float64")


@pytest.mark.parametrize(("name", "value"), [
    ("lr_schedule", "cosin"), ("optimizer", "adm"), ("optimizer", "SGD"),
    ("optimizer", "lamb"), ("initializer", "xavir")])
def test_what_a_recipe_does_not_know_is_refused(name, value):
    with pytest.raises(ValueError, match=f"no {name} '{value}': there is .*, "):
        Recipe(**{name: value})


def test_initial_values_hang_on_the_name_alone():
    draws = []
    for names in (["b"], ["a", "b", "c"]):
        initializer = SeededInit(mx.init.Xavier(), 0)
        arrays = {name: mx.nd.zeros((4, 4)) for name in names}
        for name, array in arrays.items():
            initializer(mx.init.InitDesc(name + "_weight"), array)
        draws.append(arrays["b"].asnumpy())
    np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_every_initializer_trains(tmp_path, name):
    args = parsed(tmp_path, "--num-epochs", "1", "--initializer", name)
    module, _ = fit.start(symbols.get_symbol("lenet"), iterators(args)[0], flags.recipe(args))
    weight = module.get_params()[0]["fc1_weight"]
    wanted = mx.nd.zeros(weight.shape)
    SeededInit(INITIALIZERS[name](), args.seed)(mx.init.InitDesc("fc1_weight"), wanted)
    np.testing.assert_array_equal(weight.asnumpy(), wanted.asnumpy())
    run(args)


def test_the_optimizer_gets_what_the_flags_say(tmp_path):
    args = parsed(tmp_path, "--optimizer", "nag", "--mom", "0.7", "--wd", "0.02")
    params = flags.recipe(args).optimizer_params(8)
    assert (params["momentum"], params["wd"]) == (0.7, 0.02)


def test_devices():
    assert devices.contexts(None, 3, 128) == [mx.cpu(0), mx.cpu(1), mx.cpu(2)]
    assert devices.contexts(None, None, 1) == [mx.cpu(0)]
    with pytest.raises(ValueError, match="does not fill 5 devices"):
        devices.contexts(None, 5, 4)


@pytest.mark.parametrize("text", ["", "a", "-1", "0,0", "0,,1", "1.5"])
def test_bad_gpu_lists(text):
    with pytest.raises(argparse.ArgumentTypeError):
        flags._gpus(text)


def test_scoring_does_not_disturb_the_steps_that_are_still_queued(tmp_path):
    trained = []
    for wait in (True, False):
        args = parsed(tmp_path, "--batch-size", str(COUNT))  # slow enough to queue up
        train, test = iterators(args)
        module, _ = fit.start(symbols.get_symbol("lenet"), train, flags.recipe(args))
        mx.random.seed(0)
        for _ in range(10):
            module.forward_backward(next(train))
            module.update()
            train.reset()
        if wait:
            mx.nd.waitall()
        fit.score(module, test)
        trained.append(module.get_params()[0])
    for name, value in trained[0].items():
        np.testing.assert_array_equal(value.asnumpy(), trained[1][name].asnumpy())


def streamed(path, images, labels):
    """A ``records.Stream`` of images (N, H, W), written to a .rec file, and their labels."""
    with open(path, "wb") as file:
        for image, label in zip(images, labels):
            picture = io.BytesIO()
            arrays.to_pillow(image[None]).save(picture, "PNG")
            file.write(records.frame(records.HEADER.pack(0, label, 0, 0) + picture.getvalue()))
    reader = records.Reader(str(path))
    return records.Stream(reader), reader.labels


def test_a_run_on_streams_is_that_on_arrays(tmp_path):
    args = parsed(tmp_path, "--cpus", "1", "--num-epochs", "1", "--visualize-every", "1")
    drawn = synthetic.draw(COUNT, seed=0), synthetic.draw(60, seed=1)
    on_disk = [streamed(tmp_path / f"{len(arrays[0])}.rec", *arrays) for arrays in drawn]
    for name, (train, test) in (("a", drawn), ("b", on_disk)):
        args.model_prefix = str(tmp_path / name)
        run(args, None, (ImageIter(*train, BATCH, seed=args.seed, jitter=Jitter(2, True, 0.3)),
                         ImageIter(*test, BATCH)))
    assert same(tmp_path, "a", "b", 1)
    assert filecmp.cmp(tmp_path / "a-film" / "0001.png", tmp_path / "b-film" / "0001.png", False)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_is_free_is_given_back():
    code = ("from common import find_mxnet; from common.training import fit\n"
            "from tests.conftest import resident\n"
            "blocks = [bytes(3000) for _ in range(20000)]\n"  # 57 MiB
            "blocks[:] = [block for number, block in enumerate(blocks) if number % 10 == 9]\n"
            "before = resident(); fit._give_back_memory(); print(before - resident())")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE,
                          check=True)
    assert float(done.stdout) > 20


def test_it_is_given_back_after_each_epoch(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(fit, "_give_back_memory", lambda: given.append(True))
    run(parsed(tmp_path))
    assert len(given) == 2
