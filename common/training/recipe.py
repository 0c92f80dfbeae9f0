"""What decides a run: its recipe, and what that makes of optimizer, schedule and first values."""
import dataclasses
import zlib
from typing import Mapping, Optional, Tuple

import mxnet as mx

from common.data.batches import derive_seed
from common.models.trained import Params

OPTIMIZERS = ("adagrad", "adam", "nag", "rmsprop", "sgd", "signum")
WITH_MOMENTUM = ("nag", "sgd", "signum")
IN_FLOAT32 = ("adagrad", "rmsprop")
SCHEDULES = ("linear", "cosine", "step", "constant")
LOOKING_AHEAD = ("linear", "cosine")  # schedules that depend on the number of epochs from the start
INITIALIZERS = {
    "msra": mx.init.MSRAPrelu,
    "normal": mx.init.Normal,
    "uniform": mx.init.Uniform,
    "xavier": mx.init.Xavier,
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides the bits of a run, beside its code; by default the zoo's own for the LeNet.

    Attributes:
        lr_schedule: of ``SCHEDULES``; None for "step" where there are steps, else "linear".
        lr_step_epochs: rising, for "step".
        warmup_epochs: in which the rate rises from 0; None for a quarter of all where the schedule
            looks ahead, else none.
        num_workers: processes, each of which adds ``batch_size`` images to a step.
        pretrained: the ``trained.Params`` that the network starts from.
        devices: the ``mx.Context`` that a batch is split over.
        made_of: what decides the network and the images, by name.
        Others are as the flags of the same names.

    Raises:
        ValueError: no such schedule, optimizer or initialiser; or schedule, steps, warm-up and
            epochs do not fit together.
    """

    num_epochs: int = 20
    batch_size: int = 128
    lr: float = 0.003
    lr_schedule: Optional[str] = None
    lr_step_epochs: Tuple[float, ...] = ()
    lr_factor: float = 0.1
    warmup_epochs: Optional[float] = None
    optimizer: str = "adam"
    mom: float = 0.9
    wd: float = 0.0
    initializer: str = "msra"
    seed: int = 0
    kv_store: str = "local"
    num_workers: int = 1
    dtype: str = "float32"
    pretrained: Optional[Params] = None
    reset: Optional[str] = None
    fix: Optional[str] = None
    loc_lr_mult: Optional[float] = None
    devices: Tuple[mx.Context, ...] = (mx.cpu(),)
    made_of: Mapping = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.lr_schedule is None:
            # Past __setattr__, as a frozen dataclass has to.
            object.__setattr__(self, "lr_schedule", "step" if self.lr_step_epochs else "linear")
        for name, given, known in (
                ("lr_schedule", self.lr_schedule, SCHEDULES),
                ("optimizer", self.optimizer, OPTIMIZERS),
                ("initializer", self.initializer, INITIALIZERS)):
            if given not in known:
                raise ValueError(f"no {name} {given!r}: there is {', '.join(known)}")
        if (self.lr_schedule == "step") != bool(self.lr_step_epochs):
            raise ValueError("--lr-schedule step and --lr-step-epochs go together")
        if self.warmup_epochs is None:
            ahead = self.lr_schedule in LOOKING_AHEAD
            object.__setattr__(self, "warmup_epochs", self.num_epochs / 4 if ahead else 0)
        if self.warmup_epochs >= self.num_epochs:
            raise ValueError(f"--warmup-epochs {self.warmup_epochs:g} must be less than "
                             f"--num-epochs {self.num_epochs}")
        if self.dtype == "float64" and self.optimizer in IN_FLOAT32:
            raise ValueError(f"MXNet's {self.optimizer} computes in float32 alone: choose another "
                             "--optimizer, or leave out --dtype float64")

    def as_json(self):
        """All of it by name, as JSON can hold it."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)
               if field.name != "made_of"}
        start = self.pretrained
        return {**own, **self.made_of, "pretrained": start and start.model,
                "pretrained_sha256": start and start.sha256,
                "devices": list(map(str, self.devices)),
                "lr_step_epochs": list(self.lr_step_epochs) or None}

    def optimizer_params(self, batches_per_epoch, done=0, remembered=0):
        """What ``Module.init_optimizer`` needs besides the optimizer's name.

        Args:
            batches_per_epoch: steps in an epoch.
            done: steps of the schedule that are behind the run, where it goes on.
            remembered: steps that the optimizer has a memory of. They are others where it starts
                anew, or where epochs had another length.
        """
        schedule = _Shifted(self._scheduler(batches_per_epoch), done - remembered)
        params = {"learning_rate": self.lr, "wd": self.wd, "begin_num_update": remembered,
                  "lr_scheduler": schedule,
                  "rescale_grad": 1 / (self.batch_size * self.num_workers)}
        if self.optimizer in WITH_MOMENTUM:
            params["momentum"] = self.mom
        return params

    def _scheduler(self, batches_per_epoch):
        total = self.num_epochs * batches_per_epoch
        common = {"base_lr": self.lr, "warmup_steps": int(self.warmup_epochs * batches_per_epoch)}
        if self.lr_schedule == "linear":
            return mx.lr_scheduler.PolyScheduler(total + 1, pwr=1, **common)
        if self.lr_schedule == "cosine":
            return mx.lr_scheduler.CosineScheduler(total + 1, **common)
        if self.lr_schedule == "step":
            steps = [max(1, int(epoch * batches_per_epoch)) for epoch in self.lr_step_epochs]
            if len(set(steps)) < len(steps):
                raise ValueError("--lr-step-epochs: two of them fall on the same of the "
                                 f"{batches_per_epoch} batches of an epoch")
            return mx.lr_scheduler.MultiFactorScheduler(steps, factor=self.lr_factor, **common)
        return mx.lr_scheduler.FactorScheduler(total + 1, **common)

    def first_values(self):
        """The initialiser of the parameters that do not bring their own."""
        return SeededInit(INITIALIZERS[self.initializer](), self.seed)


class _Shifted(mx.lr_scheduler.LRScheduler):
    """A schedule that is some steps ahead of the optimizer's count."""

    def __init__(self, schedule, ahead):
        super().__init__(schedule.base_lr)
        self.schedule, self.ahead = schedule, ahead

    def __call__(self, num_update):
        return self.schedule(num_update + self.ahead)


class SeededInit(mx.init.Initializer):
    """Draws each parameter from (seed, its name), so that no layer changes another's start."""

    def __init__(self, initializer, seed):
        super().__init__()
        self.initializer, self.seed = initializer, seed

    def __call__(self, desc, array):
        mx.random.seed(derive_seed(self.seed, zlib.crc32(desc.encode())))
        self.initializer(desc, array)

    def _init_weight(self, name, array):  # which Gluon calls in place of the above
        self(mx.init.InitDesc(name), array)
