import fcntl
import subprocess
import sys

import pytest

from common import files


def test_it_is_held_once_at_a_time(tmp_path):
    path = tmp_path / "new" / "a.lock"
    for _ in range(2):
        with files.exclusive(str(path)):
            with pytest.raises(ValueError, match="a.lock: held by another run"), \
                    files.exclusive(str(path)):
                pass
            assert path.exists()
        assert not path.exists()


def test_a_dead_process_holds_nothing(tmp_path):
    path = tmp_path / "a.lock"
    code = f"import os\nfrom common import files\nwith files.exclusive({str(path)!r}): os._exit(1)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1
    assert path.exists()
    with files.exclusive(str(path)):
        pass
    assert not path.exists()


def test_a_file_that_was_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    path, real, calls = tmp_path / "a.lock", fcntl.flock, []

    def flock(handle, how):
        if not calls:
            path.unlink()  # as its holder does
        calls.append(handle)
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with files.exclusive(str(path)):
        assert path.exists()
    assert len(calls) == 2


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with files.exclusive(str(tmp_path / "a.lock")):
        assert "a.lock: no lock" in caplog.text
