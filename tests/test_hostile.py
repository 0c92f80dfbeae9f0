"""Files that are made to fill the memory, to hang, or to run something: refused, in little memory.

They are loaded by a new process, whose peak of memory is measured.
"""
import gzip
import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib

import mxnet as mx
import numpy as np
import pytest

from common.data import fetch
from common.models import export_folder
from tests import mutations
from tests.conftest import ROOT
from tests.test_checkpoint import save, started

MEMORY = 450  # MiB; a process that refuses a small file takes 150
LOAD = """
import contextlib, io, json, re, resource, sys
from common import find_mxnet
import numpy as np
from common import cli
from common.data import class_list, datasets, image_files
from common.models import export_folder, trained
from common.storage import state_file

def predict(path):
    images = np.resize(np.arange(256, dtype=np.uint8), (512, 28, 28))
    images[0], images[1] = 0, 255
    trained.load(path).predictor((1, 28, 28), batch_size=256, cpus=2)(images)

LOADS = {
    "model": lambda path: trained.load(path).predictor((1, 28, 28), batch_size=2, cpus=1),
    "network": predict,
    "shapes": export_folder.image_shape,
    "classes": class_list.given_names,
    "state": state_file.read,
    "data": lambda path: datasets.load("mnist", path),
    "picture": lambda path: image_files.read_all([path]),
}

def peak():  # in MiB; getrusage would count what this process was before it became Python
    with open("/proc/self/status") as file:
        own = int(re.search("VmHWM: *(.*) kB", file.read().replace(chr(9), "")).group(1))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) // 2**10

for what, path in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            cli.run(lambda: LOADS[what](path))
        except SystemExit as left:
            status = left.code
    print(json.dumps([status, said.getvalue(), peak()]), flush=True)
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What a new process makes of all files, one after the other: name -> status, words, peak."""
    files = {name: make(tmp_path_factory.mktemp(name)) for name, (make, _) in HOSTILE.items()}
    done = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=ROOT, input=json.dumps(list(files.values())),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=300)
    return dict(zip(files, map(json.loads, done.stdout.splitlines())))


def foreign(folder, **files):
    """A checkpoint without manifest, some of whose files are replaced."""
    save(folder / "a", started(add_stn=False))
    (folder / "a-0001.json").unlink()
    for name, content in files.items():
        (folder / {"symbol": "a-symbol.json", "params": "a-0001.params"}[name]).write_bytes(content)
    return "model", str(folder / "a")


def deep_symbol(folder):
    return foreign(folder, symbol=b'{"nodes": ' + b"[" * 10**5 + b"]" * 10**5 + b"}")


def huge_symbol(folder):
    data = mx.sym.var("data")
    for index in range(4):  # of 784 numbers, 10**16 times as many
        data = mx.sym.tile(data, reps=(1, 1, 100, 100), name=f"tile{index}")
    return foreign(folder, symbol=data.tojson().encode())


DATA = mx.sym.var("data")
FLAT = mx.sym.flatten(DATA)


def network(symbol, **attributes):
    """A function that writes a network; attributes of its last node are replaced."""
    def make(folder):
        graph = json.loads(symbol.tojson())
        graph["nodes"][-1].setdefault("attrs", {}).update(attributes)
        return "network", foreign(folder, symbol=json.dumps(graph).encode())[1]
    return make


def replaced(name, special):
    """A function that writes a checkpoint or an export with a file that is no plain one."""
    def make(folder):
        found = foreign(folder)
        export_folder.export(str(folder / "export"), *started(add_stn=False), (1, 28, 28))
        if name == "a-0001.json":
            save(folder / "a", started(add_stn=False))
        (folder / name).unlink()
        special(str(folder / name))
        if name.endswith("shapes.json"):
            return "shapes", str(folder / "export")
        return ("model", str(folder / "export")) if "export" in name else found
    return make


def no_plain_state(folder):
    mutations.pipe(str(folder / "a.state"))
    return "state", str(folder / "a.state")


def sparse_classes(folder):
    mutations.sparse(str(folder / "names"))
    return "classes", str(folder / "names")


def sparse_params_that_go_on(folder):
    found = foreign(folder)
    os.truncate(folder / "a-0001.params", 2**31 - 1)
    return found


def huge_params(folder):
    header = struct.pack("<QQQIiiqqiii", 0x112, 0, 1, 0xF993FAC9, 0, 2, 10**6, 10**6, 1, 0, 0)
    return foreign(folder, params=header + bytes(100))


