"""What every script's command line shares: one-line errors, number types, exit statuses.

Exit status: 0 done, 2 bad input, 3 training became non-finite, 130 interrupted, 143 terminated.
"""
import argparse
import difflib
import logging
import math
import sys

LONGEST = 500  # letters of a message
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


def run(main):
    """Calls ``main()`` and leaves the process: bad input is one line, never a traceback."""
    program = sys.argv[0].rpartition("/")[2]
    logging.getLogger().addFilter(_tame)
    try:
        status = main()
    except (ValueError, OSError, Diverged) as error:
        status = 3 if isinstance(error, Diverged) else 2
        print(f"{program}: error: {one_line(error)}", file=sys.stderr)
    except KeyboardInterrupt as stop:
        status, what = (143, "terminated") if isinstance(stop, Terminated) else (130, "interrupted")
        print(f"{program}: {what} {stop}".rstrip(), file=sys.stderr)
    sys.exit(status)


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
    """Lets a warning say what it says in one line."""
    if record.levelno >= logging.WARNING:
        record.msg, record.args = one_line(record.getMessage()), ()
    return True
