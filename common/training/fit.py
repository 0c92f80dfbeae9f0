"""Trains a symbol with ``mx.mod.Module``: start or resume, the loop, checkpoints.

What a run computes follows from its flags alone: the start of each parameter from (seed, its name),
the order of the images and the dropout from (seed, epoch). So a resumed run goes on with the same
bits, and a network starts from the same classifier with and without its transformer. MXNet's random
generator can be seeded, but its state not be saved: a run that was stopped within an epoch draws
again what it had drawn in it.
"""
import contextlib
import ctypes
import logging
import math
import time
from typing import Mapping, NamedTuple, Optional

import mxnet as mx
import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

from common import cli, files
from common.data.batches import derive_seed
from common.graph import rewrite
from common.models.metrics import answers_and_labels, outputs_to_keep, score
from common.provenance import provenance
from common.storage import checkpoint
from common.training import pretrained, resume
from common.training.callbacks import Monitor
from common.training.fused_update import Module
from common.training.observers import EpochObservers, NoObservers
from common.training.progress import Interruption, Progress, log_epoch
from common.training.workers import Alone


class Output(NamedTuple):
    """Where a run writes its checkpoints, and what it does with those that are there.

    Attributes:
        prefix: path and start of the names of all files.
        about: what else the checkpoints are to say, as JSON can hold it.
        Others are as the flags of the same names.
    """

    prefix: str
    save_period: int = 1
    keep_last: Optional[int] = None
    keep_best: bool = False
    resume: bool = False
    load_epoch: Optional[int] = None
    overwrite: bool = False
    about: Mapping = {}


class Watch(NamedTuple):
    """What is shown of a run, and changes no bit of it; as the flags of the same names."""

    disp_batches: int = 100
    tensorboard: Optional[str] = None
    visualize_every: Optional[int] = None
    monitor: int = 0


def fit(symbol, train, test, recipe, output, watch=None, validation=None, workers=None):
    """Trains a network, with a checkpoint and an evaluation after each epoch.

    Args:
        symbol: a training symbol with inputs "data" and "softmax_label".
        train: an ``ImageIter`` with the seed, the batches and the type of the recipe.
        test: an ``ImageIter`` without a seed; ``raw`` if ``train`` is.
        recipe: a ``Recipe``.
        output: an ``Output``.
        watch: a ``Watch``, or None for that of the defaults.
        validation: as ``test``, to be scored after each epoch in its place, so that the test set is
            scored in the end alone.
        workers: the ``workers.Workers`` that train it, or None for this process alone. Each gives
            ``train`` its own part of the order, and ``test`` and ``validation`` of the images; the
            first one writes the files.

    Returns:
        The trained Module and its figures: accuracy and mean cross-entropy on all sets, the
        seconds and the number of epochs, the command and the versions that trained it; under
        "history" the same after each epoch; under "transformers", where the symbol has any, what
        they do in the end; and under "started_from", if so, what ``pretrained.take`` says.

    Raises:
        ValueError, OSError: an unfit checkpoint or start, a prefix that cannot be written or has
            files of another run, or no tensorboardX where ``watch`` asks for it.
        cli.Diverged: a loss or parameter became non-finite; the checkpoints written are good.
        KeyboardInterrupt, cli.Terminated: after Ctrl-C or SIGTERM; the message says how to go on.
    """
    watch, workers = watch or Watch(), workers or Alone()
    part, held_out = ("test", test) if validation is None else ("validation", validation)
    source, observers = None, NoObservers()
    if workers.first:
        files.prepare_output(f"{output.prefix}-symbol.json")
        source = resume.source(output, recipe, train.num_batches)
        observers = EpochObservers(watch, output.prefix, symbol, held_out,
                                   finished=source.epochs if source else 0)
    module, run = start(symbol, train, recipe, source, workers)
    monitor = _monitor(watch, module)
    begin = time.monotonic() - run.seconds

    if run.epochs == recipe.num_epochs:
        logging.info("All %d epochs are trained", run.epochs)
        observers.look(module, run.epochs)
    else:
        with Interruption() as interruption, observers, _saying_how_to_go_on(output.prefix):
            if source is None:
                observers.before(module)
            if output.overwrite and workers.first and not (output.resume and source):
                resume.clear(output.prefix, source and source.epochs)
            run.trained_by = provenance()
            while run.epochs < recipe.num_epochs:
                trained = train_epoch(module, train, recipe, run.epochs, run.stopped_at,
                                      watch.disp_batches, monitor, interruption, workers)
                _even_out(module, workers)
                if train.position < train.num_batches:
                    run.stop(train, workers.gather_tallies(trained), time.monotonic() - begin)
                    if workers.first:
                        save(symbol, module, recipe, output, run, train.image_shape)
                    interruption.leave(f"in epoch {run.epochs}, after {train.position} of "
                                       f"{train.num_batches} batches; --resume goes on from there")
                scored = workers.add_tallies(score(module, held_out))
                log_epoch(run.epochs, "Validation", scored)
                run.finish_epoch(train, {
                    f"{part}_accuracy": scored.accuracy, f"{part}_loss": scored.loss,
                    "train_accuracy": trained.accuracy, "train_loss": trained.loss,
                    "seconds": time.monotonic() - begin})
                due = run.epochs % output.save_period == 0 or run.epochs == recipe.num_epochs
                if due and workers.first:
                    save(symbol, module, recipe, output, run, train.image_shape)
                    remove_old(output, run)
                observers.after_epoch(module, run.epochs, trained, scored)
                _give_back_memory()

    mx.nd.waitall()  # so that the last batches, which are NumPy's memory, are freed before Python
    figures = dict(run.history[-1]) if run.history else {}  # which older checkpoints lack
    if "test_accuracy" not in figures:
        tested = workers.add_tallies(score(module, test))
        log_epoch(run.epochs - 1, "Test", tested)
        figures.update(test_accuracy=tested.accuracy, test_loss=tested.loss)
    return module, dict(figures, epochs=run.epochs, history=run.history, **observers.figures(),
                        **run.origin())


