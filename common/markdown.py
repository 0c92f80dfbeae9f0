"""Tables in Markdown."""


def table(head, rows):
    """A table: the cells of its head, and those of each row, as text."""
    return "\n".join([heading(head), *(row(cells) for cells in rows)])


def heading(cells):
    """The two lines that a table begins with."""
    return f"{row(cells).replace('|  |', '| |')}\n{row(['---'] * len(cells))}"


def row(cells):
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"
