"""The picture of the demo: learning curves, and recall before and after training."""

from typing import Any

from rvtrain.demo._train import WARM_EPOCHS, Result


def drawn(result: Result) -> Any:
    """Draw the picture; returns a matplotlib figure (needs the extra ``plot``)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    _curves(axes[0], result)
    _bars(axes[1], result)
    return figure


def _curves(axis: Any, result: Result) -> None:
    for (name, curve), style in zip(
        result.curves.items(), ("o-", "x--"), strict=True
    ):  # both seen where they are one
        axis.plot(range(1, len(curve) + 1), curve, style, label=name)
    axis.axhline(result.rows[0].quality.recall_10, color="grey", label="untrained: n-grams by tf-idf")
    axis.axvline(WARM_EPOCHS + 0.5, color="black", linestyle=":", label="mining starts")
    axis.set(title="Held-back pairs while training", xlabel="epoch", ylabel="Recall@10")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend()


def _bars(axis: Any, result: Result) -> None:
    labels = [row.method.replace(": ", ":\n") for row in result.rows]
    places = range(len(labels))
    for shift, name, values in (
        (-0.2, "Recall@1", [row.quality.recall_1 for row in result.rows]),
        (0.2, "Recall@10", [row.quality.recall_10 for row in result.rows]),
    ):
        axis.bar_label(axis.bar([place + shift for place in places], values, 0.4, label=name), fmt="%.2f", fontsize=8)
    axis.set(title="Before and after", ylabel="share of the held-back pairs", ylim=(0, 1))
    axis.set_xticks(list(places), labels, fontsize=8)
    axis.legend()
