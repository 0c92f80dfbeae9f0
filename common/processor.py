"""The processor, which rounds and is as fast as its kind."""
import itertools
import platform
import re


def processor():
    """The processor's name; its family and model as well, since some machines name none."""
    known = _cpuinfo()
    if "model name" not in known:
        return platform.processor() or platform.machine()
    return f"{known['model name']} (family {known['cpu family']}, model {known['model']})"


def lanes():
    """How many numbers of float32 it computes with at a time, as far as oneDNN makes use of it."""
    return 16 if "avx512f" in _cpuinfo().get("flags", "").split() else 8


def _cpuinfo():
    """What Linux tells of the first core: name -> text; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            first = "".join(itertools.takewhile(str.strip, file))  # there may be hundreds
            return dict(re.findall(r"^(\w[\w ]*?)\s*: (.*)$", first, flags=re.M))
    except OSError:
        return {}
