"""Runs one process for ``launch.py``, on this machine or at the far end of an ssh, and watches it.

It needs Python alone. By its standard input it is told what to run, and then hears a sign of life
from ``launch.py`` again and again. When there is none for some seconds, or the input ends, it kills
the process with all that it has started: so nothing is left running, whatever becomes of
``launch.py`` or of the connection. By its standard output it says what the process prints, how it
ends, and once a second that both are well. All of that is JSON, one value a line.
"""
import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time

BEAT = 1  # seconds between two signs of life
SILENCE = 7  # seconds without one that mean that the other end is gone
LEAVING = 1  # seconds that what a process has printed is waited for after its end
READY = "LAUNCH_READY_FD"  # the variable with the number of a pipe that tells when all have met
PR_SET_PDEATHSIG = 1


class Agent:
    """Runs what the first line of the input says, until it ends or is to."""

    def __init__(self, task):
        self.selector, self.lines = selectors.DefaultSelector(), {}
        ready, writing = os.pipe()
        environment = {**os.environ, **task["environment"], READY: str(writing)}
        self.process = subprocess.Popen(
            task["command"], cwd=task["folder"], env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[writing],
            start_new_session=True, preexec_fn=die_with(os.getpid()))
        os.close(writing)
        streams = ((self.process.stdout.fileno(), "out"), (self.process.stderr.fileno(), "err"),
                   (ready, "ready"), (sys.stdin.fileno(), "in"))
        for stream, name in streams:
            self.selector.register(stream, selectors.EVENT_READ, name)
            self.lines[name] = b""
        self.heard = self.beaten = time.monotonic()

    def run(self):
        """Returns when the process has ended."""
        status = None
        while status is None:
            signal.alarm(2 * SILENCE)  # kills, where nobody takes what is said here
            self._pass_on(0.1)
            if time.monotonic() - self.beaten > BEAT:
                self.beaten = time.monotonic()
                say("beat")
            if time.monotonic() - self.heard > SILENCE:
                self.kill()
            status = self._ended()
        self._pass_on_rest()
        self.kill()  # what it has started
        say("exit", status)

    def _ended(self):
        """The exit status, or minus the number of the signal; None while it runs."""
        number, status = os.waitpid(self.process.pid, os.WNOHANG | os.WUNTRACED)
        if not number:
            return None
        if os.WIFSTOPPED(status):
            say("stopped", os.WSTOPSIG(status))
            return None
        self.process.returncode = (-os.WTERMSIG(status) if os.WIFSIGNALED(status)
                                   else os.WEXITSTATUS(status))
        return self.process.returncode

    def kill(self, *_):
        """Ends the process, and what it has started."""
        # macOS says the latter of one that has ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def abandon(self, *_):
        """Kills the process, and leaves at once."""
        self.kill()
        os._exit(1)

    def _pass_on(self, seconds):
        for key, _ in self.selector.select(seconds):
            content = os.read(key.fd, 2**16)
            if not content:
                self.selector.unregister(key.fd)
            if key.data == "in":
                self._obey(content)
            else:
                self._say_lines(key.data, content)

    def _obey(self, content):
        self.heard = time.monotonic()
        if not content:
            self.kill()
        elif b"T" in content:  # the others are signs of life
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)  # Popen's own would wait for it

    def _say_lines(self, name, content):
        *lines, self.lines[name] = (self.lines[name] + content).split(b"\n")
        if not content and self.lines[name]:
            lines = [self.lines[name]]
        for line in lines:
            say(name, line.decode(errors="replace"))

    def _pass_on_rest(self):
        end = time.monotonic() + LEAVING
        while time.monotonic() < end and {"out", "err"}.intersection(
                key.data for key in self.selector.get_map().values()):
            self._pass_on(0.05)


def say(*words):
    """Says something to ``launch.py``."""
    os.write(sys.stdout.fileno(), (json.dumps(words) + "\n").encode())


def die_with(parent):
    """A function for a new process: on Linux it is killed when its parent ends."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None

    def prepare():
        if prctl:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    return prepare


def main():
    line = sys.stdin.buffer.raw.readline()
    if not line:  # launch.py is gone already
        return
    try:
        agent = Agent(json.loads(line))
    except OSError as error:
        say("err", f"{error.filename}: {error.strerror}")
        say("exit", 127)
        return
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, agent.kill)
    signal.signal(signal.SIGALRM, agent.abandon)
    try:
        agent.run()
    except BrokenPipeError:  # launch.py is gone
        agent.kill()


if __name__ == "__main__":
    main()
