"""The flags of training, and what they turn into: schedule, optimizer, initialiser."""
import argparse
import zlib

import mxnet as mx

from common import cli
from common.data.batches import derive_seed
from common.models.devices import SMALLEST_SHARE

OPTIMIZERS = ("adagrad", "adam", "nag", "rmsprop", "sgd", "signum")
WITH_MOMENTUM = ("nag", "sgd", "signum")
SCHEDULES = ("linear", "cosine", "step", "constant")
LOOKING_AHEAD = ("linear", "cosine")  # schedules that depend on --num-epochs from the start
DECISIVE = ("add_stn", "batch_size", "bounded", "data_dir", "data_sha256", "dataset", "distort",
            "dtype", "initializer", "kv_store", "lr", "lr_factor", "lr_schedule", "lr_step_epochs",
            "mom", "network", "num_epochs", "num_examples", "optimizer", "pool", "seed",
            "transform", "warmup_epochs", "wd", "width")
INITIALIZERS = {
    "msra": mx.init.MSRAPrelu,
    "normal": mx.init.Normal,
    "uniform": mx.init.Uniform,
    "xavier": mx.init.Xavier,
}


def add_training_flags(parser):
    """Adds the flags of training to a parser; upstream's names and meanings where it has them."""
    flag = parser.add_argument_group("training").add_argument
    flag("--num-epochs", type=cli.number(int, least=1), default=20, help="passes over the data")
    flag("--batch-size", type=cli.number(int, least=1), default=128, help="images in a step")
    flag("--lr", type=cli.number(float, above=0), default=0.003, help="peak learning rate")
    flag("--lr-schedule", choices=SCHEDULES,
         help="how the rate falls: to 0 at --num-epochs (linear, cosine), at --lr-step-epochs, or "
              "never; by default step if --lr-step-epochs is given, else linear")
    flag("--lr-step-epochs", type=_epochs, help="epochs to reduce the rate at, such as 30,60")
    flag("--lr-factor", type=cli.number(float, above=0, most=1), default=0.1,
         help="what the rate is multiplied by at each of --lr-step-epochs")
    flag("--warmup-epochs", type=cli.number(float, least=0),
         help="epochs in which the rate rises from 0; by default a quarter of them for linear and "
              "cosine, else none")
    flag("--optimizer", choices=OPTIMIZERS, default="adam", help="optimizer")
    flag("--mom", type=cli.number(float, least=0, below=1), default=0.9,
         help="momentum of " + ", ".join(WITH_MOMENTUM))
    flag("--wd", type=cli.number(float, least=0), default=0.0, help="weight decay")
    flag("--initializer", choices=sorted(INITIALIZERS), default="msra",
         help="for parameters that do not bring their own")
    flag("--seed", type=cli.number(int, least=0, most=2**31 - 1), default=0, help="of everything")

    flag = add_device_flags(parser)
    flag("--kv-store", choices=("local", "device"), default="local",
         help="where the gradients of several devices are added: on the CPU or on a device")
    flag("--dtype", choices=("float32", "float64"), default="float32",
         help="of all numbers; MXNet's sampler has no float16")

    flag = parser.add_argument_group("checkpoints and logs").add_argument
    flag("--model-prefix", help="path and start of the names of all files written; by default "
                                "models/<dataset>-<network>[-stn][-<transform>][-bounded]"
                                "[-stable]")
    flag("--save-period", type=cli.number(int, least=1), default=1,
         help="epochs between checkpoints; the last epoch always has one")
    flag("--load-epoch", type=cli.number(int, least=1),
         help="go on from the checkpoint after that many epochs, also with other flags")
    flag("--resume", action="store_true",
         help="go on with the same run from its newest whole checkpoint, or begin it")
    flag("--overwrite", action="store_true",
         help="begin anew, or go on from --load-epoch, in place of what another run has written; "
              "by default that is refused")
    flag("--keep-last", type=cli.number(int, least=1), metavar="N",
         help="remove all but the last N checkpoints; by default all are kept")
    flag("--keep-best", action="store_true",
         help="with --keep-last: keep that of the best test accuracy, too")
    flag("--disp-batches", type=cli.number(int, least=1), default=100,
         help="batches between log lines where there is no terminal")
    flag("--tensorboard", metavar="DIR",
         help="log figures and pictures after each epoch for TensorBoard; needs tensorboardX")
    flag("--visualize-every", type=cli.number(int, least=1), metavar="EPOCHS",
         help="draw what the transformers do, every that many epochs, and make a GIF in the end")
    flag("--monitor", type=cli.number(int, least=0), default=0,
         help="log the size of all outputs and parameters every that many batches; 0 for never")


