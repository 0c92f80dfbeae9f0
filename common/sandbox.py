"""Does in a child process first what may crash or hang this one.

MXNet 1.9.1 ends the process on some graphs: a division by zero while shapes are inferred, an
assertion in one of its threads, a number of outputs that takes for ever. No check of the graph's
JSON foresees them all. Nor does SciPy bear every damaged file of MATLAB's. A forked child has
MXNet imported already, so that it costs some milliseconds.
"""
import faulthandler
import os
import resource
import signal
import warnings

from common import cli

PATIENCE = 120  # seconds
DONE, REFUSED = 0, 3  # statuses of a child; any other one, or a signal, is the library's


def run_in_child(path, action, library="MXNet", what="this network"):
    """Tries out what is about to be done with a file's content.

    Args:
        path: of the file, for the message.
        action: a function without arguments.
        library, what: what may crash on what, for the message.

    Returns:
        What it returned, as a text.

    Raises:
        ValueError: the action raised an exception, or ended or hung the child.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of forks in programs with threads
        child = os.fork()
    if not child:
        _act(f"{path}: {library} does not run {what}", action, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == REFUSED:
        raise ValueError(said)
    if status != DONE:
        limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
        raise ValueError(f"{path}: {library} crashes or hangs on {what}"
                         + (", or has too little memory: see `ulimit -v`" if limited else ""))
    return said


def _act(complaint, action, writing):
    """Does it and leaves the process; exceptions that nobody foresaw are told as a complaint."""
    status = REFUSED
    try:
        _limit()
        _say(writing, action())
        status = DONE
    except (ValueError, OSError) as error:
        _say(writing, error)
    except BaseException as error:
        reason = (str(error) or type(error).__name__).splitlines()[-1]
        _say(writing, f"{complaint}: {reason}")
    finally:
        os._exit(status)


def _limit():
    """Bounds time and memory, and silences what prints a stack when it crashes."""
    faulthandler.disable()
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    least = min([memory, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_AS, (least, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(PATIENCE)


def _say(writing, text):
    os.write(writing, cli.one_line(text).encode())
