"""The picture of a training: curves, before and after, and how far apart positives and hard negatives score."""

from typing import Any

import numpy as np

import rvtrain as rt

_SAMPLE = 2000


def needed() -> None:
    """Raise where matplotlib is missing: told before the training, not after it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("--plot needs matplotlib: pip install 'rvtrain[plot]'") from None


def draw(
    path: str, model: Any, data: Any, held_back: np.ndarray | None, history: dict, before: float | None, metric: str
) -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    _curves(axes[0], history, metric)
    _bars(axes[1], history, before, metric)
    _scores(axes[2], model, data, data.pairs if held_back is None else held_back)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _curves(axis: Any, history: dict, metric: str) -> None:
    axis.plot(history["epoch"], history["loss"], marker="o", color="tab:grey", label="loss")
    axis.set(title="While training", xlabel="epoch", ylabel="loss")
    other = axis.twinx()
    other.plot(history["epoch"], history["metric"], marker="o", label=metric)
    other.set(ylabel=metric)


def _bars(axis: Any, history: dict, before: float | None, metric: str) -> None:
    values = [0.0 if before is None else before, np.nanmax([0.0, *history["metric"]])]
    axis.bar_label(axis.bar(["untrained", "trained"], values), fmt="%.3f")
    axis.set(title="Before and after", ylabel=metric, ylim=(0, 1.08))


def _scores(axis: Any, model: Any, data: Any, pairs: np.ndarray) -> None:
    """Cosines of pairs, and of their queries with the most similar wrong document, of at most 2,000 pairs."""
    some = pairs[np.random.default_rng(0).permutation(len(pairs))[:_SAMPLE]]
    queries = model.query.transform(data.queries[np.asarray(some[:, 0])])
    rows = np.unique(np.append(some[:, 1], np.arange(min(len(data.documents), 50_000))))
    documents = model.document.transform(data.documents[rows])
    own = np.searchsorted(rows, some[:, 1])
    miner = rt.HardNegativeMiner.hardest()
    _, hard = miner.mine(queries, documents, 1, exclude=own[:, np.newaxis], return_scores=True)
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-8) for x in (queries, documents[own])]
    positive = (unit[0] * unit[1]).sum(axis=1)
    bins = np.linspace(-1, 1, 60)
    axis.hist(positive, bins, alpha=0.6, label="positives")
    axis.hist(hard[:, 0], bins, alpha=0.6, label="hardest negatives")
    axis.set(title="Scores", xlabel="cosine")
    axis.legend()
