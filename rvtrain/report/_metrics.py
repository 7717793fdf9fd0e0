"""Metrics before and after training, with intervals of confidence and a paired test."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rvtrain.report import _axes as axes
from rvtrain.report._html import Content, Html, element, figure, fixed, joined, number, section, short, table
from rvtrain.report._ranking import Ranking
from rvtrain.training import paired_test

_SAMPLES = 2000
_MANY = 5000
"""From so many queries on, means are taken as normal: draws would take many seconds, and change no digit shown."""
_DRAWN = 1 << 21
"""Weights that are drawn together."""


class Estimate(NamedTuple):
    """A mean over queries with its interval of confidence, which is None if it has no width."""

    mean: float
    interval: tuple[float, float] | None


class Compared(NamedTuple):
    """A metric before and after training."""

    name: str
    before: Estimate | None
    after: Estimate | None
    difference: Estimate | None
    p_value: float | None


def compared(before: Ranking | None, after: Ranking | None, seed: int) -> list[Compared]:
    """All metrics of the rankings; differences of those that both have."""
    names = list(dict.fromkeys(name for each in (after, before) if each is not None for name in each.metrics))
    values: dict[tuple[str, str], NDArray[np.float64]] = {}
    for name in names:
        for kind, ranking in (("before", before), ("after", after)):
            if ranking is not None and name in ranking.metrics:
                values[name, kind] = ranking.metrics[name]
        if (name, "before") in values and (name, "after") in values:
            values[name, "difference"] = values[name, "after"] - values[name, "before"]
    found = dict(zip(values, estimates(np.stack(list(values.values()), axis=1), seed), strict=True))
    out = []
    for name in names:
        first, last, change = (found.get((name, kind)) for kind in ("before", "after", "difference"))
        p_value = None
        if (name, "difference") in values:
            p_value = _p_value(values[name, "after"], values[name, "before"], seed)
        out.append(Compared(name, first, last, change, p_value))
    return out


def _p_value(after: NDArray[np.float64], before: NDArray[np.float64], seed: int) -> float:
    """How often a difference as large comes about by chance: by draws, or by their normal limit."""
    differences = after - before
    if len(differences) < _MANY or not differences.any():
        return paired_test(after, before, seed=seed).p_value
    return math.erfc(abs(differences.sum()) / math.sqrt(2 * (differences**2).sum()))


def estimates(values: NDArray[np.float64], seed: int) -> list[Estimate]:
    """Means of the columns of values (Q, m) with 95 % intervals: percentiles of means over resampled queries."""
    count, means = len(values), values.mean(axis=0)
    if count < _MANY:
        rng, drawn = np.random.default_rng(seed), []
        rows = max(1, _DRAWN // count)
        for start in range(0, _SAMPLES, rows):
            weights = rng.multinomial(count, np.full(count, 1 / count), min(rows, _SAMPLES - start))
            drawn.append(weights @ values / count)
        low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975], axis=0)
    else:
        error = 1.96 * values.std(axis=0, ddof=1) / np.sqrt(count)
        low, high = means - error, means + error
    varies = np.ptp(values, axis=0) > 0
    return [
        Estimate(float(mean), (float(a), float(b)) if is_wide else None)
        for mean, a, b, is_wide in zip(means, low, high, varies, strict=True)
    ]


def metrics(found: list[Compared], queries: int) -> Html:
    """The section with metrics before and after."""
    rows = [
        [each.name, *(_shown(e) for e in (each.before, each.after)), _shown(each.difference, "+"), _p(each.p_value)]
        for each in found
    ]
    is_large = queries >= _MANY
    source = "mean ± 1.96 standard errors" if is_large else f"by the bootstrap over queries ({_SAMPLES:,} samples)"
    how = (
        f"Means over {queries:,} {'query' if queries == 1 else 'queries'}; below each its 95 % interval, {source}, "
        "or – where all queries have the same value. p: how often a difference as large comes about by chance, by "
        f"Fisher's paired randomization test{', in its normal limit' if is_large else ''}."
    )
    head = ["metric", "before", "after", "difference", "p"]
    return section(
        "Before and after training",
        element("div", _picture(found), table("Means of metrics", head, rows, id="metrics"), class_="charts wide"),
        element("p", how, class_="note"),
    )


def _shown(estimate: Estimate | None, sign: str = "") -> Html:
    """A mean with its interval below."""
    if estimate is None:
        return Html("–")
    low, high = (None, None) if estimate.interval is None else (fixed(x, sign) for x in estimate.interval)
    both = element("small", "–") if low is None else element("small", low, "\u00a0… ", high)
    return joined([fixed(estimate.mean, sign), element("br"), both])


def _p(value: float | None) -> Html:
    return number(value, None if value is None else f"{value:.2g}" if value < 0.0995 else f"{value:.2f}")


def _picture(found: list[Compared]) -> Html:
    """A line for each metric, from 0 to 1: means as dots, intervals as bars."""
    step, top = 46, 8
    height = top + step * len(found) + 34
    floor = height - 28
    x = axes.Scale(0.0, 1.0, 14, axes.WIDTH - 14)
    parts: list[Content] = []
    for value in axes.ticks(0, 1):
        parts += [axes.line(x(value), top, x(value), floor, "grid"), axes.label(x(value), floor + 18, f"{value:g}")]
    for row, each in enumerate(found):
        y = top + step * row
        parts.append(axes.label(14, y + 12, each.name, "start", class_="name"))
        for place, estimate in enumerate((each.before, each.after)):
            if estimate is not None:
                parts.append(_dot(x, y + 22 + 12 * place, estimate, f"s{1 - place}"))
    described = "; ".join(
        f"{each.name} {' → '.join(short(e.mean, 3) for e in (each.before, each.after) if e is not None)}"
        for each in found
    )
    legend = [
        axes.swatch(kind, name)
        for kind, name, there in (
            ("s1", "before", any(each.before for each in found)),
            ("s0", "after", any(each.after for each in found)),
        )
        if there
    ]
    title = "Metrics before and after training"
    return figure(axes.picture(title, described, parts, height), *legend, element("span", "bars: 95 % intervals"))


def _dot(x: axes.Scale, y: float, estimate: Estimate, kind: str) -> Html:
    low, high = estimate.interval or (estimate.mean, estimate.mean)
    name = element("title", short(estimate.mean))
    dot = element("circle", name, cx=f"{x(estimate.mean):.1f}", cy=f"{y:.1f}", r="4", class_=kind)
    return joined([axes.line(x(low), y, x(high), y, f"bar {kind}"), dot])
