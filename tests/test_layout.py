"""The house: which rooms may use which, and that every page is found from the README."""
import ast
import glob
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# Each room may use those before it; programs, in the folder itself, may use all.
FLOORS = ("symbols", "common", "common/data", "common/graph", "common/storage", "common/models",
          "common/reports", "common/page", "common/training", "programs", "experiments")
NOT_BELOW = {("common", "symbols"), ("common/graph", "common/data"),
             ("common/storage", "common/data"), ("common/storage", "common/graph")}
PROGRAMS = ("common/doctor.py",)  # that lie on another floor
README_BYTES = 8192


def modules():
    """The paths of all modules, from the checkout."""
    patterns = ("*.py", "symbols/*.py", "common/*.py", "common/*/*.py", "experiments/*.py")
    return sorted(os.path.relpath(path, ROOT) for pattern in patterns
                  for path in glob.glob(os.path.join(ROOT, pattern)))


def room(path):
    """The room of a module, or of a package."""
    if path in PROGRAMS:
        return "programs"
    folder = path if os.path.isdir(os.path.join(ROOT, path)) else os.path.dirname(path)
    return folder or "programs"


def imported(path):
    """The paths of the modules and packages of ours that a module imports."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(os.path.dirname(path))
    for name in names:
        whole = name.replace(".", "/")
        for found in (f"{whole}.py", whole, f"{os.path.dirname(whole)}.py"):
            if os.path.exists(os.path.join(ROOT, found)):
                yield found
                break


@pytest.mark.parametrize("path", modules())
def test_a_room_uses_those_below_it(path):
    own = room(path)
    for other in map(room, imported(path)):
        assert other == own or (FLOORS.index(other) < FLOORS.index(own)
                                and (own, other) not in NOT_BELOW), f"{path} uses {other}"


def test_the_networks_need_mxnet_and_numpy_alone(tmp_path):
    shutil.copytree(os.path.join(ROOT, "symbols"), tmp_path / "symbols",
                    ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(os.path.join(ROOT, "common", "find_mxnet.py"), tmp_path)
    code = ("import find_mxnet, symbols, sys; from symbols import blocks, stn\n"
            "for network in symbols.NETWORKS:\n"
            "    for transform in stn.TRANSFORMS:\n"
            "        symbols.get_symbol(network, transform=transform, image_shape=(2, 42, 42))\n"
            "blocks.as_block(symbols.get_symbol('lenet'))\n"
            "assert 'common' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], cwd=str(tmp_path), check=True)


@pytest.mark.parametrize("path", [path for path in modules() if room(path) == "symbols"])
def test_networks_import_nothing_but_python_s_own_mxnet_and_numpy(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    found = {node.module for node in ast.walk(tree)
             if isinstance(node, ast.ImportFrom) and not node.level}
    found |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
              for alias in node.names}
    assert found <= {"collections", "copy", "functools", "inspect", "json", "mxnet", "numbers",
                     "numpy"}


def test_blocks_and_steps_need_nothing_but_the_transformer_beside_them(tmp_path):
    shutil.copy(os.path.join(ROOT, "common", "find_mxnet.py"), tmp_path)
    (tmp_path / "warps").mkdir()
    for name in ("stn", "blocks", "steps"):
        shutil.copy(os.path.join(ROOT, "symbols", f"{name}.py"), tmp_path / "warps")
    code = ("import find_mxnet, mxnet as mx; from warps import blocks, steps, stn\n"
            "data = mx.sym.Variable('data')\n"
            "print(steps.straighten(data, lambda net: stn.localisation_head(net, 'rotation'),\n"
            "      (9, 9), (9, 9), 'rotation', steps=2).infer_shape(data=(2, 1, 9, 9))[1])\n"
            "net = blocks.SpatialTransformer(mx.gluon.nn.Dense(4), (5, 5))\n"
            "net.initialize()\n"
            "print(net(mx.nd.ones((2, 1, 9, 9))).shape)")
    done = subprocess.run([sys.executable, "-c", code], cwd=str(tmp_path), check=True,
                          stdout=subprocess.PIPE, universal_newlines=True)
    assert done.stdout == "[(2, 1, 9, 9)]\n(2, 1, 5, 5)\n"


def test_the_readme_is_short_and_leads_everywhere():
    with open(os.path.join(ROOT, "README.md"), "rb") as file:
        text = file.read()
    assert len(text) <= README_BYTES
    pages = {os.path.relpath(path, ROOT) for path in glob.glob(os.path.join(ROOT, "docs", "*.md"))}
    assert pages <= set(re.findall(r"\]\(([^)#]+)\)", text.decode()))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "symbols/README.md", *(
    f"docs/{name}" for name in sorted(os.listdir(os.path.join(ROOT, "docs"))))])
def test_links_lead_somewhere(page):
    with open(os.path.join(ROOT, page), encoding="utf-8") as file:
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read())
    for link in links:
        assert os.path.exists(os.path.join(ROOT, os.path.dirname(page), link)), link
