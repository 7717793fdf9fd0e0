"""Losses on pairs and their negatives, with their oracles: one table for the tests that all of them share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import reference_losses as reference
from conftest import TOLERANCE

import rvtrain as rt

PLACES = ["in_batch", "pool", "own", "gathered"]
SHAPES = [(1, 3), (5, 4), (70, 9), (17, 100), (101, 31)]
GRID = [(shape, 0) for shape in SHAPES] + [((5, 4), 1), ((70, 9), 1), ((70, 9), 3)]
"""Shapes (B, d), and how many ids a column has."""


@dataclass(frozen=True)
class Case:
    """A call, and how an oracle sees it."""

    args: tuple[np.ndarray, ...]
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    negatives: np.ndarray | None = None
    """None, (N, d) or (B, N, d)"""
    equal: np.ndarray | None = None
    """(B, N) bool: row and column share an id"""
    absent: np.ndarray | None = None
    """(B, N) bool: the index is −1"""

    @property
    def names(self) -> tuple[str, ...]:
        """Inputs that there are."""
        return ("anchors", "positives", "negatives")[: len(self.args)]

    @property
    def masked(self) -> np.ndarray | None:
        """(B, N) bool: no negative of the row."""
        parts = [x for x in (self.equal, self.absent) if x is not None]
        return np.logical_or.reduce(parts) if parts else None


def make_case(place, batch, dim, dtype, rng, ids=0):
    """Random pairs with negatives of that place; with `ids`, of so many ids a column (own negatives have one)."""
    anchors = rng.normal(size=(batch, dim)).astype(dtype)
    positives = (anchors + rng.normal(size=(batch, dim))).astype(dtype)
    args, extra, negatives, absent = (anchors, positives), {}, None, None
    if place == "pool":
        negatives = rng.normal(size=(2 * batch + 1, dim)).astype(dtype)
        args = (*args, negatives)
    elif place == "own":
        negatives = rng.normal(size=(batch, 3, dim)).astype(dtype)
        args = (*args, negatives)
    elif place == "gathered":
        pool, indices = rng.normal(size=(batch + 2, dim)).astype(dtype), rng.integers(-1, batch + 2, (batch, 4))
        args, extra = (*args, pool), {"negative_indices": indices}
        negatives, absent = pool[indices], indices < 0
    equal = None
    if ids:
        anchor_ids, positive_ids = rng.integers(0, 2 + batch // 3, (2, batch))
        extra |= {"anchor_ids": anchor_ids, "positive_ids": positive_ids}
        row_ids = column_ids = np.stack([anchor_ids, positive_ids], axis=1)
        if len(args) == 3:
            shape = args[2].shape[:-1] + ((ids,) if ids > 1 and place != "own" else ())
            extra["negative_ids"] = given = rng.integers(0, 2 + batch // 3, shape)
            given = given if given.ndim > args[2].ndim - 1 else given[..., np.newaxis]
            column_ids = given[extra["negative_indices"]] if place == "gathered" else given
        columns = column_ids if column_ids.ndim == 3 else column_ids[np.newaxis]
        equal = (row_ids[:, np.newaxis, :, np.newaxis] == columns[:, :, np.newaxis, :]).any((2, 3))
        if place == "in_batch":
            np.fill_diagonal(equal, False)
        if absent is not None:
            equal &= ~absent
    return Case(args, extra, negatives, equal, absent)


@dataclass(frozen=True)
class Entry:
    """A loss, its oracle, and its formula in torch."""

    make: Callable[..., Any]
    """Of (reduction, **parameters)"""
    oracle: Callable[..., np.ndarray]
    """Of (case, **parameters): losses of the rows"""
    torch: Callable[..., Any]
    """Of (torch, cosines of the positives (B,), cosines of the negatives (B, N), case, keep (B, N), **parameters)"""
    parameters: dict[str, float]
    """Those that have a gradient."""
    knows_ids: bool = False
    """Pairs with equal ids are positives; elsewhere they do not count."""

    @property
    def learned(self) -> tuple[str, ...]:
        """Names for `wrt`."""
        return tuple(self.parameters)


def _infonce(torch, own, others, case, keep, temperature):
    inside = (others / temperature).masked_fill(~keep, -torch.inf).logsumexp(1)
    return torch.logaddexp(torch.zeros_like(own), inside - own / temperature)


def _decoupled(torch, own, others, case, keep, temperature):
    filled = (others / temperature).masked_fill(~keep, -torch.inf)
    some = keep.any(1)
    inside = torch.where(some[:, None], filled, torch.zeros_like(filled)).logsumexp(1)
    return torch.where(some, inside - own / temperature, torch.zeros_like(own))


def _hard_negative(beta, tau_plus, temperature):
    def formula(torch, own, others, case, keep):
        count = keep.sum(1).double()
        s, p = others / temperature, own / temperature
        top = torch.maximum(s.detach().masked_fill(~keep, -torch.inf).amax(1), p.detach())
        both = torch.where(keep, ((1 + beta) * (s - top[:, None])).exp(), 0.0).sum(1)
        weights = torch.where(keep, (beta * (s - top[:, None])).exp(), 0.0).sum(1)
        r = count * both / torch.where(count > 0, weights, 1.0)
        floor = count * torch.exp(-1 / temperature - top)
        g = torch.maximum((r - count * tau_plus * (p - top).exp()) / (1 - tau_plus), floor)
        return torch.where(count > 0, torch.log1p(g * (top - p).exp()), 0.0)

    return formula


def _sigmoid(torch, own, others, case, keep, scale, bias):
    sign = -torch.ones_like(others) if case.equal is None else torch.tensor(np.where(case.equal, 1.0, -1.0))
    terms = torch.nn.functional.logsigmoid(sign * (scale * others + bias))
    return -torch.nn.functional.logsigmoid(scale * own + bias) - torch.where(keep, terms, 0.0).sum(1)


def _softmax_oracle(function):
    return lambda case, **options: function(*case.args[:2], case.negatives, masked=case.masked, **options)


def _infonce_oracle(case, temperature):
    masks = {"batch_masked" if case.negatives is None else "masked": case.masked}
    directions = ("query_to_document",) if case.negatives is None else ()
    return reference.infonce(*case.args[:2], case.negatives, temperature, directions=directions, **masks)


def _hard(temperature, beta, tau_plus):
    options = {"temperature": temperature, "beta": beta, "tau_plus": tau_plus}
    return Entry(
        lambda reduction: rt.HardNegativeContrastiveLoss(**options, reduction=reduction),
        lambda case: _softmax_oracle(reference.hard_negative)(case, **options),
        _hard_negative(beta, tau_plus, temperature),
        {},
    )


LOSSES = {
    "InfoNCE": Entry(
        lambda reduction, temperature: rt.InfoNCELoss(temperature, reduction),
        _infonce_oracle,
        _infonce,
        {"temperature": 0.1},
    ),
    "decoupled": Entry(
        lambda reduction, temperature: rt.DecoupledContrastiveLoss(temperature, reduction),
        _softmax_oracle(reference.decoupled),
        _decoupled,
        {"temperature": 0.1},
    ),
    "hard negative": _hard(0.5, 1.0, 0.1),
    "debiased": _hard(0.5, 0.0, 0.2),
    "hard negative, cold": _hard(0.05, 2.0, 0.01),
    "sigmoid": Entry(
        lambda reduction, scale, bias: rt.SigmoidLoss(scale, bias, reduction),
        lambda case, scale, bias: reference.sigmoid(
            *case.args[:2], case.negatives, scale, bias, case.equal, case.absent
        ),
        _sigmoid,
        {"scale": 10.0, "bias": -3.0},
        knows_ids=True,
    ),
}


def torch_cosines(torch, place, tensors, case):
    """Cosines of the positives (B,) and of the negatives (B, N) of a case, and which negatives there are."""
    a, p, *n = [torch.nn.functional.normalize(x, dim=-1, eps=1e-8) for x in tensors]
    if place == "in_batch":
        others = a @ p.T
    elif place == "pool":
        others = a @ n[0].T
    else:
        own = n[0][torch.tensor(case.extra["negative_indices"])] if place == "gathered" else n[0]
        others = torch.einsum("bd,bkd->bk", a, own)
    keep = torch.ones(others.shape, dtype=torch.bool)
    if place == "in_batch":
        keep = ~torch.eye(len(a), dtype=torch.bool)
    return (a * p).sum(-1), others, keep


def check_difference(values, expected, dtype):
    """Values of a loss that is a difference of log-sum-exps of size 1: right to rounding of these."""
    assert np.shape(values) == np.shape(expected)
    assert np.abs(values - expected).max() < TOLERANCE[dtype] * max(np.abs(expected).max(), 1.0)


def check_gradient(name, gradient, expected, dtype, tolerance=None, of_size=0.0):
    """A gradient against the right one; what float32 cannot tell from zero counts as zero.

    of_size is that of sums whose difference the gradient is.
    """
    tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
    expected = np.asarray(expected, np.float64)
    assert np.shape(gradient) == expected.shape, name
    smallest = max(np.finfo(dtype).tiny / tolerance, of_size)
    error = np.abs(gradient - expected).max()
    assert error < tolerance * max(np.abs(expected).max(), smallest), (name, error / np.abs(expected).max())
