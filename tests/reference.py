"""Naive float64 oracles: one short function per formula of the package, written to be believed, not to be fast."""

import collections
import unicodedata

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


def ceiling(positives, absolute_margin=None, relative_margin=None):
    """The highest score that margins leave: below the least of the positives' scores, by m or by m of its size."""
    least = min(positives)
    caps = [np.inf]
    if absolute_margin is not None:
        caps.append(least - absolute_margin)
    if relative_margin is not None:
        caps.append(least - abs(least) * relative_margin)
    return min(caps)


# --- Local contrastive ---------------------------------------------------------------------------------


def local_contrastive(anchors, positives, negatives=None, margin=1.0, form="pairwise", masked=None):
    """Per-anchor losses. negatives (N, d) or (B, N, d), None for in-batch; masked[i, j]: j is none for i."""
    a, p = np.asarray(anchors, dtype=np.float64), np.asarray(positives, dtype=np.float64)
    losses = []
    for i in range(len(a)):
        pool = p if negatives is None else negatives if negatives.ndim == 2 else negatives[i]
        keep = np.arange(len(pool)) != i if negatives is None else np.ones(len(pool), dtype=bool)
        if masked is not None:
            keep &= ~masked[i]
        near = np.linalg.norm(a[i] - p[i])
        far = np.linalg.norm(a[i] - np.asarray(pool, dtype=np.float64)[keep], axis=1)
        if form == "pairwise":
            hinges = np.maximum(0, margin - far) ** 2
            losses.append(near**2 + (hinges.mean() if len(far) else 0.0))
        else:
            losses.append(np.maximum(0, near - far + margin).mean() if len(far) else 0.0)
    return np.array(losses)


def local_contrastive_edges(embeddings, edges, negative_edges, margin=1.0, form="pairwise"):
    """Per-edge losses of the edges, and of the negative edges (which have none of their own as triplets)."""
    z = np.asarray(embeddings, dtype=np.float64)
    near = [np.linalg.norm(z[i] - z[j]) for i, j in edges]
    far = [np.linalg.norm(z[i] - z[n]) for i, n in negative_edges]
    if form == "pairwise":
        return np.square(near), np.array([max(0.0, margin - d) ** 2 for d in far])
    losses = []
    for (i, _), d in zip(edges, near, strict=True):
        own = [other for (source, _), other in zip(negative_edges, far, strict=True) if source == i]
        losses.append(np.mean([max(0.0, d - other + margin) for other in own]) if own else 0.0)
    return np.array(losses), np.empty(0)


# --- Optimizers ----------------------------------------------------------------------------------------


def adam_step(p, g, state, lr, betas, eps, l2, decoupled, amsgrad, maximize):
    """One step of Adam or AdamW on a float64 array; `state` (a dict, at first empty) is changed."""
    t = state["t"] = state.get("t", 0) + 1
    b1, b2 = betas
    p = p * (1 - lr * decoupled)
    g = (-g if maximize else g) + l2 * p
    m = state["m"] = b1 * state.get("m", 0.0) + (1 - b1) * g
    v = state["v"] = b2 * state.get("v", 0.0) + (1 - b2) * g * g
    top = state["top"] = np.maximum(state.get("top", 0.0), v) if amsgrad else v
    return p - lr * (m / (1 - b1**t)) / (np.sqrt(top / (1 - b2**t)) + eps)


def warmup(step, peak, warmup, total, end, shape):
    """A learning rate that would have begun at 0 one step before the first, then half a cosine or a line."""
    if step < warmup:
        return np.interp(step, [-1, warmup], [0, peak])
    done = min((step - warmup) / (total - warmup), 1.0)
    return end + (peak - end) * (1 - done if shape == "linear" else np.cos(np.pi * done / 2) ** 2)


def sgd_step(p, g, state, lr, momentum, dampening, weight_decay, nesterov, maximize):
    """One step of SGD on a float64 array; `state` (a dict, at first empty) is changed."""
    g = (-g if maximize else g) + weight_decay * p
    if momentum:
        state["b"] = momentum * state["b"] + (1 - dampening) * g if "b" in state else g
        g = g + momentum * state["b"] if nesterov else state["b"]
    return p - lr * g


