"""What a run goes on from, and what of other runs it must not overwrite."""
import logging
import os

from common.storage import checkpoint
from common.training import flags

ROUNDING = ("devices", "kv_store")  # they change a run in its last bits alone


def source(args, recipe, num_batches):
    """What a run goes on from.

    Args:
        args: the flags of ``flags.add_training_flags``, completed.
        recipe: of ``flags.recipe``.
        num_batches: in an epoch.

    Returns:
        What ``checkpoint`` knows it by, and how many epochs are finished there; None twice to start
        anew.

    Raises:
        ValueError: there are files of another run, or of this one, that are not to be overwritten;
            or none is whole, or they are of more epochs than are to be trained.
    """
    if args.resume and not args.overwrite and checkpoint.begun(args.model_prefix):
        return _newest(args, recipe, num_batches)
    if not args.overwrite:
        _check_free(args, recipe)
    if args.resume:
        logging.info("No checkpoint to resume from: starts anew")
    return args.load_epoch, args.load_epoch


def clear(prefix, epoch):
    """Removes the checkpoints after an epoch, all where it is None; newest first.

    So what a kill leaves of a run is an earlier state of it.
    """
    for later in reversed(_later(prefix, epoch)):
        checkpoint.remove(prefix, later)


def saved_progress(path, recipe, meta, epoch, num_batches):
    """What a run has behind it, by the meta of a checkpoint; warns if it goes on differently.

    Args:
        path: of the state that the meta is from.
        recipe: as for ``source``.
        meta: None for a checkpoint of another program.
        epoch: finished epochs.
        num_batches: in an epoch.

    Returns:
        ``{"updates": steps, "seconds": time, "history": the figures after each epoch,
        "under_way": where the run was stopped within an epoch, or None}``; the steps are those of
        whole epochs.

    Raises:
        ValueError: the meta is not that of a training.
    """
    if meta is None:
        logging.warning("The checkpoint has no state: the optimizer starts anew")
        return {"updates": epoch * num_batches, "seconds": 0.0, "history": [], "under_way": None}
    _check_complete(path, meta)
    differences = _differences(recipe, meta)
    if differences and epoch < recipe["num_epochs"]:
        logging.warning("Goes on, but not as the run would have: %s",
                        "; ".join(differences))
    return {"updates": meta["updates"], "seconds": meta["seconds"],
            "history": meta.get("history", []),  # which older checkpoints lack
            "under_way": meta.get("under_way")}


def _newest(args, recipe, num_batches):
    """What ``--resume`` goes on from, where there is any checkpoint."""
    prefix = args.model_prefix
    place = epoch = checkpoint.newest(prefix)
    if epoch is not None and epoch > args.num_epochs:
        raise ValueError(f"{checkpoint.paths(prefix, epoch)[1]} is of more epochs than "
                         f"--num-epochs {args.num_epochs}: give another --model-prefix")
    stopped = _stopped(prefix, recipe)
    if stopped and stopped["epoch"] >= (epoch or 0):
        place, epoch = checkpoint.STOPPED, stopped["epoch"]
    if place is None:
        raise ValueError(f"{prefix}: there are checkpoints, but none that --resume can go on from: "
                         "--load-epoch takes one without a state, --overwrite begins anew")
    path, meta = checkpoint.paths(prefix, place)[1], checkpoint.load_state(prefix, place)[1]
    _check_complete(path, meta)
    differences = _differences(recipe, meta, ROUNDING)
    if differences:
        from_there = f", with --load-epoch {place} to go on from it"
        if place in (checkpoint.STOPPED, args.num_epochs):
            from_there = ""
        raise ValueError(f"{path}: of another run than --resume asks for "
                         f"({'; '.join(differences)}): give another --model-prefix, or --overwrite "
                         f"to begin anew in its place{from_there}")
    if place == checkpoint.STOPPED:
        if stopped["num_batches"] != num_batches:
            raise ValueError(f"{path}: stopped in an epoch of {stopped['num_batches']} batches, "
                             f"where there are {num_batches} now: the images are not the same")
        logging.info("Resumes in epoch %d, after %d of %d batches", epoch, stopped["batch"],
                     num_batches)
    else:
        logging.info("Resumes from the checkpoint after %d epochs", epoch)
    return place, epoch


