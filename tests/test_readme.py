"""What the README shows is run."""
import json
import os
import re
import subprocess
import sys

from common.data import datasets
from common.reports import results
from experiments import benchmark, paper, recover_theta
from tests.conftest import ROOT

with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as readme:
    README = readme.read()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


def test_the_examples_run(train, tmp_path, monkeypatch, capsys):
    done = train("--add-stn", "--num-examples", 2000, "--num-epochs", 1, "--data-dir",
                 os.path.join(ROOT, "data", "mnist"), cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(ROOT)
    load, lift, deform = blocks("python")
    image = datasets.load("synthetic", num_examples=100).train_images[0]
    exec(load, {"image": image})
    assert int(capsys.readouterr().out) in range(10)
    names = {}
    exec(lift, names)
    assert names["straightened"].infer_shape(data=(2, 1, 28, 28))[1] == [(2, 1, 28, 28)]
    exec(deform, names)
    assert names["turned"].shape == (100, 28, 28)


def test_every_flag_in_the_readme_exists():
    scripts = [[name] for name in os.listdir(ROOT) if name.endswith(".py")]
    scripts += [["-m", f"tests.{name}"] for name in ("chaos", "fuzz", "soak")]
    helps = [subprocess.run([sys.executable, *script, "--help"], cwd=ROOT, stdout=subprocess.PIPE,
                            check=True, universal_newlines=True).stdout for script in scripts]
    used = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", README))
    assert used <= set(re.findall(r"--[a-z-]+", "".join(helps)))


def test_the_tables_are_those_of_the_results():
    folder = os.path.join(ROOT, "results")
    assert results.table(folder) in README
    assert paper.markdown(os.path.join(folder, "paper")) in README
    measured = benchmark.load(os.path.join(folder, "benchmark.json"))
    assert set(measured) >= {benchmark.key(*case) for case in benchmark.cases()}
    assert benchmark.report(measured) in README
    with open(os.path.join(folder, "recover_theta.json"), encoding="utf-8") as file:
        recovered = json.load(file)["transforms"]
    assert "\n".join(recover_theta.row(*item) for item in recovered.items()) in README
