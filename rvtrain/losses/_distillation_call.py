"""One evaluation of a loss on a teacher's scores: checks the lists and runs the kernels."""

import numpy as np
from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain._engine._blocks import Rows
from rvtrain._engine._inputs import to_inputs
from rvtrain._engine._matmul import product, transposed_product
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain._engine._products import packed_columns, row_products
from rvtrain._engine._scratch import scratch
from rvtrain._errors import NotFiniteError
from rvtrain.losses import _distillation_kernels as kernels
from rvtrain.losses._arguments import Pairs, inverse_index, parse
from rvtrain.losses.base import Floats


def parse_lists(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike | None,
    negative_indices: ArrayLike | None,
    teacher_scores: ArrayLike,
) -> tuple[Pairs, Floats]:
    """The checked vectors, and the teacher's scores (B, 1 + k), set to 0 where there is no negative."""
    if negatives is None:
        raise ValueError("negatives must be an array, got None: the teacher's scores belong to given documents")
    pairs = parse(anchors, positives, negatives, negative_indices)
    t = check.stored_array("teacher_scores", teacher_scores, 1 if pairs.single else 2)
    count, listed = len(pairs.anchors), _listed(pairs)
    shape = (1 + listed,) if pairs.single else (count, 1 + listed)
    if t.shape != shape:
        raise ValueError(
            f"teacher_scores must have shape {shape}, scores of the positive and {listed} negatives in each row, "
            f"got {t.shape}"
        )
    t = np.atleast_2d(t)
    if pairs.indices is not None:
        t = np.column_stack([t[:, 0], np.where(pairs.indices < 0, 0, t[:, 1:])])
    check.finite("teacher_scores", t)
    return pairs, t


def evaluate(
    pairs: Pairs, teacher: Floats, weights: Floats, rule: kernels.Rule, names: tuple[str, ...]
) -> tuple[Floats, dict[str, Floats]]:
    """Losses of the anchors, and the named gradients of Σ w ℓ, in the parsed shapes."""
    assert pairs.negatives is not None
    dim, count, shared = pairs.anchors.shape[1], len(weights), _shared(pairs)
    pool, indices = pairs.negatives.reshape(-1, dim), pairs.indices
    if indices is None:
        indices = np.arange(0 if shared else len(pool)).reshape(count, -1)
    lists = kernels.Lists(pairs.anchors, pairs.positives, pool, indices)
    with scratch() as memory:
        dtype = pairs.anchors.dtype if shared else np.dtype(np.float64)
        scores, others = (memory.array((count, _listed(pairs)), dtype) for _ in range(2))
        others[:] = teacher[:, 1:]
        if pairs.indices is not None:
            others[pairs.indices < 0] = -np.inf
        own_scores, losses, own_slopes = np.empty((3, count))
        terms = kernels.Terms(
            own_scores, teacher[:, 0].astype(np.float64), scores, others, weights, losses, own_slopes
        )
        if shared:
            gradients = _pool(lists, rule, terms, names)
        else:
            gradients = _lists(lists, rule, terms, names, pairs.indices is not None)
    if not np.isfinite(losses).all():
        _refuse(pairs, int(np.argmin(np.isfinite(losses))))
    if "negatives" in gradients:
        gradients["negatives"] = gradients["negatives"].reshape(pairs.negatives.shape)
    return losses, gradients


def _listed(pairs: Pairs) -> int:
    """Number of negatives in a list."""
    assert pairs.negatives is not None
    shape = pairs.negatives.shape if pairs.indices is None else (*pairs.indices.shape, 0)
    return int(shape[-2])


def _shared(pairs: Pairs) -> bool:
    """Whether every anchor is scored with the whole pool."""
    return pairs.indices is None and pairs.negatives is not None and pairs.negatives.ndim == 2


def _lists(
    lists: kernels.Lists, rule: kernels.Rule, terms: kernels.Terms, names: tuple[str, ...], gathered: bool
) -> dict[str, Floats]:
    """Each anchor with its own list; if gathered, a row of the pool may be in several lists."""
    (count, listed), dim = lists.indices.shape, lists.anchors.shape[1]
    arrays = {"anchors": lists.anchors, "positives": lists.positives, "negatives": lists.pool}
    wanted = {name: np.empty_like(x) if name in names else x[:0].copy() for name, x in arrays.items()}
    inverses = np.empty((count, 2 + listed))
    to = kernels.Gradients(*wanted.values())
    if gathered:
        to = to._replace(negatives=to.negatives[:0])
    work = 8 * count * (1 + listed) * dim
    kernels.list_terms.sized(work)(count, lists, rule, inverses, terms, to)
    if gathered and "negatives" in names:
        wanted["negatives"][:] = 0
        index = inverse_index(lists.indices)
        anchors = Rows(lists.anchors, np.ascontiguousarray(inverses[:, 0]))
        kernels.named_rows.sized(work)(
            len(index[2]), terms.teacher, anchors, lists.pool, index, rule.cosine, wanted["negatives"]
        )
    return {name: wanted[name] for name in names}


def _pool(
    lists: kernels.Lists, rule: kernels.Rule, terms: kernels.Terms, names: tuple[str, ...]
) -> dict[str, Floats]:
    """All anchors with one pool: the scores (B, M) are a matrix product, as large as the teacher's scores."""
    anchors = _factored("anchors", lists.anchors, rule.cosine)
    positives = _factored("positives", lists.positives, rule.cosine)
    pool = _factored("negatives", lists.pool, rule.cosine)
    row_products(anchors, packed_columns(pool), terms.scores)
    kernels.pool_terms.sized(20 * terms.scores.size)(len(lists.anchors), anchors, positives, rule, terms)
    gradients = {}
    for name in names:
        sums, rows, slopes, others = None, positives, terms.own_slopes, anchors
        if name == "anchors":
            sums, rows, others = product(terms.teacher, None, _unit(pool)), anchors, positives
        elif name == "negatives":
            sums = transposed_product(terms.teacher, None, _unit(anchors))
            rows, slopes, others = pool, np.zeros(len(sums)), pool
        gradients[name], _ = to_inputs(sums, rows, slopes, others, normalised=rule.cosine)
    return gradients


def _factored(name: str, x: Floats, cosine: bool) -> Rows:
    inverse = checked_inverse_norms(name, x)
    return Rows(x, inverse if cosine else np.ones_like(inverse))


def _unit(rows: Rows) -> Floats:
    unit: Floats = rows.x * rows.inverse[:, np.newaxis]
    return unit.astype(rows.x.dtype, copy=False)


def _refuse(pairs: Pairs, row: int) -> None:
    """Raise the error that names the input which made the loss of this row NaN or infinite."""
    check.finite("anchors", pairs.anchors)
    check.finite("positives", pairs.positives)
    assert pairs.negatives is not None
    if pairs.indices is None:
        check.finite("negatives", pairs.negatives)
    else:
        named = pairs.indices[row][pairs.indices[row] >= 0]
        bad = named[~np.isfinite(pairs.negatives[named]).all(axis=1)]
        if len(bad):
            raise NotFiniteError(f"negatives must be finite, got a NaN or an infinity in row {bad[0]}")
    raise NotFiniteError(
        f"anchors must have scores and losses that fit in float64, got larger ones in row {row}: its vectors or its "
        f"teacher_scores are too large"
    )
