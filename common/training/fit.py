"""Trains a symbol with ``mx.mod.Module``: start or resume, the loop, checkpoints.

What a run computes follows from its flags alone: the start of each parameter from (seed, its name),
the order of the images and the dropout from (seed, epoch). So a resumed run goes on with the same
bits, and a network starts from the same classifier with and without its transformer. MXNet's random
generator can be seeded, but its state not be saved: a run that was stopped within an epoch draws
again what it had drawn in it.
"""
import logging
import math
import time

import mxnet as mx
import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

from common import cli, files
from common.data.batches import derive_seed
from common.graph import rewrite
from common.models import devices
from common.models.metrics import Tally, keep_in_flight, outputs_to_keep, score
from common.provenance import provenance
from common.storage import checkpoint
from common.training import flags, resume
from common.training.callbacks import Monitor
from common.training.fused_update import Module
from common.training.observers import EpochObservers
from common.training.progress import Interruption, Progress, log_epoch


def fit(args, symbol, train, test):
    """Trains a network, with a checkpoint and an evaluation after each epoch.

    Args:
        args: the flags of ``flags.add_training_flags``, completed.
        symbol: a training symbol with inputs "data" and "softmax_label".
        train: an ``ImageIter`` with a seed.
        test: an ``ImageIter`` without.

    Returns:
        The trained Module and its figures: accuracy and mean cross-entropy on both sets, the
        seconds and the number of epochs, the command and the versions that trained it; under
        "history" the same after each epoch; and under "transformers", where the symbol has any,
        what they do in the end.

    Raises:
        ValueError, OSError: no such device, an unfit checkpoint, a prefix that cannot be written or
            has files of another run, or no tensorboardX where ``args.tensorboard`` asks for it.
        cli.Diverged: a loss or parameter became non-finite; the checkpoints written are good.
        KeyboardInterrupt, cli.Terminated: after Ctrl-C or SIGTERM; the message says how to go on.
    """
    contexts = devices.contexts(args.gpus, args.cpus, args.batch_size)
    files.prepare_output(f"{args.model_prefix}-symbol.json")
    recipe = flags.recipe(args, contexts)
    source, args.load_epoch = resume.source(args, recipe, train.num_batches)
    watch = EpochObservers(args, symbol, test)
    module, run = start(args, recipe, contexts, symbol, train, source)
    if args.load_epoch == args.num_epochs:
        return module, _finished(args, module, run["history"], test, watch)
    begin = time.monotonic() - run["seconds"]
    monitor = Monitor(args.monitor, pattern=".*") if args.monitor else None
    if monitor:
        module.install_monitor(monitor)
    meta = dict(recipe=recipe, flags=vars(args), image_shape=train.image_shape, **provenance())
    with Interruption() as interruption, watch:
        if source is None:
            watch.start(module)
        if args.overwrite:
            resume.clear(args.model_prefix, args.load_epoch)
        for epoch in range(args.load_epoch or 0, args.num_epochs):
            trained = train_epoch(args, module, train, epoch, monitor, interruption,
                                  run["under_way"])
            if train.position < train.num_batches:
                run["seconds"] = time.monotonic() - begin
                run["under_way"] = {"epoch": epoch, "batch": train.position,
                                    "num_batches": train.num_batches, "tally": vars(trained)}
                save(args, symbol, module, epoch, dict(meta, **run))
                interruption.leave(f"in epoch {epoch}, after {train.position} of "
                                   f"{train.num_batches} batches; --resume goes on from there")
            tested = score(module, test)
            log_epoch(epoch, "Validation", tested)
            run["updates"] += train.num_batches
            run["seconds"] = time.monotonic() - begin
            run["history"] = run["history"] + [_figures(trained, tested, run["seconds"])]
            run["under_way"] = None
            if (epoch + 1) % args.save_period == 0 or epoch + 1 == args.num_epochs:
                save(args, symbol, module, epoch, dict(meta, **run))
                checkpoint.remove(args.model_prefix, checkpoint.STOPPED)
                if args.keep_last:
                    _remove_old(args, epoch + 1, run["history"])
            watch.look(module, epoch, trained, tested)
    mx.nd.waitall()  # so that the last batches, which are NumPy's memory, are freed before Python
    return module, dict(_figures(trained, tested, time.monotonic() - begin),
                        epochs=args.num_epochs, history=run["history"], **watch.figures(),
                        **provenance())


