"""Split pairs into training, selection and report; store the split in the model file, and recognise its data."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

import rvtrain as rt
from rvtrain._commands._files import Inputs
from rvtrain.training._saving import is_safetensors

_SAMPLED_ROWS = 64


class Split(NamedTuple):
    """Arrays (P, 2) of pairs, or None."""

    train: np.ndarray
    selection: np.ndarray | None
    """Measured after every epoch, to keep the parameters of the best one."""
    report: np.ndarray | None
    """Measured once, with the kept parameters."""
    weights: np.ndarray | None = None
    """Of the pairs for training, if they have such."""

    @property
    def measured(self) -> np.ndarray | None:
        """The pairs to measure at the end."""
        return self.selection if self.report is None else self.report


class Measured(NamedTuple):
    """The pairs that `evaluate` ranks, and their description."""

    pairs: np.ndarray
    name: str
    sentence: str


def split(data: Inputs, share: float, seed: int) -> Split:
    """Split the pairs: the file's validation pairs for selection, or a random share of the queries to hold back.

    A query is held back with all its pairs. One half of these queries is for selection, the other for the report.
    """
    if data.validation is not None:
        weights = np.array([len(data.documents), 1])
        both = np.isin(data.validation @ weights, data.pairs @ weights)
        if both.any():
            first = data.validation[both][0].tolist()
            raise ValueError(f"validation must hold no pair that trains, got {int(both.sum())}, such as {first}")
        return Split(data.pairs, data.validation, None)
    if not share:
        return Split(data.pairs, None, None, data.weights)
    asking = np.random.default_rng(seed).permutation(np.unique(data.pairs[:, 0]))
    count = max(2, round(share * len(asking)))
    if len(asking) - count < 1:
        raise ValueError(f"--hold-back must leave queries to train on, got {share} of {len(asking)}")
    selection, report = (
        np.isin(data.pairs[:, 0], part) for part in (asking[: count // 2], asking[count // 2 : count])
    )
    kept = ~(selection | report)
    kept_weights = None if data.weights is None else data.weights[kept]
    return Split(data.pairs[kept], data.pairs[selection], data.pairs[report], kept_weights)


def fingerprint(data: Inputs) -> dict[str, str]:
    """Digests by which these data are recognised: of the sizes, all pairs and texts, and 64 rows of each table."""
    tables = {"queries": data.queries, "documents": data.documents}
    found = {}
    for name, table in tables.items():
        if data.are_texts:
            found[name] = _digest(table.shape, np.frombuffer("\0".join(table).encode(), np.uint8))
            continue
        rows = np.unique(np.linspace(0, len(table) - 1, _SAMPLED_ROWS).astype(np.int64))
        found[name] = _digest(table.shape, np.asarray(table[rows], np.float64))
    validation = np.empty((0, 2), np.int64) if data.validation is None else data.validation
    if data.weights is not None:
        found["scores"] = _digest(data.weights.shape, data.weights)
    return found | {
        "pairs": _digest(data.pairs.shape, data.pairs),
        "validation": _digest(validation.shape, validation),
    }


def state(split: Split, data: Inputs) -> dict[str, Any]:
    """The split in the form that a model file stores."""
    return {"report": split.report, "validated": data.validation is not None, "data": fingerprint(data)}


def to_measure(model: str | None, data: Inputs, everything: bool) -> Measured:
    """The pairs to evaluate a model on: those held back by its training, if it was trained on these data."""
    pairs = data.pairs if data.validation is None else data.validation
    kind = "pairs" if data.validation is None else "validation pairs"
    if everything:
        return Measured(data.known, "all", f"on all {len(data.known):,} pairs")
    if model is None:
        return Measured(pairs, "pairs" if data.validation is None else "validation", f"on {len(pairs):,} {kind}")
    saved = None if is_safetensors(model) else rt.load_checkpoint(model).get("split")
    if not isinstance(saved, dict) or not {"report", "validated", "data"} <= set(saved):
        return Measured(
            pairs, "unknown", f"on {len(pairs):,} {kind}; {model} does not say which pairs it was trained on"
        )
    others = [name for name, digest in fingerprint(data).items() if saved["data"].get(name) != digest]
    if others:
        sentence = f"on {len(pairs):,} {kind}; {' and '.join(others)} are not those that {model} was trained with"
        return Measured(pairs, "other", sentence)
    if saved["validated"]:
        return Measured(pairs, "validation", f"on {len(pairs):,} validation pairs, which chose the best epoch")
    if saved["report"] is None:
        return Measured(pairs, "trained", f"on {len(pairs):,} pairs, all of which {model} was trained on")
    report = saved["report"]
    return Measured(
        report, "held back", f"on {len(report):,} pairs that training held back (--all: all {len(pairs):,})"
    )


def _digest(shape: tuple[int, ...], values: np.ndarray) -> str:
    return hashlib.sha256(repr(shape).encode() + np.ascontiguousarray(values).tobytes()).hexdigest()[:16]
