import logging
import os
import subprocess
import sys

import pytest

from common import cli
from tests.conftest import ROOT


@pytest.mark.parametrize(("kind", "bounds", "text", "words"), [
    (float, {"above": 0}, "nan", "a finite number above 0, got 'nan'"),
    (float, {"above": 0}, "0", "above 0"),
    (float, {"above": 0}, "inf", "finite"),
    (float, {"least": 0, "below": 1}, "1", "of at least 0 and below 1"),
    (int, {"least": 1}, "0", "a whole number of at least 1, got '0'"),
    (int, {"least": 1}, "1.5", "whole"),
    (int, {"least": 1, "most": 3}, "4", "of at most 3"),
    (int, {"most": 2**31 - 1}, "9" * 400, "of at most 2147483647"),
    (int, {}, "9" * 20, "fits into 64 bits"),
    (float, {}, "3.5e38", "fits into float32, 0 or from 1.1754944e-38 to 3.4028234e+38"),
    (float, {}, "-1e-38", "fits into float32"),
])
def test_numbers_out_of_bounds(capsys, kind, bounds, text, words):
    parser = cli.Parser(prog="program")
    parser.add_argument("--flag", type=cli.number(kind, **bounds))
    with pytest.raises(SystemExit) as left:
        parser.parse_args([f"--flag={text}"])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_underscores_are_dashes_and_flags_are_not_guessed(capsys):
    parser = cli.Parser(prog="program")
    parser.add_argument("--add-stn", action="store_true")
    parser.add_argument("--name")
    args = parser.parse_args(["--add_stn", "--name=a_b"])
    assert args.add_stn
    assert args.name == "a_b"
    with pytest.raises(SystemExit):
        parser.parse_args(["--add"])
    assert "unrecognized arguments: --add" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "1.2e-38", "3.4e38", "-0.0"])
def test_numbers_that_float32_holds(text):
    assert cli.number(float)(text) == float(text)


@pytest.mark.parametrize(("flags", "words"), [
    (["--nane=a"], "unrecognized arguments: --nane=a; did you mean --name?"),
    (["--zzz"], "unrecognized arguments: --zzz (see"),
    (["--kind", "lenett"], "; did you mean lenet?"),
    (["--kind", "zzz"], "'mlp') (see"),
])
def test_what_is_misspelt_is_guessed_at(capsys, flags, words):
    parser = cli.Parser(prog="program")
    parser.add_argument("--name")
    parser.add_argument("--kind", choices=("lenet", "mlp"))
    with pytest.raises(SystemExit):
        parser.parse_args(flags)
    error = capsys.readouterr().err
    assert words in error
    assert ("did you mean" in error) == ("did you mean" in words)


