"""Naive float64 oracles: one short function per formula of the package, written to be believed, not to be fast."""

import numpy as np


# --- InfoNCE -------------------------------------------------------------------------------------------


def logsumexp(x):
    """log Σ exp(xᵢ) of a vector; −inf for none."""
    x = np.asarray(x, dtype=np.float64)
    if x.size == 0:
        return -np.inf
    top = x.max()
    return top if not np.isfinite(top) else top + np.log(np.exp(x - top).sum())


def cosine_similarity(a, b, eps=1e-8):
    """Cosines of all rows of a (B, d) with all rows of b (N, d)."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    a = a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), eps)
    b = b / np.maximum(np.linalg.norm(b, axis=1, keepdims=True), eps)
    return a @ b.T


def infonce(anchors, positives, negatives=None, temperature=0.07, masked=None):
    """Per-anchor losses. negatives (N, d) or (B, N, d), None for in-batch; masked[i, j]: j is none for i."""
    batch = len(anchors)
    own = cosine_similarity(anchors, positives) if negatives is None else None
    losses = []
    for i in range(batch):
        s_pos = cosine_similarity(anchors[i : i + 1], positives[i : i + 1])[0, 0] / temperature
        if negatives is None:
            row = own[i] / temperature
            keep = np.arange(batch) != i
        else:
            pool = negatives if negatives.ndim == 2 else negatives[i]
            row = cosine_similarity(anchors[i : i + 1], pool)[0] / temperature
            keep = np.ones(len(row), dtype=bool)
        if masked is not None:
            keep &= ~masked[i]
        losses.append(logsumexp(np.append(row[keep], s_pos)) - s_pos)
    return np.array(losses)


def infonce_symmetric(anchors, positives, temperature=0.07, masked=None):
    """The mean of both directions, per pair."""
    there = infonce(anchors, positives, None, temperature, masked)
    back = infonce(positives, anchors, None, temperature, None if masked is None else masked.T)
    return (there + back) / 2


# --- Shared --------------------------------------------------------------------------------------------


def central_differences(function, x, step=1e-6):
    """∂function/∂x for a scalar function of a float64 array, one element at a time."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient
