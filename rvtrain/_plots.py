"""The picture of a training: loss and metric by epoch, metrics before and after, scores of pairs and negatives."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import rvtrain as rt
from rvtrain._commands import _embeddings, _files, _outputs

_SAMPLE = 2000
_DOCUMENTS = 50_000


class Run(NamedTuple):
    """The results of a training, as `draw` needs them."""

    model: Any
    data: Any
    split: Any
    history: dict[str, list[float]]
    metric: str
    before: float | None
    after: float | None
    kept: int | None
    """The epoch whose parameters were kept; 0 means the untrained parameters."""
    batch_size: int


def kind(path: str) -> str:
    """The format of a picture, from the ending of its file name."""
    return Path(path).suffix[1:].lower()


def needed(path: str) -> None:
    """Raise if matplotlib is missing or cannot write this format."""
    try:
        from matplotlib import backend_bases
    except ImportError:
        raise ImportError("--plot needs matplotlib: pip install matplotlib") from None
    if kind(path) not in set(backend_bases.FigureCanvasBase.get_supported_filetypes()) - {"pgf"}:  # pgf needs LaTeX
        raise ValueError(f"--plot must end in .png, .svg, .pdf or another format of matplotlib, got {path}")


def draw(path: str, run: Run) -> None:
    """Write the picture to a file."""
    from matplotlib.figure import Figure

    measured = [value for value in (run.before, run.after) if value is not None]
    figure = Figure(figsize=(15 if measured else 10, 4.2), layout="constrained")
    axes = figure.subplots(1, 3 if measured else 2)
    _curves(axes[0], run)
    if measured:
        _bars(axes[1], run)
    _scores(axes[-1], run)
    save(path, figure)


def save(path: str, figure: Any) -> None:
    """Write a matplotlib figure to a file, completely or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format=kind(path), dpi=120)
    with _outputs.replacing(path) as file:
        file.write(picture.getbuffer())


def _curves(axis: Any, run: Run) -> None:
    epochs, loss = run.history["epoch"], _normalised(run)
    lines = axis.plot(epochs, loss, marker="o", color="tab:grey", label="loss")
    axis.set(title="While training", xlabel="epoch", ylabel="loss / ln(documents in the batch); 1: guessing")
    axis.set_ylim(bottom=0)
    axis.xaxis.get_major_locator().set_params(integer=True)
    if run.metric in run.history:
        other = axis.twinx()
        lines += other.plot(
            epochs, run.history[run.metric], marker="o", label=f"{run.metric}, pairs that choose the epoch"
        )
        other.set(ylabel=run.metric)
    mining = next((epoch for epoch, k in zip(epochs, run.history["negatives"], strict=True) if k), None)
    if mining is not None:
        lines += [axis.axvline(mining - 0.5, color="black", linestyle=":", label="mining starts")]
    axis.legend(handles=lines, loc="center right", fontsize=8)


def _normalised(run: Run) -> np.ndarray:
    """The loss of each epoch divided by the loss of a uniform guess among the documents of a batch.

    With k mined negatives per pair, a batch of B pairs has up to B (1 + k) documents.
    """
    mined = np.asarray(run.history["negatives"])
    candidates = np.minimum(min(run.batch_size, len(run.split.train)) * (1 + mined), len(run.data.documents))
    return np.asarray(run.history["loss"]) / np.log(np.maximum(candidates, 2))


def _bars(axis: Any, run: Run) -> None:
    named = {"untrained": run.before, "trained": run.after}
    names = [name for name, value in named.items() if value is not None]
    axis.bar_label(axis.bar(names, [named[name] for name in names], 0.5), fmt="%.3f")
    kind = "validation pairs" if run.split.report is None else "pairs held back until the end"
    axis.set(title=f"Before and after: {kind}", ylabel=run.metric, ylim=(0, 1.08), xlim=(-0.6, len(names) - 0.4))


def _scores(axis: Any, run: Run) -> None:
    """Cosines of at most 2,000 pairs, and of each query with the most similar document that is not its own."""
    held_back = run.split.measured
    pairs = run.split.train if held_back is None else held_back
    some = pairs[np.random.default_rng(0).permutation(len(pairs))[:_SAMPLE]]
    known = _files.answers(run.data.known, some[:, 0])
    rows = np.unique(np.append(known[known >= 0], np.arange(min(len(run.data.documents), _DOCUMENTS))))
    queries = _embeddings.rows(run.model.query, run.data.queries, some[:, 0])
    documents = _embeddings.rows(run.model.document, run.data.documents, rows)
    exclude = np.where(known >= 0, np.searchsorted(rows, known), -1)
    _, hard = rt.HardNegativeMiner.hardest().mine(queries, documents, 1, exclude=exclude, return_scores=True)
    own = documents[np.searchsorted(rows, some[:, 1])]
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-8) for x in (queries, own)]
    scores = {"positives": (unit[0] * unit[1]).sum(axis=1), "hardest negatives": hard[np.isfinite(hard)]}
    bins = np.histogram_bin_edges(np.concatenate(list(scores.values())), 40)
    for name, values in scores.items():
        axis.hist(values, bins, alpha=0.6, label=name)
    axis.set(
        title=f"Scores of {'training' if held_back is None else 'held-back'} pairs", xlabel="cosine", ylabel="pairs"
    )
    axis.legend()
