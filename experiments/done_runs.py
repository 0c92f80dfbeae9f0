"""The file of an experiment that makes its runs itself: what is done is not done again."""
from common import files
from common.provenance import provenance


def load(path, program, settings, key, use):
    """The figures of the runs that are done, by name; none if there is no file.

    Args:
        path: of the file.
        program: that wrote it, such as "experiments.robustness".
        settings: that all of its runs have.
        key: what the file calls the figures.
        use: function that takes of them what will be used, as of ``files.figures``.

    Raises ValueError if the file is no result, or one of other settings.
    """
    found = files.figures(path, program, lambda found: (use(dict(found[key])), found["settings"]))
    if found and found["settings"] != settings:
        raise ValueError(f"{path}: of other settings, {found['settings']}: move it away to begin "
                         "anew")
    return found.get(key, {})


def save(path, settings, key, done):
    """Writes what ``load`` reads, with the command and the versions."""
    files.write_json(path, dict(provenance(), settings=settings, **{key: done}))
