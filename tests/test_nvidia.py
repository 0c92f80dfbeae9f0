"""common/nvidia.py, and what --gpus and the doctor say by it, with a driver that we build."""
import os
import shutil
import subprocess
import sys

import pytest

from common import nvidia
from tests.conftest import ROOT

COMPILER = shutil.which("cc")
# Answers as NVIDIA's driver does, of the cards in CARDS: capabilities such as "9.0 8.6".
SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int find(int ordinal, int *major, int *minor) {
    const char *at = getenv("CARDS");
    int count = 0, length, a, b;
    while (sscanf(at, "%d.%d%n", &a, &b, &length) == 2) {
        if (count++ == ordinal) { *major = a; *minor = b; }
        at += length;
    }
    return count;
}
int cuInit(unsigned flags) {
    return atoi(getenv("INIT_STATUS") ? getenv("INIT_STATUS") : "0") + (int)flags;
}
int cuDriverGetVersion(int *version) { *version = 11080; return 0; }
int cuDeviceGetCount(int *count) { int a, b; *count = find(-1, &a, &b); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 7; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, length, "Card %d", device - 7);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int major = 0, minor = 0;
    find(device - 7, &major, &minor);
    *value = attribute == 75 ? major : attribute == 76 ? minor : -1;
    return 0;
}
"""


@pytest.fixture(scope="session", name="stub")
def build_stub(tmp_path_factory):
    """Builds the driver; returns a function of cards that makes an environment in which it is."""
    if COMPILER is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler, or not Linux: no driver can be built to test with")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(SOURCE)
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", folder / nvidia.DRIVER,
                    folder / "driver.c"], check=True)
    return lambda cards, **more: dict(os.environ, LD_LIBRARY_PATH=str(folder), CARDS=cards, **more)


def run(environment, *words):
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          universal_newlines=True)
    return done.returncode, done.stdout


def asked(environment, expression):
    status, said = run(environment, "-c",
                       f"from common import nvidia; print({expression})")
    assert status == 0, said
    return said.strip()


@pytest.mark.parametrize(("capability", "runs"), [
    ("3.7", False), ("5.0", True), ("6.1", True), ("7.5", True), ("8.6", True), ("8.9", True),
    ("9.0", False), ("10.0", False), ("12.0", False)])
def test_for_which_cards_there_is_machine_code(stub, capability, runs):
    said = asked(stub(capability), "nvidia.refusal([0])")
    assert (said == "None") == runs
    assert runs or f"GPU 0, Card 0, compute capability {capability}," in said


def test_only_the_cards_that_are_asked_for_count(stub):
    assert asked(stub("9.0 8.6"), "nvidia.refusal([1])") == "None"
    assert asked(stub("8.6 9.0"), "nvidia.refusal([0, 1])").startswith("GPU 1, Card 1")
    assert asked(stub("9.0"), "nvidia.refusal([1])") == "None"  # MXNet says that there is none


def test_what_the_driver_says(stub):
    said = asked(stub("8.6 12.0"), "nvidia.driver()")
    assert said == ("Driver(cuda=(11, 8), cards=(Card(name='Card 0', capability=(8, 6)), "
                    "Card(name='Card 1', capability=(12, 0))))")


def test_a_driver_that_does_not_work(stub):
    broken = stub("9.0", INIT_STATUS="100")
    assert asked(broken, "nvidia.refusal([0])") == "None"
    status, said = run(broken, "-c", "from common import nvidia; nvidia.driver()")
    assert status == 1
    assert said.endswith("NVIDIA's driver: cuInit failed with status 100\n")


def test_something_else_of_that_name(tmp_path, stub):
    stub("")
    (tmp_path / "empty.c").write_text("int nothing;")
    subprocess.run([COMPILER, "-shared", "-o", tmp_path / nvidia.DRIVER, tmp_path / "empty.c"],
                   check=True)
    environment = dict(os.environ, LD_LIBRARY_PATH=str(tmp_path))
    assert asked(environment, "nvidia.refusal([0])") == "None"


def test_training_on_a_card_without_kernels_is_refused_in_words(stub, tmp_path):
    status, said = run(stub("9.0"), "train_mnist.py", "--gpus", "0", "--dataset", "synthetic",
                       "--model-prefix", str(tmp_path / "m"))
    assert status == 2
    assert len(said.splitlines()) == 1
    assert "compute capability 9.0" in said
    assert "onnxruntime" in said
    assert not os.listdir(tmp_path)


def test_the_doctor_lists_the_cards(stub):
    _, said = run(stub("8.6 9.0"), "-m", "common.doctor")
    rows = {line[8:31].strip(): line for line in said.splitlines()}
    assert rows["NVIDIA's driver"].startswith("ok")
    assert "11.8" in rows["NVIDIA's driver"]
    assert rows["GPU 0"].startswith("ok")
    assert rows["GPU 0"].endswith("compute capability 8.6")
    assert rows["GPU 1"].startswith("-")
    assert "not for it" in rows["GPU 1"]