def many_params(folder):
    return foreign(folder, params=struct.pack("<QQQ", 0x112, 0, 10**12) + bytes(1000))


def endless_params(folder):
    found = foreign(folder)
    (folder / "a-0001.params").unlink()
    (folder / "a-0001.params").symlink_to("/dev/zero")
    return found


def endless_manifest(folder):
    found = foreign(folder)
    (folder / "a-0001.json").symlink_to("/dev/zero")
    return found


def state(folder, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(folder / "a.state", "w", compression) as archive:
        archive.writestr("meta.npy", content)
    return "state", str(folder / "a.state")


def packed_state(folder):
    return state(folder, bytes(2**28), zipfile.ZIP_DEFLATED)


def huge_state(folder):
    content = io.BytesIO()
    np.save(content, np.zeros(10**6, np.uint8))
    claim = content.getvalue()[:200].replace(b"(1000000,), }     ", b"(999999999999,), }")
    assert len(claim) == 200
    return state(folder, claim)


def pickled_state(folder):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(folder / "harm"),)

    content = io.BytesIO()
    np.save(content, np.array([Harm()], object))
    return state(folder, content.getvalue())


def idx_files(folder, content):
    """A folder with the same content under all four names."""
    for name in fetch.NAMES:
        (folder / f"{name}.gz").write_bytes(content)
    return "data", str(folder)


def bomb_in_gzip(folder):
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    content = packer.compress(struct.pack(">4I", 0x803, 1, 28, 28))
    return idx_files(folder, content + b"".join(
        packer.compress(bytes(2**20)) for _ in range(2**9)) + packer.flush())


def claim_in_gzip(folder):
    return idx_files(folder, gzip.compress(struct.pack(">4I", 0x803, 4, 2**15, 2**15)))


def claim_in_npz(folder):
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        member, {"descr": "|u1", "fortran_order": False, "shape": (2**31, 28, 28)})
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        for name in ("x_train", "y_train"):
            archive.writestr(f"{name}.npy", member.getvalue())
    return "data", str(folder / "a.npz")


def line_in_gzip(folder):
    (folder / "a.csv.gz").write_bytes(gzip.compress(b"0," * 2**28, 1))
    return "data", str(folder / "a.csv.gz")


def endless_idx(folder):
    for name in fetch.NAMES:
        (folder / name).symlink_to("/dev/zero")
    return "data", str(folder)


