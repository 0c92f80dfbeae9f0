"""Loads exports in each of MXNet's ways, with nothing of this zoo but find_mxnet.py beside it.

    python bare_loaders.py FOLDER...

Beside each folder lies FOLDER.npz: images, answers and, where there is a transformer, theta. Prints
as JSON by how much what each loader computes differs from that.
"""
import ctypes
import importlib.util
import json
import os
import sys

import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

FEW = 50  # images, where all would take long


def module_load(folder, images):
    module = mx.mod.Module.load(os.path.join(folder, "model"), 0, label_names=None)
    module.bind([("data", images.shape)], for_training=False)
    module.forward(mx.io.DataBatch([mx.nd.array(images)]))
    return module.get_outputs()[0].asnumpy()


def load_checkpoint(folder, images):
    symbol, arg_params, aux_params = mx.model.load_checkpoint(os.path.join(folder, "model"), 0)
    executor = symbol.bind(mx.cpu(), dict(arg_params, data=mx.nd.array(images)), grad_req="null",
                           aux_states=aux_params)
    return executor.forward()[0].asnumpy()


def symbol_block(folder, images):
    block = mx.gluon.SymbolBlock.imports(os.path.join(folder, "model-symbol.json"), ["data"],
                                         os.path.join(folder, "model-0000.params"))
    eager = block(mx.nd.array(images)).asnumpy()
    block.hybridize()
    parts = [block(mx.nd.array(part)).asnumpy() for part in (images[:1], images[1:])]
    np.testing.assert_allclose(np.concatenate(parts), eager, atol=1e-6)
    return eager


def c_predict_api(folder, images):
    library = ctypes.CDLL(mx.libinfo.find_lib_path()[0])
    with open(os.path.join(folder, "model-symbol.json"), "rb") as file:
        symbol = file.read()
    with open(os.path.join(folder, "model-0000.params"), "rb") as file:
        params = file.read()
    handle, unsigned = ctypes.c_void_p(), ctypes.c_uint
    on_cpu, device, inputs = 1, 0, 1

    def call(function, *args):
        assert function(*args) == 0, ctypes.string_at(library.MXGetLastError())

    call(library.MXPredCreate, symbol, params, len(params), on_cpu, device, inputs,
         (ctypes.c_char_p * 1)(b"data"), (unsigned * 2)(0, 4), (unsigned * 4)(*images.shape),
         ctypes.byref(handle))
    flat = np.ascontiguousarray(images, np.float32)
    pointer = ctypes.POINTER(ctypes.c_float)
    call(library.MXPredSetInput, handle, b"data", flat.ctypes.data_as(pointer), unsigned(flat.size))
    call(library.MXPredForward, handle)
    shape, dimensions = ctypes.POINTER(unsigned)(), unsigned()
    call(library.MXPredGetOutputShape, handle, 0, ctypes.byref(shape), ctypes.byref(dimensions))
    answers = np.empty(shape[:dimensions.value], np.float32)
    call(library.MXPredGetOutput, handle, 0, answers.ctypes.data_as(pointer),
         unsigned(answers.size))
    call(library.MXPredFree, handle)
    return answers


def sagemaker(folder, images):
    """What SageMaker's default ``model_fn`` does: some images one by one, then all at once."""
    with open(os.path.join(folder, "model-shapes.json"), encoding="utf-8") as file:
        inputs = json.load(file)
    symbol, arg_params, aux_params = mx.model.load_checkpoint(os.path.join(folder, "model"), 0)
    module = mx.mod.Module(symbol, [entry["name"] for entry in inputs], None)
    module.bind([(entry["name"], entry["shape"]) for entry in inputs], for_training=False)
    module.set_params(arg_params, aux_params, allow_missing=True)
    singly = module.predict(mx.io.NDArrayIter(images[:FEW], batch_size=inputs[0]["shape"][0]))
    module.forward(mx.io.DataBatch([mx.nd.array(images)]))
    answers = module.get_outputs()[0].asnumpy()
    np.testing.assert_allclose(singly.asnumpy(), answers[:FEW], atol=1e-5)
    return answers


