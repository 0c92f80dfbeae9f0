"""Trains a symbol with ``mx.mod.Module``: start or resume, the loop, checkpoints.

What a run computes follows from its flags alone: the start of each parameter from (seed, its name),
the order of the images and the dropout from (seed, epoch). So a resumed run goes on with the same
bits, and a network starts from the same classifier with and without its transformer. MXNet's random
generator can be seeded, but its state not be saved: so checkpoints lie between epochs, and a run
that was stopped within one does that epoch again, to the same bits.
"""
import logging
import math
import time

import mxnet as mx
import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

from common import checkpoint, cli, files, graph, options
from common.data import derive_seed
from common.module import Module
from common.progress import Interruption, Progress, log_epoch
from common.provenance import provenance
from common.score import Tally, late, outputs_to_keep, score
from common.watch import Watch


def fit(args, symbol, train, test):
    """Trains a network, with a checkpoint and an evaluation after each epoch.

    Args:
        args: the flags of ``options.add_training_flags``, completed.
        symbol: a training symbol with inputs "data" and "softmax_label".
        train: an ``ImageIter`` with a seed.
        test: an ``ImageIter`` without.

    Returns:
        The trained Module and its figures: accuracy and mean cross-entropy on both sets, the
        seconds and the number of epochs; under "history" the same after each epoch; and under
        "transformers", where the symbol has any, what they do in the end.

    Raises:
        ValueError, OSError: no such device, an unfit checkpoint, a prefix that cannot be written,
            or no tensorboardX where ``args.tensorboard`` asks for it.
        cli.Diverged: a loss or parameter became non-finite; the checkpoints written are good.
        KeyboardInterrupt, cli.Terminated: after Ctrl-C or SIGTERM; the message says how to go on.
    """
    contexts = options.contexts(args.gpus, args.cpus, args.batch_size)
    files.check_writable(f"{args.model_prefix}-symbol.json")
    if args.resume:
        args.load_epoch = _newest(args)
    watch = Watch(args, symbol, test)
    recipe = options.recipe(args, contexts)
    module, run = start(args, recipe, contexts, symbol, train)
    if args.load_epoch == args.num_epochs:
        return module, _finished(args, module, run["history"], test, watch)
    begin = time.monotonic() - run["seconds"]
    monitor = mx.mon.Monitor(args.monitor, pattern=".*") if args.monitor else None
    if monitor:
        module.install_monitor(monitor)
    with Interruption() as interruption, watch:
        if not args.load_epoch:
            watch.start(module)
        for epoch in range(args.load_epoch or 0, args.num_epochs):
            trained = train_epoch(args, module, train, epoch, monitor, interruption)
            tested = score(module, test)
            log_epoch(epoch, "Validation", tested)
            run["updates"] += train.num_batches
            run["seconds"] = time.monotonic() - begin
            run["history"] = run["history"] + [_figures(trained, tested, run["seconds"])]
            if (epoch + 1) % args.save_period == 0 or epoch + 1 == args.num_epochs:
                save(args, symbol, module, epoch + 1, dict(
                    run, recipe=recipe, flags=vars(args), image_shape=train.image_shape,
                    **provenance()))
                if args.keep_last:
                    _remove_old(args, epoch + 1, run["history"])
            watch.look(module, epoch, trained, tested)
    mx.nd.waitall()  # so that the last batches, which are NumPy's memory, are freed before Python
    return module, dict(_figures(trained, tested, time.monotonic() - begin),
                        epochs=args.num_epochs, history=run["history"], **watch.figures())


def _newest(args):
    """The epoch that ``--resume`` goes on from; None to start anew."""
    epoch = checkpoint.newest(args.model_prefix)
    if epoch is None:
        logging.info("No checkpoint to resume from: starts anew")
    elif epoch > args.num_epochs:
        raise ValueError(f"{checkpoint.paths(args.model_prefix, epoch)[1]} is of more epochs than "
                         f"--num-epochs {args.num_epochs}: give another --model-prefix")
    else:
        logging.info("Resumes from the checkpoint after %d epochs", epoch)
    return epoch


def _finished(args, module, history, test, watch):
    """The figures of a run that was resumed when it had already been trained to the end."""
    logging.info("All %d epochs are trained: their last checkpoint is evaluated", args.num_epochs)
    tested = score(module, test)
    watch.review(module, args.num_epochs - 1)
    figures = history[-1] if history else {}  # which older checkpoints lack
    return dict(figures, test_accuracy=tested.accuracy, test_loss=tested.loss,
                epochs=args.num_epochs, history=history, **watch.figures())


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


