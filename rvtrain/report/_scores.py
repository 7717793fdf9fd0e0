"""Scores of the right documents and of the most similar others, before and after training."""

import numpy as np

from rvtrain.report import _axes as axes
from rvtrain.report._html import Content, Html, element, figure, joined, section, short
from rvtrain.report._ranking import Ranking

_BINS = 32
_KINDS = ("right documents", "most similar others")


def scores(rankings: dict[str, Ranking]) -> Html:
    """The section with a histogram for each ranking, of one scale."""
    pooled = [each for ranking in rankings.values() for each in _values(ranking)]
    edges = np.linspace(*axes.limits(np.concatenate(pooled)), _BINS + 1)
    counts = {name: [np.histogram(values, edges)[0] for values in _values(r)] for name, r in rankings.items()}
    top = max(1, max(int(each.max()) for pair in counts.values() for each in pair))
    figures = [_histogram(name, rankings[name], edges, counts[name], top) for name in rankings]
    note = (
        "Cosine of each query with its own document, the most similar one if it has several, and with the most "
        "similar document that is not its own. The further apart the two are, the better."
    )
    return section("Scores", element("p", note), element("div", *figures, class_="charts"))


def _values(ranking: Ranking) -> tuple[np.ndarray, np.ndarray]:
    there = axes.drawable(ranking.expected_scores), axes.drawable(ranking.found_scores)
    return ranking.expected_scores[there[0]], ranking.found_scores[there[1]]


def _histogram(name: str, ranking: Ranking, edges: np.ndarray, counts: list[np.ndarray], top: int) -> Html:
    x, y = axes.across(float(edges[0]), float(edges[-1])), axes.upwards(0, top)
    parts: list[Content] = [axes.frame(x, y, "cosine", whole="y")]
    legend = []
    for place, (kind, count, values) in enumerate(zip(_KINDS, counts, _values(ranking), strict=True)):
        parts.append(_steps(x, y, edges, count, f"s{place}"))
        middle = f", median {short(float(np.median(values)), 3)}" if len(values) else ", none"
        legend.append(axes.swatch(f"s{place}", kind + middle))
    with np.errstate(invalid="ignore"):
        ahead = int((ranking.expected_scores > ranking.found_scores).sum())
    compared = int(np.isfinite(ranking.found_scores).sum())
    share = (
        f"The right document is ahead for {ahead:,} of {compared:,} queries ({ahead / compared:.1%})."
        if compared
        else "No query has another document to compare with."
    )
    title = f"Scores {name} training"
    shown = axes.picture(title, share, parts)
    return figure(shown, element("b", title), element("br"), *legend, element("span", share, class_="note"))


def _steps(x: axes.Scale, y: axes.Scale, edges: np.ndarray, counts: np.ndarray, kind: str) -> Html:
    """The outline of a histogram over a filled area."""
    points = [f"M{x(edges[0]):.1f} {y(0):.1f}"]
    for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
        points.append(f"L{x(left):.1f} {y(count):.1f}L{x(right):.1f} {y(count):.1f}")
    path = "".join(points) + f"L{x(edges[-1]):.1f} {y(0):.1f}"
    return joined(
        [element("path", d=path + "Z", class_=f"area {kind}"), element("path", d=path, class_=f"curve {kind}")]
    )
