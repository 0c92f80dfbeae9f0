"""Rows of parameters where what may go wrong depends on two of them at a time."""
import itertools


def pairwise(*factors):
    """Rows in which each value of a factor meets each value of any other one.

    Of the whole product these are few: 18 of 108 rows of 6 x 3 x 3 x 2 values.

    Args:
        *factors: lists of values.

    Returns:
        A list of tuples, with a value of each factor; always the same.
    """
    rows = [tuple(enumerate(row)) for row in itertools.product(*factors)]
    missing = {pair for row in rows for pair in itertools.combinations(row, 2)}
    chosen = []
    while missing:
        best = max(rows, key=lambda row: len(missing.intersection(itertools.combinations(row, 2))))
        missing.difference_update(itertools.combinations(best, 2))
        chosen.append(tuple(value for _, value in best))
    return chosen
