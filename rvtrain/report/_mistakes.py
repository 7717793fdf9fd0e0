"""The worst mistakes: queries with another document far above their own."""

import numpy as np

from rvtrain.report._html import Content, Html, element, fixed, section
from rvtrain.report._ranking import Ranking
from rvtrain.report._ranks import shown
from rvtrain.report._texts import Names


def mistakes(
    ranking: Ranking, before: Ranking | None, queries: Names, documents: Names, most: int, when: str
) -> Html:
    """The section with the mistakes of a ranking, the greatest difference of scores first."""
    gaps = ranking.found_scores - ranking.expected_scores
    there = np.flatnonzero(gaps > 0)
    order = there[np.argsort(-gaps[there], kind="stable")][:most]
    if not len(there):
        return section("Worst mistakes", element("p", "No query has another document above its own."))
    note = (
        f"{len(there):,} of {len(gaps):,} queries have another document above their own {when} training. "
        "These are those with the greatest difference between the two. A document found instead may be right as "
        "well, and missing among the pairs."
    )
    cards = [_card(ranking, before, int(i), queries, documents) for i in order]
    return section("Worst mistakes", element("p", note), *cards)


def _card(ranking: Ranking, before: Ranking | None, i: int, queries: Names, documents: Names) -> Html:
    """One query: what it asks, the document expected, the document found instead."""
    rank = shown(int(ranking.ranks[i]), ranking)
    if before is not None:
        rank += f" (before training {shown(int(before.ranks[i]), before)})"
    expected, found = int(ranking.expected[i]), int(ranking.found[i])
    entries: list[Content] = []
    for term, name, score, more in (
        ("query", queries.shown(int(ranking.query_rows[i])), None, None),
        ("expected", documents.shown(expected), ranking.expected_scores[i], f"rank {rank}"),
        ("found instead", documents.shown(found), ranking.found_scores[i], None),
    ):
        facts = None
        if score is not None:
            after = "" if more is None else f", {more}"
            facts = element("span", "cosine ", fixed(float(score)), after, class_="note")
        entries.append(element("div", element("dt", term), element("dd", name, " ", facts)))
    return element("article", element("dl", *entries), class_="mistake")
