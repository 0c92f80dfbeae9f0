"""Loads an export in each of MXNet's ways, with nothing of this zoo but find_mxnet.py beside it.

    python bare_loaders.py FOLDER EXPECTED.npz

Prints as JSON by how much what each loader computes differs from what is expected.
"""
import ctypes
import json
import os
import sys

import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np


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
    """What SageMaker's default ``model_fn`` does, one image at a time."""
    with open(os.path.join(folder, "model-shapes.json"), encoding="utf-8") as file:
        inputs = json.load(file)
    symbol, arg_params, aux_params = mx.model.load_checkpoint(os.path.join(folder, "model"), 0)
    module = mx.mod.Module(symbol, [entry["name"] for entry in inputs], None)
    module.bind([(entry["name"], entry["shape"]) for entry in inputs], for_training=False)
    module.set_params(arg_params, aux_params, allow_missing=True)
    answers = module.predict(mx.io.NDArrayIter(images, batch_size=inputs[0]["shape"][0]))
    return answers.asnumpy()


def theta(folder, images):
    """The transformer alone, cut out of the network."""
    symbol, arg_params, _ = mx.model.load_checkpoint(os.path.join(folder, "model"), 0)
    symbol = symbol.get_internals()["stn_theta_output"]
    params = {name: arg_params[name] for name in symbol.list_arguments() if name != "data"}
    return symbol.eval(data=mx.nd.array(images), **params)[0].asnumpy()


def fine_tuned(folder, images):
    """A step of training with three classes; returns theta from before it."""
    symbol = mx.sym.load(os.path.join(folder, "model-train-symbol.json"))
    _, arg_params, aux_params = mx.model.load_checkpoint(os.path.join(folder, "model"), 0)
    internals = symbol.get_internals()
    net = mx.sym.FullyConnected(internals["relu3_output"], num_hidden=3, name="three")
    net = mx.sym.Group([mx.sym.SoftmaxOutput(net, name="softmax"),
                        mx.sym.BlockGrad(internals["stn_theta_output"])])
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
    moved = module.get_params()[0]["conv1_weight"] - arg_params["conv1_weight"]
    assert moved.abs().max().asscalar() > 0
    return before


LOADERS = {loader.__name__: loader for loader in (
    module_load, load_checkpoint, symbol_block, c_predict_api, sagemaker, theta, fine_tuned)}


def main(folder, expected):
    with np.load(expected) as arrays:
        print(json.dumps({
            name: float(np.abs(loader(folder, arrays["images"]) - arrays[
                "theta" if loader in (theta, fine_tuned) else "answers"]).max())
            for name, loader in LOADERS.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
