"""The page as a whole: a summary, the sections in their order, and the head."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rvtrain.report._curves import History, curves
from rvtrain.report._html import Content, Html, element, escaped, fixed, joined, number, section, short
from rvtrain.report._metrics import Compared, compared, metrics
from rvtrain.report._mining import mining
from rvtrain.report._mistakes import mistakes
from rvtrain.report._ranking import Ranking
from rvtrain.report._ranks import moves
from rvtrain.report._scores import scores
from rvtrain.report._settings import settings
from rvtrain.report._style import STYLE
from rvtrain.report._texts import Names

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page may load nothing, from nowhere."""
_TILES = 3
"""Metrics in the summary."""


class Contents(NamedTuple):
    """All that a page shows."""

    history: History
    best: float | None
    """The epoch whose parameters were kept; None if none was chosen."""
    reports: Mapping[int, object] | None
    """Mining reports by epoch; None if they are not known."""
    before: Ranking | None
    after: Ranking | None
    queries: Names
    documents: Names
    mistakes: int
    settings: Mapping[str, object]
    command: str | None
    seed: int


def page(title: str, contents: Contents) -> str:
    """The whole document."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(STYLE)),
    )
    heading = element("h1", element("bdi", escaped(title)))
    body = element("body", element("main", heading, *_sections(contents)))
    return joined([Html("<!DOCTYPE html>\n"), element("html", head, body, lang="en"), Html("\n")])


def _sections(given: Contents) -> list[Html]:
    rankings = {name: each for name, each in (("before", given.before), ("after", given.after)) if each is not None}
    found = compared(given.before, given.after, given.seed) if rankings else []
    parts = [_summary(found, given, rankings), curves(given.history, given.best)]
    if not rankings:
        parts.append(section("Before and after training", element("p", "No rankings of queries were given.")))
    else:
        when, last = list(rankings.items())[-1]
        parts += [metrics(found, len(last.ranks)), scores(rankings)]
        if given.before is not None and given.after is not None:
            parts.append(moves(given.before, given.after, given.queries))
        if given.mistakes:
            earlier = None if given.after is None else given.before
            parts.append(mistakes(last, earlier, given.queries, given.documents, given.mistakes, when))
    if given.reports is not None:
        parts.append(mining(given.reports))
    return [*parts, settings(given.settings, given.command)]


def _summary(found: list[Compared], given: Contents, rankings: Mapping[str, Ranking]) -> Html:
    """The results in a few tiles."""
    tiles: list[Content] = []
    for each in found[:_TILES]:
        values = [e.mean for e in (each.before, each.after) if e is not None]
        content: list[Content] = [fixed(values[0])]
        if len(values) > 1:
            content += [" → ", fixed(values[1])]
        if each.p_value is not None:
            content.append(element("small", f"p = {each.p_value:.2g}"))
        tiles.append(_tile(each.name, *content))
    epochs = given.history["epoch"]
    if len(epochs):
        best = None if given.best is None else element("small", f"kept: epoch {short(given.best)}")
        tiles.append(_tile("epochs", number(epochs[-1]), best))
    for ranking in list(rankings.values())[-1:]:
        asking = element("small", f"for {len(ranking.ranks):,} queries")
        tiles.append(_tile("documents ranked", number(ranking.sizes[1], f"{ranking.sizes[1]:,}"), asking))
    seconds = given.history.get("seconds", np.empty(0))
    if np.isfinite(seconds).any():
        tiles.append(_tile("seconds", number(float(np.nansum(seconds)), digits=3)))
    return element("dl", *tiles, class_="tiles") if tiles else Html("")


def _tile(name: str, *content: Content) -> Html:
    return element("div", element("dt", name), element("dd", *content))
