"""The flags of training, and what they turn into: a recipe, where to write, what to watch."""
import argparse
import re
import warnings

from common import cli
from common.models import devices, trained
from common.training import workers
from common.training.fit import Output, Watch
from common.training.recipe import INITIALIZERS, OPTIMIZERS, SCHEDULES, WITH_MOMENTUM, Recipe

RECIPE = ("num_epochs", "batch_size", "lr", "lr_schedule", "lr_factor", "warmup_epochs",
          "optimizer", "mom", "wd", "initializer", "seed", "kv_store", "dtype", "reset", "fix",
          "loc_lr_mult")  # taken as given
KV_STORES = ("local", "device", *workers.KV_STORES)


def add_training_flags(parser):
    """Adds the flags of training to a parser; upstream's names and meanings where it has them."""
    flag = parser.add_argument_group("training").add_argument
    flag("--num-epochs", type=cli.number(int, least=1, most=9999),  # four digits in files' names
         help="passes over the data")
    flag("--batch-size", type=cli.number(int, least=1),
         help="images in a step, for each of several workers")
    flag("--lr", type=cli.number(float, above=0), help="peak learning rate")
    flag("--lr-schedule", choices=SCHEDULES,
         help="how the rate falls: to 0 at --num-epochs (linear, cosine), at --lr-step-epochs, or "
              "never; by default step if --lr-step-epochs is given, else linear")
    flag("--lr-step-epochs", type=_epochs, help="epochs to reduce the rate at, such as 30,60")
    flag("--lr-factor", type=cli.number(float, above=0, most=1),
         help="what the rate is multiplied by at each of --lr-step-epochs")
    flag("--warmup-epochs", type=cli.number(float, least=0),
         help="epochs in which the rate rises from 0; by default a quarter of them for linear and "
              "cosine, else none")
    flag("--optimizer", choices=OPTIMIZERS, help="optimizer")
    flag("--mom", type=cli.number(float, least=0, below=1),
         help="momentum of " + ", ".join(WITH_MOMENTUM))
    flag("--wd", type=cli.number(float, least=0), help="weight decay")
    flag("--initializer", choices=sorted(INITIALIZERS),
         help="for parameters that do not bring their own")
    flag("--seed", type=cli.number(int, least=0, most=2**31 - 1), help="of everything")

    flag = parser.add_argument_group("start from what is trained").add_argument
    flag("--pretrained", metavar="MODEL",
         help="start from the parameters of a trained network that fit by name and shape: an "
              "export's folder, a prefix of checkpoints, a params file, or a name in published/")
    flag("--reset", type=_pattern, metavar="PATTERN",
         help="parameters that start anew although they would fit: a regular expression that "
              "matches the beginnings of their names")
    flag("--fix", type=_pattern, metavar="PATTERN",
         help="parameters that are not trained, likewise: 'stn_' keeps the localisation network, "
              "'(?!stn_)' trains it alone")
    flag("--loc-lr-mult", type=cli.number(float, above=0), metavar="X",
         help="factor on the rate of the localisation network's layers that have one already, in "
              "place of it")

    flag = add_device_flags(parser)
    flag("--kv-store", type=_kv_store,
         help="where the gradients of several devices are added: on the CPU (local) or on a device "
              "(device); likewise dist_sync and dist_device_sync, where launch.py or another "
              "launcher has started several workers: see docs/machines.md")
    flag("--patience", type=cli.number(float, above=0), default=600, metavar="SECONDS",
         help="a worker that waits for others for so long gives up")
    flag("--dtype", choices=("float32", "float64"),
         help="of all numbers; MXNet's sampler has no float16")

    flag = parser.add_argument_group("checkpoints and logs").add_argument
    flag("--model-prefix", type=cli.path,
         help="path and start of the names of all files written; by default models/<dataset>"
              "[-<distortion>]-<network>[-stn][-<transform>][-bounded][-stable][-<outside>]"
              "[-<places>][-<steps>], with the name of your own data, where there are such")
    flag("--save-period", type=cli.number(int, least=1), default=1,
         help="epochs between checkpoints; the last epoch always has one")
    flag("--load-epoch", type=cli.number(int, least=1),
         help="go on from the checkpoint after that many epochs, also with other flags")
    flag("--resume", action="store_true",
         help="go on with the same run from its newest whole checkpoint, or begin it")
    flag("--overwrite", action="store_true",
         help="begin anew, or go on from --load-epoch, in place of what another run has written; "
              "by default that is refused; with --resume, the same run goes on nevertheless")
    flag("--keep-last", type=cli.number(int, least=1), metavar="N",
         help="remove all but the last N checkpoints; by default all are kept")
    flag("--keep-best", action="store_true",
         help="with --keep-last: keep that of the best accuracy, too, on the images scored after "
              "each epoch: those of --validation, else the test images")
    flag("--disp-batches", type=cli.number(int, least=1), default=100,
         help="batches between log lines where there is no terminal")
    flag("--tensorboard", type=cli.path, metavar="DIR",
         help="log figures and pictures after each epoch for TensorBoard; needs tensorboardX")
    flag("--visualize-every", type=cli.number(int, least=1), metavar="EPOCHS",
         help="draw what the transformers do, every that many epochs, and make a GIF in the end")
    flag("--monitor", type=cli.number(int, least=0), default=0,
         help="log the size of all outputs and parameters every that many batches; 0 for never")
    parser.set_defaults(**{name: getattr(Recipe, name) for name in RECIPE})