def lion_step(p, g, state, lr, betas, weight_decay):
    """One step of Lion (Chen et al. 2023, Algorithm 2) on a float64 array; `state` is changed."""
    b1, b2 = betas
    m = state.get("m", np.zeros_like(p))
    state["m"] = b2 * m + (1 - b2) * g
    return p - lr * (np.sign(b1 * m + (1 - b1) * g) + weight_decay * p)


def adagrad_step(p, g, state, lr, eps, rowwise):
    """One step of Adagrad on a float64 array; `state` (a dict, at first empty) is changed."""
    axes = (1,) if p.ndim == 2 else tuple(range(p.ndim))
    square = np.broadcast_to((g * g).mean(axis=axes, keepdims=True), g.shape) if rowwise else g * g
    total = state["sum"] = state.get("sum", 0.0) + square
    return p - lr * g / (np.sqrt(total) + eps)


def schedule_free_step(y, g, state, lr, betas, eps, weight_decay, warmup_steps):
    """One step of Schedule-Free AdamW (Defazio et al. 2024, Algorithm 1), from y to y; state["x"] is the average."""
    b1, b2 = betas
    t = state["t"] = state.get("t", 0) + 1
    z, x, v = state.get("z", y), state.get("x", y), state.get("v", 0.0)
    rate = lr * min(1.0, t / warmup_steps) if warmup_steps else lr
    v = state["v"] = b2 * v + (1 - b2) * g * g
    z = state["z"] = z - rate * g / (np.sqrt(v / (1 - b2**t)) + eps) - rate * weight_decay * y
    total = state["total"] = state.get("total", 0.0) + rate**2
    c = rate**2 / total
    x = state["x"] = (1 - c) * x + c * z
    return (1 - b1) * z + b1 * x


def infonce_in_batch_gradients(anchors, positives, temperature):
    """Mean in-batch loss and its gradients to both sides, through the whole matrix of probabilities."""
    a, p = np.asarray(anchors, np.float64), np.asarray(positives, np.float64)
    norm_a, norm_p = (np.linalg.norm(x, axis=1, keepdims=True) for x in (a, p))
    a, p = a / norm_a, p / norm_p
    scores = a @ p.T / temperature
    top = scores.max(axis=1, keepdims=True)
    exponentials = np.exp(scores - top)
    total = exponentials.sum(axis=1, keepdims=True)
    value = (top + np.log(total))[:, 0].mean() - scores.diagonal().mean()
    slopes = (exponentials / total - np.eye(len(a))) / (temperature * len(a))
    to_a, to_p = slopes @ p, slopes.T @ a
    to_a = (to_a - a * (a * to_a).sum(axis=1, keepdims=True)) / norm_a
    to_p = (to_p - p * (p * to_p).sum(axis=1, keepdims=True)) / norm_p
    return value, to_a, to_p


def linear_adapter(params, x, residual):
    """x W + b [+ x], W = A B at low rank."""
    weight = params["weight"] if "weight" in params else params["down"] @ params["up"]
    return x @ weight + params.get("bias", 0.0) + (x if residual else 0.0)


def mlp_adapter(params, x, residual):
    """[x +] GELU(LayerNorm(x) W1 + b1) W2 + b2, with the tanh form of GELU."""
    normal = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    z = (params["gain"] * normal + params["shift"]) @ params["weight1"] + params["bias1"]
    h = z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    return h @ params["weight2"] + params["bias2"] + (x if residual else 0.0)


def retrieval_metric(kind, k, ranking, relevant):
    """One query's metric, by its definition; ranking and relevant are lists of documents."""
    good = set(relevant)
    if kind == "map":
        r = len(good)
        places = [i for i, d in enumerate(ranking[:r], 1) if d in good]
        return sum(sum(d in good for d in ranking[:i]) / i for i in places) / r
    head = ranking[:k]
    found = [i for i, d in enumerate(head, 1) if d in good]
    if kind == "recall":
        return len(found) / len(good)
    if kind == "precision":
        return len(found) / k
    if kind == "mrr":
        return 1 / found[0] if found else 0.0
    ideal = sum(1 / np.log2(1 + i) for i in range(1, min(k, len(good)) + 1))
    return sum(1 / np.log2(1 + i) for i in found) / ideal


