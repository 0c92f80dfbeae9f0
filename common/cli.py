"""What every script's command line shares: one-line errors, number types, exit statuses.

Exit status: 0 done, 2 bad input, 3 training became non-finite, 4 a worker gave up the others, 130
interrupted, 141 nobody reads what is printed any more, 143 terminated.
"""
import argparse
import contextlib
import difflib
import logging
import math
import os
import sys
import traceback

from common import files

LONGEST = 500  # letters of a message
MXNET_NEEDS_MEMORY = "Failed to allocate"  # in its errors, where there is none left
STDOUT = "standard output"
# What MXNet can hold of a number other than 0, in size.
HELD = {int: ("64 bits", 1, 2**63 - 1), float: ("float32", 1.1754944e-38, 3.4028234e38)}


class Diverged(ArithmeticError):
    """Training produced numbers that are not finite."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it is not left to kill the process."""


class Parser(argparse.ArgumentParser):
    """An argument parser that takes flags in full, and reports errors in one line.

    Flags may be written with underscores for dashes, as in upstream's examples.
    """

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter,
                         **kwargs)

    def parse_known_args(self, args=None, namespace=None):
        args = sys.argv[1:] if args is None else args
        return super().parse_known_args([_with_dashes(arg) for arg in args], namespace)

    def parse_args(self, args=None, namespace=None):
        args, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flag = unknown[0].partition("=")[0]
            self.error(f"unrecognized arguments: {' '.join(unknown)}"
                       f"{did_you_mean(flag, self._option_string_actions)}")
        return args

    def _check_value(self, action, value):
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += did_you_mean(str(value), list(map(str, action.choices)))
            raise

    def _print_message(self, message, file=None):
        if message:  # argparse itself passes over what cannot be written
            file.write(message)

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see --help)\n")


def _with_dashes(arg):
    if not arg.startswith("--"):
        return arg
    flag, equals, value = arg.partition("=")
    return flag.replace("_", "-") + equals + value


def did_you_mean(word, words):
    """A question for who misspelt one of some words, to be put behind what says so; or nothing."""
    nearest = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def some(words, most=10):
    """Words with commas between: all, or the first of many and how many more there are."""
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more} more" if more > 0 else "")


def number(kind, least=-math.inf, most=math.inf, above=-math.inf, below=math.inf):
    """Returns an argparse type: a finite number of a kind, within bounds and those of ``HELD``.

    Args:
        kind: ``int`` or ``float``.
        least, most: inclusive bounds.
        above, below: exclusive bounds.
    """
    bounds = [f"{words} {bound}" for words, bound in (
        ("of at least", least), ("above", above), ("of at most", most), ("below", below))
        if math.isfinite(bound)]
    wanted = "a whole number" if kind is int else "a finite number"
    wanted = " ".join([wanted, " and ".join(bounds)]).rstrip()
    holder, smallest, largest = HELD[kind]

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (abs(value) < math.inf and least <= value <= most and above < value < below):
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
        if value and not smallest <= abs(value) <= largest:
            raise argparse.ArgumentTypeError(f"expected a number that fits into {holder}, 0 or "
                                             f"from {smallest} to {largest}, got {text!r}")
        return value
    return parse


