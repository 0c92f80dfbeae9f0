"""A Module whose update costs a few operators, however many parameters there are."""
import mxnet as mx
import numpy as np

from common.graph.rewrite import weights_of_biases
from common.training.callbacks import Updater
from common.training.vectors import Vector

DEVICE = "device"  # begins the part of a state's names that says whose statistics they are


class Module(mx.mod.Module):
    """``mx.mod.Module``, but what is treated alike is updated as one.

    MXNet adds up, updates and sends out each parameter by itself; with layers as small as a LeNet's
    that takes as long as a good part of forward and backward. Here the kvstore and the optimizer
    see one vector for all parameters that share their multipliers of rate and of weight decay. So
    the optimizer must treat each number by itself, as all of ``recipe.OPTIMIZERS`` do.

    Args:
        symbol, **options: as upstream's.
        fixed_param_names: of parameters that stand still. On a CPU MXNet computes the gradient of a
            bias only together with that of its weight: then the weight has a gradient, too.
    """

    def __init__(self, symbol, fixed_param_names=None, **options):
        self._still = set(fixed_param_names or ())
        trained = set(symbol.list_arguments()) - self._still
        super().__init__(symbol, fixed_param_names=self._still - weights_of_biases(symbol, trained),
                         **options)

    def init_optimizer(self, kvstore, optimizer, optimizer_params, add_up=None):
        """As upstream's; ``kvstore`` is a KVStore, which then holds the vectors.

        It adds up the devices of this process; ``add_up``, a function of a key and an NDArray, adds
        to a vector of gradients those of other processes.
        """
        super().init_optimizer(kvstore, optimizer, optimizer_params)
        alike = {}
        trained = [index for index, (gradient, *_) in enumerate(self._exec_group.grad_arrays)
                   if gradient is not None and self._param_names[index] not in self._still]
        for index in trained:
            name = self._param_names[index]
            alike.setdefault(self._multipliers(name), []).append(index)
        self._vectors = [self._vector(f"vector{number}", indices)
                         for number, indices in enumerate(alike.values())]
        keys = [vector.key for vector in self._vectors]
        self._optimizer.set_lr_mult({key: lr for key, (lr, _) in zip(keys, alike)})
        self._optimizer.set_wd_mult({key: wd for key, (_, wd) in zip(keys, alike)})
        kvstore._set_updater(Updater(self._optimizer, add_up))
        for vector in self._vectors:
            kvstore.init(vector.key, vector.weights[0].gather())

    def forward(self, data_batch, is_train=None):
        """As upstream's; raises ValueError for pixels in place of numbers, and the reverse."""
        bound, given = map(np.dtype, (self._data_shapes[0].dtype, data_batch.data[0].dtype))
        if (bound == np.uint8) != (given == np.uint8):  # MXNet would convert them in silence
            raise ValueError(f"batches are to be of {bound}, as the Module is bound, got {given}")
        super().forward(data_batch, is_train)

    def update(self):
        """One step of the optimizer, with the gradients of the last ``backward``.

        Raises whatever the optimizer or the schedule of its rate raises.
        """
        self._params_dirty = True
        for vector in self._vectors:
            vector.update(self._kvstore)
            self._kvstore._updater.raise_kept()

    @property
    def learning_rate(self):
        """That of the last step."""
        return self._optimizer.learning_rate

    def get_params(self):
        """As upstream's, but exact: upstream's mean of the copies rounds where there are three."""
        mx.nd.waitall()  # the engine does not know that BatchNorm's backward writes moving means
        arg_params, aux_params = super().get_params()
        for name, (first, *_) in zip(self._param_names, self._exec_group.param_arrays):
            first.copyto(arg_params[name])
        for name, copies in self.statistics().items():
            aux_params[name][:] = _mean(copies)
        return arg_params, aux_params

    def statistics(self):
        """The moving means and variances of BatchNorm: name -> NumPy array of each device.

        Each device sees its own part of the batches, so that they drift apart.
        """
        mx.nd.waitall()
        return {name: [copy.asnumpy() for copy in copies]
                for name, copies in zip(self._aux_names, self._exec_group.aux_arrays)}

    def set_statistics(self, statistics):
        """Gives each device what ``statistics`` gave."""
        for name, copies in zip(self._aux_names, self._exec_group.aux_arrays):
            for copy, value in zip(copies, statistics[name]):
                copy[:] = value

    def share_statistics(self):
        """Gives all devices the same, their mean: what is saved, and scored anywhere."""
        self.set_statistics({name: [_mean(copies)] * len(copies)
                             for name, copies in self.statistics().items()})

    def optimizer_state(self):
        """The optimizer's memory, ``<parameter>.<number>`` -> NumPy array of its shape.

        Where the devices' statistics differ, which are within an epoch, also each device's.
        """
        arrays, states = self._apart(), self._kvstore._updater.states
        for vector in self._vectors:
            for number, leaf in enumerate(_leaves(states.get(vector.key))):
                for name, part in vector.named(leaf.asnumpy()):
                    arrays[f"{name}.{number}"] = part
        return arrays

    def set_optimizer_state(self, arrays):
        """Goes on from what ``optimizer_state`` gave, name -> NumPy array.

        Raises ValueError if the arrays belong to another optimizer or network.
        """
        arrays, updater = self._without_apart(arrays), self._kvstore._updater
        for vector in self._vectors:
            state = self._optimizer.create_state_multi_precision(vector.key,
                                                                 vector.weights[0].vector)
            for number, leaf in enumerate(_leaves(state)):
                value = leaf.asnumpy()
                for name, part in vector.named(value):
                    stored = arrays.pop(f"{name}.{number}", None)
                    if stored is None or stored.shape != part.shape:
                        raise ValueError(f"the state holds nothing fit for {name}: "
                                         "it is of another optimizer")
                    part[...] = stored
                leaf[:] = value
            updater.states[vector.key] = state
            updater.states_synced[vector.key] = False  # moves to the device at its first use
        if arrays:
            raise ValueError(f"the state holds {', '.join(sorted(arrays))}: "
                             "it is of another optimizer")

    def _vector(self, key, indices):
        group = self._exec_group
        names, weights, gradients = ([arrays[index] for index in indices] for arrays in
                                     (group.param_names, group.param_arrays, group.grad_arrays))
        return Vector(key, names, weights, gradients)

    def _apart(self):
        """The statistics of each device, where they differ, by names for a state."""
        return {f"{name}.{DEVICE}{number}": copy for name, copies in self.statistics().items()
                for number, copy in enumerate(copies)
                if any((copy != other).any() for other in copies)}

    def _without_apart(self, arrays):
        """Arrays of a state without those of ``_apart``, which are set if these devices fit."""
        apart = {key: value for key, value in arrays.items()
                 if key.rpartition(".")[2].startswith(DEVICE)}
        statistics = self.statistics()
        for key, value in apart.items():
            name, _, device = key.rpartition(".")
            copies, number = statistics.get(name, []), int(device[len(DEVICE):])
            if number < len(copies) and copies[number].shape == value.shape:
                copies[number] = value
        self.set_statistics(statistics)
        return {key: value for key, value in arrays.items() if key not in apart}

    def _multipliers(self, name):
        optimizer = self._optimizer
        decay = optimizer.wd_mult.get(name, 1.0) if optimizer.wd else 0.0
        return optimizer.lr_mult.get(name, 1.0), decay


def _mean(copies):
    """The mean of arrays; of equal ones exactly that."""
    first = copies[0]
    if all(np.array_equal(first, copy) for copy in copies):
        return first
    return np.mean(copies, axis=0, dtype=np.float64).astype(first.dtype)


def _leaves(state):
    if isinstance(state, (tuple, list)):
        return [leaf for part in state for leaf in _leaves(part)]
    return [] if state is None else [state]
