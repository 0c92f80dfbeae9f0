"""What figures of speed were measured on: written beside them, and compared before more are added.

It does without MXNet, so that who measures the memory of other processes stays small: the system
counts a parent's memory as its child's, until that is another program.
"""
import os
import shlex
import sys

from common.processor import processor


def about(program, versions):
    """The command that runs, the machine and the versions of packages, as JSON can hold them."""
    return {"command": shlex.join(["python", "-m", program, *sys.argv[1:]]),
            "processor": processor(), "cores": os.cpu_count(), "versions": versions}


def differences(old, new):
    """What differs between two of ``about``, in words; nothing if the figures can be compared."""
    pairs = [(name, old.get(name), new[name]) for name in ("processor", "cores")]
    pairs += [(name, old.get("versions", {}).get(name), version)
              for name, version in new["versions"].items()]
    return ", ".join(f"{name} {was or 'unknown'}, now {now}"
                     for name, was, now in pairs if was != now)


def check_same(path, old, new):
    """Raises ValueError if figures of a file are not to be continued here."""
    differing = differences(old, new)
    if differing:
        raise ValueError(f"{path}: measured elsewhere ({differing}): move it away, or name "
                         "another file by --result")


def sentence(about):
    """The machine and the versions, in Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"Measured on {about['cores']} cores of {about['processor']}, with {versions}."