def add_device_flags(parser):
    """Adds the flags that choose devices; returns the function that adds more to their group."""
    flag = parser.add_argument_group("devices").add_argument
    flag("--gpus", type=_gpus, help="GPUs to run on, such as 0 or 0,1; by default the CPU")
    flag("--cpus", type=cli.number(int, least=1, most=64),
         help="CPU devices to split a batch over; by default one for each core, as long as that "
              f"leaves {SMALLEST_SHARE} images to each")
    return flag


def complete(args):
    """Fills in the defaults that depend on other flags.

    Raises ValueError for flags that do not fit together.
    """
    if args.lr_schedule is None:
        args.lr_schedule = "step" if args.lr_step_epochs else "linear"
    if (args.lr_schedule == "step") != bool(args.lr_step_epochs):
        raise ValueError("--lr-schedule step and --lr-step-epochs go together")
    if args.warmup_epochs is None:
        args.warmup_epochs = args.num_epochs / 4 if args.lr_schedule in LOOKING_AHEAD else 0
    if args.warmup_epochs >= args.num_epochs:
        raise ValueError(f"--warmup-epochs {args.warmup_epochs:g} must be less than "
                         f"--num-epochs {args.num_epochs}")
    if args.resume and args.load_epoch:
        raise ValueError("--resume chooses the checkpoint itself: it does not go with --load-epoch")
    if args.keep_best and not args.keep_last:
        raise ValueError("--keep-best needs --keep-last: without it all checkpoints are kept")
    if args.load_epoch and args.load_epoch >= args.num_epochs:
        raise ValueError(f"--load-epoch {args.load_epoch} leaves nothing to train of "
                         f"--num-epochs {args.num_epochs}")


def recipe(args, contexts):
    """What decides the bits of a run, beside its code: flags, what they name, and devices."""
    return dict({name: value for name, value in vars(args).items() if name in DECISIVE},
                devices=[str(context) for context in contexts])


def optimizer_params(args, batches_per_epoch, updates=0):
    """What ``Module.init_optimizer`` needs besides the optimizer's name.

    Args:
        args: the parsed flags, completed.
        batches_per_epoch: steps in an epoch.
        updates: steps already made, where a run is resumed.
    """
    params = {"learning_rate": args.lr, "wd": args.wd, "begin_num_update": updates,
              "lr_scheduler": _scheduler(args, batches_per_epoch)}
    if args.optimizer in WITH_MOMENTUM:
        params["momentum"] = args.mom
    return params


def _scheduler(args, batches_per_epoch):
    total = args.num_epochs * batches_per_epoch
    common = {"base_lr": args.lr, "warmup_steps": int(args.warmup_epochs * batches_per_epoch)}
    if args.lr_schedule == "linear":
        return mx.lr_scheduler.PolyScheduler(total + 1, pwr=1, **common)
    if args.lr_schedule == "cosine":
        return mx.lr_scheduler.CosineScheduler(total + 1, **common)
    if args.lr_schedule == "step":
        steps = [max(1, int(epoch * batches_per_epoch)) for epoch in args.lr_step_epochs]
        return mx.lr_scheduler.MultiFactorScheduler(steps, factor=args.lr_factor, **common)
    return mx.lr_scheduler.FactorScheduler(total + 1, **common)


class SeededInit(mx.init.Initializer):
    """Draws each parameter from (seed, its name), so that no layer changes another's start."""

    def __init__(self, initializer, seed):
        super().__init__()
        self.initializer, self.seed = initializer, seed

    def __call__(self, desc, array):
        mx.random.seed(derive_seed(self.seed, zlib.crc32(desc.encode())))
        self.initializer(desc, array)


def _gpus(text):
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [-1]
    if min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"expected GPU numbers such as 0 or 0,1, got {text!r}")
    return numbers


def _epochs(text):
    one = cli.number(float, above=0)
    epochs = [one(part) for part in text.split(",")]
    if epochs != sorted(set(epochs)):
        raise argparse.ArgumentTypeError(f"expected rising numbers, got {text!r}")
    return epochs
