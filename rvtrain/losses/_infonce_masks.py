"""Corrections of InfoNCE's scores that differ between directions: margins, false negatives, frequencies."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain._engine._blocks import CHUNK, FINE_CHUNK, Rows
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain._engine._pairs import paired_cosines
from rvtrain._engine._treatment import Own
from rvtrain.losses import _contrast_kernels as kernels
from rvtrain.losses._arguments import Pairs
from rvtrain.losses._contrast import Contrast


class Masks:
    """Keyword arguments of `Contrast.one_sided` that depend on the side and on its columns.

    Parameters
    ----------
    contrast : Contrast
    temperature, hardness, margin, false_negative_margin : float
        Parameters of `InfoNCELoss`.
    guide : dict of Rows by the names of inputs, optional
    log_q : array, optional
        Log sampling probabilities of the negatives or, in-batch, of the positives.
    bounded : bool
        The argument `bounded` of the sweep that follows, which decides how scores are rounded.
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
        bounded: bool,
    ) -> None:
        self._contrast, self._temperature, self._hardness = contrast, temperature, hardness
        self._guide, self._log_q, self._margin = guide, log_q, margin
        self._corrected = "positives" if contrast.pairs.negatives is None else "negatives"
        self._limits: np.ndarray | None = None
        if guide is not None:
            own = _own_scores(contrast, guide["anchors"], guide["positives"], True, CHUNK)
            self._limits = own - (false_negative_margin or 0.0)
        elif false_negative_margin is not None:
            chunk = CHUNK if bounded else FINE_CHUNK
            own = _own_scores(contrast, contrast.anchors, contrast.positives, contrast.normalised, chunk)
            self._limits = own + false_negative_margin

    @property
    def differ(self) -> bool:
        """Whether a pair may count in one direction and not in the other, or with another score."""
        return self._limits is not None or self._log_q is not None

    def own(self, documents: bool) -> Own:
        """Own scores minus the margin; in-batch corrected like the columns if the columns are documents."""
        own = self._contrast.own
        scores = own.scores - self._margin if self._margin else own.scores
        if self._log_q is not None and documents and self._corrected == "positives":
            scores = scores - self._temperature * self._log_q
        return own._replace(scores=scores)

    def of(self, rows: str, columns: tuple[str, ...]) -> dict[str, Any]:
        """Limits, guide and bias for the rows of one input and the columns of others."""
        options: dict[str, Any] = {}
        if self._guide is not None:
            parts = [self._guide_of_all(name) for name in columns]
            joined = Rows(*(np.concatenate(x) for x in zip(*parts, strict=True)))
            options["guide"] = self._guide[rows], joined, self._limits
        elif self._limits is not None:
            options["limits"] = self._limits
        if self._log_q is not None and self._corrected in columns:
            options["bias"] = np.concatenate([self._bias(name) for name in columns])
        return options

    def _bias(self, name: str) -> np.ndarray:
        """−log q in units of scores for the rows of an input; 0 if the input is not corrected."""
        if name == self._corrected:
            assert self._log_q is not None
            bias = -self._log_q / (1.0 / self._temperature + self._hardness)
            return self._contrast.everyones(bias, name)
        return np.zeros(len(self._contrast.columns(name).x))

    def _guide_of_all(self, name: str) -> Rows:
        assert self._guide is not None
        return Rows(*(self._contrast.everyones(x, name) for x in self._guide[name]))


def parse_guide(guide: Any, pairs: Pairs) -> dict[str, Rows] | None:
    """The guide's vectors by the name of their input, in the type of the scores."""
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
    """Log sampling probabilities of the negatives or, in-batch, of the positives; float64."""
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


def _own_scores(contrast: Contrast, a: Rows, b: Rows, normalised: bool, chunk: int) -> np.ndarray:
    """Scores of row i of a with row i of b, rounded as in the sweep: a copy of a positive has the same score."""
    out = np.empty((len(a.x), 1), contrast.dtype)
    if contrast.own_negatives:
        indices, unused = np.empty((0, 1), np.int64), np.empty(out.shape)
        kernels.gathered_scores.sized(4 * a.x.size)(len(out), a, b.x, indices, normalised, out, unused)
    else:
        paired_cosines.sized(4 * a.x.size)(len(out), a, b, chunk, out[:, 0])
    return out[:, 0].astype(np.float64)


def _shape(value: Any) -> str:
    return f"{len(value)} of them" if isinstance(value, (tuple, list)) else type(value).__name__
