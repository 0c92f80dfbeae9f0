import json
import re

import mxnet as mx
import pytest

import symbols
from common.models import trained
from common.storage import allowed_operators, symbol_file
from tests.test_checkpoint import save, started

WHOLE = json.loads(symbols.get_symbol("lenet").tojson())


def read(tmp_path, graph):
    """What comes of a file with some text, or the JSON of a graph."""
    path = tmp_path / "a-symbol.json"
    path.write_text(graph if isinstance(graph, str) else json.dumps(graph))
    return symbol_file.read(str(path))


def changed(*places, value):
    """The JSON of a network with one thing in it replaced."""
    graph = json.loads(json.dumps(WHOLE))
    part = graph
    for place in places[:-1]:
        part = part[place]
    part[places[-1]] = value
    return graph


def number(name):
    """The number of a node."""
    return [node["name"] for node in WHOLE["nodes"]].index(name)


@pytest.mark.parametrize("network", sorted(symbols.NETWORKS))
@pytest.mark.parametrize("options", [{"add_stn": False}, {}, {"transform": "tps", "bounded": True},
                                     {"transform": "projective"}, {"transform": "attention"}])
def test_the_zoos_symbols_come_back_to_the_byte(tmp_path, network, options):
    symbol = symbols.get_symbol(network, **{"add_stn": True, **options})
    assert read(tmp_path, symbol.tojson()).tojson() == symbol.tojson()


@pytest.mark.parametrize("name", ["resnet18_v2", "mobilenetv2_0.25", "inceptionv3"])
def test_those_of_gluons_zoo_too(tmp_path, name):
    symbol = mx.gluon.model_zoo.vision.get_model(name)(mx.sym.var("data"))
    assert read(tmp_path, symbol.tojson()).tojson() == symbol.tojson()


def test_one_in_the_words_of_an_old_version(tmp_path):
    graph = {"nodes": [{"op": "null", "param": {}, "name": "data", "inputs": [],
                        "backward_source_id": -1},
                       {"op": "_MulScalar", "param": {"scalar": "2"}, "name": "twice",
                        "inputs": [[0, 0]], "backward_source_id": -1, "attr": {"lr_mult": "3"}}],
             "arg_nodes": [0], "heads": [[1, 0]]}
    symbol = read(tmp_path, graph)
    assert symbol.eval(data=mx.nd.array([4]))[0].asscalar() == 8


def test_all_operators_are_mxnets_own():
    assert set(mx.operator.get_all_registered_operators()) >= allowed_operators.OPERATORS - {"null"}


FIRST, CONV = number("data"), number("stn_loc_conv1")
LAST = len(WHOLE["nodes"]) - 1


@pytest.mark.parametrize(("graph", "words"), [
    ("", "not JSON"), ("\xff\xfe", "not JSON"), ("[" * 100000, "not JSON"),
    ('{"nodes": ' * 100000, "not JSON"), ('{"nodes": [' + "9" * 10**6 + "]}", "not JSON"),
    ("[]", "nodes are not a list"), ("{}", "nodes are not a list"),
    ('{"nodes": [1]}', "nodes are not a list"),
    (changed("nodes", value=[]), "it has 0 nodes"),
    (changed("nodes", value=WHOLE["nodes"][:1] * 2**16), "it has 65536 nodes"),
    (changed("nodes", CONV, "inputs", 0, 0, value=10**6), "takes output 0 of node 1000000"),
    (changed("nodes", CONV, "inputs", 0, 0, value=CONV), f"takes output 0 of node {CONV}"),
    (changed("nodes", CONV, "inputs", 0, 0, value=LAST), f"takes output 0 of node {LAST}"),
    (changed("nodes", CONV, "inputs", 0, 0, value=-1), "has the input"),
    (changed("nodes", CONV, "inputs", 0, 0, value=True), "has the input"),
    (changed("nodes", CONV, "inputs", 0, 1, value=1), "takes output 1 of node"),
    (changed("nodes", CONV, "inputs", 0, value=[]), "stn_loc_conv1 has the input []"),
    (changed("nodes", CONV, "inputs", value=None), "the inputs of stn_loc_conv1 are not a list"),
    (changed("nodes", FIRST, "inputs", value=[[0, 0, 0]]), "takes output 0 of node 0"),
    (changed("nodes", CONV, "op", value="null"), "no operator, but inputs"),
    (changed("nodes", CONV, "op", value=3), "not text"),
    (changed("nodes", CONV, "name", value="a\nb"), "not text"),
    (changed("nodes", CONV, "attrs", value=[]), "no object"),
    (changed("nodes", CONV, "attrs", "kernel", value=5), "kernel of stn_loc_conv1 is not text"),
    (changed("nodes", CONV, "subgraphs", value=[WHOLE]), "stn_loc_conv1 has 'subgraphs'"),
    (changed("nodes", CONV, "control_deps", value=[0]), "stn_loc_conv1 has 'control_deps'"),
    (changed("heads", value=[]), "no output"),
    (changed("heads", value=[[10**6, 0, 0]]), "takes output 0 of node 1000000"),
    (changed("heads", value=[[LAST, 7, 0]]), "takes output 7"),
    (changed("arg_nodes", value=[0]), "its arguments are not"),
    (changed("nodes", number("fc1_bias"), "name", value="data"), "its arguments are not"),
])
def test_a_wrong_graph_is_refused(tmp_path, graph, words):
    with pytest.raises(ValueError, match="a-symbol.json: not a symbol.*" + re.escape(words)):
        read(tmp_path, graph)


