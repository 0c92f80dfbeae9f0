import json

import pytest

import benchmark


def rates(here):
    return {"here": here, "MXNet": 50.0, "PyTorch": 80.0, "compiled": 100.0}


def test_the_table_compares_with_the_faster_competitor():
    results = {benchmark.key("train", True, 64): rates(200.0)}
    assert benchmark.table(results).splitlines()[2:] == [
        "| train, with transformer, batch 64 | 200 | 50 | 80 | 100 | 2.00 | 4.00 |"]


def test_a_worker_measures():
    worker = benchmark.Worker(benchmark.sys.executable, benchmark.COMPETITORS["here"])
    for what in ("train", "predict"):
        assert worker.ask(what=what, add_stn=True, batch_size=64, seconds=0.1) > 0
    with pytest.raises(OSError, match="bench.mxnet_worker: stopped"):
        worker.ask(what="nothing")
    worker.close()


def test_a_file_that_is_no_result_is_left_alone(tmp_path):
    path = tmp_path / "a.json"
    assert benchmark.load(str(path)) == {}
    path.write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="not a result of benchmark.py"):
        benchmark.load(str(path))
