"""Some signals at random times; ``tests/soak.py`` sends as many as one likes."""
import signal

from tests import soak


def test_a_run_that_is_killed_again_and_again_loses_nothing(tmp_path):
    assert soak.soak(str(tmp_path), kills=8) == [-signal.SIGKILL] * 8


def test_a_run_that_is_terminated_again_and_again_loses_nothing(tmp_path):
    assert set(soak.soak(str(tmp_path), 2, signal.SIGTERM)) <= {143, -signal.SIGTERM}
