"""InfoNCE in several directions: the symmetric loss, and one softmax over the scores of several directions."""

import functools
from collections.abc import Callable

import numpy as np

from rvtrain._engine._blocks import Rows
from rvtrain._engine._both_ways import BothWays, both_ways
from rvtrain._engine._sweep_kernels import NO_SHARES
from rvtrain._engine._treatment import Own
from rvtrain.distributed._both_ways import both_ways_of_ranks
from rvtrain.losses._contrast import Contrast, Outcome, added
from rvtrain.losses._infonce_masks import Masks
from rvtrain.losses._softmax import Decoupled, Softmax

DIRECTIONS = ("query_to_document", "document_to_query", "query_to_query", "document_to_document")


def symmetric(contrast: Contrast, treatment: Softmax, bounded: bool, masks: Masks) -> Outcome:
    """The mean of the losses from anchors to positives and from positives to anchors.

    Negatives, if given, are further columns of the anchors alone. `both_ways` computes both directions from the same
    exponentials, unless masks differ between the directions or exponents could leave the range. Then each direction
    is a sweep of its own.
    """
    columns = ("positives",) if contrast.pairs.negatives is None else ("positives", "negatives")
    if not bounded or masks.differ:
        mask, own = masks.of("anchors", columns), masks.own(True)
        there = contrast.one_sided(treatment, bounded, "anchors", *columns, own=own, **mask)
        there.sums = {name: (sums.copy(), shares) for name, (sums, shares) in there.sums.items()}
        mask, own = masks.of("positives", ("anchors",)), masks.own(False)
        back = contrast.one_sided(treatment, bounded, "positives", "anchors", own=own, **mask)
        sums = {
            name: halved([o.sums[name] for o in (there, back) if name in o.sums])
            for name in {*there.sums, *back.sums}
        }
        return Outcome((there.losses + back.losses) / 2, (there.slopes + back.slopes) / 2, there.second, sums)
    own = masks.own(True)
    half = own._replace(weights=own.weights / 2)
    parts = [contrast.columns(name) for name in columns]
    joined = parts[0] if len(parts) == 1 else Rows(*(np.concatenate(x) for x in zip(*parts, strict=True)))
    run: Callable[..., BothWays] = both_ways
    if contrast.batch is not None:
        run = functools.partial(both_ways_of_ranks, contrast.batch, contrast.counts(columns))
    result = run(
        contrast.anchors,
        joined,
        treatment,
        contrast.mask(columns),
        half,
        contrast.scratch,
        to_rows=contrast.wants("anchors"),
        to_columns=any(contrast.wants(name) for name in columns),
        precision=contrast.precision,
    )
    batch, sums = len(contrast.anchors.x), {}
    if result.to_rows is not None:
        sums["anchors"] = result.to_rows[:batch], NO_SHARES
    if result.to_columns is not None:
        sums["positives"] = result.to_columns[:batch], NO_SHARES
        if len(parts) > 1:
            sums["negatives"] = result.to_columns[batch : batch + len(contrast.rows("negatives").x)], NO_SHARES
    return Outcome(result.losses.sum(axis=0) / 2, result.slopes.sum(axis=0), result.losses[0], sums)


def halved(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the sums of both directions."""
    return added(parts)[0] / 2, NO_SHARES


def joint(
    contrast: Contrast, treatment: Softmax, bounded: bool, directions: tuple[str, ...], masks: Masks
) -> Outcome:
    """One softmax per row over the columns of all directions, and over the negatives if there are any.

    One sweep has the scores of the anchors as rows, another those of the positives. Each gets the log-sum-exp of the
    other, so that the softmax is over both. The loss and the slope of the own score are taken from the first.
    """
    pairs, wanted = contrast.pairs, set(directions)
    of_anchors = [
        name
        for name, there in (
            ("positives", "query_to_document" in wanted),
            ("anchors", "query_to_query" in wanted),
            ("negatives", pairs.negatives is not None),
        )
        if there
    ]
    of_positives = [
        name
        for name, there in (
            ("anchors", "document_to_query" in wanted),
            ("positives", "document_to_document" in wanted),
        )
        if there
    ]
    sides = [(rows, columns) for rows, columns in (("anchors", of_anchors), ("positives", of_positives)) if columns]

    own = masks.own(not {"query_to_document", "document_to_document"}.isdisjoint(wanted))
    # A score of two queries depends twice on the anchors, and a score of two documents does not depend on them.
    along = "temperature" in contrast.names and not {"query_to_query", "document_to_document"}.isdisjoint(wanted)

    def side(number: int, used: Softmax | Decoupled, own: Own, gradients: bool = True) -> Outcome:
        rows, columns = sides[number]
        mask = masks.of(rows, tuple(columns))
        return contrast.one_sided(used, bounded, rows, *columns, own=own, gradients=gradients, along=along, **mask)

    if len(sides) == 1:
        there = side(0, treatment, own)
        parts = [there]
    else:
        sum_alone = Decoupled(treatment.octaves, treatment.temperature, treatment.hardness)
        outside = side(1, sum_alone, own, gradients=False).second
        there = side(0, treatment, own._replace(outside=outside))
        there.sums = {name: (sums.copy(), shares) for name, (sums, shares) in there.sums.items()}
        parts = [there, side(1, treatment, own._replace(outside=there.second))]
    names = {name for part in parts for name in part.sums}
    sums = {name: added([part.sums[name] for part in parts if name in part.sums]) for name in names}
    total = None
    if along:
        alone = contrast.batch is None
        of_own = there.slopes @ contrast.scores if alone else contrast.total(there.slopes * contrast.scores)
        total = float(of_own) + sum(part.along or 0.0 for part in parts)
    return Outcome(there.losses, there.slopes, there.second, sums, total)