def start(symbol, train, recipe, source=None, workers=None):
    """Binds a Module for training and starts it, or resumes it from a checkpoint.

    Args:
        symbol, train, recipe: as for ``fit``.
        source: a ``resume.Source``, or None.
        workers: as for ``fit``; all start from what the first one has.

    Returns:
        The Module, and what it has behind it, a ``resume.RunSoFar``.
    """
    contexts = list(recipe.devices)
    shapes = {desc.name: desc.shape for desc in train.provide_data + train.provide_label}
    fixed = pretrained.fixed(recipe.fix, symbol, shapes)
    executed = _executed(symbol, recipe, fixed, data=shapes["data"])
    if train.raw:
        executed = rewrite.with_raw_input(executed, cast_to=recipe.dtype)
    module = Module(executed, context=contexts,
                    fixed_param_names=set(fixed).intersection(symbol.list_arguments()))
    module.bind(train.provide_data, train.provide_label)
    run, arrays, workers = resume.RunSoFar(), None, workers or Alone()
    if source is None:
        run.started_from = _init_params(module, symbol, recipe, shapes)
    else:
        checkpoint.finish_renames(source.prefix, source.name)
        module.init_params(None, *checkpoint.load_params(source.prefix, source.name, symbol,
                                                         **shapes))
        run, arrays = resume.load(source, recipe)
    run, arrays = _shared(module, run, arrays, workers)
    within = run.stopped_at["batch"] if run.stopped_at else 0
    module.init_optimizer(mx.kv.create(workers.device_store or recipe.kv_store), recipe.optimizer,
                          recipe.optimizer_params(
                              train.num_batches, run.epochs * train.num_batches + within,
                              run.updates + within), workers.add_up)
    if arrays is not None:
        module.set_optimizer_state(arrays)
    pretrained.log_fixed(fixed, symbol, shapes)
    logging.info("Training %d parameters with %d images%s on %s",
                 sum(value.size for name, value in module.get_params()[0].items()
                     if name not in fixed), train.num_images,
                 f" in each of {workers.count} workers" if workers.count > 1 else "",
                 ", ".join(map(str, contexts)))
    return module, run


