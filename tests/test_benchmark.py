import json
import subprocess
import sys

import pytest

from experiments import benchmark, competitors
from tests.conftest import ROOT

ABOUT = {"command": "python -m experiments.benchmark", "processor": "an abacus", "cores": 2,
         "versions": {"mxnet": "1.9.1"}}
OTHERS = {"MXNet": 50.0, "PyTorch, eager": 80.0, "PyTorch, compiled": 100.0}


def rates(here):
    return {"here": here, **OTHERS}


def test_the_table_compares_with_the_best_setting_of_a_competitor():
    results = {competitors.case_name("train", True, 64): rates(200.0),
               competitors.case_name("predict", False, 16): dict(
                   rates(90.0), **{"onnxruntime, all cores": 120.0, "onnxruntime, one thread": 60,
                                   "PyTorch, eager": 180.0})}
    assert benchmark.table(results).splitlines()[2:] == [
        "| train, with transformer, batch 64 | 200 | 50 | 100 | compiled |  | 4.00 | 2.00 |  |",
        "| predict, without transformer, batch 16 | 90 | 50 | 180 | eager | 120 | 1.80 | 0.50 "
        "| 0.75 |"]


def test_the_fastest_settings_are_compared():
    throughputs = {**rates(50.0), "here, NaiveEngine": 60.0, "here, int8": 240.0,
                   "here, int8, NaiveEngine": 70, "onnxruntime, all cores": 120.0}
    many = {**rates(80.0), "here, int8": 60.0}
    results = {competitors.case_name("predict", True, 16): throughputs,
               competitors.case_name("predict", True, 64): many,
               competitors.case_name("train", True, 64): rates(200.0)}
    assert benchmark.settings_table(results).splitlines()[2:] == [
        "| predict, with transformer, batch 16 | 50 | 60 | 240 | 70 | 120 | 2.00 |",
        "| predict, with transformer, batch 64 | 80 |  | 60 |  | 100 | 0.80 |"]
    assert benchmark.settings_table({competitors.case_name("train", True, 64): rates(2.0)}) == ""


def test_a_run_that_does_not_learn_took_longest():
    times = [{"0.9852": 30.4, "0.99": None, "peak_mib": 300}, {"0.9852": 20, "0.99": 60,
                                                               "peak_mib": 302}]
    results = {f"learn, here, seed {seed}": run for seed, run in enumerate(times)}
    assert benchmark.learning_table(results).splitlines()[2:] == [
        "| here | 30 | not reached | 301 |"]


def test_the_roofline_counts_operations():
    results = {competitors.case_name(what, add_stn, 256): rates(1000.0)
               for what in ("train", "predict") for add_stn in (True, False)}
    results["roofline"] = {"peaks": {"an abacus": 40.0, "fingers": 100.0},
                           "flops": {"True": 20e6, "False": 10e6}}
    notes = benchmark.notes(results)
    assert "Peak of matrix products: 100 GFLOP/s, by fingers (an abacus 40). Of it:" in notes
    assert "train, with transformer, batch 256: 60, 60%" in notes
    assert "predict, without transformer, batch 256: 10, 10%" in notes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["here", "here, int8, NaiveEngine", "MXNet"])
def test_a_worker_measures(name):
    with competitors.Crew(None) as crew:
        for what in ("train", "predict"):
            crew.prepare([name], what=what, add_stn=True, batch_size=16)
            for batch_size in (1, 64):
                assert crew.ask(name, what=what, add_stn=True, batch_size=batch_size,
                                seconds=0.1) > 0
        peaks = crew.ask(name, what="roofline", seconds=0.1)
        assert min(peaks.values()) > 1
        assert set(peaks) == {"MXNet's dot", "MXNet's FullyConnected (oneDNN)"}
        assert crew.ask(name, what="flops")["False"] == 961000
        with pytest.raises(OSError, match="experiments.mxnet_worker.*: stopped"):
            crew.ask(name, what="nothing")


@pytest.mark.slow
def test_onnxruntime_predicts():
    names = [f"onnxruntime, {setting}" for setting in competitors.ONNXRUNTIME]
    with competitors.Crew(None) as crew:
        crew.prepare(names, what="predict", add_stn=True, batch_size=5)
        for name in names:
            assert crew.ask(name, what="predict", add_stn=True, batch_size=5, seconds=0.1) > 0
        about = crew.about("experiments.benchmark", names)
        assert set(about["versions"]) == {"onnxruntime"}


