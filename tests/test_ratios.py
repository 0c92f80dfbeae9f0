"""The quick benchmark: ratios beside the committed ones, and what is noise."""
import json

import pytest

from experiments import benchmark, ratios

STEADY = [2.0, 2.02, 1.98, 2.01, 1.99]
ABOUT = {"command": "make bench", "processor": "an abacus", "cores": 2,
         "versions": {"mxnet": "1.9.1"}}


def times(factor):
    return [factor * ratio for ratio in STEADY]


def test_a_fall_is_marked_when_it_is_more_than_the_noise():
    assert ratios.noise(STEADY, times(0.9)) == pytest.approx(0.1)  # 5% of 2
    assert ratios.fallen(STEADY, times(0.94))
    assert not ratios.fallen(STEADY, times(0.96))
    assert not ratios.fallen(STEADY, times(1.5))
    restless = [2.0, 2.4, 1.6, 2.2, 1.8]
    assert ratios.noise(restless, STEADY) == pytest.approx(0.4 + 0.02)
    assert not ratios.fallen(restless, times(0.8))
    assert not ratios.fallen(STEADY, [0.85 * ratio for ratio in restless])
    assert ratios.fallen(restless, times(0.75))


def test_one_odd_round_changes_neither_noise_nor_median():
    odd = [0.5, *STEADY[1:]]
    assert ratios.noise(odd, STEADY) == pytest.approx(0.1, rel=0.02)
    assert not ratios.fallen(STEADY, odd)


def test_the_table_and_the_verdict():
    old = {"a": STEADY, "b": STEADY, "gone": STEADY}
    new = {"a": times(0.9), "b": times(1.1), "c": STEADY}
    assert ratios.table(old, new).splitlines()[2:] == [
        "| a | 2.00 | 1.80 | -10% | 5% | fell |", "| b | 2.00 | 2.20 | +10% | 5% |  |",
        "| c |  | 2.00 |  |  |  |"]
    assert ratios.verdict(old, new) == "Fell by more than the noise: a."
    assert ratios.verdict(old, {"b": STEADY}) == "No ratio fell by more than its noise."
    assert "--keep" in ratios.verdict({}, new)


def test_of_several_settings_the_best_is_compared_with():
    rounds = [{"here": 4.0, "MXNet": 2.0, "onnxruntime, all cores": 3.0,
               "onnxruntime, one thread": fast} for fast in (8.0, 8.0, 1.0)]
    assert ratios.over(rounds, "onnxruntime") == [0.5, 0.5, 4]
    assert ratios.over(rounds, "MXNet") == [2, 2, 2]


class Crew:
    """In the place of workers: here is ``speed`` times as fast as the others."""

    speed = 2.0

    def __init__(self, torch_python):
        assert torch_python is None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def about(self, program, names):
        return ABOUT

    def prepare(self, names, **question):
        pass

    def ask(self, name, **question):
        return self.speed if name == "here" else 1.0


def test_the_new_ones_are_kept_when_it_is_told_so(run_main, tmp_path, monkeypatch):
    monkeypatch.setattr(ratios, "Crew", Crew)
    done = run_main(benchmark, "--quick", "--keep")
    assert done.returncode == 0, done.stderr
    assert "there are no committed ratios" in done.stdout
    kept = (tmp_path / ratios.RESULT).read_text()
    assert json.loads(kept)["about"] == ABOUT
    assert len(json.loads(kept)["ratios"]) == 4 + 2 * 8
    assert {len(rounds) for rounds in json.loads(kept)["ratios"].values()} == {5}
    monkeypatch.setattr(Crew, "speed", 1.5)
    monkeypatch.setitem(ABOUT, "processor", "a slide rule")
    done = run_main(benchmark, "--quick")
    assert done.returncode == 0, done.stderr
    assert "| 2.00 | 1.50 | -25% | 5% | fell |" in done.stdout
    assert "measured elsewhere: processor an abacus, now a slide rule." in done.stdout
    assert (tmp_path / ratios.RESULT).read_text() == kept


@pytest.mark.parametrize("content", [[1], {"ratios": {"a": [1.0]}}, {"about": {}, "ratios": 3}])
def test_another_file_is_left_alone(run_main, refused, tmp_path, content):
    (tmp_path / "results").mkdir()
    (tmp_path / ratios.RESULT).write_text(json.dumps(content))
    refused(run_main(benchmark, "--quick"), ratios.RESULT,
            "not a result of experiments.benchmark --quick")
    assert json.loads((tmp_path / ratios.RESULT).read_text()) == content
