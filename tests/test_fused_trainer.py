import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

import symbols
from common.training.fused_trainer import Trainer
from common.training.recipe import OPTIMIZERS, WITH_MOMENTUM, SeededInit
from symbols.blocks import as_block
from tests.pairwise import pairwise

BATCH = 12


class Run:
    """A LeNet and its trainer, whose localisation head has multipliers of its own."""

    def __init__(self, kind, optimizer, devices=1, static=False, **options):
        self.contexts = [mx.cpu(number) for number in range(devices)]
        self.block = as_block(symbols.get_symbol("lenet"))
        self.block.initialize(SeededInit(mx.init.Xavier(), 0), ctx=self.contexts)
        self.block.hybridize(active=static, static_alloc=True, static_shape=True)
        self.trainer = kind(self.block.collect_params(), optimizer,
                            {"learning_rate": 0.01, **options})

    def step(self, number):
        rng = np.random.RandomState(number)
        images = mx.nd.array(rng.rand(BATCH, 1, 28, 28))
        labels = mx.nd.array(rng.randint(0, 10, BATCH))
        loss = gluon.loss.SoftmaxCrossEntropyLoss()
        mx.random.seed(number)
        with autograd.record():
            losses = [loss(self.block(image), label) for image, label in zip(
                *(gluon.utils.split_and_load(array, self.contexts) for array in (images, labels)))]
        autograd.backward(losses)
        self.trainer.step(BATCH)
        mx.nd.waitall()

    def values(self):
        return {name: [copy.asnumpy() for copy in parameter.list_data()]
                for name, parameter in self.block.collect_params().items()}


def check_equal(one, other):
    other = other.values()
    for name, copies in one.values().items():
        np.testing.assert_array_equal(copies, other[name], err_msg=name)


@pytest.mark.parametrize(("optimizer", "devices", "static", "wd"),
                         pairwise(OPTIMIZERS, [1, 2], [False, True], [0, 0.01]))
def test_steps_are_those_of_gluons_trainer(optimizer, devices, static, wd):
    options = {"wd": wd, **({"momentum": 0.9} if optimizer in WITH_MOMENTUM else {})}
    fused, plain = (Run(kind, optimizer, devices, static, **options)
                    for kind in (Trainer, gluon.Trainer))
    fused.step(0)
    plain.step(0)
    before = fused.values()
    for number in (1, 2):
        fused.step(number)
        plain.step(number)
    check_equal(fused, plain)
    after = fused.values()
    assert all((after[name][0] != before[name][0]).any() for name in before)


def test_it_goes_on_from_saved_states(tmp_path):
    path = str(tmp_path / "states")
    first = Run(Trainer, "adam")
    for number in range(2):
        first.step(number)
    first.trainer.save_states(path)
    second = Run(Trainer, "adam")
    second.step(5)  # a state that must be forgotten
    for name, parameter in second.block.collect_params().items():
        parameter.set_data(first.block.collect_params()[name].data())
    second.trainer.load_states(path)
    for run in (first, second):
        run.step(2)
    check_equal(first, second)


def test_saved_states_do_not_bring_their_rates(tmp_path):
    path = str(tmp_path / "states")
    block, trainer = two_layers(Trainer)
    backward(block)
    trainer.step(2)
    trainer.save_states(path)
    block, trainer = two_layers(Trainer)
    kept, moved = block.collect_params().values()
    kept.lr_mult = 0
    trainer.load_states(path)
    backward(block)
    trainer.step(2)
    assert kept.data().asscalar() == 1
    assert moved.data().asscalar() != 1


def test_parameters_may_be_set_between_steps():
    """Upstream makes a new kvstore then; what the optimizer remembers stays."""
    fused, plain = Run(Trainer, "adam"), Run(gluon.Trainer, "adam")
    for run in (fused, plain):
        run.step(0)
        run.block.collect_params()["fc2_bias"].set_data(mx.nd.ones(10))
        run.step(1)
    check_equal(fused, plain)


def test_what_the_schedule_raises_comes_through():
    def broken(_):
        raise ArithmeticError("no rate")

    broken.base_lr = 0.01
    with pytest.raises(ArithmeticError, match="no rate"):
        Run(Trainer, "sgd", lr_scheduler=broken).step(0)


