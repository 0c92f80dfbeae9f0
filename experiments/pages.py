"""Tables that a program writes into a page, between two marks that name it."""
from common import files

END = "<!-- to here -->"


def start(program):
    """The mark before the tables of a program, such as ``experiments/paper.py``."""
    return f"<!-- {program} writes from here -->"


def publish(page, program, text, write=True):
    """Prints the tables of a program, and writes them into its page, if they are to be there."""
    print(text)
    if write:
        write_tables(page, program, text)


def write_tables(path, program, text):
    """Puts tables in the place that a page has for them.

    Raises ValueError if it has none, OSError if it cannot be read or written.
    """
    mark = start(program)
    try:
        before, found, rest = files.read(path).decode().partition(mark)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(f"{path}: no place for the tables, between {mark} and {END}")
    files.write_bytes(path, f"{before}{mark}\n\n{text}\n\n{end}{after}".encode())