@pytest.mark.parametrize("theirs", ["onnxruntime, int8", "PyTorch, int8"])
def test_a_competitor_in_int8_is_compared_with_ours_in_it(theirs):
    case = competitors.case_name("predict", False, 64)
    results = {case: {"here": 100, "MXNet": 50, "PyTorch, eager": 80, "here, int8": 150,
                      "onnxruntime, all cores": 200, theirs: 300}}
    row, = benchmark.table(results).splitlines()[2:]
    assert row == f"| {case} | 100 | 50 | 80 | eager | 200 | 2.00 | 1.25 | 0.50 |"
    row, = benchmark.settings_table(results).splitlines()[2:]
    assert row == f"| {case} | 100 |  | 150 |  | 300 | 0.50 |"


def test_workers_choose_their_threads_for_themselves(monkeypatch):
    for name in competitors.NOT_PASSED_ON:
        monkeypatch.setenv(name, "1")
    plain, here, naive = (competitors.environment(competitors.COMPETITORS[name])
                          for name in ("MXNet", "here", "here, NaiveEngine"))
    assert not set(competitors.NOT_PASSED_ON) & set(here)
    assert plain == {**here, **competitors.MXNETS_OWN}
    assert naive == {**here, "MXNET_ENGINE_TYPE": "NaiveEngine"}


class Given:
    """Answers as workers would; stops after some of them, as an interrupted run does."""

    def __init__(self, most, processor="an abacus"):
        self.left, self.processor, self.asked = most, processor, []

    def about(self, program, names):
        return dict(ABOUT, processor=self.processor)

    def prepare(self, names, **question):
        expected = set(competitors.FOR_PREDICTION) if question["what"] == "predict" else set()
        if question["batch_size"] > 16:
            expected -= {"here, NaiveEngine", "here, int8, NaiveEngine"}
        assert set(competitors.FOR_PREDICTION) & set(names) == expected
        assert "PyTorch, bfloat16" not in names

    def ask(self, name, what, **question):
        if what == "bfloat16":
            return False
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.asked.append((name, what, *question.values()))
        return float(len(self.asked))


def test_it_goes_on_where_it_was_stopped(tmp_path):
    path, case = str(tmp_path / "a.json"), competitors.case_name("train", True, 64)
    first = Given(most=17)  # 3 rounds of 5 workers, and some of the next case
    with pytest.raises(KeyboardInterrupt):
        benchmark.Benchmark(first, 3, 0.1, 1).run(benchmark.load(path), path)
    results = benchmark.load(path)
    assert set(results) == {"about", case}
    assert results[case]["here"] == 6  # the median of 1, 6 and 11
    assert results["about"]["settings"]["MXNet"] == "experiments.mxnet_worker --plain"
    second = Given(most=1)
    with pytest.raises(KeyboardInterrupt):
        benchmark.Benchmark(second, 3, 0.1, 1).run(results, path)
    assert second.asked == [("here", "train", True, 256, 0.1)]
    with pytest.raises(ValueError, match="a.json: measured elsewhere .processor an abacus, now a s"
                                         ".*--result"):
        benchmark.Benchmark(Given(0, "a slide rule"), 3, 0.1, 1).run(results, path)
    assert benchmark.load(path) == results


@pytest.mark.parametrize(("flags", "words"), [
    (["--keep"], "--keep is of the ratios: it needs --quick"),
    (["--quick", "--print"], "give one of them"),
    (["--quick", "--keep", "--result", "a.json"], "leave out --result"),
    (["--print", "--result", "none.json"], "none.json: no figures yet"),
    (["--torch-python", "nowhere/python", "--result", "a.json"], "nowhere/python: there is no PyT"),
    (["--rounds", "0"], "--rounds"),
])
def test_bad_flags_are_refused(run_main, refused, flags, words):
    refused(run_main(benchmark, *flags), words)


def test_a_learner_is_stopped_at_the_last_target():
    script = ("import sys, time\nfor a in ('0.5', '0.986', '0.989', '0.991'):\n"
              "    print(f'Epoch[0] Validation-accuracy={a}', flush=True)\ntime.sleep(60)")
    # In a small process: the system counts the memory of its parent as a child's, until it is
    # another program.
    code = ("import json, sys; from experiments import benchmark; "
            "print(json.dumps(benchmark.learn([sys.executable, '-c', sys.argv[1]])))")
    reached = json.loads(subprocess.run([sys.executable, "-c", code, script], cwd=ROOT, check=True,
                                        stdout=subprocess.PIPE).stdout)
    assert 0 < reached["0.9852"] <= reached["0.99"] < 30
    assert 1 < reached["peak_mib"] < 1000
    assert benchmark.learn([sys.executable, "-c", "print('nothing')"])["0.99"] is None
    with pytest.raises(OSError, match="failed: no such digits"):
        benchmark.learn([sys.executable, "-c", "raise SystemExit('no such digits')"])


def test_a_file_that_is_no_result_is_left_alone(tmp_path):
    path = tmp_path / "a.json"
    assert benchmark.load(str(path)) == {}
    path.write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="not a result of experiments.benchmark"):
        benchmark.load(str(path))