def path(text):
    """An argparse type: the path of what to write, which is not "", as of an unset variable."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return text


def path_ending_in(suffix):
    """Returns an argparse type: the path of a file to write, which has to be named as its kind is.

    So no file of another kind is lost to a slip.
    """
    def parse(text):
        if not text.lower().endswith(suffix):
            raise argparse.ArgumentTypeError(f"expected a name that ends in {suffix}, got {text!r}")
        return text
    return parse


def flag_of(name):
    """The flag of an attribute of parsed flags: ``--lr-factor`` of ``lr_factor``."""
    return "--" + name.replace("_", "-")


def image_shape(text):
    """An argparse type: C,H,W."""
    sizes = text.split(",")
    if len(sizes) != 3:
        raise argparse.ArgumentTypeError(f"expected C,H,W such as 1,28,28, got {text!r}")
    return tuple(map(number(int, least=1, most=2**14), sizes))


def picture_shape(text):
    """An argparse type: C,H,W of pictures, grey or coloured."""
    shape = image_shape(text)
    if shape[0] not in (1, 3):
        raise argparse.ArgumentTypeError(f"expected 1 channel for grey, or 3 for colour, "
                                         f"got {text!r}")
    return shape


def run(main):
    """Calls ``main()`` and leaves the process: bad input is one line, never a traceback.

    Output that cannot be written is an error, too, unless its reader has had enough (``| head``):
    that ends the process quietly, as it does others. Errors that nobody can read harm nothing.
    """
    _open_closed_streams()
    if sys.stdout.errors in ("strict", "surrogateescape"):  # what cannot be shown stops nothing
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.getLogger().addFilter(_tame)
    status = 1
    try:
        status = _status(main)
    except Exception:
        if not _of_a_group():
            raise
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            _give_up_unwritable(stream)
    if status and _of_a_group():
        os._exit(status)  # before it leaves, MXNet would wait for the other processes
    sys.exit(status)


def _of_a_group():
    """Whether this process is one of several that MXNet holds together."""
    return "DMLC_ROLE" in os.environ


def _status(main):
    """The exit status after ``main()``, once what there is to say of it has been said."""
    try:
        with contextlib.redirect_stdout(_Named(sys.stdout, STDOUT)):
            try:
                return main()
            finally:
                sys.stdout.flush()
    except (ValueError, OSError, Diverged) as error:
        if isinstance(error, BrokenPipeError) and error.filename == STDOUT:
            return 141
        _say(f"error: {one_line(error)}")
        return 3 if isinstance(error, Diverged) else 2
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and MXNET_NEEDS_MEMORY not in str(error):
            raise
        _say("error: not enough memory: smaller images, batches or layers take less")
        return 2
    except KeyboardInterrupt as stop:
        status, what = (143, "terminated") if isinstance(stop, Terminated) else (130, "interrupted")
        _say(f"{what} {stop}".rstrip())
        return status


def _say(text):
    with contextlib.suppress(OSError):
        print(f"{sys.argv[0].rpartition('/')[2]}: {text}", file=sys.stderr)


class _Named:
    """A stream whose errors name it, as those of files do."""

    def __init__(self, stream, name):
        self._stream, self._name = stream, name

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        with files.name_os_errors(self._name):
            return self._stream.write(text)

    def flush(self):
        with files.name_os_errors(self._name):
            self._stream.flush()


def _open_closed_streams():
    """Opens what the shell has closed (``>&-``), before a file to be written gets its number.

    What MXNet prints would go into that file.
    """
    for name, mode in (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:  # for reading, so that what is printed there still fails
            stream = os.open(os.devnull, mode)
            setattr(sys, name, open(stream, "r" if name == "stdin" else "w"))  # noqa: SIM115


def _give_up_unwritable(stream):
    """Drops what cannot be written: else Python complains as it leaves, with its own status."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def one_line(error):
    """What an exception or a text says in one line, that of the system's with its file first.

    Of a very long one, the beginning and the end.
    """
    if isinstance(error, OSError) and error.strerror and error.filename:
        error = f"{error.filename}: {error.strerror}"
    said = printable(" ".join(str(error).split()))
    return said if len(said) <= LONGEST else f"{said[:LONGEST // 2]} ... {said[-LONGEST // 2:]}"


def printable(text):
    """A text with its control characters, which a terminal would obey, written out."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _tame(record):
    """Lets a warning say what it says in one line, and nothing say what a terminal would obey."""
    said = record.getMessage()
    if record.levelno >= logging.WARNING:
        said = one_line(said)
    record.msg, record.args = _shown(said), ()
    return True


def _shown(text):
    return "".join(letter if letter in "\t\n" else printable(letter) for letter in text)
