"""Corrections of InfoNCE's scores that differ from one direction to the other: margins, false negatives, frequencies."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain._engine._blocks import Rows
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain._engine._pairs import paired_cosines
from rvtrain.losses._arguments import Pairs
from rvtrain.losses._contrast import Contrast


class Masks:
    """What the sweep is told about the own scores and the columns, for a side and its columns.

    Parameters
    ----------
    contrast : Contrast
    temperature, hardness, margin, false_negative_margin : float
        Those of `InfoNCELoss`.
    guide : dict of Rows by the names of inputs, optional
    log_q : array, optional
        Of the negatives, or in-batch of the positives.
    """

    def __init__(
        self,
        contrast: Contrast,
        temperature: float,
        hardness: float,
        margin: float,
        false_negative_margin: float | None,
        guide: dict[str, Rows] | None,
        log_q: np.ndarray | None,
    ) -> None:
        self._contrast, self._temperature, self._hardness = contrast, temperature, hardness
        self._guide, self._log_q = guide, log_q
        own = contrast.own
        self._own = own._replace(scores=own.scores - margin) if margin else own
        self._limits: np.ndarray | None = None
        if guide is not None:
            self._limits = _own_cosines(guide["anchors"], guide["positives"]) - (false_negative_margin or 0.0)
        elif false_negative_margin is not None:
            self._limits = own.scores + false_negative_margin

    @property
    def differ(self) -> bool:
        """Whether a pair may count in one direction and not, or otherwise, in the other."""
        return self._limits is not None or self._log_q is not None

    def of(self, rows: str, columns: tuple[str, ...]) -> dict[str, Any]:
        """Keyword arguments of `Contrast.one_sided` for the rows of an input against those of others."""
        options: dict[str, Any] = {"own": self._own}
        if self._guide is not None:
            parts = [self._guide[name] for name in columns]
            joined = Rows(*(np.concatenate(x) for x in zip(*parts, strict=True)))
            options["guide"] = self._guide[rows], joined, self._limits
        elif self._limits is not None:
            options["limits"] = self._limits
        corrected = "positives" if self._contrast.pairs.negatives is None else "negatives"
        if self._log_q is not None and rows == "anchors" and corrected in columns:
            options["bias"] = np.concatenate([self._bias(name, corrected) for name in columns])
            if corrected == "positives":
                scores = self._own.scores - self._temperature * self._log_q
                options["own"] = self._own._replace(scores=scores)
        return options

    def _bias(self, name: str, corrected: str) -> np.ndarray:
        """−log q in units of scores for the rows of an input, 0 where they are not corrected."""
        if name == corrected:
            assert self._log_q is not None
            return -self._log_q / (1.0 / self._temperature + self._hardness)
        return np.zeros(len(self._contrast.rows(name).x))


def parse_guide(guide: Any, pairs: Pairs) -> dict[str, Rows] | None:
    """The guide's vectors, by the input whose rows they stand for, in the type of the scores."""
    if guide is None:
        return None
    names = ("anchors", "positives") if pairs.negatives is None else ("anchors", "positives", "negatives")
    if not isinstance(guide, (tuple, list)) or len(guide) != len(names):
        raise ValueError(f"guide must be a tuple ({', '.join(names)}) of vectors, got {_shape(guide)}")
    out: dict[str, Rows] = {}
    for name, value in zip(names, guide, strict=True):
        label, like = f"guide {name}", pairs.anchors if name == "anchors" else getattr(pairs, name)
        x = check.float_array(label, value, (1, 2, 3))
        x = x.reshape(-1, x.shape[-1])
        width = out["anchors"].x.shape[1] if out else x.shape[1]
        count = like.size // like.shape[-1]
        if x.shape != (count, width):
            raise ValueError(f"{label} must have shape ({count}, {width}), got {np.shape(value)}")
        x = check.readable(x, pairs.anchors.dtype)
        out[name] = Rows(x, checked_inverse_norms(label, x))
    return out


def parse_log_q(log_q: ArrayLike | None, pairs: Pairs) -> np.ndarray | None:
    """Log sampling probabilities of the negatives, in-batch of the positives, float64."""
    if log_q is None:
        return None
    shape = (len(pairs.anchors),) if pairs.negatives is None else pairs.negatives.shape[:-1]
    given = check.any_float_array("log_q", log_q)
    of = "positives" if pairs.negatives is None else "negatives"
    if pairs.single and pairs.negatives is not None and pairs.negatives.ndim == 3:
        given = np.atleast_2d(given)
    check.same_shape("log_q", given, of, shape)
    check.finite("log_q", given)
    return given.astype(np.float64).ravel()


def _own_cosines(a: Rows, b: Rows) -> np.ndarray:
    """Cosines of the rows of both, to the bit those of the sweep: a copy of a positive is no better than it."""
    out = np.empty(len(a.x), a.x.dtype)
    paired_cosines.sized(4 * a.x.size)(len(out), a, b, out)
    return out.astype(np.float64)


def _shape(value: Any) -> str:
    return f"{len(value)} of them" if isinstance(value, (tuple, list)) else type(value).__name__
