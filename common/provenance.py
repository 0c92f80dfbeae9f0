"""Where figures come from, to be written beside them."""
import os
import platform
import shlex
import sys

import mxnet as mx
import numpy as np

from common.processor import processor


def provenance():
    """The command that runs and what it runs with, as JSON can hold them."""
    module = getattr(sys.modules["__main__"].__spec__, "name", None)  # if it was run by -m
    # The folder of a checkout says nothing elsewhere.
    program = ["-m", module] if module else [os.path.basename(sys.argv[0])]
    return {"command": shlex.join(["python", *program, *sys.argv[1:]]),
            "processor": processor(), "threads": os.environ.get("OMP_NUM_THREADS"),
            "versions": {"python": platform.python_version(), "numpy": np.__version__,
                         "mxnet": mx.__version__}}
