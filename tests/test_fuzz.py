"""Some damaged files; ``tests/fuzz.py`` damages as many as one likes."""
import pytest

from tests import fuzz
from tests.fuzz_kinds import KINDS

pytestmark = pytest.mark.slow


def test_nothing_that_is_damaged_is_loaded_in_silence_or_crashes(tmp_path):
    counts = fuzz.fuzz(str(tmp_path), files=144, scripts=2, seed=1)
    assert sum(sum(found.values()) for found in counts.values()) == 146
    for name, found in counts.items():
        allowed = {"refused", "as before"} | (set() if KINDS[name].vouched else {"other values"})
        assert set(found) <= allowed, (name, found)
        assert found["refused"]
