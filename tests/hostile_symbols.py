"""Draws graphs of the operators that a symbol from a file may have, with attributes at their worst.

They have no parameters, so that each one that MXNet takes can be run.
"""
import json

import mxnet as mx

from common.storage.allowed_operators import OPERATORS, SPLITS

NAMES = ("data_scaled", "softmax", "stn", "stn_theta", "data", "label", "a" * 10**5, "x_padded")
SIZES = ("0", "1", "1", "2", "2", "3", "5", "28", "-1", "-2", "7", "1000", "10000", "1000000",
         "2147483647", "9" * 30)
SHAPES = ("(1, 1)", "(2, 2)", "(3, 3)", "(0, 0)", "(28, 28)", "(3000, 3000)", "(1, 1, 28, 28)",
          "()", "(-1, 784)", "(0, -1)", "(30000, 30000)", "(1, 1, 100, 100)", "(1, 1, 900, 900)",
          "(1,)", "(-1,)", "(2, 0)", "None", "({1: []}, 2)", "{[]}", "[[1]]", "(1, (2, 3))")
NUMBERS = ("0", "1", "-1", "0.5", "nan", "inf", "1e38", "-1e400", "3")
TYPES = ("float32", "float64", "float16", "int32", "int64", "uint8", "int8", "bool", "bfloat16")
WORDS = ("None", "", "x", "9" * 400, "{[]}", "True", "é")
SOURCES = tuple(sorted(OPERATORS - {"null"}))


def draw(random):
    """The JSON of a graph that ends in numbers (N, 2) or anything else, by a ``random.Random``."""
    nodes = [{"op": "null", "name": "data", "inputs": []}]
    for _ in range(random.choice([1, 1, 2, 3])):
        nodes.append(_node(nodes, random))
    if random.random() < 0.8:
        nodes += _ending(len(nodes) - 1)
    graph = {"nodes": nodes, "arg_nodes": [0], "heads": [[len(nodes) - 1, 0, 0]],
             "attrs": {"mxnet_version": ["int", 10901]}}
    return json.dumps(graph).encode()


def _node(nodes, random):
    operator = random.choice(SOURCES)
    attributes, inputs = {}, []
    arguments = mx.operator.get_operator_arguments(operator)
    for name, kind in zip(arguments.names, arguments.types):
        if kind.startswith("NDArray-or-Symbol"):
            if "[]" in kind:
                inputs += [_entry(nodes, random) for _ in range(random.choice([1, 2, 2]))]
                attributes["num_args"] = str(len(inputs))
            elif name not in ("bias", "label") or random.random() < 0.2:
                inputs.append(_entry(nodes, random))
        elif "required" in kind or random.random() < 0.4:
            attributes[name] = _value(name, kind, random)
    if operator in SPLITS:
        attributes["num_outputs"] = str(len(inputs))
    name = random.choice(NAMES) if random.random() < 0.05 else f"node{len(nodes)}"
    return {"op": operator, "name": name, "attrs": attributes, "inputs": inputs}


def _entry(nodes, random):
    return [random.choice([len(nodes) - 1, random.randrange(len(nodes))]), 0, 0]


def _value(name, kind, random):
    if random.random() < 0.03:
        return random.choice(WORDS)
    if name == "dtype":
        return random.choice(TYPES)
    if kind.startswith("{"):
        return random.choice(kind[1:kind.index("}")].replace("'", "").split(",")).strip()
    if kind.startswith("boolean"):
        return random.choice(["True", "False"])
    if "Shape" in kind or "tuple" in kind:
        return random.choice(SHAPES)
    if kind.startswith(("int", "long")) or name in ("axis", "begin", "end"):
        return random.choice(SIZES)
    return random.choice(NUMBERS)


def _ending(last):
    """Nodes that make two numbers for each image of what node ``last`` gives."""
    return [{"op": "Flatten", "name": "flat", "attrs": {}, "inputs": [[last, 0, 0]]},
            {"op": "mean", "name": "mean", "attrs": {"axis": "1", "keepdims": "True"},
             "inputs": [[last + 1, 0, 0]]},
            {"op": "Concat", "name": "two", "attrs": {"num_args": "2", "dim": "1"},
             "inputs": [[last + 2, 0, 0], [last + 2, 0, 0]]},
            {"op": "softmax", "name": "softmax", "attrs": {}, "inputs": [[last + 3, 0, 0]]}]
