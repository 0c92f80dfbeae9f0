"""A Trainer of Gluon whose step costs a few operators, however many parameters there are."""
import re

import mxnet as mx

from common.training.callbacks import Updater
from common.training.vectors import Vector

# Optimizers of MXNet that do not: they take norms of arrays, draw noise for each, or count updates.
BY_ARRAYS = ("GroupAdaGrad", "LAMB", "LANS", "LARS", "LBSGD", "Nadam", "SGLD")


class Trainer(mx.gluon.Trainer):
    """``gluon.Trainer``, but what is treated alike is updated as one, as in ``fused_update``.

    After a step what is trained is, to the bit, what it is after that of ``gluon.Trainer``. The
    optimizer must treat each number by itself, as all of ``recipe.OPTIMIZERS`` do. Multipliers of
    the rate and of weight decay are those that the parameters have at the first step; what is
    frozen, or initialised anew, after it needs a new Trainer.

    Args:
        params: a block's ``collect_params()``, or a list of Parameters.
        optimizer, optimizer_params: as upstream's.

    Raises ValueError if a parameter or its gradient is sparse, or the optimizer is of
    ``BY_ARRAYS``; or, in the first step, if on a CPU the bias of a full connection is to be trained
    and its weight is not: MXNet then leaves the bias's gradient as it was.
    """

    def __init__(self, params, optimizer, optimizer_params=None):
        super().__init__(params, optimizer, optimizer_params)
        if self._contains_sparse_weight or self._contains_sparse_grad:
            raise ValueError("sparse parameters need Gluon's own Trainer")
        for kind in type(self._optimizer).__mro__:
            if kind.__name__ in BY_ARRAYS:
                raise ValueError(f"{kind.__name__} does not treat each number by itself: it needs "
                                 "Gluon's own Trainer")
        self._updater = Updater(self._optimizer)

    def step(self, batch_size, ignore_stale_grad=False):
        """As upstream's.

        Raises:
            UserWarning: a gradient is not new; then nothing is updated.
            ValueError: some gradients are to be ignored, or the parameters are not those of the
                first step.
        """
        if ignore_stale_grad:
            raise ValueError("ignore_stale_grad needs Gluon's own Trainer: this one updates all "
                             "parameters or none")
        super().step(batch_size)

    def allreduce_grads(self):
        """Raises ValueError: to change gradients once they are added up needs Gluon's own Trainer.
        """
        raise ValueError("allreduce_grads and update need Gluon's own Trainer: this one does both "
                         "at once, in step")

    def update(self, batch_size, ignore_stale_grad=False):
        """Raises ValueError: see ``allreduce_grads``."""
        self.allreduce_grads()

    def load_states(self, fname):
        """As upstream's; of another network or optimizer, the next step fails."""
        super().load_states(fname)
        self._set_multipliers()

    def _init_kvstore(self):
        self._kvstore = mx.kv.create("local")  # upstream has none for a single device
        self._kvstore._set_updater(self._updater)
        self._kv_initialized = self._update_on_kvstore = True

    def _init_params(self):
        """At the first step, when all shapes are known, and after ``Parameter.set_data``."""
        self._check_biases()
        alike = {}
        for parameter in self._params:
            if parameter.grad_req != "null":
                decay = parameter.wd_mult if self._optimizer.wd else 0
                treated = parameter.lr_mult, decay, parameter.dtype
                alike.setdefault(treated, []).append(parameter)
        self._arrays = [(parameter._data, parameter._grad) for parameter in self._params]
        self._weights = [weight for parameters in alike.values() for parameter in parameters
                         for weight in parameter.list_data()]
        self._multipliers = list(alike)
        self._vectors = [_vector(f"vector{number}", parameters)
                         for number, parameters in enumerate(alike.values())]
        self._set_multipliers()
        for vector in self._vectors:
            self._kvstore.init(vector.key, vector.weights[0].gather())
        self._params_to_init = []

    def _check_biases(self):
        fixed = {parameter.name for parameter in self._params
                 if parameter.grad_req == "null" and len(parameter.shape) == 2
                 and any(context.device_type == "cpu" for context in parameter.list_ctx())}
        for parameter in self._params:
            weight = re.sub("bias$", "weight", parameter.name)
            if parameter.grad_req != "null" and weight in fixed:
                raise ValueError(f"{weight} has no gradient, so MXNet computes none of "
                                 f"{parameter.name}: give the weight lr_mult = wd_mult = 0 in "
                                 "place of grad_req = \"null\"")

    def _set_multipliers(self):
        treated = {vector.key: both for vector, both in zip(self._vectors, self._multipliers)}
        self._optimizer.set_lr_mult({key: rate for key, (rate, *_) in treated.items()})
        self._optimizer.set_wd_mult({key: decay for key, (_, decay, _) in treated.items()})

    def _allreduce_grads(self):
        self._check_unchanged()
        if not all(weight._fresh_grad for weight in self._weights):
            super()._update()  # says of which parameter
        for vector in self._vectors:
            vector.update(self._kvstore)
            self._updater.raise_kept()
        for weight in self._weights:
            weight._fresh_grad = False

    def _update(self, ignore_stale_grad=False):
        """Nothing: ``_allreduce_grads`` updates too."""

    def _check_unchanged(self):
        for parameter, (data, gradient) in zip(self._params, self._arrays):
            if parameter._data is not data or parameter._grad is not gradient:
                raise ValueError(f"{parameter.name} has been frozen, cast or initialised since the "
                                 "first step: make a new Trainer")


def _vector(key, parameters):
    return Vector(key, [parameter.name for parameter in parameters],
                  [parameter.list_data() for parameter in parameters],
                  [parameter.list_grad() for parameter in parameters])
