"""Where figures come from, to be written beside them."""
import os
import platform
import shlex
import sys

import mxnet as mx
import numpy as np


def provenance():
    """The command that runs and the versions it runs with, as JSON can hold them."""
    module = getattr(sys.modules["__main__"].__spec__, "name", None)  # if it was run by -m
    # The folder of a checkout says nothing elsewhere.
    program = ["-m", module] if module else [os.path.basename(sys.argv[0])]
    return {"command": shlex.join(["python", *program, *sys.argv[1:]]),
            "versions": {"python": platform.python_version(), "numpy": np.__version__,
                         "mxnet": mx.__version__}}
