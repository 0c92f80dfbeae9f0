"""How ``benchmark.py`` and its workers talk: a JSON line for each question and each answer."""
import json
import sys
import time


def rate(step, wait, seconds):
    """Calls of ``step`` per second.

    Args:
        step: what to time; it may return before its work is done.
        wait: returns when all work is done.
        seconds: how long to measure, after a warm-up.
    """
    for _ in range(3):
        step()
    wait()
    calls, begin = 0, time.monotonic()
    while time.monotonic() - begin < seconds:
        for _ in range(4):
            step()
        calls += 4
        wait()
    return calls / (time.monotonic() - begin)


def serve(answer):
    """Answers questions from standard input until it ends; ``answer`` takes their fields."""
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)
