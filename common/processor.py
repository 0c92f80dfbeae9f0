"""The processor, which rounds and is as fast as its kind."""
import platform
import re


def processor():
    """The processor's name; its family and model as well, since some machines name none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            known = dict(re.findall(r"^(\w[\w ]*?)\s*: (.*)$", file.read(), flags=re.M))
    except OSError:  # not Linux
        known = {}
    if "model name" not in known:
        return platform.processor() or platform.machine()
    return f"{known['model name']} (family {known['cpu family']}, model {known['model']})"
