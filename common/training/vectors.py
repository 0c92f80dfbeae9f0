"""Parameters end to end in one vector, so that an optimizer is called once for all of them."""
import mxnet as mx
import numpy as np


class Vector:
    """Some parameters under one key of a kvstore.

    Args:
        key: the name of the vector.
        names: of the parameters.
        weights, gradients: for each parameter a list of NDArrays, one for each device.
    """

    def __init__(self, key, names, weights, gradients):
        self.key, self.names = key, names
        self.weights, self.gradients = ([_Parts(of_device) for of_device in zip(*arrays)]
                                        for arrays in (weights, gradients))

    def update(self, kvstore):
        """Has the kvstore add up the gradients and update the weights of all devices."""
        kvstore.push(self.key, [device.gather() for device in self.gradients])
        kvstore.pull(self.key, out=[device.vector for device in self.weights])
        for device in self.weights:
            device.scatter()

    def named(self, vector):
        """The names of the parameters, and views of their parts of a NumPy array."""
        return zip(self.names, self.weights[0].split(vector))


class _Parts:
    """Arrays of one device, and a vector that has room for all of them."""

    def __init__(self, arrays):
        self.arrays = arrays
        ends = np.cumsum([array.size for array in arrays]).tolist()
        self.slices = [slice(end - array.size, end) for array, end in zip(arrays, ends)]
        self.vector = mx.nd.empty((ends[-1],), arrays[0].context, arrays[0].dtype)
        self.views = self.split(self.vector)

    def split(self, vector):
        """Views of a vector, in the shapes of the arrays."""
        return [vector[part].reshape(array.shape) for part, array in zip(self.slices, self.arrays)]

    def gather(self):
        """The vector, of what the arrays hold now."""
        self._copy(self.arrays, self.views)
        return self.vector

    def scatter(self):
        """Gives the arrays what the vector holds."""
        self._copy(self.views, self.arrays)

    @staticmethod
    def _copy(sources, targets):
        if sources[0].dtype == np.float32:  # all in one operator, quicker than concat and split
            mx.nd.amp_multicast(*sources, num_outputs=len(sources), out=targets)
        else:
            for source, target in zip(sources, targets):
                source.copyto(target)
