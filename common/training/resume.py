"""What a run goes on from, and what of other runs it must not overwrite."""
import contextlib
import dataclasses
import logging
import os
from typing import Any, Mapping, NamedTuple, Optional

from common import cli
from common.models.metrics import Tally
from common.provenance import provenance
from common.storage import checkpoint
from common.training.recipe import LOOKING_AHEAD

ROUNDING = ("devices", "kv_store", "threads")  # they change a run in its last bits alone
# Where the images are from; where their SHA-256 is the same, that does not matter.
ORIGINS = ("data_dir", "data_train", "data_val", "image_shape", "num_examples")
# What runs did before their recipes had a word for it:
BEFORE = {"brightness": 0.0, "data_train": None, "data_val": None, "depth": None, "dropout": None,
          "fix": None, "image_shape": None, "loc_lr_mult": None, "num_workers": 1, "outside": None,
          "pad_size": 0, "pretrained": None, "pretrained_sha256": None, "random_crop": 0,
          "random_mirror": 0, "reset": None, "stable": False, "stn_at": None, "stn_steps": None,
          "validation": 0}
# What networks do where flags leave it out, so that it is the same to spell it out:
IMPLIED = {"dropout": 0.5, "outside": "zero", "pool": 1, "stn_at": "input", "stn_steps": 1,
           "transform": "affine"}
# What differs because something else does, of which it is enough to speak:
FOLLOWS = {"classes": {"num_classes"}, "data_sha256": {"dataset", *ORIGINS},
           "pretrained_sha256": {"pretrained"}}
START = ("pretrained", "pretrained_sha256", "reset")  # how a run begins, and nothing after that


class Source(NamedTuple):
    """A checkpoint to go on from: its name for ``checkpoint``, and the epochs finished there."""

    prefix: str
    name: Any
    epochs: int


@dataclasses.dataclass
class RunSoFar:
    """What a run has behind it.

    Attributes:
        epochs: that are finished.
        updates: steps in them that the optimizer remembers.
        seconds: of training, over all processes.
        history: the figures after each epoch.
        stopped_at: where it was stopped within an epoch, ``{"epoch", "batch", "num_batches",
            "tally"}``, or None; the tally is that of the first worker, under "others" are those
            of the others.
        trained_by: the command and the versions, as of ``provenance``.
        started_from: what ``pretrained.take`` says of its start, or None.
    """

    epochs: int = 0
    updates: int = 0
    seconds: float = 0.0
    history: list = dataclasses.field(default_factory=list)
    stopped_at: Optional[dict] = None
    trained_by: Mapping = dataclasses.field(default_factory=dict)
    started_from: Optional[dict] = None

    def finish_epoch(self, train, figures):
        """Takes note of an epoch of an ``ImageIter``, and of the figures after it."""
        self.epochs, self.updates = self.epochs + 1, self.updates + train.num_batches
        self.seconds, self.history = figures["seconds"], [*self.history, figures]
        self.stopped_at = None

    def stop(self, train, tallies, seconds):
        """Takes note of where an epoch is left, with the ``Tally`` of each worker."""
        self.seconds = seconds
        first, *others = map(vars, tallies)
        self.stopped_at = {"epoch": self.epochs, "batch": train.position,
                           "num_batches": train.num_batches, "tally": first}
        if others:
            self.stopped_at["others"] = others

    def accuracy_after(self, epoch):
        """That which was measured after so many epochs; -1 if none was, of the images of now."""
        back = self.epochs - epoch
        if back >= len(self.history):
            return -1
        held_out = "validation_accuracy" in self.history[-1]
        return self.history[-1 - back].get(
            "validation_accuracy" if held_out else "test_accuracy", -1)

    def origin(self):
        """What trained the network and, if it did not start anew, what it started from."""
        start = {"started_from": self.started_from} if self.started_from else {}
        return {**self.trained_by, **start}

    def as_meta(self):
        """What a checkpoint keeps of it."""
        return {"updates": self.updates, "seconds": self.seconds, "history": self.history,
                "under_way": self.stopped_at, **self.origin()}


def source(output, recipe, num_batches):
    """What a run goes on from.

    Args:
        output: the ``fit.Output``.
        recipe: a ``Recipe``.
        num_batches: in an epoch.

    Returns:
        A ``Source``; None to start anew.

    Raises:
        ValueError: there are files of another run, or of this one, that are not to be overwritten;
            or none is whole, or they are of more epochs than are to be trained.
    """
    prefix, epoch = output.prefix, output.load_epoch
    if output.resume and checkpoint.begun(prefix):
        try:
            return _newest(prefix, recipe, num_batches)
        except ValueError:
            if not output.overwrite:
                raise
    if not output.overwrite:
        _check_free(prefix, epoch, recipe)
    if output.resume:
        logging.info("No checkpoint to resume from: starts anew")
    return Source(prefix, epoch, epoch) if epoch else None


