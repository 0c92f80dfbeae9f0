"""The trainings with and without transformers: what is run, that it goes on, and the tables."""
import itertools
import json
import os
from collections import defaultdict

import mxnet as mx
import numpy as np
import pytest

from common.data import datasets
from common.training.recipe import SeededInit
from experiments import robustness
from experiments.robustness import Run
from tests.conftest import ROOT

PLAIN = Run("mlp", None, "SGD 0.1", "scratch", None, 0)
STABLE = PLAIN._replace(transform="affine", head="stable")
HELD = STABLE._replace(head="held")


@pytest.fixture
def small(monkeypatch):
    """Trainings of a second, on drawn digits."""
    drawn = datasets.load("synthetic", num_examples=500)
    monkeypatch.setattr(robustness.datasets, "load", lambda _: drawn)
    monkeypatch.setitem(robustness.OPTIMIZERS, "standing still", ("sgd", {"learning_rate": 0}))
    for name, value in (("TRAIN", 320), ("TEST", 50), ("EPOCHS", 1)):
        monkeypatch.setattr(robustness, name, value)
    for cached in (robustness.images_of, robustness.learnt):
        cached.cache_clear()
    yield
    for cached in (robustness.images_of, robustness.learnt):
        cached.cache_clear()


def test_nothing_is_left_out_and_each_run_has_its_counterpart():
    runs = robustness.all_runs()
    assert len({run.name for run in runs}) == len(runs)
    stable = [run for run in runs if run.head == "stable"]
    for place, wanted in ((0, robustness.NETWORKS), (1, robustness.TRANSFORMS),
                          (2, robustness.OPTIMIZERS), (3, robustness.STARTS),
                          (5, robustness.SEEDS)):
        assert {run[place] for run in stable} == set(wanted)
    assert {run.head for run in runs} == {None, *robustness.HEADS}
    assert all(run._replace(transform=None, head=None) in runs for run in runs)
    assert all(run._replace(transform="affine", head="held") in runs for run in stable)


@pytest.mark.parametrize(("network", "head"), [
    *itertools.product(robustness.NETWORKS, [None, "stable"]),
    *itertools.product(["mlp"], sorted(set(robustness.HEADS) - {"stable", "held"}))])
def test_every_network_learns(small, network, head):
    run = Run(network, "affine" if head else None, "Adam 0.003", "scratch", head, 0)
    before, after = (robustness.train(run._replace(optimizer=optimizer), tuple(range(3)))[0]
                     .get_params()[0] for optimizer in ("standing still", "Adam 0.003"))
    for name, value in after.items():
        assert np.isfinite(value.asnumpy()).all()
        assert (value.asnumpy() != before[name].asnumpy()).any(), name


@pytest.mark.parametrize("network", robustness.NETWORKS)
def test_one_that_is_held_stays_the_identity(small, network):
    run = Run(network, "affine", "Adam 0.003", "scratch", "held", 0)
    before, after = (robustness.train(run._replace(optimizer=optimizer), tuple(range(3)))[0]
                     .get_params()[0] for optimizer in ("standing still", "Adam 0.003"))
    changed = {name for name, value in after.items() if (value != before[name]).asnumpy().any()}
    assert changed == {name for name in after if not name.startswith("stn")}


@pytest.mark.parametrize("network", robustness.NETWORKS)
def test_fine_tuning_begins_with_all_but_the_last_layer(small, network):
    run = Run(network, "affine", "standing still", "tuned", "stable", 0)
    base = robustness.learnt(run._replace(optimizer="Adam 0.003"))
    module, _ = robustness.train(run, tuple(range(5, 10)), base)
    changed = {name.rpartition("_")[0] for name, value in module.get_params()[0].items()
               if (value != base[0][name]).asnumpy().any()}
    assert changed == {{"cnn": "fc1", "lenet": "fc2", "residual": "fc"}.get(network, "fc3")}


