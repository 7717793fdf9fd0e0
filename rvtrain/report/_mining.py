"""What each search for hard negatives has found."""

from collections.abc import Mapping, Sequence

from rvtrain.mining import MiningReport
from rvtrain.report._html import Content, Html, element, fixed, joined, number, section, table

_QUARTILES = {
    "positive_scores": "scores of positives",
    "negative_scores": "scores of negatives",
    "differences": "positive − negative",
}


def mining(reports: Mapping[int, object]) -> Html:
    """The section with a table of the reports, by the epoch that began with the search."""
    if not reports:
        return section("Mining of hard negatives", element("p", "No negatives were mined in this run."))
    known = {epoch: each for epoch, each in sorted(reports.items()) if isinstance(each, MiningReport)}
    others = {epoch: each for epoch, each in sorted(reports.items()) if epoch not in known}
    content: list[Content] = []
    if known:
        filters = list(dict.fromkeys(name for each in known.values() for name in each.dropped))
        dropped = [f"dropped by {name.replace('_', ' ')}" for name in filters]
        head = ["epoch", "queries", "negatives", "left short", *_QUARTILES.values(), *dropped]
        rows = [_row(epoch, each, filters) for epoch, each in known.items()]
        note = (
            "Scores are medians, with the quartiles below. Many queries left short: the filters are too strict. "
            "Negatives about as similar as the positives: they are too weak, and such negatives are often positives "
            "that nobody labelled. Of a resumed run there are only the searches since then."
        )
        searches = table("Searches, by the epoch that began with each", head, rows, id="mining")
        content += [searches, element("p", note, class_="note")]
    for epoch, each in others.items():
        content.append(element("p", f"Epoch {epoch}: ", element("code", repr(each)[:2000])))
    return section("Mining of hard negatives", *content)


def _row(epoch: int, report: MiningReport, filters: Sequence[str]) -> list[Content]:
    counts = [number(value, f"{value:,}") for value in (report.rows, report.negatives, report.short)]
    scores = [_spread(getattr(report, name)) for name in _QUARTILES]
    dropped = [
        number(report.dropped[name], f"{report.dropped[name]:,}") if name in report.dropped else Html("–")
        for name in filters
    ]
    return [number(epoch), *counts, *scores, *dropped]


def _spread(quartiles: tuple[float, float, float] | None) -> Html:
    """A median with the quartiles below."""
    if quartiles is None:
        return Html("–")
    low, middle, high = map(fixed, quartiles)
    return joined([middle, element("br"), element("small", low, "\u00a0… ", high)])
