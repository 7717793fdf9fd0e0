"""MultiSimilarityLoss: its parameters; the rest is in test_labelled.py."""

import numpy as np
import pytest
import reference_losses
from conftest import TOLERANCE, relative_error

import rvtrain as rt


@pytest.mark.parametrize(
    ("alpha", "beta", "base"),
    [(2.0, 50.0, 0.5), (1e-3, 1e-3, 0.0), (2.0, 50.0, -1.0), (2.0, 50.0, 1.0), (350.0, 700.0, 0.0), (50.0, 1e4, 1.0)],
)
def test_parameters__at_the_edges_of_their_ranges(alpha, beta, base, dtype, rng):
    x, labels = rng.normal(size=(23, 6)).astype(dtype), rng.integers(0, 5, 23)
    x[1], x[2] = x[0], -x[0]  # cosines of 1 and −1
    labels[:3] = 0
    for changed in (labels, np.where(np.arange(23) < 2, np.arange(23), labels)):
        values, gradient = rt.MultiSimilarityLoss(alpha, beta, base, "none").compute_with_gradients(x, changed)
        expected = reference_losses.multi_similarity(x, changed, alpha, beta, base)
        assert relative_error(values, expected) < TOLERANCE[dtype]
        assert values.dtype == gradient.dtype == dtype
        assert np.isfinite(gradient).all()


def test_value__of_few_rows_by_hand():
    """A row and its copy add log(1 + e^{−α(1 − λ)})/α, one other row at right angles log(1 + e^{−βλ})/β."""
    x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    values = rt.MultiSimilarityLoss(2.0, 10.0, 0.5, "none").compute(x, [0, 0, 1])
    near, far = np.log1p(np.exp(-1.0)) / 2, np.log1p(np.exp(-5.0)) / 10
    np.testing.assert_allclose(values, [near + far, near + far, np.log1p(2 * np.exp(-5.0)) / 10], rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": 500.0, "base": 0.5}, "alpha"),
        ({"beta": 0.0}, "beta"),
        ({"beta": 1500.0, "base": 0.5}, "beta"),
        ({"beta": np.inf}, "beta"),
        ({"base": 1.5}, "base"),
        ({"base": np.nan}, "base"),
    ],
)
def test_constructor__refuses_bad_parameters_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        rt.MultiSimilarityLoss(**options)
