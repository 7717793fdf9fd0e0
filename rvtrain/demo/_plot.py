"""The demo's picture: learning curves, and recall before and after."""

from typing import Any

from rvtrain.demo._train import WARM_EPOCHS, Result


def draw(result: Result, path: str) -> None:
    """Write the picture; needs matplotlib (the extra ``plot``)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    _curves(axes[0], result)
    _bars(axes[1], result)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _curves(axis: Any, result: Result) -> None:
    for name, curve in result.curves.items():
        axis.plot(range(1, len(curve) + 1), curve, marker="o", label=name)
    axis.axhline(result.rows[1].quality.recall_10, color="grey", linestyle="--", label="strongest untrained")
    axis.axvline(WARM_EPOCHS + 0.5, color="lightgrey", linewidth=1)
    axis.set(title="Held-back pairs while training", xlabel="epoch", ylabel="Recall@10")
    axis.legend()


def _bars(axis: Any, result: Result) -> None:
    labels = [row.method.replace(": ", ":\n") for row in result.rows]
    places = range(len(labels))
    axis.bar([p - 0.2 for p in places], [row.quality.recall_1 for row in result.rows], 0.4, label="Recall@1")
    bars = axis.bar([p + 0.2 for p in places], [row.quality.recall_10 for row in result.rows], 0.4, label="Recall@10")
    axis.bar_label(bars, fmt="%.2f")
    axis.set(title="Before and after", ylim=(0, 1))
    axis.set_xticks(list(places), labels, fontsize=8)
    axis.legend()
