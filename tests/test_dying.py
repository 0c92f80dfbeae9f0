"""What the page on transformers that die shows is run, and its tables are those of the results."""
import os
import re

import mxnet as mx
import numpy as np

from experiments import robustness
from symbols.stn import localisation_head, spatial_transformer
from tests.conftest import ROOT

with open(os.path.join(ROOT, "docs", "when-a-transformer-dies.md"), encoding="utf-8") as page:
    PAGE = page.read()


def test_the_examples_compute_what_the_page_says():
    lift, balance = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
    names = {"localisation_head": localisation_head, "spatial_transformer": spatial_transformer,
             "data": mx.sym.Variable("data"), "features": mx.sym.Variable("features")}
    exec(lift, names)
    assert names["net"].infer_shape(data=(2, 1, 28, 28), features=(2, 9))[1] == [(2, 1, 28, 28)]

    folder = os.path.join(ROOT, "published", "mnist-lenet-stn")
    symbol, params, _ = mx.model.load_checkpoint(os.path.join(folder, "model"), 0)
    images = mx.nd.array(np.random.RandomState(0).rand(4, 1, 28, 28))
    before = symbol.eval(data=images, **params)[0].asnumpy()
    lengths = [_length(symbol, images, params)]
    exec(balance, {"arg_params": params})
    lengths.append(_length(symbol, images, params))
    np.testing.assert_allclose(symbol.eval(data=images, **params)[0].asnumpy(), before, rtol=1e-4)
    np.testing.assert_allclose(lengths[0], lengths[1] * 8, rtol=1e-4)


def _length(symbol, images, params):
    seen = symbol.get_internals()["stn_loc_fc1_relu_output"]
    given = {name: params[name] for name in seen.list_arguments() if name != "data"}
    return seen.eval(data=images, **given)[0].norm().asscalar()


def test_the_tables_are_those_of_the_results():
    done = robustness.load(os.path.join(ROOT, robustness.RESULT))
    assert robustness.tables(done) in PAGE


def test_the_page_says_how_often_the_stable_head_is_worse():
    done = robustness.load(os.path.join(ROOT, robustness.RESULT))
    stable = [cell for cell in robustness.cells(done) if cell.head == "stable" and cell.learns]
    worse = [cell for cell in stable if robustness._surely_worse(cell.differences)]
    held = [cell.differences_to_held for cell in stable]
    better = [[-difference for difference in differences] for differences in held]
    counts = [sum(map(robustness._surely_worse, differences)) for differences in (held, better)]
    text = " ".join(PAGE.split())
    assert f"It surely does in {len(worse)} cells of {len(stable)}. But in " + (
        f"{sum(cell.network == 'addition' for cell in worse)} of them") in text
    assert "surely worse in {} cells, which is less than chance, and surely better in {}.".format(
        *counts) in text
    assert {len(differences) for differences in held} == {len(robustness.SEEDS)}
