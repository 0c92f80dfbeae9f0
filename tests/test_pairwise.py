from itertools import combinations, product

import pytest

from tests.pairwise import pairwise


@pytest.mark.parametrize(("sizes", "most"), [((2, 5), 10), ((3, 4, 2), 13), ((7, 3, 2, 2), 24)])
def test_every_pair_of_values_is_there_in_few_rows(sizes, most):
    axes = [[f"{axis}{value}" for value in range(size)] for axis, size in enumerate(sizes)]
    rows = pairwise(*axes)
    assert len(rows) <= most
    for (i, first), (j, second) in combinations(enumerate(axes), 2):
        assert {(row[i], row[j]) for row in rows} == set(product(first, second))
