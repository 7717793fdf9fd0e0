"""Scores of pairs against their negatives, for any treatment, and the gradients of the inputs.

# Design: `Contrast` measures the pairs once, and has a method for each form of negatives. A method passes unit rows,
# a mask and the own scores to the engine, and collects sums by the name of an input. `gradients` computes the
# gradients of the inputs from these sums and from the slopes of the own scores:
#
#     in-batch, pool ──▶ sweep ─────────┐
#     symmetric ───────▶ both_ways ─────┼─▶ sums of "anchors", "positives", "negatives" ──▶ to_inputs ──▶ gradients
#     own, by index ───▶ contrast_rows ─┘                         slopes of the own scores ──▲
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from rvtrain._engine._blocks import Rows
from rvtrain._engine._inputs import to_inputs
from rvtrain._engine._mask import Mask, count_scores
from rvtrain._engine._norms import checked_inverse_norms, measured_pairs
from rvtrain._engine._scratch import Scratch
from rvtrain._engine._sweep import masked, sweep
from rvtrain._engine._sweep_kernels import NO_SHARES
from rvtrain._engine._treatment import Own, Results
from rvtrain._errors import NotFiniteError
from rvtrain.distributed._sweep import sweep_of_ranks
from rvtrain.losses import _contrast_kernels as kernels
from rvtrain.losses._arguments import Pairs, inverse_index
from rvtrain.losses._euclidean import facing

INPUTS = frozenset(("anchors", "positives", "negatives"))


@dataclass
class Outcome:
    """Results of the rows, and for each input, by name, the weighted sums that make its gradient.

    A sum comes with the shares by which its rows have to be multiplied, or none. Sums of a sweep are scratch.
    """

    losses: np.ndarray
    slopes: np.ndarray
    second: np.ndarray
    sums: dict[str, tuple[np.ndarray, np.ndarray]]
    along: float | None = None
    """Σ of score · dL/dscore, if known; else it is computed from the gradient to the anchors, as every score is
    linear in its unit anchor."""


class Contrast:
    """The measured pairs of one call.

    Parameters
    ----------
    pairs : Pairs
    weights : array of shape (B,), float64
        Weight of each row's loss in the total.
    names : tuple of str
        Inputs whose gradients are wanted, and "temperature" or "scale", which also need the sums to the anchors.
    scratch : Scratch
    similarity : {"cosine", "dot", "euclidean"}
        With "euclidean", the pairs are augmented: see `_euclidean.py`.
    precision : {"highest", "high", "medium"}, optional
        Of the products of a sweep; None: that of `set_float32_precision`.
    """

    def __init__(
        self,
        pairs: Pairs,
        weights: np.ndarray,
        names: tuple[str, ...],
        scratch: Scratch,
        similarity: str = "cosine",
        precision: str | None = None,
    ) -> None:
        self.pairs, self.names, self.scratch, self.precision = pairs, names, scratch, precision
        self.normalised, self.euclidean = similarity == "cosine", similarity == "euclidean"
        self.dtype = pairs.anchors.dtype
        a, p = pairs.anchors, pairs.positives
        inverse_a, inverse_p, self.scores = measured_pairs("anchors", a, "positives", p)
        if not self.normalised:
            inverse_a[:] = inverse_p[:] = 1.0
            self.scores = -0.5 * _squared_distances(a[:, :-2], p[:, :-2]) if self.euclidean else _dots(a, p)
        self.anchors, self.positives = Rows(a, inverse_a), Rows(p, inverse_p)
        self.own = Own(self.scores, weights, np.empty(0), np.empty(0))
        self.batch = pairs.batch
        self._whole: dict[str, Rows] = {}
        if self.batch is not None and pairs.negatives is not None and pairs.negatives.ndim == 2:
            self.pool  # noqa: B018 — measured before the first exchange, because it may raise

    @property
    def own_negatives(self) -> bool:
        """Whether each anchor has its own negatives, (B, N, d) or by index."""
        pairs = self.pairs
        return pairs.negatives is not None and (pairs.negatives.ndim == 3 or pairs.indices is not None)

    def wants(self, name: str) -> bool:
        """Whether sums to this input are needed."""
        return name in self.names or (name == "anchors" and not {"temperature", "scale"}.isdisjoint(self.names))

    def evaluate(self, treatment: Any, bounded: bool, **mask: Any) -> Outcome:
        """The treatment's losses over the negatives of the pairs, for every form of negatives.

        bounded is an argument of `sweep`; mask holds limits, bias and guide, arguments of `masked` and `sweep`.
        """
        if self.own_negatives:
            return self.gathered(treatment, **mask)
        columns = "positives" if self.pairs.negatives is None else "negatives"
        return self.one_sided(treatment, bounded, "anchors", columns, **mask)

    def rows(self, name: str) -> Rows:
        """The rows of an input."""
        if name == "anchors":
            return self.anchors
        if name == "positives":
            return self.positives
        return self.pool

    @functools.cached_property
    def pool(self) -> Rows:
        """The negatives (N, d) that all rows share."""
        negatives = self.pairs.negatives
        assert negatives is not None
        inverse = checked_inverse_norms("negatives", negatives)
        return Rows(negatives, inverse if self.normalised else np.ones(len(inverse)))

    def _alike(self, name: str, rows: str) -> bool:
        """Whether augmented columns have the same form as the rows, so that they have to be turned into the other."""
        return self.euclidean and (name == "anchors") == (rows == "anchors")

    def columns(self, name: str) -> Rows:
        """The rows of an input as columns of scores: with a communicator, those of all ranks."""
        if self.batch is None:
            return self.rows(name)
        if name not in self._whole:
            self._whole[name] = self.batch.whole_rows(self.rows(name), name)
        return self._whole[name]

    def everyones(self, x: np.ndarray, name: str) -> np.ndarray:
        """What belongs to each row of an input, of all ranks that share the batch."""
        return x if self.batch is None else self.batch.whole(x, name)

    def whole(self, outcome: Outcome) -> Outcome:
        """The results of the rows of all ranks, without the sums."""
        if self.batch is None:
            return outcome
        losses, slopes, second = (self.batch.whole(x) for x in (outcome.losses, outcome.slopes, outcome.second))
        return Outcome(losses, slopes, second, {}, outcome.along)

    def total(self, x: np.ndarray) -> float:
        """The sum over the rows of the batch, of one number each."""
        return float(x.sum()) if self.batch is None else self.batch.total(x)

    def counts(self, names: tuple[str, ...]) -> list[np.ndarray]:
        """Number of rows of each of these inputs on each rank."""
        assert self.batch is not None
        return [self.batch.counts(name) for name in names]

    def _facing(self, name: str, rows: str) -> Rows:
        found = self.columns(name)
        return Rows(facing(found.x), found.inverse) if self._alike(name, rows) else found

    def mask(self, names: tuple[str, ...], limits: Any = None, bias: Any = None) -> Mask:
        """The mask over the concatenated columns of these inputs: own positives and equal ids are masked."""
        ids, diagonals, count, start = [], [], 0, 0
        first = 0 if self.batch is None else self.batch.offset
        for name in names:
            if name != "negatives":
                diagonals.append(count + first)
            else:
                start = count
            mine = self.pairs.column_ids if name == "negatives" else self.pairs.row_ids
            ids.append(self.everyones(mine, name))
            count += len(ids[-1])
        column_ids = ids[0] if len(ids) == 1 else _stacked(ids, self.pairs.row_ids)
        mask = masked(
            len(self.anchors.x),
            count,
            self.dtype,
            diagonals=diagonals,
            row_ids=self.pairs.row_ids,
            column_ids=column_ids,
            limits=limits,
            bias=bias,
        )
        excluded = self.pairs.excluded
        if excluded is None or "negatives" not in names:
            return mask
        return mask._replace(bounds=excluded.bounds, excluded=excluded.columns + np.int32(start))

    def one_sided(
        self,
        treatment: Any,
        bounded: bool,
        rows: str,
        *columns: str,
        own: Own | None = None,
        limits: Any = None,
        bias: Any = None,
        guide: Any = None,
        gradients: bool = True,
        along: bool = False,
    ) -> Outcome:
        """Score each row of an input against all rows of one or several inputs.

        With `along`, the outcome's Σ of score · dL/dscore is the sum over these columns.
        """
        parts = [self._facing(name, rows) for name in columns]
        joined = parts[0]
        if len(parts) > 1:
            joined = Rows(np.concatenate([p.x for p in parts]), np.concatenate([p.inverse for p in parts]))
        mask, own = self.mask(columns, limits, bias), self.own if own is None else own
        if getattr(treatment, "COUNTS", False):
            own = own._replace(counts=count_scores(mask))
        run = sweep if self.batch is None else functools.partial(sweep_of_ranks, self.batch, self.counts(columns))
        result = run(
            self.rows(rows),
            joined,
            treatment,
            mask,
            own,
            self.scratch,
            guide=guide,
            bounded=bounded,
            to_rows=gradients and (along or self.wants(rows)),
            to_columns=gradients and any(self.wants(name) for name in columns),
            precision=self.precision,
        )
        sums: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        if result.to_columns is not None:
            start = 0
            for name in columns:
                count, dim = self.rows(name).x.shape
                if self.wants(name):
                    mine = result.to_columns[start : start + count]
                    sums[name] = facing(mine[:, :dim]) if self._alike(name, rows) else mine, NO_SHARES
                start += count
        total = None
        if result.to_rows is not None:
            here = result.to_rows[: len(self.anchors.x)], result.shares
            if along:
                x, inverse = self.rows(rows)
                each = np.einsum("ij,ij->i", here[0][:, : x.shape[1]], x, dtype=np.float64) * inverse
                total = self.total(each * here[1] if len(here[1]) else each)
            sums[rows] = added([here, sums[rows]]) if rows in sums else here
        return Outcome(result.losses, result.slopes, result.second, sums, total)

    def gathered(
        self, treatment: Any, own: Own | None = None, limits: Any = None, bias: Any = None, guide: Any = None
    ) -> Outcome:
        """Score each anchor against its own negatives; the outcome's sum of "negatives" is already the gradient."""
        pairs = self.pairs
        assert pairs.negatives is not None
        dim = pairs.anchors.shape[1]
        pool = pairs.negatives.reshape(-1, dim)
        in_order = pairs.indices is None
        shape = pairs.negatives.shape[:2] if in_order else pairs.indices.shape  # type: ignore[union-attr]
        indices = np.empty((0, shape[1]), np.int64) if pairs.indices is None else pairs.indices
        work = 4 * shape[0] * shape[1] * dim
        scores, lengths = np.empty(shape, self.dtype), np.empty(shape)
        kernels.gathered_scores.sized(work)(
            len(scores), self.anchors, pool, indices, self.normalised, scores, lengths
        )
        if np.isnan(lengths.sum()):
            bad = np.argwhere(np.isnan(lengths))[0]
            row = bad[0] * shape[1] + bad[1] if in_order else indices[tuple(bad)]
            raise NotFiniteError(f"negatives must be finite, got a NaN or an infinity in row {row}")
        equal = self._mask_gathered(treatment, scores, indices, limits, bias, guide)
        results = Results(*np.empty((4, len(scores))))
        own = self.own if own is None else own
        if getattr(treatment, "COUNTS", False):
            own = own._replace(counts=(scores > -np.inf).sum(axis=1).astype(np.float64))
        kernels.contrast_rows.sized(20 * scores.size)(len(scores), treatment, scores, equal, own, results)
        sums = {}
        if self.wants("anchors"):
            to_anchors = np.empty_like(pairs.anchors)
            kernels.gathered_row_sums.sized(work)(len(scores), scores, pool, indices, lengths, to_anchors)
            sums["anchors"] = to_anchors, NO_SHARES
        if "negatives" in self.names:
            gradient = np.zeros_like(pool)
            if in_order:
                kernels.own_gradient.sized(work)(len(scores), scores, self.anchors, pool, self.normalised, gradient)
            else:
                order, bounds, named = inverse_index(indices)
                kernels.gathered_gradient.sized(work)(
                    len(named), scores, self.anchors, pool, order, bounds, named, self.normalised, gradient
                )
            sums["negatives"] = gradient.reshape(pairs.negatives.shape), NO_SHARES
        return Outcome(results.losses, results.slopes, results.second, sums)

    def _mask_gathered(
        self, treatment: Any, scores: np.ndarray, indices: np.ndarray, limits: Any, bias: Any, guide: Any
    ) -> np.ndarray:
        """Mask own negatives in place, as the sweep does; returns the pairs that share an id, if EQUAL."""
        pairs, of_pool = (
            self.pairs,
            (lambda x: x[indices] if len(indices) else x.reshape(*scores.shape, *x.shape[1:])),
        )
        if limits is not None:
            scores[scores > limits[:, np.newaxis]] = -np.inf
        if guide is not None:
            judged, unused = np.empty_like(scores), np.empty(scores.shape)
            rows, columns, most = guide
            kernels.gathered_scores(len(scores), rows, columns.x, indices, True, judged, unused)
            scores[judged > most[:, np.newaxis]] = -np.inf
        if bias is not None:
            scores += of_pool(bias).astype(scores.dtype)
        ids = pairs.column_ids.reshape(pairs.negatives.size // pairs.negatives.shape[-1], -1)  # type: ignore[union-attr]
        if pairs.row_ids.size and ids.size:
            same = pairs.row_ids[:, np.newaxis, :, np.newaxis] == of_pool(ids)[:, :, np.newaxis, :]
            if type(treatment).EQUAL:
                return same.any(axis=(2, 3)) & (scores > -np.inf)  # index −1 has read the ids of the last row
            scores[same.any(axis=(2, 3))] = -np.inf
        return np.zeros(scores.shape, np.bool_) if type(treatment).EQUAL else np.empty((len(scores), 0), np.bool_)

    def gradients(self, outcome: Outcome) -> tuple[dict[str, np.ndarray], float]:
        """The wanted gradients of the inputs, and Σ of score · dL/dscore if a gradient to a parameter is wanted."""
        out, along = {}, NO_SHARES
        for name, other in (("anchors", self.positives), ("positives", self.anchors)):
            if self.wants(name):
                sums, shares = outcome.sums.get(name, (None, NO_SHARES))
                mine = self.rows(name)
                out[name], each = to_inputs(sums, mine, outcome.slopes, other, shares, self.normalised)
                along = each if name == "anchors" else along
        if "negatives" in self.names and "negatives" in outcome.sums:
            sums, _ = outcome.sums["negatives"]
            negatives = self.pairs.negatives
            assert negatives is not None
            if negatives.ndim == 2 and self.pairs.indices is None:
                pool, zeros = self.pool, np.zeros(len(negatives))
                sums, _ = to_inputs(sums, pool, zeros, pool, NO_SHARES, self.normalised)
            out["negatives"] = sums
        if outcome.along is not None:
            return out, outcome.along
        if INPUTS.issuperset(self.names):
            return out, 0.0  # nothing needs it
        return out, self.total(along)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    difference = np.subtract(a, b, dtype=np.float64)
    return _dots(difference, difference)


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", a, b, dtype=np.float64)


def added(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The sum of several sums, each times its shares if it has some, without their padding, which differs."""
    width = min(sums.shape[1] for sums, _ in parts)
    cut = [(sums[:, :width], shares) for sums, shares in parts]
    total = sum(sums * shares[:, np.newaxis] if len(shares) else sums for sums, shares in cut)
    return np.asarray(total), NO_SHARES


def _stacked(ids: list[np.ndarray], row_ids: np.ndarray) -> np.ndarray:
    """Ids of all columns, with equal counts: the last id is repeated; columns without ids get one that no row has."""
    width = max(i.shape[1] for i in ids)
    if width == 0:
        return np.concatenate(ids)
    unused = np.setdiff1d(np.arange(row_ids.size + 1), row_ids)[0]
    filled = [i if i.shape[1] else np.full((len(i), 1), unused) for i in ids]
    return np.concatenate([i[:, np.minimum(np.arange(width), i.shape[1] - 1)] for i in filled])
