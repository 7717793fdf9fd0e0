"""A guide: another model's vectors of the same rows and columns, whose scores mask those of a sweep."""

from typing import Any, NamedTuple

import numpy as np

from rvtrain._engine._blocks import CHUNK, Rows, pack_left, score_block
from rvtrain._engine._tile import mr, nr
from rvtrain._kernels import body, implements, seam


class NoGuide(NamedTuple):
    """No pair is masked by a guide. A class of its own, because most sweeps need not compile the guide's products."""

    unused: int = 0


class Guide(NamedTuple):
    """A pair whose cosine under the guide exceeds the row's limit is masked."""

    rows: Rows
    """(n, g)"""
    panels: np.ndarray
    """(m / NR, g, NR) packed columns"""
    limits: np.ndarray
    """(n,)"""
    left: np.ndarray
    """(groups, GROUP / MR, g, MR) scratch: packed rows"""
    scores: np.ndarray
    """(groups, GROUP / MR, block, MR, NR) scratch"""


@seam
def pack_guide(guide: Any, g: Any, first: Any) -> None:
    """Pack the guide's rows of group g, which starts with row `first`."""


@seam
def mask_by_guide(guide: Any, g: Any, slab: Any, top: Any, begin: Any, end: Any, origin: Any, first: Any) -> None:
    """Mask the scores of group g with the column panels [begin, end); arguments are those of `mask_block`."""


@implements(pack_guide, NoGuide)
def _pack_nothing(guide, g, first):
    pass


@implements(mask_by_guide, NoGuide)
def _mask_nothing(guide, g, slab, top, begin, end, origin, first):
    pass


@implements(pack_guide, Guide)
def _pack(guide, g, first):
    pack_left(guide.rows, first, guide.left[g])


@implements(mask_by_guide, Guide)
def _mask(guide, g, slab, top, begin, end, origin, first):
    scores = guide.scores[g]
    score_block(guide.left[g], guide.panels, begin, end, scores, 0, begin, CHUNK)
    _mask_above(slab, top, len(scores), begin, end, origin, first, scores, guide.limits)


@body
def _mask_above(slab, top, panels, start, stop, origin, first, scores, limits):
    """Mask the scores where `scores`, whose first panel is that of `top`, exceed the row's limit."""
    height = mr(slab)
    for p in range(panels):
        for r in range(height):
            i = min(first + p * height + r, len(limits) - 1)
            for j in range(start, stop):
                for q in range(nr(slab)):
                    above = scores[p, j - start, r, q] > limits[i]
                    value = slab[top + p, j - origin, r, q]
                    slab[top + p, j - origin, r, q] = slab.dtype.type(-np.inf) if above else value
