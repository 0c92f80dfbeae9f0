"""Where figures come from, to be written beside them."""
import platform
import shlex
import sys

import mxnet as mx
import numpy as np


def provenance():
    """The command that runs and the versions it runs with, as JSON can hold them."""
    return {"command": shlex.join(["python", *sys.argv]),
            "versions": {"python": platform.python_version(), "numpy": np.__version__,
                         "mxnet": mx.__version__}}
