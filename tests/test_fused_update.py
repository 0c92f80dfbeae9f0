import mxnet as mx
import numpy as np
import pytest

import symbols
from common.graph import rewrite
from common.training.callbacks import Monitor
from common.training.fused_update import Module
from common.training.recipe import OPTIMIZERS, WITH_MOMENTUM
from tests.pairwise import pairwise

BATCH = 12


def normalised():
    """A network that MXNet keeps in its own layouts: convolutions in blocks of 16."""
    net = mx.sym.Variable("data")
    for name, num_filter in (("one", 16), ("two", 32)):
        net = mx.sym.Convolution(net, num_filter=num_filter, kernel=(3, 3), name=name)
        net = mx.sym.BatchNorm(net, fix_gamma=False, name=f"{name}_norm")
        net = mx.sym.Activation(net, act_type="relu", name=f"{name}_relu")
    net = mx.sym.FullyConnected(net, num_hidden=10, name="fc")
    return mx.sym.SoftmaxOutput(net, name="softmax")


NETWORKS = {"normalised": normalised, "lenet": lambda: symbols.get_symbol("lenet"),
            "one parameter": lambda: mx.sym.SoftmaxOutput(
                mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=10, no_bias=True,
                                      name="fc"), name="softmax")}


def started(kind, network, optimizer, devices=1, learning_rate=0.01, fixed=None, **params):
    mx.random.seed(0)
    module = kind(NETWORKS[network](), context=[mx.cpu(index) for index in range(devices)],
                  fixed_param_names=fixed)
    module.bind([("data", (BATCH, 1, 12, 12) if network != "lenet" else (BATCH, 1, 28, 28))],
                [("softmax_label", (BATCH,))])
    module.init_params(mx.init.Xavier())
    module.init_optimizer(mx.kv.create("local"), optimizer,
                          dict(learning_rate=learning_rate, **params))
    return module


def step(module, number):
    """A prediction, which moves weights into MXNet's own layout, and then a step of training."""
    rng = np.random.RandomState(number)
    batch = mx.io.DataBatch([mx.nd.array(rng.rand(*module.data_shapes[0].shape))],
                            [mx.nd.array(rng.randint(0, 10, BATCH))])
    module.forward(batch, is_train=False)
    mx.nd.waitall()
    mx.random.seed(number)
    module.forward_backward(batch)
    module.update()
    mx.nd.waitall()


def parameters(module):
    return {name: value.asnumpy() for part in module.get_params() for name, value in part.items()}


def check_equal(one, other, tolerance=0):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=0, atol=tolerance, err_msg=name)


# Of these, lenet alone has several rates: there each optimizer meets each number of devices.
LENET = pairwise(["lenet"], OPTIMIZERS, [1, 2, 3], [0.0, 0.05])
OTHERS = pairwise(["normalised", "one parameter"], OPTIMIZERS, [1, 2, 3], [0.0, 0.05])


@pytest.mark.parametrize(("network", "optimizer", "devices", "wd"), [*LENET, *OTHERS])
def test_it_trains_as_mxnets_own_does(network, optimizer, devices, wd):
    params = {"wd": wd, **({"momentum": 0.9} if optimizer in WITH_MOMENTUM else {})}
    upstream, ours = (started(kind, network, optimizer, devices, **params)
                      for kind in (mx.mod.Module, Module))
    start = parameters(ours)
    for number in range(4):
        step(upstream, number)
        step(ours, number)
    # upstream's get_params takes the mean of the copies, which rounds where there are three
    check_equal(parameters(upstream), parameters(ours), 1e-7 if devices == 3 else 0)
    assert any((value != start[name]).any() for name, value in parameters(ours).items())


def test_parameters_of_three_devices_are_those_of_each_to_the_bit():
    module = started(Module, "lenet", "adam", 3)
    step(module, 0)
    for name, (first, *others) in zip(module._param_names, module._exec_group.param_arrays):
        found = module.get_params()[0][name].asnumpy()
        for copy in (first, *others):
            np.testing.assert_array_equal(copy.asnumpy(), found, err_msg=name)


def test_fixed_parameters_stay():
    module = started(Module, "lenet", "sgd", 2, fixed=["conv1_weight", "fc2_bias"])
    before = parameters(module)
    step(module, 0)
    after = parameters(module)
    assert {name for name in before if (before[name] == after[name]).all()} >= {
        "conv1_weight", "fc2_bias"}
    assert (before["fc1_weight"] != after["fc1_weight"]).any()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_goes_on_from_its_state(optimizer):
    undisturbed, stopped = (started(Module, "lenet", optimizer, 2, wd=0.01) for _ in range(2))
    for number in range(4):
        step(undisturbed, number)
    for number in range(2):
        step(stopped, number)
    state = stopped.optimizer_state()
    resumed = started(Module, "lenet", optimizer, 2, wd=0.01, begin_num_update=2)
    resumed.set_params(*stopped.get_params())
    resumed = _with_optimizer_of(resumed, optimizer, state)
    for number in range(2, 4):
        step(resumed, number)
    check_equal(parameters(undisturbed), parameters(resumed))
    check_equal(undisturbed.optimizer_state(), resumed.optimizer_state())