def _finished(args, module, history, test, watch):
    """The figures of a run that was resumed when it had already been trained to the end."""
    logging.info("All %d epochs are trained: their last checkpoint is evaluated", args.num_epochs)
    tested = score(module, test)
    watch.review(module, args.num_epochs - 1)
    figures = history[-1] if history else {}  # which older checkpoints lack
    meta = checkpoint.load_state(args.model_prefix, args.num_epochs)[1]
    return dict(figures, test_accuracy=tested.accuracy, test_loss=tested.loss,
                epochs=args.num_epochs, history=history, **watch.figures(),
                **{name: meta[name] for name in provenance() if name in meta})


def _remove_old(args, epoch, history):
    """Removes the checkpoints before the last ones, and before ``epoch``, that are not to stay."""
    accuracies = {epoch - back: figures["test_accuracy"]
                  for back, figures in enumerate(reversed(history))}
    there = [one for one in checkpoint.epochs(args.model_prefix) if one <= epoch]
    best = max(there, key=lambda one: accuracies.get(one, -math.inf)) if args.keep_best else None
    for one in there[:-args.keep_last]:
        if one != best:
            checkpoint.remove(args.model_prefix, one)


def _figures(trained, tested, seconds):
    return {"test_accuracy": tested.accuracy, "test_loss": tested.loss,
            "train_accuracy": trained.accuracy, "train_loss": trained.loss, "seconds": seconds}


def start(args, recipe, contexts, symbol, train, source=None):
    """Binds a Module for training and starts it, or resumes it from a checkpoint.

    Args:
        args, symbol, train: as for ``fit``.
        recipe, contexts: of ``flags``.
        source: what ``checkpoint`` knows the checkpoint by.

    Returns:
        The Module, and what it has behind it, as of ``resume.saved_progress``.
    """
    executed = rewrite.for_cpu(symbol, contexts, args.dtype, data=train.provide_data[0].shape)
    module = Module(executed, context=contexts)
    module.bind(train.provide_data, train.provide_label)
    run = {"updates": 0, "seconds": 0.0, "history": [], "under_way": None}
    arrays, done = None, 0
    if source is None:
        module.init_params(
            flags.SeededInit(flags.INITIALIZERS[args.initializer](), args.seed))
    else:
        checkpoint.finish_renames(args.model_prefix, source)
        shapes = {desc.name: desc.shape for desc in train.provide_data + train.provide_label}
        module.init_params(None, *checkpoint.load_params(args.model_prefix, source, symbol,
                                                         **shapes))
        arrays, meta = checkpoint.load_state(args.model_prefix, source)
        run = resume.saved_progress(checkpoint.paths(args.model_prefix, source)[2], recipe, meta,
                                    args.load_epoch, train.num_batches)
        done = run["updates"] + (run["under_way"] or {"batch": 0})["batch"]
    module.init_optimizer(mx.kv.create(args.kv_store), args.optimizer,
                          flags.optimizer_params(args, train.num_batches, done))
    if arrays is not None:
        module.set_optimizer_state(arrays)
    logging.info("Training %d parameters with %d images on %s",
                 sum(value.size for value in module.get_params()[0].values()), train.num_images,
                 ", ".join(map(str, contexts)))
    return module, run