@pytest.mark.parametrize("operator", ["Custom", "_NDArray", "_Native", "_foreach", "_CachedOp",
                                      "_cvimread", "_backward_copy", "take", "none_of_its"])
def test_an_operator_that_can_do_harm_is_refused(tmp_path, operator):
    graph = changed("nodes", CONV, "op", value=operator)
    graph["nodes"][CONV]["attrs"] = {"info": "0x7fff0000", "op_type": "x"}
    with pytest.raises(ValueError, match=f"stn_loc_conv1 has the operator {operator}, which is"):
        read(tmp_path, graph)


def test_a_split_into_billions_is_refused(tmp_path):
    graph = json.loads(mx.sym.SliceChannel(mx.sym.var("data"), num_outputs=2, name="cut").tojson())
    for count in ("2147483647", "-1", "x", "2" * 5000, "00000000100000000000", "0000000011"):
        graph["nodes"][1]["attrs"]["num_outputs"] = count
        with pytest.raises(ValueError, match="cut has .* outputs|num_outputs of cut is 2222"):
            read(tmp_path, graph)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "a-symbol.json"
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="more than 16777216 bytes"):
        symbol_file.read(str(path))


@pytest.mark.parametrize(("attributes", "words"), [
    ({"op": "_contrib_arange_like", "attrs": {"repeat": "0"}}, "MXNet crashes or hangs"),
    ({"op": "Reshape", "attrs": {"shape": "(4, 4)", "target_shape": "(4, 4)"}},
     r"fatal cannot reshape \(1, 1, 28, 28\) to \(4, 4\)"),
    ({"op": "Reshape", "attrs": {"shape": "(3, -1)"}}, "fatal cannot reshape"),
    ({"op": "UpSampling", "attrs": {"scale": "100000", "sample_type": "nearest", "num_args": "1"}},
     "fatal_output has 15,680,000,000,000 numbers for a batch of 2: too many"),
    ({"op": "_full", "attrs": {"shape": "(1000000, 1000000, 1000000)", "value": "1"}, "inputs": []},
     "expected one input besides the parameters, the images, got none"),
    ({"op": "Pooling", "attrs": {"kernel": "(0, 0)", "pool_type": "max"}}, "does not run"),
    ({"op": "Pooling", "attrs": {"kernel": "(2, 2)", "pad": "(100000, 100000)",
                                 "pool_type": "max"}}, "has 80,021,601,458 numbers"),
])
def test_a_graph_that_crashes_mxnet_does_not_crash_this(tmp_path, attributes, words):
    node = {"name": "fatal", "inputs": [[0, 0, 0]], **attributes}
    graph = {"nodes": [{"op": "null", "name": "data", "inputs": []}, node], "arg_nodes": [0],
             "heads": [[1, 0, 0]], "attrs": {"mxnet_version": ["int", 10901]}}
    save(tmp_path / "a", started(add_stn=False))
    (tmp_path / "a-0001.json").unlink()
    (tmp_path / "a-symbol.json").write_text(json.dumps(graph))
    with pytest.raises(ValueError, match=words) as refusal:
        trained.load(str(tmp_path / "a")).predictor((1, 28, 28), batch_size=2)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(str(tmp_path))
