"""One evaluation of InfoNCE: which kernels run, in which order, on what memory."""

from typing import Any

import numpy as np

from rvtrain._errors import NotFiniteError
from rvtrain._engine import _blocks as engine
from rvtrain._engine._exp import LOG2_E
from rvtrain._engine._norms import check_rows_finite, checked_inverse_norms
from rvtrain._engine._tile import tile_shape
from rvtrain._engine._workspace import workspace
from rvtrain._kernels._threads import thread_count
from rvtrain.losses import _infonce_kernels as kernels
from rvtrain.losses import _infonce_tiles as tiles
from rvtrain.losses._arguments import Pairs, inverse_index

# exp((cos − 1) / τ) stays above e⁻⁶⁰, far from the subnormals, as long as 2 / τ does not exceed this.
_BOUNDED = 60.0
# Of a slab: a quarter of a third-level cache, which others use too. Each slab reads all columns again, so that few
# high ones beat many small ones while they stay in there.
_SLAB_BYTES = 1 << 23


class Call:
    """The inputs of one evaluation, and a method for each place that negatives come from.

    Each returns the anchors' losses and the gradients named, by name.
    """

    def __init__(self, pairs: Pairs, temperature: float, weight: float) -> None:
        self.pairs = pairs
        self.temperature = temperature
        self.weight = weight
        self.dtype = pairs.anchors.dtype
        a, p = pairs.anchors, pairs.positives
        inverse_a, inverse_p, self.cosines = np.empty((3, len(a)))
        kernels.measure_pairs.sized(6 * a.size)(len(a), a, p, inverse_a, inverse_p, self.cosines)
        check_rows_finite("anchors", inverse_a)
        check_rows_finite("positives", inverse_p)
        self.anchors, self.positives = engine.Rows(a, inverse_a), engine.Rows(p, inverse_p)

    def in_batch(self, names: tuple[str, ...], symmetric: bool) -> tuple[np.ndarray, dict[str, Any]]:
        """Negatives of row i: the other rows' positives."""
        to_anchors, to_positives = _needs(names, "positives")
        if symmetric and 2.0 / self.temperature <= _BOUNDED:
            return self._symmetric(names, to_anchors, to_positives)
        losses, slopes, shares, ga, gp = self._one_sided(self.anchors, self.positives, True, to_anchors, to_positives)
        if symmetric:  # rows and columns need exponentials of their own: two one-sided losses
            ga = ga[: len(losses)] * shares[:, np.newaxis] if ga is not None else None
            gp = gp.copy() if gp is not None else None
            back, back_slopes, back_shares, gp_back, ga_back = self._one_sided(
                self.positives, self.anchors, True, to_positives, to_anchors
            )
            losses, slopes, shares = (losses + back) / 2, (slopes + back_slopes) / 2, tiles.NO_SHARES
            if ga is not None and ga_back is not None:
                ga = (ga + ga_back[: len(losses)]) / 2
            if gp is not None and gp_back is not None:
                gp = (gp[: len(losses)] + gp_back[: len(losses)] * back_shares[:, np.newaxis]) / 2
        return losses, self._finish(names, slopes, ga, shares, gp)

    def pool(self, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, Any]]:
        """Negatives shared by all rows."""
        assert self.pairs.negatives is not None
        negatives = _rows("negatives", self.pairs.negatives)
        to_anchors, to_negatives = _needs(names, "negatives")
        losses, slopes, shares, ga, gn = self._one_sided(self.anchors, negatives, False, to_anchors, to_negatives)
        gradients = self._finish(names, slopes, ga, shares, None)
        if gn is not None:
            zeros = np.zeros(len(negatives.x))
            gradients["negatives"], _ = _finished(gn, tiles.NO_SHARES, zeros, negatives, negatives)
        return losses, gradients

    def gathered(self, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, Any]]:
        """Each row's own negatives: rows of a pool, by index; (B, N, d) is such a pool, laid out in order."""
        pairs = self.pairs
        assert pairs.negatives is not None
        dim = pairs.anchors.shape[1]
        pool = pairs.negatives.reshape(-1, dim)
        ids = pairs.column_ids.reshape(len(pool), -1)
        indices = pairs.indices
        if indices is None:
            indices = np.arange(len(pool)).reshape(pairs.negatives.shape[:2])
        work = 4 * indices.size * dim
        scores = np.empty(indices.shape, self.dtype)
        inverses = np.empty(indices.shape)
        kernels.gathered_cosines.sized(work)(len(indices), self.anchors, pool, indices, scores, inverses)
        if np.isnan(inverses).any():
            row = indices[np.isnan(inverses)][0]
            raise NotFiniteError(f"negatives must be finite, got a NaN or an infinity in row {row}")
        if pairs.row_ids.size and ids.size:
            same = pairs.row_ids[:, np.newaxis, :, np.newaxis] == ids[indices][:, :, np.newaxis, :]
            scores[same.any(axis=(2, 3))] = -np.inf
        losses, slopes = np.empty(len(scores)), np.empty(len(scores))
        kernels.contrast.sized(20 * scores.size)(len(scores), scores, self.cosines, self.temperature, self.weight, losses, slopes)
        ga = None
        if _needs(names, "")[0]:
            ga = np.empty_like(pairs.anchors)
            kernels.gathered_anchor_gradient.sized(work)(len(ga), scores, pool, indices, inverses, ga)
        gradients = self._finish(names, slopes, ga, tiles.NO_SHARES, None)
        if "negatives" in names:
            gn, order = np.zeros_like(pool), inverse_index(indices)
            kernels.gathered_negative_gradient.sized(work)(len(order[2]), scores, self.anchors, pool, *order, gn)
            gradients["negatives"] = gn.reshape(pairs.negatives.shape)
        return losses, gradients

    def _one_sided(
        self, rows: engine.Rows, others: engine.Rows, in_batch: bool, to_rows: bool, to_others: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Every row against every column: losses, slopes, shares, and sums for the gradients to both sides.

        To the unit rows: shares · sums + slopes · their positives; to the unit columns: their sums.
        """
        count, dim = rows.x.shape
        bounded = 2.0 / self.temperature <= _BOUNDED
        columns = self._columns(others, in_batch, to_rows)
        block, across = engine.block_panels(dim, self.dtype), len(columns.panels)
        kept = to_others or not bounded
        height = min(self._slab_rows(across), _padded(count))
        work = self._work(height, across if kept else min(block, across), columns, rows)
        work = self._with_sums(work, columns, rows, to_rows, to_others)
        losses, slopes, shares = np.empty((3, count))
        to = tiles.Closing(self.cosines, self.temperature, self.weight, losses, slopes, shares)
        octaves = self.dtype.type(LOG2_E / self.temperature)
        tiles.one_sided.sized(count * len(others.x) * dim)(rows, columns, to, work, octaves, bounded, block)
        return losses, slopes, shares, _rows_of(work.to_rows), work.to_columns if to_others else None

    def _symmetric(
        self, names: tuple[str, ...], to_anchors: bool, to_positives: bool
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Both directions from the same exponentials: a sweep for the sums, a sweep for the gradients."""
        count, dim = self.anchors.x.shape
        columns = self._columns(self.positives, True, to_anchors)
        block, across = engine.block_panels(dim, self.dtype), len(columns.panels)
        padded = columns.ids.shape[1]
        height = min(self._slab_rows(across), _padded(count))
        work = self._work(height, across if names else min(block, across), columns, self.anchors)
        losses, slopes, shares = np.empty((2, count)), np.empty((2, count)), np.zeros((2, padded))
        column_sums = np.zeros(padded)
        octaves = self.dtype.type(LOG2_E / self.temperature)
        there, back = (
            tiles.Closing(
                self.cosines, self.temperature, self.weight / 2, losses[way], slopes[way], shares[way, :count]
            )
            for way in (0, 1)
        )
        effort = count * count * dim
        tiles.symmetric_sums.sized(effort)(self.anchors, columns, there, work, column_sums, octaves, block)
        tiles.close_columns.sized(50 * count)(count, column_sums, back)
        if names:
            work = self._with_sums(work, columns, self.anchors, to_anchors, to_positives)
            tiles.symmetric_weights.sized(effort)(self.anchors, columns, shares, work, octaves, block)
        return losses.sum(axis=0) / 2, self._finish(
            names,
            slopes.sum(axis=0),
            _rows_of(work.to_rows),
            tiles.NO_SHARES,
            work.to_columns if to_positives else None,
        )

    def _slab_rows(self, across: int) -> int:
        """Rows in a slab so many panels wide: as many as the cache holds, but some groups for every thread."""
        in_cache = _SLAB_BYTES // (across * tile_shape(self.dtype)[1] * self.dtype.itemsize)
        whole_chunks = in_cache // engine.CHUNK * engine.CHUNK
        return max(whole_chunks, 2 * engine.CHUNK, thread_count() * engine.GROUP // engine.CHUNK * engine.CHUNK)

    def _columns(self, others: engine.Rows, in_batch: bool, strips: bool) -> tiles.Columns:
        """Pack the columns, and code the ids as integers from 0 that fit in 32 bits, which most are already."""
        count, dim = others.x.shape
        panels = workspace("panels", engine.panels_shape(count, dim, self.dtype), self.dtype)
        shape = engine.strips_shape(count, dim, self.dtype)
        packed = workspace("strips", shape if strips else (0, shape[1]), self.dtype)
        engine.pack_columns.sized(4 * others.x.size)(len(panels), others, panels, packed)
        row_ids, ids = self.pairs.row_ids, self.pairs.column_ids
        codes: np.ndarray = np.empty((0, shape[1]), np.int32)
        row_codes: np.ndarray = np.empty((len(row_ids), 0), np.int32)
        if row_ids.size and ids.size:
            codes = np.full((ids.shape[1], shape[1]), -1, np.int32)
            code = np.concatenate([row_ids.ravel(), ids.ravel()])
            if code.min() < 0 or code.max() > np.iinfo(np.int32).max:
                _, code = np.unique(code, return_inverse=True)
            row_codes = code[: row_ids.size].reshape(row_ids.shape).astype(np.int32)
            codes[:, :count] = code[row_ids.size :].reshape(ids.shape).T
        return tiles.Columns(panels, packed, codes, row_codes, count, in_batch)

    def _work(self, height: int, across: int, columns: tiles.Columns, rows: engine.Rows) -> tiles.Work:
        """Scratch for slabs of so many rows and column panels, without room for sums."""
        high, wide, _ = tile_shape(self.dtype)
        groups, panels, dim = height // engine.GROUP, engine.GROUP // high, rows.x.shape[1]
        none = np.empty((0, 0), self.dtype)
        return tiles.Work(
            workspace("slab", (height // high, across, high, wide), self.dtype),
            workspace("left", (groups, panels, dim, high), self.dtype),
            workspace("tops", (groups, panels, high), self.dtype),
            workspace("sums", (groups, panels, high, wide), self.dtype),
            none,
            none.reshape(0, high, 0),
            none,
            workspace("columns", (groups, len(columns.panels), wide), self.dtype),
        )

    def _with_sums(
        self, work: tiles.Work, columns: tiles.Columns, rows: engine.Rows, to_rows: bool, to_columns: bool
    ) -> tiles.Work:
        """Room for the sums that are wanted."""
        high = work.slab.shape[2]
        height, padded = len(work.slab) * high, engine.padded_dim(rows.x.shape[1], self.dtype)
        if to_rows:
            slabs = engine.tiles(len(rows.x), height)
            work = work._replace(to_rows=workspace("to rows", (slabs * height // high, high, padded), self.dtype))
        if to_columns:
            sums = workspace("to columns", (columns.ids.shape[1], padded), self.dtype)
            work = work._replace(to_columns=sums, strips=workspace("row strips", (padded, height), self.dtype))
        return work

    def _finish(
        self,
        names: tuple[str, ...],
        slopes: np.ndarray,
        anchor_sums: np.ndarray | None,
        shares: np.ndarray,
        positive_sums: np.ndarray | None,
    ) -> dict[str, Any]:
        """Add the positives' part to the sums over the negatives, and take them back to the inputs."""
        gradients: dict[str, Any] = {}
        if anchor_sums is not None:
            gradient, along = _finished(anchor_sums, shares, slopes, self.positives, self.anchors)
            if "anchors" in names:
                gradients["anchors"] = gradient
            if "temperature" in names:
                gradients["temperature"] = -float(along.sum()) / self.temperature
        if "positives" in names:
            if positive_sums is None:
                positive_sums = np.zeros_like(self.positives.x)
            gradients["positives"], _ = _finished(
                positive_sums, tiles.NO_SHARES, slopes, self.anchors, self.positives
            )
        return gradients


def _rows(name: str, x: np.ndarray) -> engine.Rows:
    return engine.Rows(x, checked_inverse_norms(name, x))


def _needs(names: tuple[str, ...], other: str) -> tuple[bool, bool]:
    """Whether sums are needed towards the rows, and towards the other side, of that name."""
    return "anchors" in names or "temperature" in names, other in names


def _rows_of(sums: np.ndarray) -> np.ndarray | None:
    """Sums by panel as sums by row, None where there are none."""
    return sums.reshape(-1, sums.shape[2]) if len(sums) else None


def _padded(count: int) -> int:
    return engine.tiles(count, engine.GROUP) * engine.GROUP


def _finished(
    sums: np.ndarray, shares: np.ndarray, slopes: np.ndarray, others: engine.Rows, rows: engine.Rows
) -> tuple[np.ndarray, np.ndarray]:
    out, along = np.empty_like(rows.x), np.empty(len(rows.x))
    tiles.finish.sized(8 * out.size)(len(out), sums, shares, slopes, others, rows, along, out)
    return out, along