def bomb_in_png(size):
    """Writes a PNG of 64 MiB of pixels, packed, that claims a size."""
    def chunk(name, content):
        return (struct.pack(">I", len(content)) + name + content
                + struct.pack(">I", zlib.crc32(name + content)))

    def make(folder):
        header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
        (folder / "bomb.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(bytes(2**26), 1)) + chunk(b"IEND", b""))
        return "picture", str(folder / "bomb.png")
    return make


def eps(folder):
    (folder / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n"
                                   b"%%EndComments\nshowpage\n")
    return "picture", str(folder / "a.eps")


HOSTILE = {  # function that writes a file and says what it is, words of the refusal
    "deep_symbol": (deep_symbol, "a-symbol.json: not a symbol that can be loaded"),
    "huge_symbol": (huge_symbol, "tile1_output has 156,800,000,000 numbers for a batch of 2"),
    "length": (network(mx.sym.softmax(FLAT, length=mx.sym.sum(FLAT, axis=1), use_length=True)),
               "reads memory where its input says"),
    "whole_numbers": (network(1 / mx.sym.cast(FLAT, "int32")),
                      "has the data type int32, which is not floating-point"),
    "inverse": (network(mx.sym.linalg.inverse(DATA, name="back")),
                "back is the inverse of what is no constant"),
    "constant": (network(mx.sym.broadcast_add(
        FLAT, mx.sym.max(mx.sym.ones((30000, 30000), name="huge"), keepdims=True))),
        "huge_output has 900,000,000 numbers for a batch of 256: too many"),
    "tile": (network(mx.sym.mean(mx.sym.tile(DATA, (1, 1, 50, 50), name="huge"), (2, 3))),
             "huge_output has 501,760,000 numbers for a batch of 256: too many"),
    "answer": (network(mx.sym.tile(DATA, (1, 1, 10, 10), name="huge")),
               "huge_output has 20,070,400 numbers"),
    "target": (network(mx.sym.SpatialTransformer(
        DATA, mx.sym.slice_axis(FLAT, axis=1, begin=0, end=6), target_shape=(3000, 3000),
        transform_type="affine", sampler_type="bilinear", name="huge")),
        "huge_output has 2,304,000,000 numbers"),
    "no_value": (network(FLAT * 2, scalar="{[]: 1}"), "is {[]: 1}, which no operator takes"),
    "long_value": (network(FLAT * 2, scalar="9" * 88000), "which no operator takes"),
    "escapes": (network(FLAT * 2, scalar="\x1b[31m"), "is not text"),
    "pipe_params": (replaced("a-0001.params", mutations.pipe), "params: not a regular file"),
    "pipe_symbol": (replaced("a-symbol.json", mutations.pipe), "symbol.json: not a regular file"),
    "pipe_manifest": (replaced("a-0001.json", mutations.pipe), "0001.json: not a regular file"),
    "pipe_sums": (replaced("export/SHA256SUMS", mutations.pipe), "SUMS: not a regular file"),
    "pipe_shapes": (replaced("export/model-shapes.json", mutations.pipe),
                    "model-shapes.json: not a regular file"),
    "pipe_exported": (replaced("export/model-0000.params", mutations.pipe),
                      "model-0000.params: not a regular file"),
    "pipe_state": (no_plain_state, "a.state: not a regular file"),
    "sparse_params": (replaced("a-0001.params", mutations.sparse), "does not begin as one"),
    "longer_params": (sparse_params_that_go_on, "something follows its end"),
    "sparse_symbol": (replaced("a-symbol.json", mutations.sparse), "more than 16777216 bytes"),
    "sparse_manifest": (replaced("a-0001.json", mutations.sparse), "more than 16777216 bytes"),
    "sparse_sums": (replaced("export/SHA256SUMS", mutations.sparse), "more than 16777216 bytes"),
    "sparse_classes": (sparse_classes, "names: more than 16777216 bytes"),
    "huge_params": (huge_params, "a-0001.params: not a whole params file"),
    "many_params": (many_params, "a-0001.params: not a whole params file"),
    "endless_params": (endless_params, "a-0001.params: not a regular file"),
    "endless_manifest": (endless_manifest, "a-0001.json: not a regular file"),
    "packed_state": (packed_state, "a.state: not a whole state file"),
    "huge_state": (huge_state, "a.state: not a whole state file"),
    "pickled_state": (pickled_state, "a.state: not a whole state file"),
    "bomb_in_gzip": (bomb_in_gzip, "the header announces 1 x 28 x 28 images"),
    "claim_in_gzip": (claim_in_gzip, "the header announces 4 x 32768 x 32768 images"),
    "claim_in_npz": (claim_in_npz, "x_train.npy is no whole array of numbers"),
    "line_in_gzip": (line_in_gzip, "a.csv.gz: line 1 is no line of a table"),
    "endless_idx": (endless_idx, "train-images-idx3-ubyte: not a regular file"),
    "bomb_in_png": (bomb_in_png(2**11 + 1), "bomb.png: a picture of more than 4194304 pixels"),
    "larger_png": (bomb_in_png(12000), "bomb.png: a picture of more than 4194304 pixels"),
    "largest_png": (bomb_in_png(30000), "bomb.png: a picture of more than 4194304 pixels"),
    "eps": (eps, "a.eps: not a whole picture in BMP, GIF, JPEG, PNG, PPM, TIFF or WEBP"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_in_one_line_and_little_memory(loaded, name):
    status, said, peak = loaded[name]
    assert status == 2, said
    assert len(said.splitlines()) == 1, said
    assert len(said) < 600
    assert said[:-1].isprintable()
    assert HOSTILE[name][1] in said
    assert peak < MEMORY


def test_no_code_was_run(loaded, tmp_path_factory):
    assert not list(tmp_path_factory.getbasetemp().rglob("harm"))


@pytest.mark.parametrize("content", [
    "[" * 10**5, "{}", "[]", '[{"shape": [1, 1, "28", 28]}]', '[{"shape": [1, 1, 28]}]',
    '[{"shape": [1, 1, -28, 28]}]', '[{"shape": [1, 1, 1000000000, 28]}]', "\xff"])
def test_the_shape_of_an_export_is_checked(tmp_path, content):
    (tmp_path / "model-shapes.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="model-shapes.json: not the shapes of an export"):
        export_folder.image_shape(str(tmp_path))
