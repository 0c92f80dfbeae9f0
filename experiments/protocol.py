"""How the benchmark and its workers talk: a JSON line for each question and each answer."""
import json
import os
import sys
import time

MATRICES = (1024, 2048)  # sizes of those that the peak is measured with


def throughput(step, seconds, batch_size, wait=lambda: None):
    """Images per second.

    Args:
        step: what to time, a batch; it may return before its work is done.
        seconds: how long to measure, after a warm-up.
        batch_size: images in a batch. About 1,000 images are asked for before waiting, except that
            a batch of one image is always waited for, which makes it one of latency.
        wait: returns when all work is done; for a step that does not wait itself.
    """
    ahead = 1 if batch_size == 1 else max(4, 1024 // batch_size)
    for _ in range(3):
        step()
    wait()
    batches, begin = 0, time.monotonic()
    while time.monotonic() - begin < seconds:
        for _ in range(ahead):
            step()
        batches += ahead
        wait()
    return batches * batch_size / (time.monotonic() - begin)


def serve(**answers):
    """Answers questions from standard input until it ends.

    A question names the function of ``answers`` to call, as ``what``, and its arguments.
    """
    for line in sys.stdin:
        question = json.loads(line)
        answer = answers[question.pop("what")](**question)
        try:
            print(json.dumps(answer), flush=True)
        except BrokenPipeError:  # who asked is gone
            os._exit(1)
