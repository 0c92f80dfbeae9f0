"""Some signals at random times; ``tests/soak.py`` sends as many as one likes."""
import signal

import pytest

from tests import dist_soak, soak

pytestmark = pytest.mark.slow


def test_a_run_that_is_killed_again_and_again_loses_nothing(tmp_path):
    assert soak.soak(str(tmp_path), kills=5)[0] == [-signal.SIGKILL] * 5


def test_a_run_that_is_terminated_again_and_again_loses_nothing(tmp_path):
    statuses, seconds = soak.soak(str(tmp_path), 3, signal.SIGTERM)
    assert set(statuses) <= {143, -signal.SIGTERM}
    assert 143 in statuses
    assert seconds < 60


def test_groups_that_lose_processes_lose_nothing(tmp_path):
    assert dist_soak.soak(str(tmp_path), 3, workers=2) == 3
