"""Makes the convolutions of a graph fast on a CPU without changing its function or its parameters.

oneDNN's fast kernels want channels in blocks of 16 with AVX-512, and of 8 without; for 10 or 20 of
them it falls back to a plain matrix product. So the filters are filled up with zeros inside the
graph: the parameters keep their own shapes, and the channels that are added are cut off again
before any operator that would mix them with the real ones.
"""
import json

import mxnet as mx

from common.processor import lanes

BLOCK = lanes()
CHANNELWISE = ("Activation", "Pooling", "relu", "sigmoid", "tanh")  # each channel by itself
CHANNELS_FIRST = ("None", "NCW", "NCHW", "NCDHW")


def pad_convolutions(symbol, for_training=True, **shapes):
    """A symbol that computes the same, with all its convolutions in whole blocks of channels.

    Convolutions in groups or in a layout other than channels first are left as they are.

    Args:
        symbol: a symbol of float32; oneDNN trains in no other type.
        for_training: False for a graph that is run forward only. The forward kernels take less than
            a block of input channels as it is; the backward ones do not.
        shapes: of its inputs, such as ``data=(64, 1, 28, 28)``; the batch size stays free.

    Returns:
        A Symbol with the same arguments, auxiliary states and outputs, names included.

    Raises:
        ValueError: the shapes of all arguments do not follow from the given ones.
    """
    arg_shapes, _, _ = symbol.infer_shape(**shapes)
    if arg_shapes is None:
        raise ValueError(f"the shapes of {', '.join(shapes)} do not settle those of all arguments")
    graph = json.loads(symbol.tojson())
    copy = _PaddedCopy(graph["nodes"], dict(zip(symbol.list_arguments(), arg_shapes)),
                        for_training)
    heads = [copy.entry(head) for head in graph["heads"]]
    variables = [index for index, node in enumerate(copy.nodes) if node["op"] == "null"]
    return mx.sym.load_json(json.dumps(dict(graph, nodes=copy.nodes, arg_nodes=variables,
                                            heads=heads, node_row_ptr=[])))


class _PaddedCopy:
    """The nodes of a graph, copied one by one, in the form of a symbol's JSON."""

    def __init__(self, nodes, shapes, for_training):
        self.nodes, self._originals, self._shapes = [], nodes, shapes
        self._for_training = for_training
        self._copies = {}  # index of a node -> index of its copy
        self._padded = {}  # index of a node -> index of its copy with added channels, real channels
        self._with_zeros = {}  # index of an operand, axis, zeros' shape -> index of what has them
        for index, node in enumerate(nodes):
            source = node["inputs"][0][0] if node["inputs"] else None
            if self._is_convolution(node):
                self._add_convolution(index, node)
            elif source in self._padded and _is_channelwise(node):
                padded, channels = self._padded[source]
                self._add_padded(index, node, channels, [[padded, 0, 0]])
            else:
                self._copies[index] = self._add(node, [self.entry(e) for e in node["inputs"]])

    def entry(self, entry):
        """The entry of the copy that holds the same as one of the graph: [node, output, version]"""
        index, output, _ = entry
        if index not in self._copies:
            padded, channels = self._padded[index]
            cut = {"op": "slice_axis", "name": self._originals[index]["name"],
                   "attrs": {"axis": "1", "begin": "0", "end": str(channels)}}
            self._copies[index] = self._add(cut, [[padded, 0, 0]])
        return [self._copies[index], output, 0]

    def _is_convolution(self, node):
        attrs = node.get("attrs", {})
        return (node["op"] == "Convolution" and attrs.get("num_group", "1") == "1"
                and attrs.get("layout", "None") in CHANNELS_FIRST
                and all(self._originals[index]["op"] == "null" for index, *_ in node["inputs"][1:]))

    def _add_convolution(self, index, node):
        (source, *_), *parameters = node["inputs"]
        for parameter, *_ in parameters:
            self._state_shape(parameter)
        weight, *bias = map(self.entry, parameters)
        filters, channels, *kernel = self._shapes[self._originals[parameters[0][0]]["name"]]
        if source in self._padded and (self._for_training or channels > BLOCK):
            added = -channels % BLOCK
            weight = self._append_zeros(weight, 1, (filters, added, *kernel))
            channels, data = channels + added, [self._padded[source][0], 0, 0]
        else:
            data = self._in_plain_layout(node["inputs"][0], channels)
        added = -filters % BLOCK
        weight = self._append_zeros(weight, 0, (added, channels, *kernel))
        bias = [self._append_zeros(entry, 0, (added,)) for entry in bias]
        node = dict(node, attrs=dict(node["attrs"], num_filter=str(filters + added)))
        if added:
            self._add_padded(index, node, filters, [data, weight, *bias])
        else:
            self._copies[index] = self._add(node, [data, weight, *bias])

    def _in_plain_layout(self, source, channels):
        """The entry of the data of a convolution, from where its gradient goes back unblocked.

        A gradient in blocks of 8 or 16 channels crashes MXNet's Concat where its parts are no
        blocks; a slice of everything gives plain ones.
        """
        entry = self.entry(source)
        origin = self.nodes[entry[0]]
        if origin["op"] == "null" or channels % 8 or not self._for_training:
            return entry
        node = {"op": "slice_axis", "name": f"{origin['name']}_unblocked",
                "attrs": {"axis": "1", "begin": "0", "end": "None"}}
        return [self._add(node, [entry]), 0, 0]

    def _state_shape(self, parameter):
        """Writes its shape on a Variable: it does not follow from that of the padded operand."""
        node = self.nodes[self._copies[parameter]]
        node["attrs"] = dict(node.get("attrs", {}), __shape__=str(self._shapes[node["name"]]))

    def _append_zeros(self, entry, axis, shape):
        if not shape[axis]:
            return entry
        key = (entry[0], axis, shape)
        if key not in self._with_zeros:  # weights that are shared are filled up once
            name = self.nodes[entry[0]]["name"]
            zeros = self._add({"op": "_zeros", "name": f"{name}_zeros",
                               "attrs": {"shape": str(shape)}}, [])
            concat = {"op": "Concat", "name": f"{name}_padded",
                      "attrs": {"dim": str(axis), "num_args": "2"}}
            self._with_zeros[key] = self._add(concat, [entry, [zeros, 0, 0]])
        return [self._with_zeros[key], 0, 0]

    def _add_padded(self, index, node, channels, inputs):
        padded = self._add(dict(node, name=f"{node['name']}_padded"), inputs)
        self._padded[index] = padded, channels

    def _add(self, node, inputs):
        self.nodes.append(dict(node, inputs=inputs))
        return len(self.nodes) - 1


def _is_channelwise(node):
    return (node["op"] in CHANNELWISE
            and node.get("attrs", {}).get("layout", "None") in CHANNELS_FIRST)
