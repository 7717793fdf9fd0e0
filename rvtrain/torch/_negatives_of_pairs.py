"""The choice among candidates by filters of scores, the forms in which negatives are handed out, and statistics."""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rvtrain.torch._text_pairs import Floats, TextPairs

FORMATS = ("triplet", "n-tuple", "labeled-pair", "labeled-list")


class Options(NamedTuple):
    """What is asked for."""

    range_min: int
    range_max: int
    max_score: float | None
    min_score: float | None
    absolute_margin: float | None
    relative_margin: float | None
    num_negatives: int
    sampling_strategy: str

    @property
    def filters(self) -> dict[str, float]:
        """The filters of scores in use, in the order in which they are applied."""
        names = ("absolute_margin", "relative_margin", "max_score", "min_score")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class Negatives(NamedTuple):
    """The negatives of each query."""

    columns: NDArray[np.int64]
    """(Q, num_negatives) numbers of documents"""
    scores: Floats
    """(Q, num_negatives), highest first; −inf where there is no negative"""
    skipped: dict[str, tuple[int, float]]
    """How many candidates each filter has dropped, and their share of those before it"""


def chosen(options: Options, pairs: TextPairs, columns: NDArray[np.int64], scores: Floats, own: Floats) -> Negatives:
    """The negatives among candidates (Q, K), scores −inf for none; `own` are the scores of the pairs (P,)."""
    scores, least = scores.copy(), np.minimum.reduceat(own, pairs.starts)
    caps = {
        "absolute_margin": lambda margin: scores + scores.dtype.type(margin) > least[:, np.newaxis],
        "relative_margin": lambda margin: scores > (least - abs(least) * least.dtype.type(margin))[:, np.newaxis],
        "max_score": lambda bound: scores > scores.dtype.type(bound),
        "min_score": lambda bound: (scores < scores.dtype.type(bound)) & (scores > -np.inf),
    }
    skipped, count = {}, len(scores) * (options.range_max + pairs.most)
    for name, bound in options.filters.items():
        dropped = caps[name](bound)
        scores[dropped] = -np.inf
        if number := int(dropped.sum()):
            skipped[name] = number, number / count
            count -= number
    order = np.argsort(-scores, axis=1, kind="stable")[:, options.range_min : options.range_max]
    places = _places(options, np.take_along_axis(scores, order, axis=1))
    order = np.pad(order, ((0, 0), (0, max(0, options.num_negatives - order.shape[1]))), constant_values=-1)
    at = np.take_along_axis(order, places, axis=1)
    rows = np.arange(len(scores))[:, np.newaxis]
    return Negatives(columns[rows, at], np.where(at < 0, -np.inf, scores[rows, at]).astype(scores.dtype), skipped)


def _places(options: Options, scores: Floats) -> NDArray[np.int64]:
    """Which of the ranked candidates (Q, M) are taken: the first, or any, drawn by Python's `random`."""
    number = options.num_negatives
    if options.sampling_strategy == "top":
        return np.tile(np.arange(number), (len(scores), 1))
    there = np.maximum((scores > -np.inf).sum(axis=1), number)
    return np.sort([random.sample(range(count), k=number) for count in there.tolist()], axis=1)


class Output(NamedTuple):
    """The columns of a dataset, and what the statistics are made of."""

    data: dict[str, list[Any]]
    rows: int
    most: int
    """The number of rows, had all negatives been found."""
    negative_scores: Floats
    differences: Floats


def output(
    form: str, with_scores: bool, names: tuple[str, str], given: int, pairs: TextPairs, found: Negatives, own: Floats
) -> Output:
    """The pairs and their negatives in one of the FORMATS; `names` of the columns, `given` rows."""
    columns, scores = found.columns[pairs.rows], found.scores[pairs.rows]
    kept = scores > -np.inf
    if form == "n-tuple":
        kept &= kept.all(axis=1, keepdims=True)
    rows = list(
        _labelled_pairs(pairs, found, own, with_scores)
        if form == "labeled-pair"
        else _ROWS[form](pairs, columns, scores, kept, own, with_scores)
    )
    label = "score" if form == "labeled-pair" else "scores"
    if not with_scores:
        label = {"labeled-pair": "label", "labeled-list": "labels"}.get(form, "")
    negatives = {
        "triplet": ["negative"],
        "n-tuple": [f"negative_{i + 1}" for i in range(kept.shape[1])],
    }.get(form, [])
    headers = [*names, *negatives, *([label] if label else [])]
    data = {name: [row[i] for row in rows] for i, name in enumerate(headers)}
    most = {"triplet": kept.size, "labeled-pair": found.columns.size + given}.get(form, len(kept))
    return Output(data, len(rows), most, scores[kept], (own[:, np.newaxis] - scores)[kept])


