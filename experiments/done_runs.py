"""The file of an experiment that makes its runs itself: what is done is not done again."""
from common import files
from common.provenance import provenance


def load(path, program, settings, key):
    """The figures of the runs that are done, by name; none if there is no file.

    Args:
        path: of the file.
        program: that wrote it, such as "experiments.robustness".
        settings: that all of its runs have.
        key: what the file calls the figures.

    Raises ValueError if the file is no result, or one of other settings.
    """
    content = files.read_if_there(path)
    if content is None:
        return {}
    try:
        found = files.parse_json(content)
        done, of_file = found[key], found["settings"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not a result of {program}") from None
    if of_file != settings:
        raise ValueError(f"{path}: of other settings, {of_file}: move it away to begin anew")
    return done


def save(path, settings, key, done):
    """Writes what ``load`` reads, with the command and the versions."""
    files.write_json(path, dict(provenance(), settings=settings, **{key: done}))
