"""Loads exports by the programs of examples/, and in further ways, far from this zoo.

    python bare_loaders.py FOLDER...

Beside this file lie the examples and find_mxnet.py alone, and beside each folder FOLDER.npz:
images, answers and, where there is a transformer, theta. Prints as JSON by how much what each
loader computes differs from that.
"""
import ast
import importlib.util
import json
import os
import sys

import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

FEW = 50  # images, where all would take long
OWN = {"find_mxnet", "folder", "images"}  # names that are given to the examples


def run_example(name, folder, images):
    """Runs an example on another export and other images; returns its variables."""
    with open(f"{name}.py", encoding="utf-8") as file:
        tree = ast.parse(file.read())
    rest = [statement for statement in tree.body if not OWN & set(_named(statement))]
    assert len(tree.body) - len(rest) == 4, f"{name} gets its export and its images otherwise"
    found = {"folder": folder, "images": images, "print": lambda *_: None}
    exec(compile(ast.Module(rest, []), name, "exec"), found)
    return found


def _named(statement):
    """The names that a statement imports or assigns to."""
    if isinstance(statement, ast.ImportFrom):
        return [alias.name for alias in statement.names]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [node.id for target in targets for node in ast.walk(target)
            if isinstance(node, ast.Name)]


def load_in_module(folder, images):
    return run_example("load_in_module", folder, images)["answers"]


def load_in_gluon(folder, images):
    found = run_example("load_in_gluon", folder, images)
    block, answers = found["block"], found["answers"]
    parts = [block(mx.nd.array(part)).asnumpy() for part in (images[:1], images[1:])]
    # The mlp's wide full connections are summed up in another order for another number of images.
    atol = 5e-6 if "mlp" in folder else 1e-6
    np.testing.assert_allclose(np.concatenate(parts), answers, atol=atol)
    block.hybridize(active=False)
    return block(mx.nd.array(images)).asnumpy()


def load_in_c(folder, images):
    return run_example("load_in_c", folder, images)["answers"]


def load_checkpoint(folder, images):
    symbol, arg_params, aux_params = mx.model.load_checkpoint(os.path.join(folder, "model"), 0)
    executor = symbol.bind(mx.cpu(), dict(arg_params, data=mx.nd.array(images)), grad_req="null",
                           aux_states=aux_params)
    return executor.forward()[0].asnumpy()


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
    """The last layer's work, done in NumPy on the features that are cut out before it."""
    found = run_example("cut_out_parts", folder, images)
    weight, bias = (found["arg_params"][f"{found['to_classes'].name}_{kind}"].asnumpy()
                    for kind in ("weight", "bias"))
    flat = found["features"].reshape(len(images), -1)
    exponentials = np.exp(flat @ weight.T + bias)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def theta(folder, images):
    return run_example("cut_out_parts", folder, images)["theta"]


def fine_tuned(folder, images):
    """A step of training with three classes; returns theta from before it."""
    symbol = mx.sym.load(os.path.join(folder, "model-train-symbol.json"))
    last = symbol.get_children()[0]
    before = symbol.get_internals()[f"{last.get_children()[0].name}_output"]
    first = next(name for name in before.list_arguments()
                 if name.endswith("_weight") and not name.startswith("stn"))
    return step(folder, before, images[:FEW], first)


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


# What each computes: the answers, with or without a transformer; or for a transformer alone.
PLAIN = {"answers": (load_in_module, load_checkpoint, load_in_gluon, load_in_c, sagemaker)}
MOVING = {"answers": (*PLAIN["answers"], features), "theta": (theta, fine_tuned, transplanted)}


def differences(folder):
    """By how much what each loader computes differs from what is expected."""
    with np.load(f"{folder}.npz") as arrays:
        expected = dict(arrays)
    found = {}
    for kind, loaders in (MOVING if "theta" in expected else PLAIN).items():
        for loader in loaders:
            outputs = loader(folder, expected["images"])
            difference = np.abs(outputs - expected[kind][:len(outputs)]).max()
            found[loader.__name__] = float(difference)
    return found


if __name__ == "__main__":
    for name in ("common", "symbols"):
        assert importlib.util.find_spec(name) is None, f"{name} is in reach"
    print(json.dumps({folder: differences(folder) for folder in sys.argv[1:]}))