def test_the_residual_network_starts_alike_with_and_without_its_transformer():
    answers = []
    for add_stn in (False, True):
        module = mx.mod.Module(robustness.residual(add_stn=add_stn))
        module.bind([("data", (4, 1, 28, 28))], [("softmax_label", (4,))])
        module.init_params(SeededInit(mx.init.Xavier(), 0))
        images = np.random.RandomState(0).rand(4, 1, 28, 28)
        module.forward(mx.io.DataBatch([mx.nd.array(images)]), is_train=True)
        answers.append(module.get_outputs()[0].asnumpy())
    np.testing.assert_allclose(*answers, atol=1e-5)


@pytest.mark.parametrize("network", ["lenet", "mlp"])
@pytest.mark.parametrize(("head", "lr_mult"), [("plain, lr_mult 0.1", 0.1), ("held", 0)])
def test_multipliers_are_set_where_the_network_has_some(network, head, lr_mult):
    run = Run(network, "affine", "SGD 0.1", "scratch", head, 0)
    module = mx.mod.Module(robustness.network_of(run, 10, (1, 28, 28)))
    module.bind([("data", (2, 1, 28, 28))], [("softmax_label", (2,))])
    module.init_params()
    module.init_optimizer()
    assert set(module._optimizer.lr_mult.values()) == {lr_mult}
    assert {name for name in module.get_params()[0] if "_loc_fc" in name} <= set(
        module._optimizer.lr_mult)


def test_a_stopped_one_goes_on(small, monkeypatch, tmp_path, capsys):
    path = str(tmp_path / "a.json")
    monkeypatch.setattr("sys.argv", ["robustness.py", "--result", path])
    monkeypatch.setattr(robustness, "all_runs", lambda: [PLAIN])
    robustness.main()
    monkeypatch.setattr(robustness, "all_runs", lambda: [PLAIN, STABLE])
    robustness.main()
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed if " of " in line and "/" in line] == [
        f"1 of 1  {PLAIN.name}", f"2 of 2  {STABLE.name}"]
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    assert list(found["accuracies"]) == [PLAIN.name, STABLE.name]
    assert {"command", "versions", "settings"} <= set(found)


def test_tables_say_which_cells_failed():
    runs = [[run._replace(seed=seed) for seed in range(3)] for run in (PLAIN, STABLE, HELD)]
    done = {run.name: accuracy for of_head, accuracies in zip(runs, (
        (0.9, 0.91, 0.9), (0.88, 0.885, 0.885), (0.87, 0.9, 0.89))) for run, accuracy in zip(
            of_head, accuracies)}
    lines = robustness.tables(done).splitlines()
    assert "| stable | 1 | 1 of 1 | 1 of 1 | 0 | -2.0 | -2.0 | 0 of 1 | 0 of 1 |" in lines
    assert "| held | 1 | 1 of 1 | 1 of 1 | 0 | -1.7 | -1.7 |  |  |" in lines
    assert "| SGD 0.1 | stable |  |  | **90.3 -2.0 ± 0.5** |  |  |" in lines
    for accuracy, row in (
            (0.85, "1 of 1 | 1 of 1 | 0 | -3.0 | -3.0 | 1 of 1 | 1 of 1"),
            (0.8, "1 of 1 | 0 of 1 | 0 | -4.7 | -4.7 | 1 of 1 | 0 of 1"),  # its seeds do not agree
            (0.95, "0 of 1 | 0 of 1 | 0 | +0.3 | +0.3 | 0 of 1 | 0 of 1"),
            (0.1, "1 of 1 | 0 of 1 | 1 | -28.0 | -28.0 | 1 of 1 | 0 of 1")):
        done[STABLE.name] = accuracy
        assert f"| stable | 1 | {row} |" in robustness.tables(done)
    done.update({run.name: 0.2 for of_head in runs for run in of_head})
    assert "(20.0 +0.0 ± 0.0)" in robustness.tables(done)