def _shared(module, run, arrays, workers):
    """Gives all workers the first one's parameters; returns its run and its optimizer's arrays."""
    if workers.count == 1:
        return run, arrays
    arg_params, aux_params = module.get_params()
    given, meta = workers.share(
        {**{f"arg:{name}": value.asnumpy() for name, value in arg_params.items()},
         **{f"aux:{name}": value.asnumpy() for name, value in aux_params.items()},
         **{f"state:{name}": value for name, value in (arrays or {}).items()}},
        {"run": vars(run), "has_state": arrays is not None})
    kinds = {"arg": {}, "aux": {}, "state": {}}
    for key, value in given.items():
        kind, _, name = key.partition(":")
        kinds[kind][name] = value
    module.set_params(*({name: mx.nd.array(value, dtype=value.dtype)
                         for name, value in kinds[kind].items()} for kind in ("arg", "aux")))
    return resume.RunSoFar(**meta["run"]), kinds["state"] if meta["has_state"] else None


def _give_back_memory():
    """Gives the system what is free. The C library keeps it, in pieces that fit less and less."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # which glibc alone has
    if trim:
        trim(0)


def _even_out(module, workers):
    """Gives all workers the mean of their moving means, as those of BatchNorm."""
    if workers.count == 1:
        return
    arg_params, aux_params = module.get_params()
    if not aux_params:
        return
    means = {name: workers.add_up(f"mean of {name}", value) / workers.count
             for name, value in sorted(aux_params.items())}
    module.set_params(arg_params, means)


def _executed(symbol, recipe, fixed, data):
    """What is run in place of a symbol, for images of the shape ``data``."""
    executed = rewrite.for_cpu(symbol, list(recipe.devices), recipe.dtype, data=data)
    if recipe.loc_lr_mult is not None:
        executed = pretrained.with_localisation_rate(executed, recipe.loc_lr_mult)
    return rewrite.with_fixed_statistics(executed, fixed) if fixed else executed


def _init_params(module, symbol, recipe, shapes):
    """Gives a Module its first values; returns what ``pretrained.take`` says of them, or None."""
    params, started_from = (None, None), None
    if recipe.pretrained:
        *params, started_from = pretrained.take(recipe.pretrained, symbol, recipe.reset, **shapes)
    module.init_params(recipe.first_values(), *params, allow_missing=True)
    return started_from


def train_epoch(module, batches, recipe, epoch, stopped_at=None, disp_batches=100, monitor=None,
                interruption=None, workers=None):
    """Trains a Module for one epoch of an ``ImageIter``, or until it is interrupted.

    Args:
        module, batches: what to train, and with what; afterwards ``batches.position`` says how far.
        recipe: a ``Recipe``.
        epoch: counted from 0.
        stopped_at: where the epoch was stopped before, as of ``resume.RunSoFar``, or None.
        disp_batches: between two log lines.
        monitor: a ``callbacks.Monitor``, or None.
        interruption: a ``progress.Interruption``, or None.
        workers: as for ``fit``.

    Returns:
        The ``Tally`` of the training images as the network saw them: with dropout. After a whole
        epoch that of all workers, else of this one.
    """
    begin, workers = time.monotonic(), workers or Alone()
    tally = resume.tally_before(stopped_at, workers.rank)
    batches.seek(epoch)
    mx.random.seed(derive_seed(recipe.seed, epoch, workers.rank))
    if stopped_at:
        _draw_again(module, batches, stopped_at["batch"])
        batches.seek(epoch, stopped_at["batch"])
    with logging_redirect_tqdm(), Progress(epoch, recipe.num_epochs, batches,
                                           disp_batches) as progress:
        steps = _steps(module, batches, monitor, interruption, workers)
        # Workers wait for each other, and how long is counted from the last burst.
        together = batches.together if workers.count == 1 else 1
        for answers, labels in answers_and_labels(steps, together):
            workers.progress()
            for _ in tally.add_in_turn(answers, labels):
                if not math.isfinite(tally.loss):
                    raise _diverged("the loss", recipe, epoch)
                progress.update(tally)
    if batches.position == batches.num_batches:
        module.share_statistics()
        tally = workers.add_tallies(tally)
        log_epoch(epoch, "Train", tally)
        logging.info("Epoch[%d] Time cost=%.3f", epoch, time.monotonic() - begin)
    return tally


def _diverged(what, recipe, epoch):
    return cli.Diverged(f"{what} became non-finite in epoch {epoch}: lower --lr ({recipe.lr:g})")


def _monitor(watch, module):
    """The ``Monitor`` of a Module, None if none is wanted."""
    if not watch.monitor:
        return None
    monitor = Monitor(watch.monitor, pattern=".*")
    module.install_monitor(monitor)
    return monitor


def _draw_again(module, batches, count):
    """Lets MXNet's generator draw what it drew in the first batches of an epoch."""
    if not rewrite.uses_random_numbers(module.symbol):
        return
    statistics, batch = module.statistics(), next(batches)
    for _ in range(count):
        module.forward(batch, is_train=True)
    module.set_statistics(statistics)  # which forward may move, where backward does not