def add_device_flags(parser):
    """Adds the flags that choose devices; returns the function that adds more to their group."""
    flag = parser.add_argument_group("devices").add_argument
    flag("--gpus", type=_gpus, help="GPUs to run on, such as 0 or 0,1; by default the CPU")
    flag("--cpus", type=cli.number(int, least=1, most=64),
         help="CPU devices to split a batch over; by default one for each core, as long as that "
              f"leaves {devices.SMALLEST_SHARE} images to each")
    return flag


def recipe(args):
    """The ``Recipe`` that the flags say, but for what it is ``made_of``.

    Raises ValueError for devices that there are not, flags that do not fit together, or a damaged
    model to start from; OSError for one that is not there.
    """
    if args.reset is not None and args.pretrained is None:
        raise ValueError("--reset says what is not taken from a model: it needs --pretrained")
    if args.kv_store in workers.KV_STORES and args.dtype != "float32":
        raise ValueError(f"--kv-store {args.kv_store} does not go with --dtype {args.dtype}: "
                         "MXNet's servers round to float32")
    if args.resume and args.load_epoch:
        raise ValueError("--resume chooses the checkpoint itself: it does not go with --load-epoch")
    if args.keep_best and not args.keep_last:
        raise ValueError("--keep-best needs --keep-last: without it all checkpoints are kept")
    if args.load_epoch and args.load_epoch >= args.num_epochs:
        raise ValueError(f"--load-epoch {args.load_epoch} leaves nothing to train of "
                         f"--num-epochs {args.num_epochs}")
    return Recipe(**{name: getattr(args, name) for name in RECIPE},
                  lr_step_epochs=tuple(args.lr_step_epochs or ()),
                  devices=tuple(devices.contexts(args.gpus, args.cpus, args.batch_size)),
                  pretrained=(None if args.pretrained is None
                              else trained.load_params(args.pretrained)),
                  num_workers=workers.count(args.kv_store))


def output(args, prefix, **about):
    """The ``Output`` that the flags say, under a prefix."""
    return Output(prefix, args.save_period, args.keep_last, args.keep_best, args.resume,
                  args.load_epoch, args.overwrite, about)


def watch(args):
    """The ``Watch`` that the flags say."""
    return Watch(args.disp_batches, args.tensorboard, args.visualize_every, args.monitor)


def _kv_store(text):
    if text in workers.ASYNCHRONOUS:
        raise argparse.ArgumentTypeError(
            f"{text}: its steps depend on which worker comes first, and MXNet would keep the "
            "optimizer out of checkpoints; use dist_sync")
    if text not in KV_STORES:
        hint = cli.did_you_mean(text, KV_STORES)
        raise argparse.ArgumentTypeError(f"expected {', '.join(KV_STORES)}, got {text!r}{hint}")
    return text


def _gpus(text):
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [-1]
    if min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"expected GPU numbers such as 0 or 0,1, got {text!r}")
    return numbers


def _pattern(text):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python may read otherwise one day
            re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"expected a regular expression, got {text!r}: "
                                         f"{error}") from None
    return text


def _epochs(text):
    one = cli.number(float, above=0)
    epochs = [one(part) for part in text.split(",")]
    if epochs != sorted(set(epochs)):
        raise argparse.ArgumentTypeError(f"expected rising numbers, got {text!r}")
    return epochs
