"""Ways to damage a file, and ways to make a symbol's JSON wrong, all by a ``random.Random``."""
import contextlib
import copy
import io
import json
import os

import numpy as np


def flip(content, random):
    """One to eight bits turned over."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 8)):
        changed[place(changed, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def cut(content, random):
    """The end missing."""
    return content[:place(content, random)]


def insert(content, random):
    """Garbage in between, or behind."""
    start = random.choice([place(content, random), len(content)])
    return content[:start] + random_bytes(random.randint(1, 100), random) + content[start:]


def delete(content, random):
    """Some bytes missing."""
    start = place(content, random)
    return content[:start] + content[start + random.randint(1, 100):]


def zero(content, random):
    """A run of zeros, as of a block that was never written."""
    start, count = place(content, random), random.choice([1, 4, 8, 512, 4096])
    count = min(count, len(content) - start)
    return content[:start] + bytes(count) + content[start + count:]


def overwrite(content, random):
    """A number of 1 to 8 bytes replaced, by an extreme or any one."""
    start, size = place(content, random), random.choice([1, 2, 4, 8])
    greatest, least = b"\x7f".rjust(size, b"\xff"), b"\x80".rjust(size, b"\0")
    number = random.choice([b"\xff" * size, greatest, least, random_bytes(size, random)])
    return (content[:start] + number + content[start + size:])[:len(content)]


def pipe(path):
    """A pipe that nobody writes to."""
    os.mkfifo(path)


def endless(path):
    """A device that does not end."""
    os.symlink("/dev/zero", path)


def sparse(path):
    """A file of gigabytes of zeros that take no room on the disk."""
    with open(path, "xb") as file:
        file.truncate(2**31)


SPECIAL = (pipe, endless, sparse)
DAMAGES = (flip, cut, insert, delete, zero, overwrite)


def place(content, random):
    """A place in a file, where headers and footers are as likely as all the rest."""
    near = random.randrange(min(300, len(content)))
    return random.choice([near, len(content) - 1 - near, random.randrange(len(content))])


def random_bytes(count, random):
    return bytes(random.randrange(256) for _ in range(count))


JUNK = (-1, 0, 1, 10**9, 10**17, 10**400, 0.5, -0.5, float("inf"), float("nan"), None, True, [], {},
        "", "\x1b[31m\x07", "\ud800", "x" * 88000, [10**9] * 4, [[[]]], {"a": {}}, "9" * 400, "1e9")


def wrong_json(content, random):
    """JSON that is whole, with one to three of its values replaced by any other."""
    tree = [json.loads(content.decode())]
    for _ in range(random.choice([1, 1, 2, 3])):
        part, key = tree, 0
        while isinstance(part[key], (dict, list)) and part[key] and random.random() < 0.8:
            part = part[key]
            key = random.choice([*part] if isinstance(part, dict) else range(len(part)))
        part[key] = copy.deepcopy(random.choice(JUNK))  # which the next may change
    return json.dumps(tree[0]).encode()


def wrong_meta(content, random):
    """A state whose JSON is wrong, as ``wrong_json``."""
    with np.load(io.BytesIO(content)) as state:
        arrays = dict(state)
    meta = wrong_json(str(arrays.pop("meta")).encode(), random).decode()
    changed = io.BytesIO()
    np.savez(changed, meta=np.array(meta), **arrays)
    return changed.getvalue()


NUMBERS = (-1, 0, 1, 7, 86, 10**6, 2**31 - 1, 2**31, 2**63, 10**30, 0.5, None, "0", [], True)
TEXTS = ("0", "-1", "1", "3", "1000000000000", "(0, 0)", "(-1, -1)", "(1000000000, 1000000000)",
         "()", "(1,)", "(100000, 100000)", "nan", "", "None", "(1, 1, 1, 1, 1, 1, 1, 1, 1)",
         "2147483647", "-2147483648", "x" * 100, "1e400", "[1", "\0", "é\ud800", "True")
RISKY = ("Custom", "_NDArray", "_Native", "_foreach", "_cvimread", "no_such_operator", "where",
         "_contrib_arange_like", "SliceChannel", "take", "Reshape", "_full", "BatchNorm", "")


def wrong_graph(content, random):
    """A symbol's JSON with one to three things wrong in its graph."""
    graph = json.loads(content.decode())
    with contextlib.suppress(LookupError, TypeError, AttributeError):  # wrong enough already
        for _ in range(random.choice([1, 1, 1, 2, 3])):
            random.choice(CHANGES)(random.choice(_graphs(graph)), random)
    return json.dumps(graph).encode()


def _graphs(graph):
    """A graph, as often as it holds others, and these."""
    inner = [part for node in graph["nodes"] for part in node.get("subgraphs", [])]
    return [graph, *[graph] * len(inner), *inner]


def _attribute(graph, random):
    attributes = random.choice(graph["nodes"]).setdefault("attrs", {})
    key = random.choice([*attributes, "shape", "axis", "num_outputs", "repeat", "__shape__",
                         "__dtype__", "__storage_type__"])
    attributes[key] = random.choice(TEXTS if random.random() < 0.9 else NUMBERS)


def _input(graph, random):
    entry = random.choice(random.choice([node["inputs"] for node in graph["nodes"]
                                         if node["inputs"]]))
    numbers = [1, 2, 10**6, 2**31 - 1, *range(len(graph["nodes"]) + 1)]
    entry[random.randrange(len(entry))] = random.choice(
        numbers if random.random() < 0.9 else NUMBERS)


def _inputs(graph, random):
    node = random.choice(graph["nodes"])
    change = random.choice(["none", "fewer", "more"])
    if change == "none":
        node["inputs"] = []
    elif change == "fewer":
        node["inputs"] = node["inputs"][:-1]
    else:
        node["inputs"] = node["inputs"] + [[random.randrange(len(graph["nodes"])), 0, 0]]


def _operator(graph, random):
    names = [node["op"] for node in graph["nodes"]]
    random.choice(graph["nodes"])["op"] = random.choice([*names, *RISKY])


def _key(graph, random):
    part = random.choice([graph, random.choice(graph["nodes"])])
    key = random.choice([*part, "subgraphs", "control_deps"])
    if random.random() < 0.5:
        part.pop(key, None)
    else:
        part[key] = random.choice([None, 1, "x", [], {}, [[]], [1], {"a": 1}])


def _head(graph, random):
    node = random.choice([*NUMBERS, *range(len(graph["nodes"]) + 1)])
    graph["heads"] = [[node, random.choice([0, 0, 1, 10**6]), 0]]


def _name(graph, random):
    random.choice(graph["nodes"])["name"] = random.choice(graph["nodes"])["name"]


def _order(graph, random):
    random.shuffle(graph["nodes"])


CHANGES = (_attribute, _attribute, _attribute, _input, _inputs, _operator, _operator, _key, _head,
           _name, _order)