def _to_stop(position, interruption, workers):
    """Whether a signal, to this worker or to another, is to end the epoch before a batch."""
    number = workers.agree_to_stop(position, interruption.received if interruption else 0)
    if number and interruption:
        interruption.take(number)
    return number


def _steps(module, batches, monitor, interruption, workers):
    while (batches.position < batches.num_batches
           and not _to_stop(batches.position, interruption, workers)):
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


def save(symbol, module, recipe, output, run, image_shape):
    """Writes a checkpoint: that after the epochs that are finished, or within one.

    Args:
        symbol, recipe, output: as for ``fit``.
        module: that trains the symbol.
        run: the ``resume.RunSoFar``.
        image_shape: (C, H, W).

    Raises:
        cli.Diverged: a parameter is not finite; nothing is written.
        OSError: it cannot be written, which leaves the checkpoints before.
    """
    epoch = run.epochs if run.stopped_at else run.epochs - 1
    arg_params, aux_params = module.get_params()
    for name, value in {**arg_params, **aux_params}.items():
        if not np.isfinite(value.asnumpy()).all():
            raise _diverged(name, recipe, epoch)
    meta = dict(recipe=recipe.as_json(), flags=output.about, image_shape=image_shape,
                **run.as_meta())
    name = checkpoint.STOPPED if run.stopped_at else run.epochs
    checkpoint.save(output.prefix, name, symbol, arg_params, aux_params, module.optimizer_state(),
                    meta)
    if not run.stopped_at:
        checkpoint.remove(output.prefix, checkpoint.STOPPED)


def remove_old(output, run):
    """Removes the checkpoints up to a run's last that are not to stay."""
    if not output.keep_last:
        return
    there = [epoch for epoch in checkpoint.epochs(output.prefix) if epoch <= run.epochs]
    best = max(there, key=run.accuracy_after) if output.keep_best else None
    for epoch in there[:-output.keep_last]:
        if epoch != best:
            checkpoint.remove(output.prefix, epoch)


@contextlib.contextmanager
def _saying_how_to_go_on(prefix):
    """Adds to what ends a run which checkpoint is the newest."""
    try:
        yield
    except (cli.Diverged, OSError) as error:
        raise type(error)(f"{cli.one_line(error)}; {_last_checkpoint(prefix)}") from None


def _last_checkpoint(prefix):
    epochs = checkpoint.epochs(prefix)
    if not epochs:
        return "there is no checkpoint yet"
    return (f"the last checkpoint is {checkpoint.paths(prefix, epochs[-1])[1]}, "
            f"--load-epoch {epochs[-1]} or --resume goes on from it")


def reading_speed(batches):
    """Reads one epoch of an ``ImageIter`` and returns images/s."""
    begin = time.monotonic()
    for batch in batches:
        batch.data[0].wait_to_read()
    return batches.num_batches * batches.batch_size / (time.monotonic() - begin)


def training_speed(symbol, train, recipe, disp_batches=100):
    """Trains all epochs, writes nothing, and returns the images/s of the last."""
    module, _ = start(symbol, train, recipe)
    for epoch in range(recipe.num_epochs):
        begin = time.monotonic()
        train_epoch(module, train, recipe, epoch, disp_batches=disp_batches)
    return train.num_batches * train.batch_size / (time.monotonic() - begin)
