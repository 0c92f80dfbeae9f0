"""Sets of files that change together: a reader finds the older whole set or the new one.

A manifest, written last, has the size and the SHA-256 of each file of the set. New files wait
beside it under names of their own, ``<stem>.<kind>.new``. When they are on the disk, the manifest
is replaced: from then on the set is the new one, and what is not yet renamed is found where it is.
"""
import contextlib
import json
import os

from common import files


@contextlib.contextmanager
def replacing(manifest, targets):
    """Yields paths to write the files of a set to; they take effect when the block ends well.

    Args:
        manifest: path of the manifest, ``<stem>.json``.
        targets: kind of file -> its path.

    Raises:
        OSError: something could not be written; the set is as it was.
    """
    with contextlib.suppress(ValueError):  # a damaged set is not worth keeping
        finish_renames(manifest, targets)
    waiting = {kind: _waiting(manifest, kind) for kind in targets}
    content = None
    try:
        with files.name_os_errors(manifest):
            yield waiting
            for path in (*waiting.values(), os.path.dirname(manifest) or "."):
                files.sync(path)
        content = _encode({kind: _describe(path) for kind, path in waiting.items()})
        with files.replacing(manifest, f"{manifest}.new") as new, open(new, "wb") as file:
            file.write(content)
    except BaseException:
        if content is None or files.read_if_there(manifest) != content:
            _remove_waiting(manifest, targets)
        raise
    _rename(manifest, targets, waiting)


def locate(manifest, targets):
    """Where the files of a set are; they are ``targets`` themselves if it has no manifest.

    Args:
        manifest, targets: as for ``replacing``.

    Returns:
        Kind of file -> path.

    Raises:
        ValueError: the manifest or a file is damaged, or a file is missing.
    """
    content = files.read_if_there(manifest)
    if content is None:
        return dict(targets)
    described, places = _decode(manifest, content, targets), {}
    for kind, target in targets.items():
        candidates = [path for path in (_waiting(manifest, kind), target)
                      if _is(path, described[kind])]
        if not candidates:
            fault = "not the file" if os.path.exists(target) else "missing, the file"
            raise ValueError(f"{target}: {fault} that {manifest} was written with")
        places[kind] = candidates[0]
    return places


def finish_renames(manifest, targets):
    """Renames what a process that was killed had still to rename, and removes what it left.

    Raises ValueError if the set is not whole.
    """
    _rename(manifest, targets, locate(manifest, targets))


def _rename(manifest, targets, places):
    for kind, path in places.items():
        if path != targets[kind]:
            os.replace(path, targets[kind])
    _remove_waiting(manifest, targets)
    files.sync(os.path.dirname(manifest) or ".")


def remove(manifest, targets, shared):
    """Removes a set, but for the kind of file that it shares with others.

    The manifest goes first: what a kill leaves is no damaged set.
    """
    files.remove(manifest)
    _remove_waiting(manifest, targets)
    for kind, path in reversed(targets.items()):  # params alone still load, a state alone does not
        if kind != shared:
            files.remove(path)


def _remove_waiting(manifest, kinds):
    for path in (f"{manifest}.new", *(_waiting(manifest, kind) for kind in kinds)):
        files.remove(path)


def _waiting(manifest, kind):
    return f"{manifest[:-len('.json')]}.{kind}.new"


def _describe(path):
    return {"bytes": os.path.getsize(path), "sha256": files.sha256(path)}


def _is(path, described):
    """Whether a path has the file that was described; one of another size is not read."""
    return (os.path.exists(path) and os.path.getsize(path) == described["bytes"]
            and _describe(path) == described)


def _encode(described):
    return (json.dumps(described, indent=2) + "\n").encode()


def _decode(manifest, content, kinds):
    """What a manifest says; ValueError unless it is to the byte as this module would write it."""
    try:
        described = files.parse_json(content)
        whole = (list(described) == list(kinds) and _encode(described) == content
                 and all(list(one) == ["bytes", "sha256"] for one in described.values()))
    except (ValueError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{manifest}: not a whole manifest")
    return described
