import pytest

from experiments import gluon, variants


def test_the_table_compares_within_rounds():
    figures = {name: {"images_per_second": rounds, "accuracy": accuracy} for name, rounds, accuracy
               in (("a", [100, 200, 300], None), ("b", [150, 300, 300], 0.99))}
    assert variants.table({"group": figures}).splitlines()[2:] == [
        "| a | 200 | 1.00 |  |", "| b | 300 | 1.50 | 99.00% |"]


@pytest.mark.slow
@pytest.mark.parametrize("group", ["pieces", "forward", "backward", "mnist-lenet-stn",
                                   "mnist-RTS-cnn-stn, called"])
def test_variants_are_measured(monkeypatch, group):
    for name, value in {"ROUNDS": 2, "SECONDS": 0.01, "IMAGES": 300,
                        "PICTURES": (2, 3, 20, 20)}.items():
        monkeypatch.setattr(variants, name, value)
    for figures in variants.measure(variants.GROUPS[group]).values():
        assert len(figures["images_per_second"]) == 2
        assert min(figures["images_per_second"]) > 0


@pytest.mark.parametrize("program", [gluon, variants])
def test_a_file_of_another_program_is_left_alone(run_main, refused, monkeypatch, tmp_path, program):
    monkeypatch.setattr(variants, "GROUPS", {})
    (tmp_path / "a.json").write_text('{"accuracies": {}}')
    refused(run_main(program, "--result", "a.json"), "a.json: not a result of")
    assert (tmp_path / "a.json").read_text() == '{"accuracies": {}}'
