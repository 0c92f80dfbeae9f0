"""Fewer cases than a product where only two things at a time can get into each other's way."""
from itertools import combinations, product


def pairwise(*axes):
    """A few tuples, with a value of each axis, that hold every pair of values of every two axes."""
    axes = [list(axis) for axis in axes]
    rows = list(product(*(range(len(axis)) for axis in axes)))
    missing, chosen = set().union(*map(_pairs, rows)), []
    while missing:
        chosen.append(max(rows, key=lambda row: len(_pairs(row) & missing)))
        missing -= _pairs(chosen[-1])
    return [tuple(axis[place] for axis, place in zip(axes, row)) for row in chosen]


def _pairs(row):
    return set(combinations(enumerate(row), 2))
