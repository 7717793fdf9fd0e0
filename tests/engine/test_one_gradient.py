"""A gradient asked for alone is the gradient asked for with others, also where columns come in several blocks."""

import numpy as np
import pytest

import rvtrain as rt
from rvtrain._engine._layout import Layout


@pytest.mark.parametrize("loss", [rt.InfoNCELoss(0.1), rt.InfoNCELoss(0.001), rt.SigmoidLoss()])
@pytest.mark.parametrize("pool", [False, True])
def test_gradient_to_the_anchors__alone(rng, loss, pool):
    dim, count = 384, 300
    assert count > Layout(dim, np.dtype(np.float32)).block * Layout(dim, np.dtype(np.float32)).nr
    x = rng.normal(size=(3, count, dim)).astype(np.float32)
    arguments = tuple(x) if pool else tuple(x[:2])
    alone = loss.compute_with_gradients(*arguments, wrt="anchors")[1]
    together = loss.compute_with_gradients(*arguments, wrt=("anchors", "negatives" if pool else "positives"))[1][0]
    np.testing.assert_allclose(alone, together, atol=1e-6 * abs(together).max())
