"""The local contrastive loss if all rows have the same columns: in-batch negatives, or a pool."""

import numpy as np

from rvtrain import _validation as check
from rvtrain._engine._blocks import CHUNK, GROUP, Rows, tiles
from rvtrain._engine._layout import Layout
from rvtrain._engine._mask import Mask, count_scores
from rvtrain._engine._scratch import Scratch, scratch
from rvtrain._engine._sweep import Sums, masked, sweep
from rvtrain._errors import NotFiniteError
from rvtrain.losses import _local_pool_kernels as kernels
from rvtrain.losses._arguments import Pairs
from rvtrain.losses._local_centre_kernels import Centred, centre_all

_CANCELS = 1 / 16
"""d² / ‖a‖² below which d² is computed from differences. Above, rounding of d² grows by at most about 2 · 16."""
_SHORT = 1e-4
"""Relative to the margin, the error of a distance above which all triplets of a row are computed from differences."""
_REACHES = 1e12
"""Largest reach in scaled units, such that its square and sums of squares fit in float32."""


def evaluate(
    pairs: Pairs, margin: float, triplet: bool, weight: float, names: tuple[str, ...]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Losses of the anchors (B,), float64, and the named gradients of `weight` · Σ losses."""
    with scratch() as memory:
        return _Pool(pairs, margin, triplet, weight, names, memory).run()


class _Pool:
    """The centred and scaled rows of one call.

    Scaling keeps squares of lengths from over- and underflow. It is exact, because the scale is a power of two.
    """

    def __init__(
        self, pairs: Pairs, margin: float, triplet: bool, weight: float, names: tuple[str, ...], memory: Scratch
    ) -> None:
        self.pairs, self.triplet, self.weight, self.memory = pairs, triplet, weight, memory
        self.in_batch = pairs.negatives is None
        self.pool = pairs.positives if pairs.negatives is None else pairs.negatives
        self.to_rows = "anchors" in names
        self.to_columns = ("positives" if self.in_batch else "negatives") in names
        self.names = names
        a, x = pairs.anchors, self.pool
        found = Centred(
            np.empty(a.shape[1]),
            memory.array(a.shape, a.dtype),
            memory.array(x.shape, a.dtype),
            np.empty(len(a)),
            np.empty(len(x)),
            np.empty(len(a)),
        )
        centre_all.sized(8 * (a.size + x.size))(a, pairs.positives, x, found)
        self._check(found)
        self.near, self.margin = found.near, margin
        reach = margin + found.near if triplet else np.full(len(a), margin)
        length = max(np.sqrt(max(found.norms.max(), found.column_norms.max())), reach.max() / _REACHES)
        self.scale = float(np.ldexp(1.0, -int(np.frexp(length)[1]))) if length > 0.0 else 1.0
        self.rows = Rows(found.rows, np.full(len(a), self.scale))
        self.columns = Rows(found.columns, np.full(len(x), self.scale))
        self.reach = self.scale * reach
        self.norms, self.column_norms = (self.scale * (self.scale * n) for n in (found.norms, found.column_norms))

    def run(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Losses and gradients."""
        mask = self._mask()
        shares = 1.0 / np.maximum(count_scores(mask), 1.0)
        facts = self._facts(shares * self.weight)
        dtype = self.rows.x.dtype.type
        treatment = kernels.Hinges(dtype(self.triplet), dtype(not self.triplet), dtype(-0.0))
        done = sweep(
            self.rows,
            self.columns,
            treatment,
            mask,
            facts,
            self.memory,
            to_rows=self.to_rows,
            to_columns=self.to_columns,
        )
        hinges = done.losses / self.scale * shares
        losses = hinges if self.triplet else hinges / self.scale + self.near**2
        return losses, self._gradients(facts, shares, done) if self.names else {}

    def _mask(self) -> Mask:
        pairs, dtype = self.pairs, self.rows.x.dtype
        diagonals = (0,) if self.in_batch else ()
        count = len(self.pool)
        return masked(
            len(pairs.anchors), count, dtype, diagonals=diagonals, row_ids=pairs.row_ids, column_ids=pairs.column_ids
        )

    def _bounds(self) -> kernels.Bounds:
        dtype, dim = self.rows.x.dtype, self.rows.x.shape[1]
        info = np.finfo(dtype)
        rounding = 2.0 * float(info.eps) * (min(dim, CHUNK) + tiles(dim, CHUNK) + 8)  # bound for a dot product
        floor = 1e-30 if dtype == np.float32 else 1e-290  # far above numbers that underflow
        error = rounding * (np.sqrt(self.norms) + self.reach) ** 2 + floor
        square = self.reach**2
        within = square - error if self.triplet else np.full(len(square), np.inf)
        cancels = np.maximum(_CANCELS * self.norms, floor)
        if self.triplet:  # reach − d also cancels if both are large beside the margin
            spread = (np.sqrt(self.norms) + self.reach) ** 2
            cancels[float(info.eps) * spread > _SHORT * self.scale * self.margin * self.reach] = np.inf
        return kernels.Bounds(*(x.astype(dtype) for x in (self.norms, self.reach, cancels, square + error, within)))

    def _facts(self, shares: np.ndarray) -> kernels.Facts:
        anchors, pool = self.pairs.anchors, self.pool
        (count, dim), dtype = anchors.shape, anchors.dtype
        layout = Layout(dim, dtype)
        panels, padded = layout.panels(len(pool)), layout.padded(len(pool))
        column_norms = np.zeros(padded, dtype)
        column_norms[: len(pool)] = self.column_norms
        return kernels.Facts(
            anchors,
            pool,
            self.scale,
            self._bounds(),
            column_norms,
            self.reach,
            shares,
            self.memory.array((tiles(count, GROUP), layout.mr, 4, layout.nr), dtype),
            self.memory.array((panels if self.to_columns else 0, 2, layout.nr), dtype),
            np.zeros((3, count)),
            np.zeros(padded),
            np.zeros((count if self.to_rows else 0, dim)),  # takes no memory until it is written
            np.zeros((len(pool) if self.to_columns else 0, dim)),
            np.zeros((2, max(count, len(pool))), np.bool_),
        )

    def _gradients(self, facts: kernels.Facts, shares: np.ndarray, done: Sums) -> dict[str, np.ndarray]:
        pairs, factor = self.pairs, 1.0 if self.triplet else 2.0 / self.scale
        count, dim = pairs.anchors.shape
        none = np.empty((0, dim), pairs.anchors.dtype)
        pulls = np.full(count, 2.0 * self.weight)
        if self.triplet:
            active = done.slopes * (shares * self.weight)
            pulls = np.divide(active, self.near, out=np.zeros(count), where=self.near > 0.0)
        out: dict[str, np.ndarray] = {
            name: np.empty_like(pairs.anchors) for name in ("anchors", "positives") if name in self.names
        }
        if "negatives" in self.names:
            out["negatives"] = np.zeros_like(self.pool)
        to_pool = out.get("positives" if self.in_batch else "negatives", none)
        to = kernels.Gradients(out.get("anchors", none), out.get("positives", none), to_pool)
        kernels.gradients.sized(8 * (pairs.anchors.size + to_pool.size))(
            max(count, len(to_pool)),
            pairs.positives,
            pulls,
            factor,
            self.rows,
            self.columns,
            facts,
            done.second,
            none if done.to_rows is None else done.to_rows,
            none if done.to_columns is None else done.to_columns,
            to,
        )
        return out

    def _check(self, found: Centred) -> None:
        """Raise if rows are not finite, or so far from the centre that squares could overflow."""
        far = ~(found.norms < 1e300) | ~(found.near < 1e150)
        columns = (found.column_norms < 1e300).all()
        if far.any() or not columns:
            check.finite("anchors", self.pairs.anchors)
            check.finite("positives", self.pairs.positives)
            bad = ~np.isfinite(self.pool).all(axis=1)
            if bad.any():
                raise NotFiniteError(
                    f"negatives must be finite, got a NaN or an infinity in row {int(np.argmax(bad))}"
                )
            row = int(np.argmax(far)) if columns else 0
            raise too_far(row)


def too_far(row: int) -> NotFiniteError:
    """The error for distances whose squares overflow."""
    return NotFiniteError(
        f"anchors must be within 1e150 of positives and negatives, got a longer distance in row {row}"
    )
