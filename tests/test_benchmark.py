import json
import subprocess
import sys

import pytest

from experiments import benchmark
from tests.conftest import ROOT


def rates(here):
    return {"here": here, "MXNet": 50.0, "PyTorch": 80.0, "compiled": 100.0}


def test_the_table_compares_with_the_faster_competitor():
    results = {benchmark.key("train", True, 64): rates(200.0)}
    assert benchmark.table(results).splitlines()[2:] == [
        "| train, with transformer, batch 64 | 200 | 50 | 80 | 100 | 2.00 | 4.00 |"]


def test_a_run_that_does_not_learn_took_longest():
    times = [{"0.9852": 30.4, "0.99": None, "peak_mib": 300}, {"0.9852": 20, "0.99": 60,
                                                               "peak_mib": 302}]
    results = {f"learn, here, seed {seed}": run for seed, run in enumerate(times)}
    assert benchmark.learning_table(results).splitlines()[2:] == [
        "| here | 30 | not reached | 301 |"]


def test_the_roofline_counts_operations():
    results = {benchmark.key(what, add_stn, 256): rates(1000.0)
               for what in ("train", "predict") for add_stn in (True, False)}
    results["roofline"] = {"peak": 100.0, "flops, True": 20e6, "flops, False": 10e6}
    notes = benchmark.notes(results)
    assert "train, with transformer, batch 256: 60, 60%" in notes
    assert "predict, without transformer, batch 256: 10, 10%" in notes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["here", "MXNet"])
def test_a_worker_measures(name):
    worker = benchmark.Worker([sys.executable, "-m", *benchmark.COMPETITORS[name]])
    for what in ("train", "predict"):
        for batch_size in (1, 64):
            assert worker.ask(what=what, add_stn=True, batch_size=batch_size, seconds=0.1) > 0
    assert worker.ask(what="roofline", seconds=0.1)["flops, False"] == 961000
    with pytest.raises(OSError, match="experiments.mxnet_worker.*: stopped"):
        worker.ask(what="nothing")
    worker.close()


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
    with pytest.raises(ValueError, match="not a result of the benchmark"):
        benchmark.load(str(path))