def test_heads_are_compared_seed_by_seed():
    done = {run._replace(seed=seed).name: accuracy for run, seed, accuracy in (
        (PLAIN, 0, 0.9), (STABLE, 0, 0.9), (PLAIN, 1, 0.8), (STABLE, 1, 0.8), (HELD, 1, 0.85),
        (PLAIN, 2, 0.9), (HELD, 2, 0.9))}
    found = {cell.head: cell for cell in robustness.cells(done)}
    np.testing.assert_allclose(found["stable"].differences, [0, 0], atol=1e-9)
    np.testing.assert_allclose(found["stable"].differences_to_held, [-5])
    np.testing.assert_allclose(found["held"].differences, [5, 0], atol=1e-9)
    assert found["held"].differences_to_held == []
    assert "| stable | 1 | 0 of 1 |  | 0 | +0.0 | +0.0 | 1 of 1 |  |" in robustness.tables(done)


def test_where_it_is_surely_worse_than_held_it_is_trained_again(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(robustness, "OTHER_SEEDS", (3, 4))
    other = STABLE._replace(optimizer="SGD 0.05")
    static = [run._replace(seed=seed) for seed in range(3) for stable in (STABLE, other)
              for run in (stable.without, stable.held, stable)]
    done = {run.name: 0.9 - 0.001 * run.seed - 0.05 * (run.head == "stable" and
                                                       run.optimizer == "SGD 0.1")
            for run in static}
    again = robustness.runs_again(done)
    assert again == [run._replace(seed=seed) for seed in (3, 4) for run in (PLAIN, HELD, STABLE)]
    assert "by other seeds" not in robustness.tables(done)

    path = str(tmp_path / "a.json")
    robustness.done_runs.save(path, robustness.SETTINGS, "accuracies", done)
    monkeypatch.setattr("sys.argv", ["robustness.py", "--result", path])
    monkeypatch.setattr(robustness, "all_runs", lambda: static)
    monkeypatch.setattr(robustness, "accuracy", lambda run: {
        PLAIN: 0.8, HELD: 0.78, STABLE: 0.79 + 0.01 * (run.seed == 4)}[run._replace(seed=0)])
    robustness.main()
    assert ("| from scratch, mlp, affine, SGD 0.1 | 2 | 80.0 | -0.5 ± 0.5 | +1.5 ± 0.5 |"
            in capsys.readouterr().out)
    assert set(robustness.load(path)) == {run.name for run in static + again}


def test_there_is_nothing_to_print_without_figures(run_main, refused):
    refused(run_main(robustness, "--print", "--result", "none.json"), "none.json: no figures yet")


@pytest.mark.parametrize(("content", "words"), [
    ("[]", "not a result"), ("{", "not a result"),
    ('{"accuracies": {}, "settings": {"batch": 1}}', "of other settings")])
def test_other_files_are_refused(tmp_path, content, words):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=words):
        robustness.load(str(path))


def test_what_the_page_says_of_chance_is_so():
    with open(os.path.join(ROOT, robustness.RESULT), encoding="utf-8") as file:
        done = json.load(file)["accuracies"]
    cells = defaultdict(dict)
    for run in robustness.all_runs() + robustness.runs_again(done):
        plain = run.without
        cells[plain._replace(seed=0)][plain.seed] = 100 * done[plain.name]
    words = []
    for is_residual in (False, True):
        apart = [abs(one - other) for run, found in cells.items()
                 if (run.network == "residual") == is_residual
                 and np.mean(list(found.values())) >= 100 * robustness.LEARNS
                 for one, other in itertools.combinations(found.values(), 2)]
        words.append((round(np.median(apart) + 1e-9, 1), int(np.percentile(apart, 90))))
    with open(os.path.join(ROOT, "docs", "when-a-transformer-dies.md"), encoding="utf-8") as file:
        page = " ".join(file.read().split())
    (middle, most), (of_residual, most_of_residual) = words
    assert (f"two seeds of the same network are {middle} apart in the middle, and one pair in ten "
            f"by more than {most}; of the residual network {of_residual} and {most_of_residual}."
            ) in page