def features(folder, images):
    """Cuts the last layer off, and does its work in NumPy on the features before it."""
    symbol, arg_params, aux_params = mx.model.load_checkpoint(os.path.join(folder, "model"), 0)
    last, = symbol.get_children()
    before = last.get_children()[0].name
    module = mx.mod.Module(symbol.get_internals()[f"{before}_output"], label_names=None)
    module.bind([("data", images.shape)], for_training=False)
    module.set_params(arg_params, aux_params, allow_extra=True)
    module.forward(mx.io.DataBatch([mx.nd.array(images)]))
    vectors = module.get_outputs()[0].asnumpy()
    weight, bias = (arg_params[f"{last.name}_{kind}"].asnumpy() for kind in ("weight", "bias"))
    exponentials = np.exp(vectors.reshape(len(vectors), -1) @ weight.T + bias)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def theta(folder, images):
    """The localisation network alone, cut out of the network."""
    symbol, arg_params, _ = mx.model.load_checkpoint(os.path.join(folder, "model"), 0)
    symbol = symbol.get_internals()["stn_theta_output"]
    params = {name: arg_params[name] for name in symbol.list_arguments() if name != "data"}
    return symbol.eval(data=mx.nd.array(images), **params)[0].asnumpy()


def fine_tuned(folder, images):
    """A step of training with three classes; returns theta from before it."""
    symbol = mx.sym.load(os.path.join(folder, "model-train-symbol.json"))
    last = symbol.get_children()[0]
    before = symbol.get_internals()[f"{last.get_children()[0].name}_output"]
    return step(folder, before, images[:FEW], "conv1_weight")


def transplanted(folder, images):
    """The transformer before another network, and a step of training; theta from before it."""
    symbol = mx.sym.load(os.path.join(folder, "model-train-symbol.json"))
    picture = symbol.get_internals()["stn_output"]
    hidden = mx.sym.FullyConnected(picture, num_hidden=5, name="hidden")
    net = mx.sym.Activation(hidden, act_type="tanh")
    return step(folder, net, images[:FEW], "stn_loc_fc1_weight")


def step(folder, net, images, learns):
    """Trains a network for a step with three classes, from the parameters that it shares."""
    net = mx.sym.FullyConnected(net, num_hidden=3, name="three")
    net = mx.sym.Group([mx.sym.SoftmaxOutput(net, name="softmax"),
                        mx.sym.BlockGrad(net.get_internals()["stn_theta_output"])])
    _, arg_params, aux_params = mx.model.load_checkpoint(os.path.join(folder, "model"), 0)
    module = mx.mod.Module(net)
    module.bind([("data", images.shape)], [("softmax_label", (len(images),))])
    module.init_params(mx.init.Xavier(), arg_params, aux_params, allow_missing=True,
                       allow_extra=True)
    module.init_optimizer()
    labels = mx.nd.arange(len(images)) % 3
    module.forward_backward(mx.io.DataBatch([mx.nd.array(images)], [labels]))
    answers, before = (output.asnumpy() for output in module.get_outputs())
    assert answers.shape == (len(images), 3)
    module.update()
    moved = module.get_params()[0][learns] - arg_params[learns]
    assert moved.abs().max().asscalar() > 0
    return before


ANSWERS = (module_load, load_checkpoint, symbol_block, c_predict_api, sagemaker, features)
THETAS = (theta, fine_tuned, transplanted)


def differences(folder):
    """By how much what each loader computes differs from what is expected."""
    with np.load(f"{folder}.npz") as arrays:
        expected = dict(arrays)
    loaders = [(loader, "answers") for loader in ANSWERS]
    loaders += [(loader, "theta") for loader in THETAS if "theta" in expected]
    found = {}
    for loader, kind in loaders:
        outputs = loader(folder, expected["images"])
        found[loader.__name__] = float(np.abs(outputs - expected[kind][:len(outputs)]).max())
    return found


if __name__ == "__main__":
    for name in ("common", "symbols"):
        assert importlib.util.find_spec(name) is None, f"{name} is in reach"
    print(json.dumps({folder: differences(folder) for folder in sys.argv[1:]}))