def _with_optimizer_of(module, optimizer, state):
    """The optimizer starts from the parameters that the Module has by then."""
    module.optimizer_initialized = False
    module.init_optimizer(mx.kv.create("local"), optimizer,
                          {"learning_rate": 0.01, "wd": 0.01, "begin_num_update": 2})
    module.set_optimizer_state(state)
    return module


def test_the_state_has_the_names_and_shapes_of_the_parameters():
    module = started(Module, "lenet", "adam")
    assert module.optimizer_state() == {}
    step(module, 0)
    state, arg_params = module.optimizer_state(), module.get_params()[0]
    assert {name: value.shape for name, value in state.items()} == {
        f"{name}.{number}": value.shape for name, value in arg_params.items()
        for number in (0, 1)}


@pytest.mark.parametrize(("change", "words"), [
    (lambda state: state.pop("fc1_bias.1"), "nothing fit for fc1_bias"),
    (lambda state: state.update({"fc1_bias.1": np.zeros(3, np.float32)}), "nothing fit for fc1_b"),
    (lambda state: state.update(other=np.zeros(3, np.float32)), "the state holds other"),
], ids=["missing", "shape", "unexpected"])
def test_a_state_of_another_optimizer_is_refused(change, words):
    module = started(Module, "lenet", "adam")
    step(module, 0)
    state = module.optimizer_state()
    change(state)
    with pytest.raises(ValueError, match=words):
        module.set_optimizer_state(state)


def test_the_localisation_network_has_its_own_rate():
    module = started(Module, "lenet", "sgd", learning_rate=10)
    before = parameters(module)
    step(module, 0)
    gradients = {name: arrays[0].asnumpy() for name, arrays
                 in zip(module._param_names, module._exec_group.grad_arrays)}
    for name, multiplier in (("fc2_bias", 1), ("stn_loc_fc2_bias", 0.01)):
        np.testing.assert_allclose(before[name] - parameters(module)[name],
                                   10 * multiplier / BATCH * gradients[name], rtol=1e-3)


class Stopping(mx.lr_scheduler.LRScheduler):
    """Is interrupted in the second step."""

    def __call__(self, num_update):
        if num_update == 2:
            raise KeyboardInterrupt("in the schedule")
        return 0.1


@pytest.mark.parametrize("devices", [1, 2])
def test_an_error_in_the_optimizer_is_raised(devices):
    module = started(Module, "lenet", "sgd", devices, lr_scheduler=Stopping())
    step(module, 0)
    with pytest.raises(KeyboardInterrupt, match="in the schedule"):
        step(module, 1)
    with pytest.raises(mx.MXNetError, match="for wds"):
        step(started(Module, "lenet", "sgd", devices, wd=1e308), 0)


@pytest.mark.parametrize("bound", ["uint8", "float32"])
def test_pixels_and_numbers_are_not_taken_for_each_other(bound):
    symbol, shape = NETWORKS["one parameter"](), (BATCH, 1, 12, 12)
    module = Module(rewrite.with_raw_input(symbol, "float32") if bound == "uint8" else symbol)
    module.bind([mx.io.DataDesc("data", shape, bound)], [("softmax_label", (BATCH,))])
    module.init_params()
    given, = {"uint8", "float32"} - {bound}
    label = [mx.nd.zeros(BATCH)]
    with pytest.raises(ValueError, match=f"batches are to be of {bound}, .*, got {given}"):
        module.forward(mx.io.DataBatch([mx.nd.ones(shape, dtype=given)], label))
    module.forward(mx.io.DataBatch([mx.nd.ones(shape, dtype=bound)], label))


def test_an_error_in_the_monitor_is_raised():
    def look(array):
        raise ArithmeticError("in the monitor")

    module = started(Module, "lenet", "sgd")
    monitor = Monitor(1, stat_func=look)
    module.install_monitor(monitor)
    monitor.tic()
    step(module, 0)
    monitor.stat_func = mx.nd.norm
    with pytest.raises(ArithmeticError, match="in the monitor"):
        monitor.toc()
    monitor.tic()
    step(module, 1)
    assert len(monitor.toc()) > 20
