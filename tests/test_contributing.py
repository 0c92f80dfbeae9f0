"""All that CONTRIBUTING.md and symbols/README.md show is added to a copy of the repository."""
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys

import pytest

from common.data import fetch, idx, synthetic
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
ADDED = "two_columns or zoom or slant"
# Tests of whole tables, or of names that are in none.
TABLES = [f"tests/test_{name}" for name in (
    "golden.py::test_there_is_a_golden_export_of_every_kind", "golden.py::test_names_stay",
    "networks.py::test_wrong_options_are_refused", "stn.py::test_unknown_transforms_are_refused",
    "distort.py::test_bad_input", "layout.py", "doctor.py")]


@pytest.fixture
def mirror(tmp_path):
    """A folder of four small gzipped idx files, as a public mirror has them."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    arrays = (*synthetic.draw(200, seed=2), *synthetic.draw(100, seed=3))
    for name, array in zip(fetch.NAMES, arrays):
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx.encode(array)))
    return folder


@pytest.fixture
def repository(tmp_path, mirror):
    """A copy of this repository to which all has been added that the two pages show."""
    copy = tmp_path / "repository"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
        stdout=subprocess.PIPE, check=True, universal_newlines=True).stdout
    for path in listed.split("\0")[:-1]:
        if os.path.isfile(os.path.join(ROOT, path)):  # or else it has been removed, but not in git
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.join(ROOT, path), copy / path)
    (copy / "data").mkdir()
    (copy / "data" / "mnist").symlink_to(os.path.join(ROOT, "data", "mnist"))
    additions = [*shown(copy / "symbols" / "README.md"), *shown(copy / "CONTRIBUTING.md")]
    assert len(additions) == 7
    for path, language, code in additions:
        add(copy / path, language, filled_in(code, mirror))
    return copy


def shown(page):
    """(path, language, code) of each block of code that comes behind the name of its file."""
    return re.findall(r"`([\w/]+\.py)`[^`]*\n\n```(python|diff)\n(.*?)^```",
                      page.read_text(encoding="utf-8"), flags=re.M | re.S)


def filled_in(code, mirror):
    """The code with the address and the sums that only who adds a dataset can know."""
    code = code.replace("https://example.org/letters", mirror.as_uri())
    for name in fetch.NAMES:
        content = gzip.decompress((mirror / f"{name}.gz").read_bytes())
        code = code.replace(f"SHA-256 of {name}", hashlib.sha256(content).hexdigest())
    return code


def add(path, language, code):
    """Writes a new file, or adds and removes lines of one; does nothing if that has been done."""
    if language == "python":
        if not path.exists():
            path.write_text(code, encoding="utf-8")
        return
    text, lines = path.read_text(encoding="utf-8"), code.splitlines(keepends=True)
    before, after = ("".join(line[1:] if line.strip() else line for line in lines
                             if not line.startswith(sign)) for sign in "+-")
    if after not in text:
        assert text.count(before) == 1, f"not in {path}, or more than once:\n{before}"
        path.write_text(text.replace(before, after), encoding="utf-8")


def run(repository, *arguments):
    """Runs Python there, as from a shell of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=str(repository), env=environ,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, universal_newlines=True, timeout=900)


def run_tests(repository, *arguments):
    return run(repository, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", *arguments)


def test_what_was_added_passes_the_tests_that_are_there(repository):
    for chosen in (TABLES, ["tests", "-k", ADDED]):
        done = run_tests(repository, *chosen)
        assert done.returncode == 0, done.stdout


def test_what_was_added_trains_together(repository):
    done = run(repository, "train_mnist.py", "--network", "two_columns", "--add-stn", "--transform",
               "zoom", "--distort", "slant", "--dataset", "letters", "--num-examples", 100,
               "--batch-size", 20, "--num-epochs", 2)
    assert done.returncode == 0, done.stdout
    assert f"Fetched letters from {(repository.parent / 'mirror').as_uri()}" in done.stdout
    export = repository / "models" / "letters-slant-two_columns-stn-zoom-export"
    assert (export / "synset.txt").read_text().split() == list("abcdefghij")
    done = run(repository, "score.py", "models/letters-slant-two_columns-stn-zoom")
    assert done.returncode == 0, done.stdout
    assert "Test accuracy: " in done.stdout


def test_what_is_drawn_trains(repository):
    done = run(repository, "train_mnist.py", "--network", "mlp", "--dataset", "tiles",
               "--num-epochs", 2)
    assert done.returncode == 0, done.stdout
    assert float(re.search(r"^Test accuracy: (.*)$", done.stdout, flags=re.M)[1]) > 0.9
    names = (repository / "models" / "tiles-mlp-export" / "synset.txt").read_text().split()
    assert names == ["wide", "narrow", "tiny"]


def test_an_operator_without_a_name_is_said_once_in_words(repository):
    path = repository / "symbols" / "two_columns.py"
    code = path.read_text(encoding="utf-8")
    named = 'mx.sym.elemwise_add(short, long, name="sum1")'
    assert code.count(named) == 1
    path.write_text(code.replace(named, "short + long"), encoding="utf-8")
    done = run_tests(repository, "tests/test_networks.py", "-k", "two_columns")
    assert ("two_columns has operators without a name of their own: the elemwise_add of conv2_relu "
            "and conv4_relu. Give each a name=") in done.stdout
    assert re.findall(r"^FAILED .*::(\w+)", done.stdout, flags=re.M) == [
        "test_every_operator_has_a_name_of_its_own"]