def train_epoch(args, module, batches, epoch, monitor=None, interruption=None, under_way=None):
    """Trains a Module for one epoch of an ``ImageIter``, or until it is interrupted.

    Args:
        args: as for ``fit``.
        module, batches: what to train, and with what; afterwards ``batches.position`` says how far.
        epoch: counted from 0.
        monitor: a ``callbacks.Monitor``, or None.
        interruption: a ``progress.Interruption``, or None.
        under_way: where the epoch was stopped before, or None.

    Returns:
        The ``Tally`` of the training images as the network saw them: with dropout.
    """
    begin, tally = time.monotonic(), Tally(**under_way["tally"] if under_way else {})
    batches.seek(epoch)
    mx.random.seed(derive_seed(args.seed, epoch))
    if under_way:
        _draw_again(module, batches, under_way["batch"])
        batches.seek(epoch, under_way["batch"])
    with logging_redirect_tqdm(), Progress(epoch, args.num_epochs, batches,
                                           args.disp_batches) as progress:
        for outputs, batch in keep_in_flight(_steps(module, batches, monitor, interruption)):
            tally.add(outputs.asnumpy(), batch.label[0].asnumpy())
            if not math.isfinite(tally.loss):
                raise cli.Diverged(f"the loss became non-finite in epoch {epoch}: lower --lr "
                                   f"({args.lr:g}); {_last_checkpoint(args, epoch)}")
            progress.update(tally)
    if batches.position == batches.num_batches:
        log_epoch(epoch, "Train", tally)
        logging.info("Epoch[%d] Time cost=%.3f", epoch, time.monotonic() - begin)
    return tally


def _draw_again(module, batches, count):
    """Lets MXNet's generator draw what it drew in the first batches of an epoch."""
    if not rewrite.uses_random_numbers(module.symbol):
        return
    params, batch = module.get_params(), next(batches)
    for _ in range(count):
        module.forward(batch, is_train=True)
    module.set_params(*params)  # forward moves the means of BatchNorm


def _steps(module, batches, monitor, interruption):
    while batches.position < batches.num_batches and not (interruption and interruption.requested):
        batch = next(batches)
        if monitor:
            monitor.tic()
        module.forward_backward(batch)
        try:
            module.update()
        except mx.MXNetError as error:
            reason = str(error).splitlines()[-1].partition(", in operator")[0]
            raise ValueError(f"the optimizer cannot make a step: {reason}") from error
        if monitor:
            monitor.toc_print()
        yield outputs_to_keep(module), batch


def save(args, symbol, module, epoch, meta):
    """Writes the checkpoint of a Module that trains a symbol.

    Args:
        args: as for ``fit``.
        symbol, module: the network.
        epoch: that has been trained, counted from 0, or in part where ``meta`` says so.
        meta: for ``checkpoint.save``.

    Raises:
        cli.Diverged: a parameter is not finite; nothing is written.
        OSError: it cannot be written, which leaves the checkpoints before.
    """
    arg_params, aux_params = module.get_params()
    for name, value in {**arg_params, **aux_params}.items():
        if not np.isfinite(value.asnumpy()).all():
            raise cli.Diverged(f"{name} became non-finite in epoch {epoch}: lower --lr "
                               f"({args.lr:g}); {_last_checkpoint(args, epoch)}")
    name = checkpoint.STOPPED if meta.get("under_way") else epoch + 1
    try:
        checkpoint.save(args.model_prefix, name, symbol, arg_params, aux_params,
                        module.optimizer_state(), meta)
    except OSError as error:
        raise OSError(f"{cli.one_line(error)}; {_last_checkpoint(args, epoch)}") from None


def _last_checkpoint(args, epoch):
    """Says which checkpoint is the newest while ``epoch`` is being trained."""
    saved = max(epoch - epoch % args.save_period, args.load_epoch or 0)
    if not saved:
        return "there is no checkpoint yet"
    return (f"the last checkpoint is {checkpoint.paths(args.model_prefix, saved)[1]}, "
            f"--load-epoch {saved} or --resume goes on from it")


def reading_speed(batches):
    """Reads one epoch of an ``ImageIter`` and returns images/s."""
    begin = time.monotonic()
    for batch in batches:
        batch.data[0].wait_to_read()
    return batches.num_batches * batches.batch_size / (time.monotonic() - begin)
