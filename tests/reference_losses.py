"""Naive float64 oracles of the family of losses: one row at a time, written to be believed, not to be fast.

Each function returns the loss of each row; `reduced` makes one number of them. Where a loss stops the gradient
(hardness, false negatives), `frozen` takes the arrays of which the stopped quantities are computed, so that central
differences over the other arguments see them as constants.
"""

import numpy as np
from reference import logsumexp

EPS = 1e-8
DIRECTIONS = ("query_to_document", "document_to_query", "query_to_query", "document_to_document")


def score(a, b, similarity="cosine"):
    """c of two vectors: their cosine, dot product, or −‖a − b‖²/2."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if similarity == "cosine":
        return float(a @ b) / (max(np.linalg.norm(a), EPS) * max(np.linalg.norm(b), EPS))
    return float(a @ b) if similarity == "dot" else -float((a - b) @ (a - b)) / 2


def scores(a, others, similarity="cosine"):
    """`score` of a vector with each of the others: the same formulas, for all rows of a matrix at once."""
    a = np.asarray(a, dtype=np.float64)
    others = np.asarray(others, dtype=np.float64).reshape(-1, len(a))
    if similarity == "cosine":
        return others @ a / (max(np.linalg.norm(a), EPS) * np.maximum(np.linalg.norm(others, axis=1), EPS))
    return others @ a if similarity == "dot" else -((a - others) ** 2).sum(axis=1) / 2


def reduced(losses, reduction="mean", sample_weight=None, counted=None):
    """Σ w ℓ / Σ w, Σ w ℓ, or w ℓ; only the rows that are `counted` enter a mean, which is 0 without any."""
    losses = np.asarray(losses, dtype=np.float64)
    w = np.ones(len(losses)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if reduction == "none":
        return w * losses
    if reduction == "sum":
        return float((w * losses).sum())
    w = w if counted is None else w * counted
    return float((w * losses).sum() / w.sum()) if w.sum() > 0 else 0.0


def same_ids(row_ids, column_ids):
    """masked[i, j]: an id of row i is an id of column j. Sequences of ids, or of sets of ids."""

    def of(x):
        return set(np.atleast_1d(x).tolist())

    return np.array([[bool(of(r) & of(c)) for c in column_ids] for r in row_ids]).reshape(len(row_ids), -1)


def log_sigmoid(x):
    """log(1 / (1 + e^{−x}))."""
    return -np.logaddexp(0.0, -x)


# --- Softmax over negatives ----------------------------------------------------------------------------


def infonce(
    anchors,
    positives,
    negatives=None,
    temperature=0.07,
    *,
    directions=("query_to_document",),
    similarity="cosine",
    margin=0.0,
    hardness=0.0,
    hardness_on=("query_to_document", "negatives"),
    false_negative_margin=None,
    guide=None,
    log_q=None,
    batch_log_q=None,
    masked=None,
    batch_masked=None,
    frozen=None,
):
    """InfoNCE with all options: ℓ_i = lse({s⁺} ∪ the negatives of all segments) − s⁺, one softmax a row.

    Segments of row i, with query q_i and document d_i: "query_to_document" s(q_i, d_j), "query_to_query" s(q_i, q_j),
    "document_to_query" s(q_j, d_i), "document_to_document" s(d_i, d_j), all over j ≠ i, and, where `negatives` are
    given, "negatives" s(q_i, n_j): (N, d) shared, or (B, N, d) own. `directions` may be () beside negatives.

    s⁺ = (c⁺ − margin)/τ; of a negative s = c/τ + hardness · stop_grad(c) in the segments `hardness_on`.
    log_q (N,) is taken off the scores of `negatives`; batch_log_q (B,) off those of documents as columns and, if
    there are such columns, of the row's own positive. masked[i, j]: negative j is none of row i; batch_masked
    likewise in all other segments.
    A negative is none either if judge > judge⁺ + false_negative_margin (judge: the loss's own c), or, with guide =
    (anchors, positives[, negatives]) of another model, if its cosine > that of the positive − false_negative_margin.
    frozen = (anchors, positives, negatives) for the stopped c.
    """
    judges = (anchors, positives, negatives) if frozen is None else frozen
    frozen, judged_by = judges, similarity
    if guide is not None:
        judges, judged_by = (*guide, None)[:3], "cosine"
    batch, losses = len(anchors), []

    def scores_of(segment, i, vectors, similarity):
        """c of row i with each vector of the segment; its own place in the batch included."""
        q, d, n = vectors
        if segment == "negatives":
            return scores(q[i], n if np.ndim(n) == 2 else n[i], similarity)
        one, others = {
            "query_to_document": (q[i], d),
            "document_to_query": (d[i], q),
            "query_to_query": (q[i], q),
            "document_to_document": (d[i], d),
        }[segment]
        return scores(one, others, similarity)

    for i in range(batch):
        s_pos = (score(anchors[i], positives[i], similarity) - margin) / temperature
        if batch_log_q is not None and not {"query_to_document", "document_to_document"}.isdisjoint(directions):
            s_pos -= batch_log_q[i]
        judge_pos = score(judges[0][i], judges[1][i], judged_by)
        if false_negative_margin is None:
            limit = np.inf
        else:
            limit = judge_pos + (false_negative_margin if guide is None else -false_negative_margin)
        row = [s_pos]
        for segment in (*directions, *(() if negatives is None else ("negatives",))):
            s = scores_of(segment, i, (anchors, positives, negatives), similarity) / temperature
            if segment in hardness_on:
                s += hardness * scores_of(segment, i, frozen, similarity)
            if segment == "negatives" and log_q is not None:
                s -= log_q if np.ndim(log_q) == 1 else log_q[i]
            if segment in ("query_to_document", "document_to_document") and batch_log_q is not None:
                s -= batch_log_q
            counts = ~(scores_of(segment, i, judges, judged_by) > limit)
            if segment != "negatives":
                counts[i] = False
            mask = masked if segment == "negatives" else batch_masked
            if mask is not None:
                counts &= ~np.asarray(mask[i], dtype=bool)
            row.extend(s[counts])
        losses.append(logsumexp(row) - s_pos)
    return np.array(losses)


def infonce_symmetric(anchors, positives, negatives=None, temperature=0.07, **options):
    """The mean of two softmaxes a row: over the batch's documents and the negatives, and over the batch's queries.

    batch_log_q belongs to the documents: it is taken off in the first alone.
    """
    there = infonce(anchors, positives, negatives, temperature, directions=DIRECTIONS[:1], **options)
    of_columns = {k: v for k, v in options.items() if k not in ("log_q", "batch_log_q", "masked")}
    of_columns["hardness_on"] = DIRECTIONS[1:2]
    back = infonce(anchors, positives, None, temperature, directions=DIRECTIONS[1:2], **of_columns)
    return (there + back) / 2


def _negatives(anchors, positives, negatives, masked, i):
    """The vectors that are negatives of row i: the other rows' positives, a pool's (N, d) or its own (B, N, d)."""
    if negatives is None:
        pool, keep = positives, [j != i for j in range(len(anchors))]
    else:
        pool = negatives if np.ndim(negatives) == 2 else negatives[i]
        keep = [True] * len(pool)
    return [x for j, x in enumerate(pool) if keep[j] and not (masked is not None and masked[i][j])]


def decoupled(anchors, positives, negatives=None, temperature=0.07, masked=None):
    """DCL: ℓ_i = lse over the negatives alone − s⁺; 0 for a row without negatives.

    The authors' code also counts the other rows' anchors as negatives, and masks by adding log 1e-45.
    """
    losses = []
    for i in range(len(anchors)):
        row = scores(anchors[i], _negatives(anchors, positives, negatives, masked, i)) / temperature
        losses.append(logsumexp(row) - score(anchors[i], positives[i]) / temperature if len(row) else 0.0)
    return np.array(losses)


def hard_negative(anchors, positives, negatives=None, temperature=0.5, beta=1.0, tau_plus=0.1, masked=None):
    """Robinson's loss, Chuang's where β = 0: ℓ_i = −log(e^{s⁺} / (e^{s⁺} + g)); N counts the row's negatives.

    r = Σ e^{βs} e^{s} / mean e^{βs}, g = max((r − N τ⁺ e^{s⁺}) / (1 − τ⁺), N e^{−1/τ}). The authors' code has 2B − 2
    negatives, of both views. Everything relative to the largest exponent, since τ may be small.
    """
    losses = []
    for i in range(len(anchors)):
        s_pos = score(anchors[i], positives[i]) / temperature
        s = scores(anchors[i], _negatives(anchors, positives, negatives, masked, i)) / temperature
        if len(s) == 0:
            losses.append(0.0)
            continue
        count, top = len(s), max(s.max(), s_pos)
        imp = np.exp(beta * (s - s.max()))
        r = (imp * np.exp(s - top)).sum() / imp.mean()
        g = max((r - count * tau_plus * np.exp(s_pos - top)) / (1 - tau_plus), count * np.exp(-1 / temperature - top))
        losses.append(np.log1p(g * np.exp(top - s_pos)))
    return np.array(losses)


# --- All pairs, labelled -------------------------------------------------------------------------------


def supcon(embeddings, labels, references=None, reference_labels=None, temperature=0.1):
    """L_out of SupCon: (losses, counted): 0 and False for a row without positives, which is in no mean.

    ℓ_i = −1/|P| Σ_{p∈P} (s_ip − lse_{j∈P∪N} s_ij), the row itself left out; with references nothing is left out.
    The authors' code counts rows without positives as zeros in the mean, and scales by τ / base τ.
    """
    own = references is None
    others, names = (embeddings, labels) if own else (references, reference_labels)
    losses, counted = [], []
    for i in range(len(embeddings)):
        columns = [j for j in range(len(others)) if not (own and i == j)]
        s = scores(embeddings[i], others) / temperature
        positives = [j for j in columns if names[j] == labels[i]]
        total = logsumexp([s[j] for j in columns])
        losses.append(-np.mean([s[j] - total for j in positives]) if positives else 0.0)
        counted.append(bool(positives))
    return np.array(losses), np.array(counted)


def multi_similarity(embeddings, labels, alpha=2.0, beta=50.0, base=0.5):
    """1/α log(1 + Σ_P e^{−α(c − base)}) + 1/β log(1 + Σ_N e^{β(c − base)}) of each row, without pair mining."""
    losses = []
    for i in range(len(embeddings)):
        pull, push = [0.0], [0.0]
        for j, c in enumerate(scores(embeddings[i], embeddings) - base):
            if j != i and labels[j] == labels[i]:
                pull.append(-alpha * c)
            elif j != i:
                push.append(beta * c)
        losses.append(logsumexp(pull) / alpha + logsumexp(push) / beta)
    return np.array(losses)


def sigmoid(anchors, positives, negatives=None, scale=10.0, bias=-10.0, same=None, masked=None):
    """SigLIP: ℓ_i = −Σ_j log σ(z_ij (t c_ij + b)), z = 1 for i = j and where same[i, j], −1 elsewhere.

    Pairs with masked[i, j] do not count. With negatives, (N, d) or (B, N, d), the columns of row i are its own
    positive and those.
    """
    losses = []
    for i in range(len(anchors)):
        total = log_sigmoid(scale * score(anchors[i], positives[i]) + bias)
        pool = positives if negatives is None else negatives if np.ndim(negatives) == 2 else negatives[i]
        for j, c in enumerate(scores(anchors[i], pool)):
            if (negatives is not None or j != i) and not (masked is not None and masked[i][j]):
                z = 1.0 if same is not None and same[i][j] else -1.0
                total += log_sigmoid(z * (scale * c + bias))
        losses.append(-total)
    return np.array(losses)


# --- Teachers ------------------------------------------------------------------------------------------


def _lists(anchors, positives, negatives, teacher_scores, present, similarity):
    """(c, t) of each row, the positive first; negatives (N, d) or (B, N, d), present[i, j] False: none there."""
    for i in range(len(anchors)):
        pool = negatives if np.ndim(negatives) == 2 else negatives[i]
        keep = [j for j in range(len(pool)) if present is None or present[i][j]]
        c = scores(anchors[i], [positives[i], *(pool[j] for j in keep)], similarity)
        t = [float(teacher_scores[i][column]) for column in (0, *(1 + j for j in keep))]
        yield c, np.array(t)


def margin_mse(anchors, positives, negatives, teacher_scores, present=None, similarity="cosine"):
    """mean_k ((c⁺ − c_k) − (t⁺ − t_k))² of each row, 0 without negatives."""
    losses = []
    for c, t in _lists(anchors, positives, negatives, teacher_scores, present, similarity):
        errors = [(c[0] - c[k]) - (t[0] - t[k]) for k in range(1, len(c))]
        losses.append(np.mean(np.square(errors)) if errors else 0.0)
    return np.array(losses)


def distill_kl(anchors, positives, negatives, teacher_scores, temperature=1.0, present=None, similarity="cosine"):
    """T² Σ_k p_k (log p_k − log q_k) of each row, p of the teacher, q of the student; 0 log 0 = 0."""
    losses = []
    for c, t in _lists(anchors, positives, negatives, teacher_scores, present, similarity):
        log_p = t / temperature - logsumexp(t / temperature)
        log_q = c / temperature - logsumexp(c / temperature)
        losses.append(temperature**2 * sum(np.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True)))
    return np.array(losses)


def list_net(anchors, positives, negatives, teacher_scores, temperature=1.0, present=None, similarity="cosine"):
    """−Σ_k p_k log q_k of each row."""
    losses = []
    for c, t in _lists(anchors, positives, negatives, teacher_scores, present, similarity):
        log_p = t / temperature - logsumexp(t / temperature)
        log_q = c / temperature - logsumexp(c / temperature)
        losses.append(-sum(np.exp(p) * q for p, q in zip(log_p, log_q, strict=True)))
    return np.array(losses)


# --- Graded pairs, and one set of embeddings -----------------------------------------------------------


def cosent(a, b, scores, scale=20.0):
    """log(1 + Σ_{y_i < y_j} e^{λ(c_i − c_j)}) over all pairs of pairs: one number."""
    c = [score(x, y) for x, y in zip(a, b, strict=True)]
    terms = [0.0]
    for i in range(len(c)):
        for j in range(len(c)):
            if scores[i] < scores[j]:
                terms.append(scale * (c[i] - c[j]))
    return logsumexp(terms)


def cosine_similarity_loss(a, b, scores):
    """(c_i − y_i)² of each pair."""
    return np.array([(score(x, y) - float(t)) ** 2 for x, y, t in zip(a, b, scores, strict=True)])


def spread(embeddings, weight=1.0):
    """λ max(0, mean_{i≠j} c_ij² − 1/d): one number, 0 for a single row."""
    n, dim = np.shape(embeddings)
    squares = [score(embeddings[i], embeddings[j]) ** 2 for i in range(n) for j in range(n) if i != j]
    return weight * max(0.0, np.mean(squares) - 1 / dim) if squares else 0.0


def matryoshka(loss, arrays, dims, weights=None):
    """Σ_m w_m loss(*arrays[..., :m]), arrays that are None left as they are."""
    weights = [1.0] * len(dims) if weights is None else weights
    return sum(
        w * loss(*(None if x is None else np.asarray(x)[..., :m] for x in arrays))
        for m, w in zip(dims, weights, strict=True)
    )