@pytest.mark.parametrize(("error", "status", "line"), [
    (ValueError("wrong\nthing"), 2, "error: wrong thing"),
    (FileNotFoundError(2, "No such file or directory", "a"), 2,
     "error: a: No such file or directory"),
    (cli.Diverged("too high"), 3, "error: too high"),
    (MemoryError("Unable to allocate 9 GiB"), 2,
     "error: not enough memory: smaller images, batches or layers take less"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (ValueError("\x1b[31mred\x07"), 2, r"error: \x1b[31mred\x07"),
    (FileNotFoundError(2, "No such file", "\udc80a"), 2, r"error: \udc80a: No such file"),
    (ValueError(f"a{'b' * 88000}c"), 2, f"error: a{'b' * 249} ... {'b' * 249}c"),
])
def test_errors_become_a_line_and_a_status(capsys, error, status, line):
    def main():
        raise error

    with pytest.raises(SystemExit) as left:
        cli.run(main)
    assert left.value.code == status
    assert capsys.readouterr().err.endswith(f": {line}\n")


def test_warnings_and_refused_flags_are_printable_and_short(capsys, caplog):
    with pytest.raises(SystemExit):
        cli.run(lambda: logging.warning("of %s", "\x1b[31m" + "x" * 88000))
    assert caplog.messages == ["of \\x1b[31m" + "x" * 239 + " ... " + "x" * 250]
    caplog.clear()
    caplog.set_level("INFO")
    with pytest.raises(SystemExit):
        cli.run(lambda: logging.info("Epoch\t%s\nof", "\x1b[31m"))
    assert caplog.messages == ["Epoch\t\\x1b[31m\nof"]
    parser = cli.Parser(prog="program")
    parser.add_argument("--flag", choices=["a"])
    with pytest.raises(SystemExit):
        parser.parse_args(["--flag", "\x1b" * 88000])
    said = capsys.readouterr().err
    assert said[:-1].isprintable()
    assert len(said) < 600


PRINTING = "from common import cli; cli.run(lambda: print('line\\n' * {}))"
LINES = [1, 10**5]  # which are written in the end, or before that


def run_in_shell(code, redirection="", **environment):
    return subprocess.run(["sh", "-c", f'"$0" -c "$1" {redirection}', sys.executable, code],
                          cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, universal_newlines=True,
                          env=dict(os.environ, **environment))


@pytest.mark.parametrize(("shape", "line"), [
    ("(2**30, )", "error: not enough memory"), ("(2**40,)", "MXNetError")])  # a number is 8 bytes
def test_of_mxnets_errors_that_for_want_of_memory_is_said(shape, line):
    done = subprocess.run([sys.executable, "-c", f"""
import resource
from common import cli, find_mxnet
import mxnet as mx
resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
cli.run(lambda: mx.nd.zeros({shape}, dtype="float64").wait_to_read())
"""], cwd=ROOT, stderr=subprocess.PIPE, encoding="utf-8", check=False)
    assert line in done.stderr
    assert done.returncode == (2 if "memory" in line else 1)


@pytest.mark.parametrize("lines", LINES)
def test_a_reader_that_has_had_enough_is_no_error(lines):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", PRINTING.format(lines)], cwd=ROOT, stdout=writing,
                          stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize(("redirection", "reason"), [
    (">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")])
def test_output_that_cannot_be_written(lines, redirection, reason):
    done = run_in_shell(PRINTING.format(lines), redirection)
    assert done.returncode == 2
    assert done.stderr == f"-c: error: standard output: {reason}\n"


def test_help_that_cannot_be_written():
    done = run_in_shell("from common import cli; cli.run(cli.Parser(prog='a').parse_args)",
                        "--help >/dev/full")
    assert done.returncode == 2
    assert done.stderr == "-c: error: standard output: No space left on device\n"


@pytest.mark.parametrize("encoding", ["ascii", "ascii:surrogateescape"])  # the latter in LC_ALL=C
def test_letters_that_the_terminal_does_not_have_are_spelt_out(encoding):
    done = run_in_shell("from common import cli; cli.run(lambda: print('sieben €'))",
                        PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout, done.stderr) == (0, "sieben \\u20ac\n", "")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&- 2>&-"])
@pytest.mark.parametrize(("then", "status"), [("0", 0), ("int('a')", 2), ("exit(3)", 3)])
def test_errors_that_cannot_be_written_change_nothing(redirection, then, status):
    code = ("import logging; from common import cli; logging.basicConfig()\n"
            f"def main(): print('done'); logging.warning('a'); {then}\n"
            "cli.run(main)")
    done = run_in_shell(code, redirection)
    assert (done.returncode, done.stdout) == (status, "done\n")


def test_no_file_gets_what_is_printed_to_closed_streams(tmp_path):
    code = ("import os; from common import cli\n"
            f"def main():\n with open('{tmp_path}/a', 'wb') as file:\n"
            "  file.write(b'whole')\n  for number in (1, 2):\n"
            "   try: os.write(number, b'noise')\n   except OSError: pass\n"
            "cli.run(main)")
    assert run_in_shell(code, "<&- >&- 2>&-").returncode == 0
    assert (tmp_path / "a").read_bytes() == b"whole"
