import os
import signal

import pytest

from common import cli
from common.progress import Interruption


@pytest.mark.parametrize(("number", "error"), [
    (signal.SIGTERM, cli.Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_the_first_signal_is_taken_note_of_and_the_second_kills(number, error):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with Interruption() as interruption:
        assert not interruption.requested
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
            assert not interruption.requested
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(cli.Terminated):
                interruption.leave("now")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