def tally_before(stopped_at, rank):
    """What a worker had counted of an epoch where it was left, a ``Tally``."""
    tallies = [stopped_at["tally"], *stopped_at.get("others", [])] if stopped_at else []
    return Tally(**tallies[rank]) if rank < len(tallies) else Tally()


def clear(prefix, epoch):
    """Removes the checkpoints after an epoch, all where it is None; newest first.

    So what a kill leaves of a run is an earlier state of it.
    """
    for later in reversed(_later(prefix, epoch)):
        checkpoint.remove(prefix, later)


def load(source, recipe):
    """What a run has behind it at a checkpoint; warns if it goes on differently.

    Args:
        source: a ``Source``.
        recipe: a ``Recipe``.

    Returns:
        The ``RunSoFar``, and the optimizer's arrays; None for them where it starts anew: another
        program wrote the checkpoint, or the recipe's optimizer would remember something else.

    Raises:
        ValueError: the checkpoint is not that of a training, or of one with another start.
    """
    arrays, meta = checkpoint.load_state(source.prefix, source.name)
    if meta is None:
        _check_start(recipe, source, {})
        logging.warning("The checkpoint has no state: the optimizer starts anew")
        return RunSoFar(source.epochs), None
    path = checkpoint.paths(source.prefix, source.name)[2]
    _check_complete(path, meta)
    _check_start(recipe, source, meta)
    unlike = differences(recipe, meta, START)
    if _remembers_else(recipe, meta):
        arrays, meta = None, {**meta, "updates": 0}
        unlike.append("the optimizer starts anew")
    if unlike and source.epochs < recipe.num_epochs:
        logging.warning("Goes on, but not as the run would have: %s", "; ".join(unlike))
    return RunSoFar(
        source.epochs, meta["updates"], meta["seconds"], meta.get("history", []),  # or an older one
        meta.get("under_way"), {name: meta[name] for name in provenance() if name in meta},
        meta.get("started_from")), arrays


def _remembers_else(recipe, meta):
    """Whether the optimizer of a checkpoint had another memory than a recipe's will have."""
    here = recipe.as_json()
    was, will = ((said["optimizer"], said["mom"] == 0, said["fix"])
                 for said in ({**here, **_before(meta)}, here))
    return was != will


def _check_start(recipe, source, meta):
    """Raises ValueError if a recipe starts from a model that a checkpoint was not made from."""
    there = _before(meta)
    if recipe.pretrained and (recipe.pretrained.sha256, recipe.reset) != (
            there["pretrained_sha256"], there["reset"]):
        path = checkpoint.paths(source.prefix, source.name)[1]
        raise ValueError(f"{path}: not begun with this --pretrained and --reset: leave them out to "
                         "go on from there, since they only say how a run begins")


def _newest(prefix, recipe, num_batches):
    """The ``Source`` that ``--resume`` goes on from, where there is any checkpoint."""
    name = epochs = checkpoint.newest(prefix)
    if epochs is not None and epochs > recipe.num_epochs:
        raise ValueError(f"{checkpoint.paths(prefix, epochs)[1]} is of more epochs than "
                         f"--num-epochs {recipe.num_epochs}: give another --model-prefix")
    stopped_at = _stopped_at(prefix, recipe)
    if stopped_at and stopped_at["epoch"] >= (epochs or 0):
        name, epochs = checkpoint.STOPPED, stopped_at["epoch"]
    if name is None:
        raise ValueError(f"{prefix}: there are checkpoints, but none that --resume can go on from: "
                         "--load-epoch takes one without a state, --overwrite begins anew")
    path, meta = checkpoint.paths(prefix, name)[1], checkpoint.load_state(prefix, name)[1]
    _check_complete(path, meta)
    unlike = differences(recipe, meta, ROUNDING)
    if unlike:
        from_there = f", with --load-epoch {name} to go on from it"
        if name in (checkpoint.STOPPED, recipe.num_epochs):
            from_there = ""
        raise ValueError(f"{path}: of another run than --resume asks for "
                         f"({'; '.join(unlike)}): give another --model-prefix, or --overwrite "
                         f"to begin anew in its place{from_there}")
    if name == checkpoint.STOPPED:
        if stopped_at["num_batches"] != num_batches:
            raise ValueError(f"{path}: stopped in an epoch of {stopped_at['num_batches']} batches, "
                             f"where there are {num_batches} now: the images are not the same")
        logging.info("Resumes in epoch %d, after %d of %d batches", epochs, stopped_at["batch"],
                     num_batches)
    else:
        logging.info("Resumes from the checkpoint after %d epochs", epochs)
    return Source(prefix, name, epochs)


