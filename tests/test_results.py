import json

import pytest

from common.reports import results, training_runs


def test_table(tmp_path):
    for row, accuracies in (("a", (0.99, 0.992)), ("b", (0.5,))):
        (tmp_path / row).mkdir()
        for seed, accuracy in enumerate(accuracies):
            (tmp_path / row / f"seed-{seed}.json").write_text(
                json.dumps({"test_accuracy": accuracy, "parameters": 1234}))
    assert results.table(str(tmp_path)).splitlines()[2:] == [
        "| a | 2 | 99.10 ± 0.14 | 99.00 | 99.20 | 1,234 |",
        "| b | 1 | 50.00 | 50.00 | 50.00 | 1,234 |"]


def test_what_is_no_result(tmp_path):
    with pytest.raises(ValueError, match="no results"):
        results.table(str(tmp_path))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "seed-0.json").write_text("[]")
    with pytest.raises(ValueError, match="seed-0.json: not a result"):
        results.table(str(tmp_path))


def test_files_of_other_flags_are_not_counted(tmp_path):
    runs = [training_runs.Run(f"a/seed-{seed}", ["--seed", str(seed)]) for seed in range(2)]
    (tmp_path / "a").mkdir()
    for name, seed in (("seed-0", 0), ("seed-7", 7), ("seed-0 (copy)", 0)):
        (tmp_path / "a" / f"{name}.json").write_text(json.dumps({
            "test_accuracy": 0.5, "parameters": 1234,
            "command": f"python train_mnist.py --seed {seed} --result a.json"}))
    assert results.table(str(tmp_path), runs).splitlines()[2:] == [
        "| a | 1 | 50.00 | 50.00 | 50.00 | 1,234 |"]
    (tmp_path / "a" / "seed-7.json").rename(tmp_path / "a" / "seed-1.json")
    with pytest.raises(ValueError, match="seed-1.json"):
        results.table(str(tmp_path), runs)
