"""What a run goes on from: a checkpoint after an epoch, or that of a run stopped within one."""
import logging

from common import checkpoint


def newest(args, recipe, num_batches):
    """What ``--resume`` goes on from.

    Args:
        args: the flags of ``options.add_training_flags``, completed.
        recipe: of ``options.recipe``.
        num_batches: in an epoch.

    Returns:
        What ``checkpoint`` knows it by, and how many epochs are finished there; None twice to start
        anew.

    Raises:
        ValueError: it is of more epochs than are to be trained.
    """
    epoch = checkpoint.newest(args.model_prefix)
    if epoch is not None and epoch > args.num_epochs:
        raise ValueError(f"{checkpoint.paths(args.model_prefix, epoch)[1]} is of more epochs than "
                         f"--num-epochs {args.num_epochs}: give another --model-prefix")
    stopped = _stopped(args.model_prefix, recipe, num_batches)
    if stopped and stopped["epoch"] >= (epoch or 0):
        logging.info("Resumes in epoch %d, after %d of %d batches", stopped["epoch"],
                     stopped["batch"], num_batches)
        return checkpoint.STOPPED, stopped["epoch"]
    if epoch is None:
        logging.info("No checkpoint to resume from: starts anew")
    else:
        logging.info("Resumes from the checkpoint after %d epochs", epoch)
    return epoch, epoch


def _stopped(prefix, recipe, num_batches):
    """Where a run of the same recipe was stopped within an epoch; None if none was."""
    try:
        meta = checkpoint.check(prefix, checkpoint.STOPPED)
        if meta is None:
            return None
        path, under_way = checkpoint.paths(prefix, checkpoint.STOPPED)[2], meta.get("under_way")
        _check_complete(path, meta)
        if under_way is None or under_way["epoch"] >= recipe["num_epochs"]:
            raise ValueError(f"{path}: it does not say where the run was stopped")
        differences = _differences(dict(recipe, num_batches=num_batches),
                                   {**meta["recipe"], "num_batches": under_way["num_batches"]})
        if differences:
            raise ValueError(f"{path}: of a run with other flags ({'; '.join(differences)})")
        return under_way
    except (ValueError, OSError) as error:
        logging.warning("The checkpoint within an epoch is passed over: %s", error)
        return None


def behind(path, recipe, meta, epoch, num_batches):
    """What a run has behind it, by the meta of a checkpoint; warns if it goes on differently.

    Args:
        path: of the state that the meta is from.
        recipe: as for ``newest``.
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
    differences = _differences(recipe, meta["recipe"])
    if differences:
        logging.warning("Goes on, but not as the run would have: %s", "; ".join(differences))
    return {"updates": meta["updates"], "seconds": meta["seconds"],
            "history": meta.get("history", []),  # which older checkpoints lack
            "under_way": meta.get("under_way")}


def _check_complete(path, meta):
    missing = {"recipe", "updates", "seconds"} - set(meta)
    if missing:
        raise ValueError(f"{path}: it does not say {', '.join(sorted(missing))}: not the state of "
                         "a training")


def _differences(recipe, former):
    return [f"{name} is {value}, was {former.get(name)}"
            for name, value in recipe.items() if value != former.get(name)]