def test_sparse_parameters_are_refused():
    block = gluon.nn.Embedding(4, 2, sparse_grad=True)
    block.initialize()
    with pytest.raises(ValueError, match="own Trainer"):
        Trainer(block.collect_params(), "sgd")


class Own(mx.optimizer.LAMB):
    """A user's own, of one of MXNet's."""


@pytest.mark.parametrize("optimizer", ["nadam", "lamb", "lars", "lbsgd", "sgld", "groupadagrad",
                                       Own()])
def test_optimizers_that_take_arrays_as_wholes_are_refused(optimizer):
    block = gluon.nn.Dense(2, in_units=2)
    block.initialize()
    with pytest.raises(ValueError, match="own Trainer"):
        Trainer(block.collect_params(), optimizer)


def two_layers(kind, **options):
    """Two weights, of 1, and their trainer."""
    block = gluon.nn.HybridSequential()
    block.add(*(gluon.nn.Dense(1, use_bias=False, in_units=1) for _ in range(2)))
    block.initialize(mx.init.One())
    return block, kind(block.collect_params(), "sgd", {"learning_rate": 0.1, **options})


def backward(block):
    with autograd.record():
        total = block(mx.nd.ones((2, 1))).sum()
    total.backward()


def weights(block):
    return [parameter.data().asnumpy().item() for parameter in block.collect_params().values()]


def test_a_gradient_that_is_not_new_is_not_applied():
    block, trainer = two_layers(Trainer)
    for _ in range(2):
        backward(block)
        trainer.step(2)
    before = weights(block)
    with pytest.raises(UserWarning, match="has not been updated by backward"):
        trainer.step(2)
    assert weights(block) == before


@pytest.mark.parametrize("change", [
    lambda layer: setattr(layer.weight, "grad_req", "null"),
    lambda layer: setattr(layer.weight, "grad_req", "add"),
    lambda layer: layer.initialize(mx.init.One(), force_reinit=True),
    lambda layer: layer.cast("float64"),
    lambda layer: layer.collect_params().reset_ctx(mx.cpu(1))])
def test_parameters_that_have_changed_since_the_first_step_are_refused(change):
    block, trainer = two_layers(Trainer)
    backward(block)
    trainer.step(2)
    change(block[1])
    before = weights(block)
    with pytest.raises(ValueError, match="has been frozen, cast or initialised since"):
        trainer.step(2)
    assert weights(block) == before


def test_a_bias_whose_weight_is_frozen_is_refused_where_mxnet_forgets_it():
    block = gluon.nn.Dense(3, in_units=1)
    block.initialize()
    block.weight.grad_req = "null"
    trainers = [kind(block.collect_params(), "sgd") for kind in (gluon.Trainer, Trainer)]
    backward(block)
    trainers[0].step(2)
    assert not block.bias.data().asnumpy().any()  # MXNet's error; else the next would be needless
    with pytest.raises(ValueError, match="dense.*_weight has no gradient, so MXNet computes none "
                                         "of dense.*_bias: give the weight lr_mult"):
        trainers[1].step(2)
    block.weight.grad_req, block.weight.lr_mult, block.weight.wd_mult = "write", 0, 0
    before = block.weight.data().asnumpy()
    backward(block)
    Trainer(block.collect_params(), "adam", {"wd": 0.1}).step(2)
    np.testing.assert_array_equal(block.weight.data().asnumpy(), before)
    assert block.bias.data().asnumpy().all()


@pytest.mark.parametrize("frozen", [1, 2])
def test_what_is_frozen_from_the_beginning_stays(frozen):
    after = []
    for kind in (Trainer, gluon.Trainer):
        block, trainer = two_layers(kind)
        for layer in block[:frozen]:
            layer.weight.grad_req = "null"
        if frozen == 1:
            backward(block)
        trainer.step(2)
        after.append(weights(block))
    assert after[0] == after[1]
    assert after[0][:frozen] == [1.0] * frozen


@pytest.mark.parametrize("use", [
    lambda trainer: trainer.allreduce_grads(), lambda trainer: trainer.update(2),
    lambda trainer: trainer.step(2, ignore_stale_grad=True)])
def test_what_needs_gluon_s_own_trainer_says_so(use):
    block, trainer = two_layers(Trainer)
    backward(block)
    with pytest.raises(ValueError, match="Gluon's own Trainer"):
        use(trainer)
    assert weights(block) == [1.0, 1.0]
