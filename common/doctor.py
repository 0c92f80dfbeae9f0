"""Says what there is of what training needs, and what is broken: the first thing in a bug report.

    python -m common.doctor

It names no user, no machine and no folder that leads here. Each part is looked at by itself: what
is broken takes a line, and the others follow. Exit status: 0 all is well, 2 something is not.
"""
import json
import logging
import os
import platform
import re
import subprocess
import sys

from common import cli, nvidia

NEEDED = ("numpy", "matplotlib", "pillow", "requests", "tqdm")
EXTRAS = ("graphviz", "h5py", "hypothesis", "onnx", "onnxruntime", "protobuf", "pytest", "ruff",
          "scipy", "setuptools", "tensorboardX")
FEATURES = ("CUDA", "CUDNN", "MKLDNN", "OPENMP", "OPENCV", "DIST_KVSTORE", "INT64_TENSOR_SIZE")
VARIABLES = re.compile("(MXNET|OMP|KMP|MKL|OPENBLAS)_|CUDA_VISIBLE_DEVICES$")
CUDA_LIBRARY = re.compile(r"/lib(cu[a-zA-Z]+|nv[a-zA-Z-]+|nccl)\.so")
PATIENCE = 120  # seconds for MXNet
OK, ABSENT, BROKEN = "ok", "-", "BROKEN"
HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    if sys.argv[1:] == ["--mxnet"]:
        for row in _safely("MXNet", inside_mxnet):
            print(json.dumps(row), flush=True)
        return 0
    statuses = set()
    for name, part in PARTS.items():
        for status, what, text in _safely(name, part):
            statuses.add(status)
            print(f"{status:7} {what:23} {_public(text)}", flush=True)
    return 2 if BROKEN in statuses else 0


def _safely(name, part):
    """The rows of a part: status, what, text. What it raises is one, too."""
    try:
        yield from part()
    except Exception as error:
        yield BROKEN, name, f"{type(error).__name__}: {error}"


def _public(text):
    """Text in one line, without the folders that lead to this one, to Python or to the user's."""
    folders = {os.getcwd(): ".", os.path.dirname(HERE): ".", sys.prefix: "<python>",
               sys.base_prefix: "<python>", os.path.realpath(sys.prefix): "<python>",
               os.path.expanduser("~"): "~"}
    for folder in sorted(folders, key=len, reverse=True):
        if len(folder) > 1:
            text = text.replace(folder, folders[folder])
    return " ".join(text.split())


def python():
    """The interpreter and the machine."""
    done = _run(os.path.join(HERE, "find_mxnet.py"))
    yield (BROKEN if done.returncode else OK, "Python",
           done.stderr or f"{platform.python_version()}, {sys.executable}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield OK, "machine", f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield OK, "cores", f"{cores} of {os.cpu_count()} usable"


def packages():
    """The versions of other packages."""
    from importlib import metadata  # which Python 3.7 lacks
    for name in NEEDED + EXTRAS:
        try:
            yield OK, name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield BROKEN if name in NEEDED else ABSENT, name, "not installed"


def mxnet():
    """What ``inside_mxnet`` says, in a process of its own: MXNet may end it."""
    done = _run("-m", "common.doctor", "--mxnet")
    for line in done.stdout.splitlines():
        yield json.loads(line)
    if done.returncode:
        words = done.stderr.splitlines() or ["no words"]
        yield BROKEN, "MXNet", f"left with status {done.returncode}: {words[-1]}"


def inside_mxnet():
    """MXNet, its devices and settings, and whether it computes."""
    before = dict(os.environ)
    from common import find_mxnet  # noqa: F401  leaves the process if there is none

    # isort: split
    import mxnet as mx
    features = mx.runtime.Features()
    enabled = [name for name in FEATURES if name in features and features.is_enabled(name)]
    from importlib import metadata
    names = {package.metadata["Name"] or "" for package in metadata.distributions()}
    wheels = ", ".join(sorted(name for name in names if name.startswith("mxnet")))
    yield OK, "MXNet", (f"{mx.__version__}, package {wheels or 'unknown'}, "
                        f"{os.path.dirname(mx.__file__)}")
    yield OK, "its features", " ".join(enabled)
    for path in _cuda_libraries():
        yield OK, os.path.basename(path), os.path.dirname(path)
    try:
        yield OK, "GPUs for MXNet", str(mx.context.num_gpus())
    except mx.MXNetError as error:  # a driver that is too old, or does not work
        yield BROKEN, "GPUs for MXNet", str(error).splitlines()[-1]
    for name in sorted(filter(VARIABLES.match, os.environ)):
        yield (OK, "set by you" if name in before else "set by find_mxnet",
               f"{name}={os.environ[name]}")
    yield _smoke_test(mx)


def _cuda_libraries():
    """The paths of NVIDIA's libraries that this process has loaded; none but on Linux."""
    if not os.path.exists("/proc/self/maps"):
        return []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        paths = {line.split(maxsplit=5)[-1].strip() for line in maps if "/" in line}
    return sorted(filter(CUDA_LIBRARY.search, paths), key=os.path.basename)


def _smoke_test(mx):
    picture = mx.nd.random.uniform(shape=(1, 1, 5, 5))
    identity = mx.nd.array([[1, 0, 0, 0, 1, 0]])
    warped = mx.nd.SpatialTransformer(picture, identity, target_shape=(5, 5),
                                      transform_type="affine", sampler_type="bilinear")
    difference = float((warped - picture).abs().max().asscalar())
    return (OK if difference < 1e-5 else BROKEN, "SpatialTransformer",
            f"the identity moves pixels by {difference:.1g}")


def gpus():
    """NVIDIA's driver and its cards, and whether MXNet has anything to run on them."""
    try:
        driver = nvidia.driver()
    except OSError as error:
        yield ABSENT, "NVIDIA's driver", str(error)
        return
    yield OK, "NVIDIA's driver", "for CUDA up to {}.{}".format(*driver.cuda)
    for number, card in enumerate(driver.cards):
        yield OK if card.runs_mxnet else ABSENT, f"GPU {number}", (
            f"{card}" if card.runs_mxnet else f"{card}: MXNet's last packages are not for it")


def data():
    """The datasets' files."""
    from common.data import mnist
    logging.disable(logging.WARNING)  # of what has a row here
    for dataset in mnist.PUBLISHED:
        folder = mnist.default_folder(dataset)
        found = mnist.inspect(dataset, folder)
        whole = [name for name, state in found.items() if state == "whole"]
        absent = [name for name, state in found.items() if state == "missing"]
        text = f"{len(whole)} of {len(found)} files as published"
        if absent:
            foreign = mnist.find_foreign(dataset, folder)
            text += f", {len(absent)} missing: " + (
                f"not fetched beside {foreign}, which is not the dataset's" if foreign else
                f"python -m common.data.mnist {dataset} fetches them")
        yield ABSENT if absent else OK, f"data/{dataset}", text
        for name, state in found.items():
            if state not in ("whole", "missing"):
                yield OK if state == "own" else BROKEN, name, (
                    "not the published one: taken as your own" if state == "own" else state)


def _run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], cwd=os.path.dirname(HERE), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=PATIENCE)


PARTS = {"Python": python, "packages": packages, "MXNet": mxnet, "GPUs": gpus, "data": data}

if __name__ == "__main__":
    cli.run(main)
