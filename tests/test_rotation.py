"""The experiment on digits turned by any angle."""
from common.reports import results
from experiments import rotation
from tests.experiment_rows import check_page, check_runs


def test_the_networks_have_as_many_parameters():
    counts = check_runs(rotation.EXPERIMENT)
    assert max(counts) < 1.01 * min(counts)


def test_the_tables_of_the_page_are_those_of_the_results():
    check_page(rotation.EXPERIMENT, results.table)
