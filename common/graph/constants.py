"""Computes once what a network would compute for each batch again: what parameters alone decide."""
import json

import mxnet as mx
import numpy as np

from common.graph.rewrite import draws_random_numbers

FILLED = {"ones_like": mx.nd.ones, "zeros_like": mx.nd.zeros}  # which look at shapes alone


def fold(symbol, params, context, shapes):
    """A symbol that predicts the same with fewer operators.

    Args:
        symbol: of float32, to be run forward only; its input is "data".
        params: name -> NDArray, of all its other arguments.
        context: the device to compute on.
        shapes: those that the data may have. What differs between them is no constant.

    Returns:
        The symbol, whose outputs have their names, and its params, name -> NDArray on the device.
    """
    graph = json.loads(symbol.tojson())
    params = {name: params[name].as_in_context(context)
              for name in symbol.list_arguments() if name in params}
    for index, shape in _filled(symbol, graph["nodes"], params, shapes).items():
        value = FILLED[graph["nodes"][index]["op"]](shape, context)
        _make_variable(graph, index, value, params)
    constant = _constant(graph["nodes"], params)
    ends = [index for index in _used_by_others(graph["nodes"], constant)
            if graph["nodes"][index]["op"] != "null"]
    for index, value in zip(ends, _values(graph, ends, params, context)):
        _make_variable(graph, index, value, params)
    folded = mx.sym.load_json(json.dumps(graph))
    return folded, {name: params[name] for name in folded.list_arguments() if name in params}


def _filled(symbol, nodes, params, shapes):
    """The nodes in ``FILLED`` that give the same for all shapes of the data: index -> shape."""
    if not any(node["op"] in FILLED for node in nodes):
        return {}
    internals = symbol.get_internals()
    names = internals.list_outputs()
    types = dict(zip(names, internals.infer_type(
        **{name: value.dtype for name, value in params.items()}, data=np.float32)[1]))
    inferred = [dict(zip(names, internals.infer_shape(data=shape)[1])) for shape in shapes]
    found, outputs = {}, symbol.list_outputs()
    for index, node in enumerate(nodes):
        output = f"{node['name']}_output"
        if (node["op"] in FILLED and names.count(output) == 1 and output not in outputs
                and types[output] == np.float32):
            first, *others = [of_shape[output] for of_shape in inferred]
            if all(other == first for other in others):
                found[index] = first
    return found


def _constant(nodes, params):
    """The indices of the nodes that follow from the params, these included."""
    several = {index for node in nodes for index, output, _ in node["inputs"] if output}
    constant = set()
    for index, node in enumerate(nodes):
        if node["op"] == "null":
            known = node["name"] in params
        else:
            known = (constant.issuperset(entry[0] for entry in node["inputs"])
                     and not draws_random_numbers(node) and index not in several)
        if known:
            constant.add(index)
    return constant


def _used_by_others(nodes, constant):
    """Those of some nodes that others than these are computed from, in order."""
    return sorted({entry[0] for index, node in enumerate(nodes) if index not in constant
                   for entry in node["inputs"]}.intersection(constant))


def _values(graph, indices, params, context):
    """What nodes give, NDArrays."""
    if not indices:
        return []
    heads = [[index, 0, 0] for index in indices]
    part = mx.sym.load_json(json.dumps({**graph, "heads": heads}))
    return part.bind(context, {name: params[name] for name in part.list_arguments()},
                     grad_req="null").forward()


def _make_variable(graph, index, value, params):
    """Puts a Variable in the place of a node, with its value among the params."""
    name = f"{graph['nodes'][index]['name']} {index}"  # which no other node is called
    graph["nodes"][index] = {"op": "null", "name": name, "inputs": []}
    params[name] = value
