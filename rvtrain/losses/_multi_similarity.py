"""Multi-similarity loss: soft maxima over the positives and over the negatives of a row."""

from typing import NamedTuple

import numpy as np

from rvtrain import _validation as check
from rvtrain._engine._blocks import Rows
from rvtrain._engine._exp import LOG2_E, exp2
from rvtrain._engine._inputs import to_inputs
from rvtrain._engine._scratch import Scratch
from rvtrain._engine._sweep import masked, sweep
from rvtrain._engine._treatment import Own, close, implements, visit, weigh
from rvtrain.losses._labelled import LabelledLoss, mean_weights

_FLOAT32 = 80.0  # exponents that float32 holds
_FLOAT64 = 700.0


class MultiSimilarity(NamedTuple):
    """e^{β(s − λ)} of negatives, kept unchanged, and e^{−α(s − λ)} of positives, kept with a minus sign."""

    pull: np.floating
    """−α / ln 2, of the type of the scores"""
    push: np.floating
    """β / ln 2"""
    base: np.floating
    """λ"""
    alpha: float
    beta: float

    SUMS, SEPARABLE, EQUAL = 2, False, True  # type: ignore[misc]


@implements(visit, MultiSimilarity)
def _visit(t, s, shift, equal):
    e = exp2((s - t.base) * (t.pull if equal else t.push))
    nothing = e * 0
    return -e if equal else e, nothing if equal else e, e if equal else nothing


@implements(close, MultiSimilarity)
def _close(t, i, shift, total, second, own, to):
    to.losses[i] = np.log1p(second) / t.alpha + np.log1p(total) / t.beta
    to.slopes[i] = 0.0
    to.first[i] = own.weights[i] / (1.0 + total)
    to.second[i] = own.weights[i] / (1.0 + second)


@implements(weigh, MultiSimilarity)
def _weigh(t, kept, shift, first, second):
    return kept * (first if kept > 0 else second)


class MultiSimilarityLoss(LabelledLoss):
    r"""Multi-similarity loss on labelled embeddings, with analytic gradients.

    .. math:: \ell_i = \frac{1}{α} \log\Big(1 + \sum_{p} e^{-α(\cos_{ip} - λ)}\Big)
        + \frac{1}{β} \log\Big(1 + \sum_{n} e^{β(\cos_{in} - λ)}\Big)

    over the other rows p of the same label and the rows n of other labels. The mean is over all rows, as in
    pytorch-metric-learning. All pairs are in the sums; none are selected by a miner.

    Parameters
    ----------
    alpha, beta : float
        α, β > 0, with α (1 + λ) and β (1 − λ) at most 700. If one of these exceeds 80, float32 inputs are computed in
        float64.
    base : float
        λ in [−1, 1].
    reduction : {"mean", "sum", "none"}
        Over the rows; "none" gives one value each (and gradients of their sum).

    References
    ----------
    Wang, Han, Huang, Dong & Scott (2019), Multi-Similarity Loss with General Pair Weighting for Deep Metric
    Learning, arXiv:1904.06627.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> loss = rt.MultiSimilarityLoss(alpha=1.0, beta=1.0, base=0.0)
    >>> round(loss.compute(np.eye(2), [0, 1]), 6)  # log(1 + exp(0))
    0.693147
    """

    def __init__(self, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.base = check.number("base", base, low=-1.0, high=1.0)
        most = [_FLOAT64 / max(1.0 + sign * self.base, 1e-3) for sign in (1, -1)]
        self.alpha = check.number("alpha", alpha, low=0.0, high=most[0], open_low=True)
        self.beta = check.number("beta", beta, low=0.0, high=most[1], open_low=True)

    def __repr__(self) -> str:
        return (
            f"MultiSimilarityLoss(alpha={self.alpha:g}, beta={self.beta:g}, base={self.base:g}, "
            f"reduction={self.reduction!r})"
        )

    def _evaluate(
        self, rows: Rows, labels: np.ndarray, gradient: bool, memory: Scratch
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        given, n = rows.x.dtype, len(rows.x)
        if max(self.alpha * (1.0 + self.base), self.beta * (1.0 - self.base)) > _FLOAT32:
            rows = rows._replace(x=rows.x.astype(np.float64))
        real = rows.x.dtype.type
        treatment = MultiSimilarity(
            real(-self.alpha * LOG2_E), real(self.beta * LOG2_E), real(self.base), self.alpha, self.beta
        )
        weights, none = mean_weights(np.ones(n), self.reduction), np.empty(0)
        ids = labels[:, np.newaxis]
        mask = masked(n, n, rows.x.dtype, diagonals=(0,), row_ids=ids, column_ids=ids)
        own = Own(np.zeros(n), weights, none, none)
        result = sweep(rows, rows, treatment, mask, own, memory, to_rows=gradient, to_columns=gradient)
        if not gradient:
            return result.losses, weights, None
        assert result.to_rows is not None and result.to_columns is not None
        out, _ = to_inputs(result.to_rows[:n] + result.to_columns[:n], rows, result.slopes, rows)
        return result.losses, weights, out.astype(given, copy=False)