def _stopped_at(prefix, recipe):
    """Where a run was stopped within an epoch; None if none was."""
    try:
        meta = checkpoint.check(prefix, checkpoint.STOPPED)
        if meta is None:
            return None
        path, stopped_at = checkpoint.paths(prefix, checkpoint.STOPPED)[2], meta.get("under_way")
        _check_complete(path, meta)
        if stopped_at is None or stopped_at["epoch"] >= recipe.num_epochs:
            raise ValueError(f"{path}: it does not say where the run was stopped")
        return stopped_at
    except (ValueError, OSError) as error:
        logging.warning("The checkpoint within an epoch is passed over: %s", error)
        return None


def _check_free(prefix, epoch, recipe):
    """Raises ValueError if a run that starts, or goes on from an epoch, would overwrite files."""
    export = f"{prefix}-export"
    in_the_way = [checkpoint.paths(prefix, later)[1] for later in reversed(_later(prefix, epoch))]
    in_the_way += [export] if os.path.isdir(export) and os.listdir(export) else []
    if not in_the_way or (epoch and epoch not in checkpoint.epochs(prefix)):  # that is said later
        return
    if epoch:
        raise ValueError(f"{in_the_way[0]}: what was made of epoch {epoch} before would be lost: "
                         "--overwrite replaces it; to keep it, go on from a copy of the checkpoint "
                         "under another --model-prefix")
    unlike = _differences_from_newest(prefix, recipe)
    if unlike == []:
        raise ValueError(f"{in_the_way[0]}: this run is there already: --resume goes on with it, "
                         "--overwrite begins it anew")
    other = f"of another run ({'; '.join(unlike)})" if unlike else "there already"
    raise ValueError(f"{in_the_way[0]}: {other}: give another --model-prefix, or --overwrite to "
                     "begin anew in its place")


def _differences_from_newest(prefix, recipe):
    """Those from the newest checkpoint that says its recipe; None if none does."""
    for epoch in reversed(_later(prefix, None)):
        with contextlib.suppress(ValueError, OSError):
            meta = checkpoint.load_state(prefix, epoch)[1]
            _check_complete(prefix, meta or {})
            return differences(recipe, meta, ROUNDING)
    return None


def _later(prefix, epoch):
    """What ``checkpoint`` knows the checkpoints after an epoch by, rising; all if it is None."""
    later = [one for one in checkpoint.epochs(prefix) if epoch is None or one > epoch]
    return [*later, checkpoint.STOPPED] if checkpoint.has_stopped(prefix) else later


def _check_complete(path, meta):
    missing = {"recipe", "updates", "seconds"} - set(meta)
    if missing:
        raise ValueError(f"{path}: it does not say {', '.join(sorted(missing))}: not the state of "
                         "a training")


def differences(recipe, meta, apart=(), longer=True):
    """What a checkpoint's run has otherwise than a recipe, in words; beside what it does not say.

    Args:
        recipe: a ``Recipe``.
        meta: of the checkpoint.
        apart: names that do not count.
        longer: whether it may be longer, where its schedule does not look ahead.
    """
    here, there = recipe.as_json(), _before(meta)
    alike = set(apart)
    if "classes" not in meta.get("recipe", {}):  # older runs may have named them otherwise
        alike.add("classes")
    if longer and recipe.lr_schedule not in LOOKING_AHEAD:
        alike.add("num_epochs")
    if here.get("data_sha256") and here["data_sha256"] == there.get("data_sha256"):
        alike |= set(ORIGINS)
    if here["pretrained"] and here["pretrained_sha256"] == there["pretrained_sha256"]:
        alike.add("pretrained")
    names = [name for name in here if name not in alike and name in there
             and _spelled_out(name, there[name]) != _spelled_out(name, here[name])]
    return [f"{_as_flag(name, there[name])} there, {_as_flag(name, here[name])} here"
            for name in names if not FOLLOWS.get(name, set()).intersection(names)]


def _spelled_out(name, value):
    """The value of a flag, or what it implies where it is left out."""
    return IMPLIED.get(name) if value is None else value


def _before(meta):
    """What a checkpoint says that its run was, by name."""
    return {**BEFORE, **meta.get("flags", {}), **meta.get("recipe", {})}


def _as_flag(name, value):
    if name == "pretrained_sha256":
        return f"--pretrained of the SHA-256 {str(value)[:8]}..."
    if name == "data_sha256":
        return f"images with the SHA-256 {str(value)[:8]}..."
    if name == "threads":
        return f"{value} threads on each device" if value > 1 else "one thread on each device"
    if name == "classes":
        return f"the classes {cli.some(value)}"
    if name == "num_workers":
        return f"{value} workers" if value > 1 else "one worker"
    flag = "on" if name == "devices" else cli.flag_of(name)
    if value is None or isinstance(value, bool) or (name, value) == ("validation", 0):
        return flag if value else f"no {flag}"
    return f"{flag} {','.join(map(str, value)) if isinstance(value, list) else value}"
