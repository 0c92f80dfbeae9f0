import functools
import math
import os
import re
import sys

import mxnet as mx
import pytest

import symbols
import train_mnist
from common.graph import layers

FLAGS = ["--dataset", "synthetic", "--num-examples", 200, "--add-stn"]


@pytest.fixture
def train(run_main):
    return functools.partial(run_main, train_mnist)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Leaves the programs of a folder alone to be found, and returns the folder."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_summary_instead_of_training(train, tmp_path):
    done = train(*FLAGS, "--summary")
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == []
    lines = [re.split(r"\s{2,}", line) for line in done.stdout.splitlines()]
    assert lines[0] == ["layer", "operator", "output", "parameters", "FLOPs"]
    assert ["conv2", "Convolution", "1 x 20 x 8 x 8", "5,020", "640,000"] in lines
    assert ["stn", "SpatialTransformer", "1 x 1 x 28 x 28", "0", "0"] in lines
    assert lines[-2] == ["total", "27,360", "1,542,600"]
    assert len({len(line) for line in done.stdout.splitlines()[:-1]}) == 1


def test_a_drawing_as_text_and_a_summary_with_it(train, tmp_path):
    done = train(*FLAGS, "--draw-graph", "new/net.dot", "--summary")
    assert done.returncode == 0, done.stderr
    assert "27,360" in done.stdout
    text = (tmp_path / "new" / "net.dot").read_text()
    assert text.startswith("digraph")
    assert "stn -> stn_data_copy" in text
    assert os.listdir(tmp_path) == ["new"]


def test_a_drawing_by_the_program_dot(train, tmp_path, programs, caplog):
    program(programs / "dot", '[ "$2" = -Tsvg ] && exec /bin/cat')
    done = train(*FLAGS, "--draw-graph", tmp_path / "net.svg")
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == caplog.text == ""
    assert (tmp_path / "net.svg").read_text().startswith("digraph")


@pytest.mark.parametrize(("path", "words"), [
    ("net.jpeg", [".dot, .pdf, .png, .svg", "net.jpeg"]),
    ("net.png", ["program dot", "apt install graphviz", ".dot files"]),
    ("file/net.dot", ["file: is no folder"])])
def test_what_cannot_be_drawn_is_refused(train, refused, tmp_path, programs, path, words):
    (tmp_path / "file").write_text("in the way of a folder")
    refused(train(*FLAGS, "--draw-graph", path), *words)
    assert sorted(os.listdir(tmp_path)) == ["file", "programs"]


def test_a_program_that_fails_and_a_missing_package(train, refused, tmp_path, programs,
                                                    monkeypatch):
    program(programs / "dot", "exit 1")
    refused(train(*FLAGS, "--draw-graph", tmp_path / "net.png"), "dot failed")
    monkeypatch.setitem(sys.modules, "graphviz", None)
    refused(train(*FLAGS, "--draw-graph", tmp_path / "net.dot"), "pip install graphviz")
    assert not list(tmp_path.glob("net*"))


def test_weights_that_are_computed_and_shared():
    data, weights = mx.sym.Variable("data"), mx.sym.Variable("w", shape=(6, 4))
    first, second = mx.sym.split(weights, num_outputs=2, axis=0, name="ws")
    hidden = mx.sym.FullyConnected(data, first, num_hidden=3, no_bias=True, name="a")
    hidden = hidden + mx.sym.FullyConnected(data, second, num_hidden=3, no_bias=True, name="b")
    found = layers.layers(mx.sym.FullyConnected(hidden, name="c", num_hidden=3), data=(1, 4))
    assert [(layer.name, layer.parameters, layer.flops) for layer in found
            if layer.operator != "elemwise_add"] == [
        ("ws", 24, 0), ("a", 0, 24), ("b", 0, 24), ("c", 12, 18)]


def test_parameters_that_steps_share_count_once():
    symbol = symbols.get_symbol("lenet", add_stn=True, stn_steps=2)
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=(1, 1, 28, 28))[0]))
    own = sum(math.prod(shape) for name, shape in shapes.items()
              if name not in ("data", "softmax_label"))
    found = layers.layers(symbol, data=(1, 1, 28, 28), softmax_label=(1,))
    assert sum(layer.parameters for layer in found) == own


def test_a_network_whose_label_has_another_name():
    data = mx.sym.Variable("data")
    parts = mx.sym.split(data, num_outputs=2, axis=2, name="a")
    net = mx.sym.FullyConnected(parts[1], num_hidden=3, name="a_b")
    lines = layers.table(mx.sym.SoftmaxOutput(net, name="out"), (1, 4, 6)).splitlines()
    assert [line.split()[:7] for line in lines[1:4]] == [
        ["a", "SliceChannel", "1", "x", "1", "x", "2"],
        ["a_b", "FullyConnected", "1", "x", "3", "39", "72"],
        ["out", "SoftmaxOutput", "1", "x", "3", "0", "0"]]
