"""Where the ranks of the right documents moved: a table of ranks before and after, and the largest moves."""

import numpy as np

from rvtrain.report._html import Content, Html, element, joined, number, scrolled, section
from rvtrain.report._ranking import Ranking
from rvtrain.report._texts import Names

_BOUNDS = (1, 3, 10, 30)
"""The last rank of each range but those that end with the ranks searched."""
_SHOWN = 5
"""Moves that are listed in either direction."""
_LONGEST = 160
"""Greatest number of characters of a query in these lists."""


def moves(before: Ranking, after: Ranking, queries: Names) -> Html:
    """The section about ranks."""
    better, worse = (int((sign * (before.ranks - after.ranks) > 0).sum()) for sign in (1, -1))
    same = len(after.ranks) - better - worse
    note = (
        f"Rank of the right document, of the first one for a query that has several: better for {better:,} of "
        f"{len(after.ranks):,} queries, worse for {worse:,}, the same for {same:,}."
    )
    lists = [
        _list(heading, before, after, order, queries)
        for heading, order in (("Largest gains", 1), ("Largest losses", -1))
    ]
    return section("Where the ranks moved", element("p", note), _heat_map(before, after), *lists)


def ranges(depth: int, is_all: bool) -> list[tuple[int, int]]:
    """Ranges of ranks, first and last; the last one is of the ranks beyond `depth` unless those are all documents."""
    ends = [bound for bound in _BOUNDS if bound < depth] + [depth]
    found = list(zip([1, *(end + 1 for end in ends[:-1])], ends, strict=True))
    return found if is_all else [*found, (depth + 1, depth + 1)]


def shown(rank: int, ranking: Ranking) -> str:
    """A rank, or "> 100" beyond the ranks searched."""
    return f"{rank:,}" if rank <= ranking.depth else f"> {ranking.depth:,}"


def _heat_map(before: Ranking, after: Ranking) -> Html:
    """Numbers of queries by range of rank before (rows) and after (columns)."""
    depth = min(before.depth, after.depth)
    spans = ranges(depth, depth == after.sizes[1])
    firsts = np.array([first for first, _ in spans])
    places = [np.searchsorted(firsts, ranking.ranks, side="right") - 1 for ranking in (before, after)]
    counts = np.zeros((len(spans), len(spans)), np.int64)
    np.add.at(counts, tuple(places), 1)
    names = [_name(first, last, depth) for first, last in spans]
    head = element(
        "tr",
        element("th", "before ↓", element("br"), "after →", scope="col"),
        *(element("th", n, scope="col") for n in names),
    )
    rows = []
    for i, name in enumerate(names):
        cells = [_cell(int(count), int(counts.max()), i - j) for j, count in enumerate(counts[i])]
        rows.append(element("tr", element("th", name, scope="row"), *cells))
    caption = "Queries by rank before and after: below the diagonal (green) better, above (orange) worse"
    content = element("caption", caption), element("thead", head), element("tbody", *rows)
    return scrolled(caption, element("table", *content, class_="heat", id="ranks"))


def _name(first: int, last: int, depth: int) -> str:
    if first > depth:
        return f"> {depth}"
    return str(first) if first == last else f"{first}–{last}"


def _cell(count: int, most: int, up: int) -> Html:
    """A cell whose colour tells the direction, and the strength of it the number of queries."""
    kind = "same" if up == 0 else "better" if up > 0 else "worse"
    strength = round(15 + 60 * count / most) if count else 0
    return element("td", number(count, f"{count:,}"), class_=kind, style=f"--strength:{strength}%")


def _list(heading: str, before: Ranking, after: Ranking, sign: int, queries: Names) -> Html:
    """The largest moves up (sign 1) or down (−1), by ratio of the ranks."""
    moved = sign * (np.log(before.ranks) - np.log(after.ranks))
    order = [int(i) for i in np.argsort(-moved, kind="stable")[:_SHOWN] if moved[i] > 0]
    items: list[Content] = []
    for i in order:
        old, new = (shown(int(ranking.ranks[i]), ranking) for ranking in (before, after))
        items.append(
            element("li", element("b", f"{old} → {new}"), " ", queries.shown(int(after.query_rows[i]), _LONGEST))
        )
    content = element("ol", *items, class_="moves") if items else element("p", "None.")
    return joined([element("h3", heading), content])
