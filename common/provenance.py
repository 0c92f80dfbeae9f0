"""Where figures come from, to be written beside them."""
import os
import platform
import shlex
import sys

import mxnet as mx
import numpy as np


def provenance():
    """The command that runs and the versions it runs with, as JSON can hold them."""
    script = os.path.basename(sys.argv[0])  # the folder of a checkout says nothing elsewhere
    return {"command": shlex.join(["python", script, *sys.argv[1:]]),
            "versions": {"python": platform.python_version(), "numpy": np.__version__,
                         "mxnet": mx.__version__}}
