"""The example of docs/own-pictures.md, command by command."""
import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import ROOT

with open(os.path.join(ROOT, "docs", "own-pictures.md"), encoding="utf-8") as page:
    COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```", page.read(), flags=re.M | re.S)
                for line in block.splitlines()]


def run(command, folder):
    """What a command of the page prints, given in another folder than the zoo's."""
    python, *words = shlex.split(command)
    assert python == ".venv/bin/python"
    words = [os.path.join(ROOT, word) if word.endswith(".py") else word for word in words]
    done = subprocess.run([sys.executable, *words], cwd=str(folder), timeout=300,
                          env=dict(os.environ, PYTHONPATH=ROOT), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def accuracy(printed):
    return float(re.search(r"^Test accuracy: ([\d.]+)", printed, flags=re.M).group(1))


@pytest.mark.slow
def test_each_command_of_the_example(tmp_path):
    _, train, score, predict, draw, export, _, tune = COMMANDS
    printed = {command: run(command, tmp_path) for command in COMMANDS}
    assert accuracy(printed[train]) > 0.85
    assert accuracy(printed[score]) == accuracy(printed[train])
    names = re.findall(r": (\w+) \(", printed[predict])
    assert len(names) == 2
    assert set(names) <= {"cross", "square", "star", "triangle"}
    assert os.path.getsize(os.path.join(tmp_path, re.search("Drawn: (.*)", printed[draw]).group(1)))
    assert re.findall(r"^\d+: (\w+), predicted \w+ \(", printed[draw], flags=re.M) == (
        ["cross"] * 5 + ["square"] * 5)
    assert "Exported: shapes.onnx" in printed[export]
    assert "fc1_weight 3 x 64 instead of 4 x 64" in printed[tune]
    scratch = re.sub("--pretrained .*", "--model-prefix models/scratch", tune)
    assert accuracy(printed[tune]) > accuracy(run(scratch, tmp_path)) + 0.03
    fixed = run(f"{tune} --fix stn_ --model-prefix models/fixed", tmp_path)
    assert "Stands still (--fix): stn_loc_conv1" in fixed
    assert accuracy(fixed) > 0.9


@pytest.mark.parametrize(("flags", "words"), [
    (["."], "'.': File exists: name a new folder"), ([""], "'': "), (["/dev/null/a"], "'/dev/null"),
    (["new", "--kinds", "moon,sun"], "moon,sun"), (["new", "--kinds", "moon,moon"], "moon,moon")])
def test_pictures_are_drawn_into_a_new_folder_alone(tmp_path, flags, words):
    done = subprocess.run([sys.executable, "-m", "examples.draw_pictures", *flags],
                          cwd=str(tmp_path), env=dict(os.environ, PYTHONPATH=ROOT),
                          stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert not os.listdir(str(tmp_path))
