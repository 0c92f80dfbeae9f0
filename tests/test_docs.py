"""What the README and the pages of docs show is run, and measured."""
import glob
import importlib
import json
import os
import re

import pytest

from common.data import arrays, datasets, records, synthetic
from common.reports import results
from experiments import accuracy, benchmark, competitors, gluon, paper, recover_theta, variants
from tests.conftest import ROOT

PAGES = {}
for path in [os.path.join(ROOT, "README.md"), *glob.glob(os.path.join(ROOT, "docs", "*.md"))]:
    with open(path, encoding="utf-8") as page:
        PAGES[os.path.basename(path)] = page.read()


def blocks(page):
    """The examples of Python in a page."""
    return re.findall(r"^```python\n(.*?)^```", PAGES[page], flags=re.M | re.S)


def test_the_examples_can_import_mxnet():
    examples = [example for page in PAGES for example in blocks(page) if "import " in example]
    assert len(examples) > 8
    assert all(example.startswith("from common import find_mxnet ") for example in examples)


@pytest.mark.slow
def test_the_examples_run(train, tmp_path, monkeypatch, capsys):
    done = train("--add-stn", "--num-examples", 2000, "--num-epochs", 1, "--data-dir",
                 os.path.join(ROOT, "data", "mnist"), cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(ROOT)
    load, lift = blocks("README.md")
    image = datasets.load("synthetic", num_examples=100).train_images[0]
    for example in (load, *blocks("export.md")):
        exec(example, {"image": image})
        assert int(capsys.readouterr().out) in range(10)
    deform, = blocks("data.md")
    names = {}
    exec(lift, names)
    assert names["straightened"].infer_shape(data=(2, 1, 28, 28))[1] == [(2, 1, 28, 28)]
    exec(deform, names)
    assert names["turned"].shape == (100, 28, 28)


def test_the_examples_of_gluon_run(tmp_path, monkeypatch):
    (tmp_path / "published").symlink_to(os.path.join(ROOT, "published"))
    monkeypatch.chdir(tmp_path)
    own, loaded, trained = blocks("gluon.md")
    names = {}
    exec(own, names)
    assert names["scores"].shape == (8, 10)
    assert names["theta"].shape == (8, 4)
    exec(loaded, names)
    assert names["scores"].shape == (8, 10)
    assert sorted(os.listdir(tmp_path)) == ["fine-tuned-0000.params", "fine-tuned-symbol.json",
                                            "published"]
    exec(trained, names)
    assert names["block"].collect_params()["fc2_bias"].data().asnumpy().any()


def test_the_examples_of_recordio_run(run_main, tmp_path):
    images, _ = synthetic.noise(70, seed=0, image_shape=(3, 50, 60), num_classes=1)
    for number, image in enumerate(images):
        folder = tmp_path / "photos" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        arrays.to_pillow(image).save(str(folder / f"{number}.png"))
    command = re.search(r"python -m common\.data\.records (.*)", PAGES["records.md"]).group(1)
    assert run_main(records, *command.split()).returncode == 0
    names = {}
    for example in blocks("records.md"):
        exec(example, names)
        batch = next(names["batches"])
        assert batch.data[0].shape[1:] == (3, 48, 48)
        assert set(batch.label[0].asnumpy()) <= {0, 1}


def test_every_flag_in_the_pages_exists(run_main):
    scripts = [name[:-len(".py")] for name in os.listdir(ROOT) if name.endswith(".py")]
    scripts += [f"tests.{name}" for name in ("chaos", "dist_soak", "fuzz", "soak")]
    scripts += [f"experiments.{name}" for name in (
        "accuracy", "benchmark", "colocalise", "communication", "gluon", "growth", "numbers",
        "paper", "recover_theta", "robustness", "rotation", "signs", "variants")]
    scripts += ["common.data.records", "examples.draw_pictures"]
    helps = [run_main(importlib.import_module(script), "--help").stdout for script in scripts]
    assert all(helps)
    used = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", "".join(PAGES.values())))
    assert used <= set(re.findall(r"--[a-z-]+", "".join(helps)))
    of_training = re.findall("^  (--[a-z-]+)", helps[scripts.index("train_mnist")], flags=re.M)
    assert len(of_training) > 60
    assert set(of_training) <= used


def test_the_tables_are_those_of_the_results(monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = os.path.join(ROOT, "results")
    assert results.table(folder, accuracy.all_runs()) in PAGES["training.md"]
    assert paper.page() in PAGES["paper.md"]
    assert paper.gains(os.path.join(folder, "paper")) in PAGES["README.md"]
    with open(os.path.join(folder, "gluon.json"), encoding="utf-8") as file:
        assert gluon.table(json.load(file)["images_per_second"]) in PAGES["gluon.md"]
    for page in ("fine-tuning", "own-pictures"):
        assert results.table(os.path.join(folder, page)) in PAGES[f"{page}.md"]
    measured = benchmark.load(os.path.join(folder, "benchmark.json"))
    assert set(measured) >= {competitors.case_name(*case) for case in benchmark.cases()}
    assert benchmark.report(measured) in PAGES["speed.md"]
    groups = variants.load(os.path.join(folder, "variants.json"))["groups"]
    assert variants.table(groups) in PAGES["speed.md"]
    with open(os.path.join(folder, "recover_theta.json"), encoding="utf-8") as file:
        recovered = json.load(file)["transforms"]
    assert recover_theta.table(recovered) in PAGES["transformers.md"]