def start(args, recipe, contexts, symbol, train):
    """Binds a Module for training and starts it, or resumes it from ``args.load_epoch``.

    Returns:
        The Module, and what it has behind it: ``{"updates": steps, "seconds": time, "history": the
        figures after each epoch}``.
    """
    executed = graph.faster(symbol, contexts, args.dtype, data=train.provide_data[0].shape)
    module = Module(executed, context=contexts)
    module.bind(train.provide_data, train.provide_label)
    run, arrays = {"updates": 0, "seconds": 0.0, "history": []}, None
    if args.load_epoch is None:
        module.init_params(
            options.SeededInit(options.INITIALIZERS[args.initializer](), args.seed))
    else:
        checkpoint.settle(args.model_prefix, args.load_epoch)
        shapes = {desc.name: desc.shape for desc in train.provide_data + train.provide_label}
        module.init_params(None, *checkpoint.load_params(args.model_prefix, args.load_epoch,
                                                         symbol, **shapes))
        arrays, meta = checkpoint.load_state(args.model_prefix, args.load_epoch)
        run = _resume(args, recipe, meta, train.num_batches)
    module.init_optimizer(mx.kv.create(args.kv_store), args.optimizer,
                          options.optimizer_params(args, train.num_batches, run["updates"]))
    if arrays is not None:
        module.set_optimizer_state(arrays)
    logging.info("Training %d parameters with %d images on %s",
                 sum(value.size for value in module.get_params()[0].values()), train.num_images,
                 ", ".join(map(str, contexts)))
    return module, run


def _resume(args, recipe, meta, num_batches):
    if meta is None:
        logging.warning("The checkpoint has no state: the optimizer starts anew")
        return {"updates": args.load_epoch * num_batches, "seconds": 0.0, "history": []}
    changed = [f"{name} is {value}, was {meta['recipe'].get(name)}"
               for name, value in recipe.items() if value != meta["recipe"].get(name)]
    if changed:
        logging.warning("Goes on, but not as the run would have: %s", "; ".join(changed))
    return {"updates": meta["updates"], "seconds": meta["seconds"],
            "history": meta.get("history", [])}  # which older checkpoints lack


def train_epoch(args, module, batches, epoch, monitor=None, interruption=None):
    """Trains a Module for one epoch of an ``ImageIter``.

    Returns:
        The ``Tally`` of the training images as the network saw them: with dropout.
    """
    begin, tally = time.monotonic(), Tally()
    batches.seek(epoch)
    mx.random.seed(derive_seed(args.seed, epoch))
    with logging_redirect_tqdm(), Progress(epoch, batches.num_batches, batches.batch_size,
                                           args.disp_batches) as progress:
        for outputs, batch in late(_steps(module, batches, monitor)):
            tally.add(outputs.asnumpy(), batch.label[0].asnumpy())
            if not math.isfinite(tally.loss):
                raise cli.Diverged(f"the loss became non-finite in epoch {epoch}: lower --lr "
                                   f"({args.lr:g}); {_last_checkpoint(args, epoch)}")
            if interruption:
                interruption.check(f"in epoch {epoch}; {_last_checkpoint(args, epoch)}")
            progress.update(tally)
    log_epoch(epoch, "Train", tally)
    logging.info("Epoch[%d] Time cost=%.3f", epoch, time.monotonic() - begin)
    return tally


def _steps(module, batches, monitor):
    for batch in batches:
        if monitor:
            monitor.tic()
        module.forward_backward(batch)
        module.update()
        if monitor:
            monitor.toc_print()
        yield outputs_to_keep(module), batch


def save(args, symbol, module, epoch, meta):
    """Writes the checkpoint of a Module that trains a symbol, after ``epoch`` epochs.

    Raises cli.Diverged, and writes nothing, if a parameter is not finite.
    """
    arg_params, aux_params = module.get_params()
    for name, value in {**arg_params, **aux_params}.items():
        if not np.isfinite(value.asnumpy()).all():
            raise cli.Diverged(f"{name} became non-finite in epoch {epoch - 1}: lower --lr "
                               f"({args.lr:g}); {_last_checkpoint(args, epoch - 1)}")
    checkpoint.save(args.model_prefix, epoch, symbol, arg_params, aux_params,
                    module.optimizer_state(), meta)


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
