"""How speed and memory grow: what is measured, that it goes on, and the tables."""
import json
import os
import subprocess
import sys

import pytest

from experiments import growth, machine
from experiments.growth import Cell
from tests.conftest import ROOT

ABOUT = {"command": "python -m experiments.growth", "processor": "an abacus", "cores": 2,
         "versions": {"mxnet": "1.9.1"}}


@pytest.fixture
def small(monkeypatch):
    """Two cells in one table."""
    cells = [(batch, Cell("lenet", batch)) for batch in (1, 16)]
    monkeypatch.setattr(growth, "TABLES", {"Batch": ("batch", cells)})
    monkeypatch.setattr(machine, "processor", lambda: "an abacus")


def test_no_cell_is_measured_twice():
    cells = growth.all_cells()
    assert len({cell.name for cell in cells}) == len(cells)
    assert len(cells) < 2 * sum(len(rows) for _, rows in growth.TABLES.values())
    assert {cell.backward for cell in cells} == {False, True}
    for cell in cells:
        assert Cell.of(json.loads(json.dumps(cell._asdict()))) == cell


def test_the_tables_show_what_there_is(monkeypatch):
    families = [(name, Cell("transformers", 8, transform=name)) for name in ("affine", "tps")]
    monkeypatch.setattr(growth, "TABLES", {
        "Batch": ("batch", [(batch, Cell("lenet", batch)) for batch in (1, 4, 16)]),
        "Family": ("family", families)})
    results = {
        "about": ABOUT, "empty": 200.0,
        Cell("lenet", 1).name: {"throughput": 1234.4, "peak_mib": 210.4},
        Cell("lenet", 1, backward=True).name: {"throughput": 600, "peak_mib": 199},
        Cell("transformers", 8).name: {"throughput": 10, "peak_mib": 300},
        Cell("transformers", 8, transform="tps").name: {"throughput": 6, "peak_mib": 320,
                                                        "ratio": 0.625}}
    lines = growth.tables(results).splitlines()
    assert "Measured on 2 cores of an abacus, with mxnet 1.9.1." in lines
    assert "| 1 | 1,234 | 600 | 10 | 0 |" in lines
    assert "| 4 |  |  |  |  |" in lines
    assert "| affine | 10 |  | 100 |  | 1.00 |  |" in lines
    assert "| tps | 6 |  | 120 |  | 0.62 |  |" in lines


def test_the_time_of_a_batch_is_split():
    cells = {batch: Cell("lenet", batch) for batch in (1, 16)}
    results = {cells[1].name: {"throughput": 1e6 / (50 + 3)},
               cells[16].name: {"throughput": 16e6 / (50 + 16 * 3)}}
    assert growth._costs(results, cells) == []
    results.update({cell._replace(backward=True).name: {"throughput": batch * 1e6 / (batch * 2000)}
                    for batch, cell in cells.items()})
    assert growth._costs(results, cells) == [
        "By the batches of 1 and 16: forward 50 µs for the batch and 3 µs for each image, with "
        "backward 0 µs for the batch and 2,000 µs for each image."]


def test_it_goes_on_where_it_was_stopped(small, tmp_path, monkeypatch):
    path, asked = str(tmp_path / "a.json"), []

    def ask(*arguments):
        if not arguments:
            return {"peak_mib": 100, "versions": {"mxnet": "1.9.1"}}
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(Cell.of(json.loads(*arguments)).name)
        return {"throughput": len(asked), "peak_mib": 150}

    monkeypatch.setattr(growth, "ask", ask)
    with pytest.raises(KeyboardInterrupt):
        growth.measure(path, growth.load(path))
    names = [cell.name for cell in growth.all_cells()]
    assert asked == names[:3]
    assert set(growth.load(path)) == {"about", "empty", *asked}
    asked.clear()
    growth.measure(path, growth.load(path))
    assert asked == names[3:]
    finished = growth.load(path)
    growth.measure(path, growth.load(path))
    assert asked == names[3:]
    assert [finished[name]["throughput"] for name in names] == [1, 2, 3, 1]

    del finished[names[0]]
    monkeypatch.setattr(machine, "processor", lambda: "a slide rule")
    with pytest.raises(ValueError, match="a.json: measured elsewhere .processor an abacus, now"):
        growth.measure(path, finished)
    assert names[0] in growth.load(path)


@pytest.mark.parametrize("cell", [
    Cell("lenet", 16, devices=1), Cell("lenet", 16, backward=True),
    Cell("transformers", 8, (3, 12, 10), "tps", backward=True),
    Cell("transformers", 8, count=2), Cell("side by side", 8, (4, 7, 7), count=9, backward=True),
    Cell("resnet", 2, (3, 28, 28), backward=True)], ids=lambda cell: cell.name)
def test_a_worker_measures(cell, small_worker):
    found = small_worker(cell)
    assert found["throughput"] > 0
    assert found["peak_mib"] > 50
    assert ("ratio" in found) == (cell.transform != "affine")


@pytest.fixture
def small_worker(monkeypatch):
    """Measures in this process, for a moment."""
    from experiments import growth_worker
    monkeypatch.setattr(growth_worker, "SECONDS", 0.001)
    return growth_worker.measure


@pytest.mark.slow
def test_memory_is_of_the_cell_alone(tmp_path):
    # In a small process: the system counts the memory of its parent as a child's.
    code = ("import json; from experiments.growth import Cell, ask; print(json.dumps("
            "[ask(), *(ask(json.dumps(Cell('transformers', batch)._asdict()))"
            " for batch in (4, 16384))]))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True,
                          stdout=subprocess.PIPE)
    empty, few, many = (found["peak_mib"] for found in json.loads(done.stdout))
    assert empty < few < empty + 60
    megabytes = 16384 * 28 * 28 * 4 / 2**20  # of the pictures, which come in and go out
    assert 2 * megabytes < many - empty < 8 * megabytes


def test_the_tables_of_the_page_are_those_of_the_results():
    results = growth.load(os.path.join(ROOT, growth.RESULT))
    with open(os.path.join(ROOT, growth.PAGE), encoding="utf-8") as file:
        assert growth.tables(results) in file.read()


def test_another_file_is_left_alone(run_main, refused, tmp_path):
    (tmp_path / "a.json").write_text('{"lenet": 3}')
    refused(run_main(growth, "--result", "a.json"), "a.json: not a result of experiments.growth")
    assert (tmp_path / "a.json").read_text() == '{"lenet": 3}'


@pytest.mark.parametrize(("flags", "words"), [
    (["--print", "--result", "a.json"], "a.json: no figures yet"), (["--prnt"], "--print?")])
def test_bad_flags_are_refused(run_main, refused, flags, words):
    refused(run_main(growth, *flags), words)
