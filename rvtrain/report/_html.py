"""Elements of a page: everything that is put into one is escaped, unless it is markup itself."""

import html
import math
import re
from collections.abc import Iterable

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Characters that HTML or UTF-8 does not allow."""
_VOID = ("meta", "br", "hr", "col")


class Html(str):
    """Markup, which `element` does not escape again."""

    __slots__ = ()


Content = str | float | None


def escaped(text: object) -> Html:
    """The text as it may stand in an element or in a quoted attribute."""
    return text if isinstance(text, Html) else Html(html.escape(_UNPRINTABLE.sub("\ufffd", str(text))))


def joined(parts: Iterable[Content]) -> Html:
    """The parts one after the other; None is nothing."""
    return Html("".join(escaped(part) for part in parts if part is not None))


def element(name: str, /, *content: Content, **attributes: Content) -> Html:
    """An element with its content.

    Names of attributes are written ``class_`` and ``aria_label``; an attribute that is None is left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{joined(content)}</{name}>")


def short(value: float, digits: int = 4) -> str:
    """A number in so many significant digits; "–" for NaN, "∞" for an infinity."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}".replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−")


def number(value: float | None, shown: str | None = None, digits: int = 4) -> Html:
    """A number as it is shown, with its exact value in the attribute ``value``; "–" for None."""
    if value is None:
        return Html("–")
    value = float(value)
    return element("data", short(value, digits) if shown is None else shown, value=repr(value))


def fixed(value: float, sign: str = "") -> Html:
    """A number with three decimals; `sign` "+" shows that of a positive one too."""
    return number(value, f"{value:{sign}.3f}".replace("-", "−"))


def quoted(text: object, longest: int) -> Html:
    """A text of a user: its direction is its own, and beyond `longest` characters it is cut."""
    whole = str(text)
    cut = whole[:longest].rstrip() if len(whole) > longest else whole
    rest = None
    if cut is not whole:
        rest = element("small", f"… (the first {len(cut)} of {len(whole):,} characters)")
    return joined([element("bdi", cut or "(empty)", dir="auto"), rest])


def table(caption: str, head: Iterable[Content], rows: Iterable[Iterable[Content]], **attributes: Content) -> Html:
    """A table whose first column names the rows; it scrolls within itself where the screen is narrow."""
    columns = element("tr", *(element("th", name, scope="col") for name in head))
    body = []
    for row in rows:
        first, *others = row
        cells = [element("td", value) for value in others]
        body.append(element("tr", element("th", first, scope="row"), *cells))
    content = element("caption", caption), element("thead", columns), element("tbody", *body)
    return scrolled(caption, element("table", *content, **attributes))


def scrolled(label: str, content: Html) -> Html:
    """A region that scrolls sideways, also by keyboard."""
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")


def figure(picture: Html, *caption: Content, **attributes: Content) -> Html:
    """A picture below its caption."""
    return element("figure", element("figcaption", *caption), picture, **attributes)


def section(heading: str, *content: Content) -> Html:
    """A part of the page."""
    return element("section", element("h2", heading), *content)
