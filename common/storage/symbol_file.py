"""Symbols from files that may be damaged or hostile: MXNet sees what was checked, and no more.

MXNet 1.9.1 trusts a symbol's JSON. A wrong index crashes the process, and some operators hold raw
pointers or names of files in their attributes. So the JSON is checked here, written anew, and
loaded in a child process first.
"""
import json
import math
import re

import mxnet as mx

from common import files, sandbox
from common.storage.allowed_operators import (
    FROM_SHAPE,
    FUSED,
    INT8,
    INVERSES,
    OPERATORS,
    SEVERAL_OUTPUTS,
    SPLITS,
)

MOST_NODES = 2**15
MOST_OUTPUTS = 2**10  # of one node
# A number, a word, a list of such, or a device; what is for MXNet's operators is nothing else.
VALUE = re.compile(r"[\w.+ -]*([(\[][\w.+, -]*[)\]])?")
LONGEST = 1000  # letters of such a value, or a name
FLOATS = ("float16", "float32", "float64", "0", "1", "2", "None", "-1")  # "0" is for variables
OFF = ("0", "False", "false", "None")
ON = ("1", "True", "true")
KEYS = {"op", "name", "inputs", "attrs", "attr", "param"}  # the last two before MXNet 1.0
SUBGRAPHS = "subgraphs"  # a key of nodes of FUSED alone
IGNORED_KEYS = {"backward_source_id"}
VERSIONS = ("mxnet_version", "is_np_shape")  # what MXNet wants to know of the writer


def read(path):
    """Reads a symbol.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged, or not one that MXNet can be trusted with.
    """
    content = files.read(path)
    try:
        text = json.dumps(rewritten(_parse(content)), ensure_ascii=False)
        sandbox.run_in_child(path, lambda: mx.sym.load_json(text))
        return mx.sym.load_json(text)
    except _Fault as fault:
        raise ValueError(f"{path}: not a symbol that can be loaded: {fault}") from None


class _Fault(Exception):
    """What is wrong with a graph."""


def _parse(content):
    try:
        return files.parse_json(content)
    except ValueError:
        raise _Fault("it is not JSON") from None


def rewritten(graph, operators=OPERATORS):
    """A graph for MXNet, with nothing in it that has not been checked.

    Args:
        graph: what the JSON of a symbol holds.
        operators: those that it may have.

    Returns:
        The like of that.
    """
    nodes = _list_of(dict, graph.get("nodes") if isinstance(graph, dict) else None, "nodes")
    if not 0 < len(nodes) <= MOST_NODES:
        raise _Fault(f"it has {len(nodes)} nodes, not 1 to {MOST_NODES}")
    outputs, checked = [], []
    for node in nodes:
        checked.append(_node(node, outputs, operators))
        outputs.append(_count_outputs(checked[-1]))
    _check_inverses(checked)
    _check_whole_numbers(checked)
    variables = [index for index, node in enumerate(checked) if node["op"] == "null"]
    names = [checked[index]["name"] for index in variables]
    if graph.get("arg_nodes") != variables or len(set(names)) < len(names):
        raise _Fault("its arguments are not its nodes without operator, each with its own name")
    heads = _list_of(list, graph.get("heads"), "heads")
    if not heads:
        raise _Fault("it has no output")
    return {"nodes": checked, "arg_nodes": variables,
            "heads": [_entry(head, outputs, "the graph") for head in heads],
            "attrs": _versions(graph.get("attrs", {}))}


def _check_inverses(nodes):
    """Refuses the inverse of what the image decides: that of a singular matrix ends the process."""
    varies = []
    for node in nodes:
        varies.append(node["op"] == "null" or (
            node["op"] not in FROM_SHAPE and any(varies[index] for index, *_ in node["inputs"])))
        if varies[-1] and node["op"] in INVERSES:
            raise _Fault(f"{node['name']} is the inverse of what is no constant")


