"""The history of a training: a curve for the loss and for each metric, and all numbers in a table."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rvtrain.report import _axes as axes
from rvtrain.report._html import Content, Html, element, figure, joined, number, section, short, table

History = Mapping[str, NDArray[np.float64]]

_NOT_METRICS = ("epoch", "step", "loss", "val_loss", "temperature", "learning_rate", "negatives", "seconds")
_LOSSES = {"loss": "training", "val_loss": "validation"}
_LEAST = 0.05
"""Least length of the axis of a metric."""
_MOST_POINTS = 60
"""Points are marked in curves that have no more of them."""


def metrics_of(history: History) -> list[str]:
    """The names of the metrics in a history."""
    return [name for name in history if name not in _NOT_METRICS]


def curves(history: History, best: float | None) -> Html:
    """The section with the learning curves and the table of the history."""
    epochs = history["epoch"]
    if not len(epochs):
        return section("Learning curves", element("p", "There is no history: the model has not been trained."))
    losses = {name: history[name] for name in _LOSSES if name in history and has_value(history[name])}
    pictures = []
    if losses:
        pictures.append(_chart("Loss by epoch", epochs, losses, None if "val_loss" not in losses else best))
    for name in metrics_of(history):
        pictures.append(_chart(f"{name} by epoch", epochs, {name: history[name]}, best, _LEAST))
    note = "Epoch 0 is the untrained model."
    if best is not None:
        note += f" The parameters kept are those of epoch {short(best)}, the ringed point."
    return section(
        "Learning curves", element("p", note), element("div", *pictures, class_="charts"), _numbers(history)
    )


def has_value(values: NDArray[np.float64]) -> bool:
    """Whether any of the numbers is one."""
    return not bool(np.isnan(values).all())


def _chart(title: str, epochs: NDArray[np.float64], series: History, best: float | None, least: float = 0.0) -> Html:
    """A figure with a curve for each of the series; points that cannot be drawn interrupt it and are named.

    The vertical axis is at least `least` long, so that small differences look small.
    """
    low, high = axes.limits(np.concatenate(list(series.values())))
    if high - low < least:
        middle = (low + high) / 2
        low = max(middle - least / 2, min(0.0, low))
        high = low + least
    x = axes.across(*axes.limits(epochs))
    room = 0.04 * (high - low)
    y = axes.upwards(low - room, high + room)
    parts: list[Content] = [axes.frame(x, y, "epoch", whole="x", x_ticks=[*epochs] if len(epochs) == 1 else None)]
    notes: list[Content] = []
    for place, (name, values) in enumerate(series.items()):
        parts.append(_curve(x, y, epochs, values, f"s{place}", best))
        known = _LOSSES.get(name, "") if len(series) > 1 else ""
        notes.append(axes.swatch(f"s{place}", (known + _from_to(epochs, values)).strip()))
    ends = "; ".join(f"{name}{_from_to(epochs, values)}" for name, values in series.items())
    left_out = [
        element(
            "span", f"No point for {name} at epoch {_list(epochs[gone])}: {_reasons(values[gone])}.", class_="note"
        )
        for name, values in series.items()
        if (gone := ~axes.drawable(values) & ~((epochs == 0) & (name == "loss"))).any()
    ]
    return figure(axes.picture(title, ends.strip(), parts), element("b", title), element("br"), *notes, *left_out)


def _curve(
    x: axes.Scale, y: axes.Scale, epochs: NDArray[np.float64], values: NDArray[np.float64], kind: str,
    best: float | None,
) -> Html:  # fmt: skip
    there = axes.drawable(values)
    pen, path = "M", []
    for epoch, value, is_there in zip(epochs, values, there, strict=True):
        if is_there:
            path.append(f"{pen}{x(epoch):.1f} {y(value):.1f}")
        pen = "L" if is_there else "M"
    parts = [element("path", d="".join(path) or None, class_=f"curve {kind}")]
    alone = there & ~np.append(there[1:], False) & ~np.append(False, there[:-1])
    marked = there if len(epochs) <= _MOST_POINTS else alone
    for epoch, value in zip(epochs[marked], values[marked], strict=True):
        name = element("title", f"epoch {short(epoch)}: {short(value)}")
        parts.append(element("circle", name, cx=f"{x(epoch):.1f}", cy=f"{y(value):.1f}", r="2.5", class_=kind))
    for epoch, value in zip(epochs[there], values[there], strict=True):
        if best is not None and epoch == best:
            name = element("title", f"kept: epoch {short(epoch)}, {short(value)}")
            parts.append(element("circle", name, cx=f"{x(epoch):.1f}", cy=f"{y(value):.1f}", r="6", class_="best"))
    return joined(parts)


def _from_to(epochs: NDArray[np.float64], values: NDArray[np.float64]) -> str:
    """The first and the last number, and their epochs."""
    there = ~np.isnan(values)
    if not there.any():
        return " has no value"
    first, last = values[there][0], values[there][-1]
    if there.sum() == 1:
        return f" {short(first)} at epoch {short(epochs[there][0])}"
    return f" {short(first)} → {short(last)}"


def _list(epochs: NDArray[np.float64]) -> str:
    shown = ", ".join(short(epoch) for epoch in epochs[:8])
    return f"{shown} and {len(epochs) - 8} others" if len(epochs) > 8 else shown


def _reasons(values: NDArray[np.float64]) -> str:
    kinds = {"no value (NaN)": np.isnan(values).any(), "infinite": np.isinf(values).any()}
    kinds["too large to draw"] = (np.isfinite(values)).any()
    return ", ".join(name for name, is_there in kinds.items() if is_there)


def _numbers(history: History) -> Html:
    """All numbers of the history, folded away."""
    names = [name for name in history if has_value(history[name])]
    rows = [[number(history[name][i]) for name in names] for i in range(len(history["epoch"]))]
    empty = [name for name in history if name not in names]
    notes = "– is no value (NaN)." + (f" Without any value: {', '.join(empty)}." if empty else "")
    heads = [name.replace("_", " ") if name in _NOT_METRICS else name for name in names]
    content = table("History", heads, rows, class_="numbers", id="history")
    return element("details", element("summary", "All numbers by epoch"), content, element("p", notes, class_="note"))
