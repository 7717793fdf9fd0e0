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


# --- Spectral ------------------------------------------------------------------------------------------


def graph_laplacian(nodes, edges, edge_weights, normalized):
    """Dense L of undirected edges: of repeated listings the mean counts, self-loops do not."""
    total, count = np.zeros((2, nodes, nodes))
    for (i, j), w in zip(edges, edge_weights, strict=True):
        if i != j:
            total[min(i, j), max(i, j)] += w
            count[min(i, j), max(i, j)] += 1
    adjacency = total / np.maximum(count, 1)
    adjacency += adjacency.T
    degrees = adjacency.sum(axis=1)
    laplacian = np.diag(degrees) - adjacency
    if normalized:
        root = np.sqrt(np.where(degrees > 0, degrees, 1.0))
        laplacian = laplacian / root[:, None] / root
    return laplacian


def spectral(embeddings, edges, edge_weights, weight, normalized):
    """λ tr(ZᵀLZ)."""
    z = np.asarray(embeddings, dtype=np.float64)
    return weight * np.trace(z.T @ graph_laplacian(len(z), edges, edge_weights, normalized) @ z)


# --- Mining --------------------------------------------------------------------------------------------


def hardest(scores, k):
    """The k largest of a row, ties to the lower index, −1 for missing ones."""
    order = sorted(range(len(scores)), key=lambda j: (-scores[j], j))[:k]
    return order + [-1] * (k - len(order))


def semi_hard(scores, k, margin, positive, fill):
    """The largest below the positive and within the margin; without one, below the largest."""
    order = [j for j in hardest(scores, len(scores)) if positive is None or scores[j] < positive]
    top = positive
    if positive is None:
        top, order = scores[order[0]], order[1:]
    window = [j for j in order if scores[j] > top - margin]
    chosen = (order if fill else window)[:k]
    return chosen + [-1] * (k - len(chosen))