def _check_whole_numbers(nodes):
    """Refuses whole numbers where an image could make them divide by 0, which ends the process."""
    for node in nodes:
        sources = [nodes[index] for index, *_ in node["inputs"]]
        whole = [source["name"] for source in sources
                 if source["op"] in INT8 and _count_outputs(source) > 1]
        if whole and node["op"] not in INT8:
            raise _Fault(f"{node['name']} takes whole numbers, those of {whole[0]}")


def _node(node, outputs, operators):
    """A node, checked; ``outputs`` has the numbers of outputs of those before it."""
    for key in ("op", "name"):
        _check_text(node.get(key), f"the {key} of node {len(outputs)}", LONGEST)
    name = node["name"]
    if node["op"] not in operators:
        raise _Fault(f"{name} has the operator {node['op']}, which is not taken from files")
    fused = node["op"] in FUSED
    unknown = set(node) - KEYS - IGNORED_KEYS - ({SUBGRAPHS} if fused else set())
    if unknown:
        raise _Fault(f"{name} has {', '.join(sorted(map(repr, unknown)))}")
    inputs = [_entry(entry, outputs, name)
              for entry in _list_of(list, node.get("inputs"), f"the inputs of {name}")]
    if inputs and node["op"] == "null":
        raise _Fault(f"{name} has no operator, but inputs")
    found = {"op": node["op"], "name": name, "inputs": inputs}
    for key in ("attrs", "attr", "param"):
        if key in node:
            found[key] = _attributes(node[key], name)
    if fused:
        found[SUBGRAPHS] = [rewritten(graph, OPERATORS - INT8) for graph in
                            _list_of(dict, node.get(SUBGRAPHS), f"the subgraphs of {name}")]
    return found


def _attributes(attributes, name):
    if not isinstance(attributes, dict):
        raise _Fault(f"the attributes of {name} are no object")
    for key, value in attributes.items():
        _check_text(key, f"an attribute of {name}")
        _check_text(value, f"{key} of {name}")
        if not key.startswith("__") and not (
                len(value) <= LONGEST and VALUE.fullmatch(value)):
            raise _Fault(f"{key} of {name} is {value[:50]}, which no operator takes")
        if key in ("dtype", "__dtype__") and value not in FLOATS:
            # The image could make whole numbers divide by 0, which ends the process.
            raise _Fault(f"{name} has the data type {value}, which is not floating-point")
        if key == "use_length" and value not in OFF:
            raise _Fault(f"{name} reads memory where its input says: {key} is not taken")
    return attributes


def _count_outputs(node):
    told = {**node.get("param", {}), **node.get("attr", {}), **node.get("attrs", {})}
    if node["op"] in FUSED:
        return 3 if told.get("quantized") in ON and told.get("enable_float_output") not in ON else 1
    if node["op"] not in SPLITS:
        return SEVERAL_OUTPUTS.get(node["op"], 1)
    count = told.get("num_outputs", "")
    if not re.fullmatch("[0-9]{1,9}", count) or not 1 <= int(count) <= MOST_OUTPUTS:
        raise _Fault(f"{node['name']} has {count or 'an unknown number of'} outputs")
    return int(count)


def _entry(entry, outputs, name):
    """The output of an earlier node that a node or the graph takes: [node, output, version]."""
    numbers = [number for number in entry if type(number) is int and 0 <= number < 2**31]
    if len(numbers) != len(entry) or len(entry) not in (2, 3):
        raise _Fault(f"{name} has the input {entry}"[:200])
    index, output = numbers[:2]
    if index >= len(outputs) or output >= outputs[index]:
        raise _Fault(f"{name} takes output {output} of node {index}, which no earlier node has")
    return [*numbers, 0][:3]


def _versions(attributes):
    if not isinstance(attributes, dict):
        raise _Fault("the attributes of the graph are no object")
    return {name: value for name, value in attributes.items()
            if name in VERSIONS and isinstance(value, list) and len(value) == 2
            and value[0] == "int" and type(value[1]) is int and 0 <= value[1] < 2**31}


def _list_of(kind, value, name):
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise _Fault(f"{name} are not a list as they should be")
    return value


def _check_text(value, name, most=math.inf):
    if not isinstance(value, str) or not value.isprintable() or len(value) > most:
        raise _Fault(f"{name} is not text")
