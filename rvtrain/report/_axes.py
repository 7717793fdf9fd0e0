"""Axes of small pictures in SVG: scales, ticks and frames, in the colours that the page's style gives to classes."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rvtrain.report._html import Content, Html, element, joined, short

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 38
_LARGEST = 1e300
"""Numbers beyond are not drawn, because differences of them overflow."""


class Scale(NamedTuple):
    """A linear map from values to positions in the picture."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The position of a value."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


def drawable(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each number can be drawn: it is finite, and no larger than 1e300."""
    with np.errstate(invalid="ignore"):
        return np.abs(values) < _LARGEST


def limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """The least and the greatest number that can be drawn, apart from each other."""
    there = values[drawable(values)]
    low, high = (float(there.min()), float(there.max())) if there.size else (0.0, 1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        room = 0.1 * abs(high) or 1.0
        low, high = low - room, high + room
    return low, high


def ticks(low: float, high: float, most: int = 5, whole: bool = False) -> list[float]:
    """Round numbers in [low, high], at most `most` + 1 of them; with `whole`, integers."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 1e-290 else rough
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9)), rough)
    if whole:
        step = max(1.0, step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def label(x: float, y: float, text: str, anchor: str = "middle", **attributes: Content) -> Html:
    """A text in the picture."""
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    """A straight line of a class."""
    return element("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)


def across(low: float, high: float) -> Scale:
    """The scale of the horizontal axis."""
    return Scale(low, high, LEFT, WIDTH - RIGHT)


def upwards(low: float, high: float) -> Scale:
    """The scale of the vertical axis."""
    return Scale(low, high, HEIGHT - BOTTOM, TOP)


def frame(x: Scale, y: Scale, name: str, whole: str = "", x_ticks: Sequence[float] | None = None) -> Html:
    """Grid lines, numbers at both axes, and the name of the horizontal one; `whole` is the axis of integers."""
    floor = HEIGHT - BOTTOM
    parts = []
    for value in ticks(y.low, y.high, 4, whole == "y"):
        parts += [
            line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid"),
            label(LEFT - 6, y(value) + 4, _tick(value, y), "end"),
        ]
    for value in ticks(x.low, x.high, 6, whole == "x") if x_ticks is None else x_ticks:
        parts += [line(x(value), floor, x(value), floor + 4, "axis"), label(x(value), floor + 16, _tick(value, x))]
    parts += [line(LEFT, floor, WIDTH - RIGHT, floor, "axis"), label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, name)]
    return joined(parts)


def _tick(value: float, scale: Scale) -> str:
    """A tick's number; one that is 0 but for rounding is 0."""
    if abs(value) < 1e-9 * (scale.high - scale.low):
        return "0"
    return f"{value:.4g}".replace("-", "−") if abs(value) < 1e9 else short(value, 3)


def picture(title: str, description: str, parts: Iterable[Content], height: int = HEIGHT) -> Html:
    """An SVG with a title and a description for those who do not see it."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        *parts,
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        aria_label=f"{title}: {description}",
    )


def swatch(kind: str, name: str) -> Html:
    """An entry of a legend: the mark of a class, and its name."""
    return element("span", element("i", class_=f"swatch {kind}", aria_hidden="true"), name, class_="key")