def _stopped(prefix, recipe):
    """Where a run was stopped within an epoch; None if none was."""
    try:
        meta = checkpoint.check(prefix, checkpoint.STOPPED)
        if meta is None:
            return None
        path, under_way = checkpoint.paths(prefix, checkpoint.STOPPED)[2], meta.get("under_way")
        _check_complete(path, meta)
        if under_way is None or under_way["epoch"] >= recipe["num_epochs"]:
            raise ValueError(f"{path}: it does not say where the run was stopped")
        return under_way
    except (ValueError, OSError) as error:
        logging.warning("The checkpoint within an epoch is passed over: %s", error)
        return None


def _check_free(args, recipe):
    """Raises ValueError if a run that starts, or goes on from --load-epoch, would overwrite files.
    """
    prefix, epoch = args.model_prefix, args.load_epoch
    export = f"{prefix}-export"
    in_the_way = [checkpoint.paths(prefix, later)[1] for later in reversed(_later(prefix, epoch))]
    in_the_way += [export] if os.path.isdir(export) and os.listdir(export) else []
    if not in_the_way:
        return
    if epoch:
        raise ValueError(f"{in_the_way[0]}: what was made of epoch {epoch} before would be lost: "
                         "--overwrite replaces it; to keep it, go on from a copy of the checkpoint "
                         "under another --model-prefix")
    differences = _differences_from_newest(prefix, recipe)
    if differences == []:
        raise ValueError(f"{in_the_way[0]}: this run is there already: --resume goes on with it, "
                         "--overwrite begins it anew")
    other = f"of another run ({'; '.join(differences)})" if differences else "there already"
    raise ValueError(f"{in_the_way[0]}: {other}: give another --model-prefix, or --overwrite to "
                     "begin anew in its place")


def _differences_from_newest(prefix, recipe):
    """Those from the newest checkpoint that says its recipe; None if none does."""
    for epoch in reversed(_later(prefix, None)):
        try:
            meta = checkpoint.load_state(prefix, epoch)[1]
            _check_complete(prefix, meta or {})
            return _differences(recipe, meta, ROUNDING)
        except (ValueError, OSError):
            continue
    return None


def _later(prefix, epoch):
    """What ``checkpoint`` knows the checkpoints after an epoch by, rising; all if it is None."""
    later = [one for one in checkpoint.epochs(prefix) if epoch is None or one > epoch]
    stopped = os.path.exists(checkpoint.paths(prefix, checkpoint.STOPPED)[1])
    return [*later, checkpoint.STOPPED] if stopped else later


def _check_complete(path, meta):
    missing = {"recipe", "updates", "seconds"} - set(meta)
    if missing:
        raise ValueError(f"{path}: it does not say {', '.join(sorted(missing))}: not the state of "
                         "a training")


def _differences(recipe, meta, apart=()):
    """What a checkpoint's run has otherwise than a recipe, in words; beside what it does not say.

    Args:
        recipe: as for ``source``.
        meta: of the checkpoint.
        apart: names that do not count.
    """
    former, alike = {**meta.get("flags", {}), **meta["recipe"]}, set(apart)
    if recipe["lr_schedule"] not in flags.LOOKING_AHEAD:
        alike.add("num_epochs")
    if recipe.get("data_sha256") and recipe["data_sha256"] == former.get("data_sha256"):
        alike |= {"data_dir", "num_examples"}
    unlike = [name for name, value in recipe.items()
              if name not in alike and name in former and former[name] != value]
    if set(unlike) & {"dataset", "data_dir", "num_examples"}:
        unlike = [name for name in unlike if name != "data_sha256"]
    return [f"{_as_flag(name, former[name])} there, {_as_flag(name, recipe[name])} here"
            for name in unlike]


def _as_flag(name, value):
    if name == "data_sha256":
        return f"images with the SHA-256 {str(value)[:8]}..."
    flag = "on" if name == "devices" else f"--{name.replace('_', '-')}"
    if value is None or isinstance(value, bool):
        return flag if value else f"no {flag}"
    return f"{flag} {','.join(map(str, value)) if isinstance(value, list) else value}"