def uniformity(x, t):
    """log of the mean of exp(−t ‖x̂_i − x̂_j‖²) over i < j; a zero row stays 0."""
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-8)
    terms = [np.exp(-t * ((unit[i] - unit[j]) ** 2).sum()) for i in range(len(x)) for j in range(i)]
    return np.log(np.mean(terms))


def words_of(text, lowercase=True, split_case=False):
    """Runs of letters, marks, digits and symbols; with `split_case` also begun by capitals."""
    kinds, words, inside = [unicodedata.category(c) for c in text], [], False
    for i, (c, kind) in enumerate(zip(text, kinds, strict=True)):
        if kind[0] not in "LMN" and kind != "So" and c not in "\u200c\u200d":
            inside = False
            continue
        begins = not inside
        if split_case and inside and kind in ("Lu", "Lt"):
            begins = kinds[i - 1] not in ("Lu", "Lt") or (i + 1 < len(text) and kinds[i + 1] == "Ll")
        if begins:
            words.append("")
        words[-1] += c.lower()[0] if lowercase else c
        inside = True
    return words


def ngram_row(ngram, is_of_words, n_rows):
    """FNV-1a over code points, then SplitMix64's finaliser, modulo the rows."""
    most = 2**64 - 1
    x = 9600629759793949339 if is_of_words else 14695981039346656037
    for c in ngram:
        x = ((x ^ ord(c)) * 1099511628211) & most
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & most
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & most
    return (x ^ (x >> 31)) % n_rows


def hashed_ngrams(text, n_rows, words=(1, 2), characters=(3, 4), lowercase=True, split_case=False):
    """How often each row comes in a text: {row: count}."""
    found = words_of(text, lowercase, split_case)
    joined, rows = f" {' '.join(found)} " if found else "", []
    for n in range(characters[0], characters[1] + 1) if characters else ():
        rows += [ngram_row(joined[i : i + n], False, n_rows) for i in range(len(joined) - n + 1)]
    for n in range(words[0], words[1] + 1) if words else ():
        rows += [ngram_row(" ".join(found[i : i + n]), True, n_rows) for i in range(len(found) - n + 1)]
    return collections.Counter(rows)


def bag_encoder(table, bags, mode):
    """The product of a dense matrix (n, R) of weights and the table; the mean is over the weights' magnitudes."""
    out = np.zeros((len(bags), table.shape[1]))
    for i, weights in enumerate(bags):
        total = np.abs(weights).sum() if mode == "mean" else 1.0
        for r, w in enumerate(weights):
            if w:
                out[i] += w / total * table[r]
    return out


# --- Codes ---------------------------------------------------------------------------------------------


def quantize(x, precision, ranges=None):
    """Codes of one byte or one bit per column, element by element."""
    x = np.asarray(x)
    offset = 0 if precision.startswith("u") else 128
    rows = []
    for row in x:
        if precision.endswith("int8"):
            low, high = np.asarray([x.min(axis=0), x.max(axis=0)] if ranges is None else ranges, np.float32)
            steps = [(h - l) / np.float32(255) or np.float32(1) for l, h in zip(low, high, strict=True)]
            values = [int(np.floor((v - l) / s)) for v, l, s in zip(row, low, steps, strict=True)]
            rows.append([min(max(v, 0), 255) - offset for v in values])
        else:
            bits = [int(v > 0) for v in row] + [0] * (-len(row) % 8)
            rows.append([int("".join(map(str, bits[i : i + 8])), 2) - offset for i in range(0, len(bits), 8)])
    return np.array(rows, np.uint8 if offset == 0 else np.int8)


def nearest_by_bits(queries, documents, k):
    """The documents (B, k) whose signs differ from a query's in the fewest columns, and the cosines of the signs."""
    differing = np.array([[sum((a > 0) != (b > 0)) for b in documents] for a in queries])
    order = np.argsort(differing, axis=1, kind="stable")[:, :k]
    return 1 - 2 * np.take_along_axis(differing, order, 1) / documents.shape[1], order