def _triplets(
    pairs: TextPairs,
    columns: NDArray[np.int64],
    scores: Floats,
    kept: NDArray[np.bool_],
    own: Floats,
    with_scores: bool,
) -> Iterator[tuple[Any, ...]]:
    for p, i in zip(*np.nonzero(kept), strict=True):
        texts = (pairs.queries[pairs.rows[p]], pairs.documents[pairs.columns[p]], pairs.documents[columns[p, i]])
        yield (*texts, [float(own[p]), float(scores[p, i])]) if with_scores else texts


def _tuples(
    pairs: TextPairs,
    columns: NDArray[np.int64],
    scores: Floats,
    kept: NDArray[np.bool_],
    own: Floats,
    with_scores: bool,
) -> Iterator[tuple[Any, ...]]:
    for p in np.flatnonzero(kept.all(axis=1)):
        texts = (pairs.queries[pairs.rows[p]], *(pairs.documents[j] for j in (pairs.columns[p], *columns[p])))
        yield (*texts, [float(own[p]), *scores[p].tolist()]) if with_scores else texts


def _labelled_lists(
    pairs: TextPairs,
    columns: NDArray[np.int64],
    scores: Floats,
    kept: NDArray[np.bool_],
    own: Floats,
    with_scores: bool,
) -> Iterator[tuple[Any, ...]]:
    for p in np.flatnonzero(kept.any(axis=1)):
        documents = [pairs.documents[j] for j in (pairs.columns[p], *columns[p, kept[p]])]
        labels = [float(own[p]), *scores[p, kept[p]].tolist()] if with_scores else [1] + [0] * (len(documents) - 1)
        yield pairs.queries[pairs.rows[p]], documents, labels


_ROWS = {"triplet": _triplets, "n-tuple": _tuples, "labeled-list": _labelled_lists}


def _labelled_pairs(pairs: TextPairs, found: Negatives, own: Floats, with_scores: bool) -> Iterator[tuple[Any, ...]]:
    ends = [*pairs.starts[1:], len(pairs.rows)]
    for i, (query, start, end) in enumerate(zip(pairs.queries, pairs.starts, ends, strict=True)):
        for p in range(start, end):
            yield query, pairs.documents[pairs.columns[p]], float(own[p]) if with_scores else 1
        for j, score in zip(found.columns[i], found.scores[i].tolist(), strict=True):
            if score > -np.inf:
                yield query, pairs.documents[j], score if with_scores else 0


def statistics(made: Output, found: Negatives, own: Floats, options: Options) -> str:
    """The table of scores, what the filters have dropped, and how many rows are missing."""
    sides = (own, made.negative_scores, made.differences)
    row = "{:<6} {:>14} {:>14} {:>14}".format
    lines = [
        row("Metric", "Positive", "Negative", "Difference"),
        row("Count", *(f"{len(x):,}" for x in sides[:2]), ""),
    ]
    lines += [
        row(name, *(f"{value:.4f}" for value in values))
        for name, values in zip(_METRICS, np.transpose([_summary(x.astype(np.float64)) for x in sides]), strict=True)
    ]
    for name, (number, share) in found.skipped.items():
        bound = options.filters[name]
        lines.append(f"Skipped {number:,} potential negatives ({share:.2%}) due to the {name} of {bound}.")
    if missing := made.most - made.rows:
        used = ["range_max"] + ["range_min"] * (options.range_min > 0)
        used += [name for name in options.filters if name != "min_score"]
        names = " and ".join([", ".join(used[:-1])] * (len(used) > 1) + used[-1:])
        lines.append(
            f"Could not find enough negatives for {missing} samples ({missing / made.most:.2%}). Consider adjusting "
            f"the {names} parameter{'s' * (len(used) > 1)} if you'd like to find more valid negatives."
        )
    return "\n".join(lines)


_METRICS = ("Mean", "Median", "Std", "Min", "25%", "50%", "75%", "Max")


def _summary(x: NDArray[np.float64]) -> list[float]:
    """The metrics of some scores; the median is the lower one, as of torch."""
    if not len(x):
        return [np.nan] * 3 + [np.inf] * 4 + [-np.inf]
    deviation = np.std(x, ddof=1) if len(x) > 1 else np.nan
    return [x.mean(), np.quantile(x, 0.5, method="lower"), deviation, *np.quantile(x, [0, 0.25, 0.5, 0.75, 1])]
