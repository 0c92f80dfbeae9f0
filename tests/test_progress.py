import fcntl
import logging
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

import pytest

from common import cli
from common.data import synthetic
from common.data.batches import ImageIter
from common.models.metrics import Tally
from common.training.progress import Interruption, Progress


@pytest.mark.parametrize(("number", "error"), [
    (signal.SIGTERM, cli.Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_the_first_signal_is_taken_note_of_and_the_second_kills(number, error):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with Interruption() as interruption:
        assert not interruption.received
        os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt, match="now") as stop:
            interruption.leave("now")
        assert stop.type is error
        for either in (signal.SIGINT, signal.SIGTERM):
            assert signal.getsignal(either) is signal.SIG_DFL
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_in_the_background_only_sigterm_counts():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            assert not interruption.received
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(cli.Terminated):
                interruption.leave("now")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def terminal(monkeypatch):
    """Makes a terminal of some columns of stderr; returns a function that gives the last line.

    A terminal passes on what was written when it comes to it, so that is read until it is silent.
    """
    ends = []

    def make(columns):
        ends.extend(pty.openpty())
        fcntl.ioctl(ends[1], termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        stream = os.fdopen(ends[1], "w", closefd=False, encoding="utf-8")
        monkeypatch.setattr(sys, "stderr", stream)
        return last_line

    def last_line():
        shown = b""
        while select.select([ends[0]], [], [], 0.5)[0]:
            shown += os.read(ends[0], 10**5)
        return shown.decode().split("\r")[-1]

    yield make
    for end in ends:
        os.close(end)


@pytest.mark.parametrize(("columns", "wanted"), [
    (80, ["Epoch[11] 59%, ", " left, accuracy=0.7500, loss=0.4321, ", "k img/s |█"]),
    (40, ["Epoch[11] 59%, ", " left, acc"])])
def test_a_terminal_shows_the_time_left_of_the_whole_run(terminal, columns, wanted):
    last_line = terminal(columns)
    batches = ImageIter(*synthetic.draw(40, seed=0), batch_size=10, seed=0)
    tally = Tally(count=1000, correct=750, total_loss=432.1)
    with Progress(11, 20, batches, 100) as progress:
        for _ in range(3):
            progress.update(tally)
        progress.bar.refresh()
        line = last_line()
    assert all(part in line for part in wanted), line
    assert len(line) < columns


def test_speeds_of_batches_that_come_in_bursts_are_those_of_the_epoch(caplog):
    caplog.set_level(logging.INFO)
    batches = ImageIter(*synthetic.draw(400, seed=0), batch_size=10, seed=0)
    begin = time.monotonic()
    with Progress(0, 1, batches, 1) as progress:
        for _ in range(2):
            time.sleep(0.1)
            for _ in range(10):
                progress.update(Tally(count=10, correct=5, total_loss=1.0))
    most = [10 * number / (0.1 if number <= 10 else 0.2) for number in range(1, 21)]
    least = 10 / (time.monotonic() - begin)
    speeds = [float(speed) for speed in re.findall(r"Speed: (\S+) samples/sec", caplog.text)]
    assert len(speeds) == 20
    assert all(least < speed <= limit for speed, limit in zip(speeds, most))
