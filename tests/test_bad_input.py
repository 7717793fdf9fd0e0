"""Every public function with one or two arguments made wrong or odd: a right result, or an error that names one.

Each case starts from good arguments. Whatever comes of it, inputs are as they were (params of a step, if it worked,
excepted), and a result is that of clean contiguous copies, and the oracle's.
"""

import re

import numpy as np
import pytest
import reference
from conftest import TOLERANCE, relative_error
from hypothesis import given, note, settings
from hypothesis import strategies as st

import rvtrain as rt

CASES = 400  # of each function: more than 10,000 in all
AT_ONCE = 10  # of one example: hypothesis takes longer to draw one than the functions take to refuse it


def with_element(value):
    def fault(x):
        x = x.copy()
        x[(-1,) * x.ndim] = value
        return x

    return fault


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


SHAPES = {
    "as it is": lambda x: x,
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "fortran": np.asfortranarray,
    "read-only": read_only,
    "list": lambda x: x.tolist(),
    "no rows": lambda x: x[:0],
    "no columns": lambda x: x[..., :0],
    "one row": lambda x: x[:1],
    "a row less": lambda x: x[:-1],
    "a column less": lambda x: x[..., :-1],
    "an axis more": lambda x: x[np.newaxis],
    "a scalar": lambda x: x.reshape(-1)[0],
    "None": lambda x: None,
    "text": lambda x: "rows",
    "bytes swapped": lambda x: x.astype(x.dtype.newbyteorder()),
}
FLOATS = SHAPES | {
    "NaN": with_element(np.nan),
    "inf": with_element(np.inf),
    "-inf": with_element(-np.inf),
    "zeros": np.zeros_like,
    "huge": lambda x: x * x.dtype.type(1e18),
    "tiny": lambda x: x * x.dtype.type(1e-18),
    "all equal": np.ones_like,
    "float16": lambda x: x.astype(np.float16),
    "the other float": lambda x: x.astype(np.float64 if x.dtype == np.float32 else np.float32),
    "integers": lambda x: x.astype(np.int64),
    "complex": lambda x: x.astype(complex),
    "objects": lambda x: x.astype(object),
    "bools": lambda x: x > 0,
}
INTEGERS = SHAPES | {
    "negative": with_element(-1),
    "very negative": with_element(-(2**40)),
    "too large": with_element(10**6),
    "huge": with_element(2**62),
    "floats": lambda x: x.astype(np.float64),
    "int8": lambda x: x.astype(np.int8),
    "uint64": lambda x: x.astype(np.uint64),
    "beyond int64": lambda x: np.full(x.shape, 2**64 - 1, np.uint64),
    "bools": lambda x: x > 0,
}
NUMBERS = [
    0,
    -1,
    1,
    2,
    3,
    1.5,
    -0.5,
    1e-300,
    1e300,
    10**9,
    2**70,
    np.nan,
    np.inf,
    None,
    True,
    "2",
    [1],
    np.float32(0.5),
]


def array(rng, dtype, *shape):
    return rng.normal(size=shape).astype(dtype)


def indices(rng, stop, *shape):
    return rng.integers(0, stop, shape)


def rankings(rng, count, rows, depth):
    return np.argsort(rng.random((rows, count)), axis=1)[:, :depth]


def infonce(anchors, positives, negatives, temperature, wrt=("anchors", "positives")):
    return rt.InfoNCELoss(temperature).compute_with_gradients(anchors, positives, negatives, wrt=wrt)


def gathered(anchors, positives, negatives, negative_indices, anchor_ids, negative_ids, temperature):
    ids = {"anchor_ids": anchor_ids, "negative_ids": negative_ids}
    loss = rt.InfoNCELoss(temperature)
    return loss.compute_with_gradients(anchors, positives, negatives, negative_indices=negative_indices, **ids)


def local(anchors, positives, negatives, margin):
    return rt.LocalContrastiveLoss(margin).compute_with_gradients(anchors, positives, negatives)


def local_graph(embeddings, edges, negative_edges, margin):
    return rt.LocalContrastiveLoss(margin).compute_graph_with_gradients(embeddings, edges, negative_edges)


def spectral(embeddings, graph, edge_weights, weight):
    return rt.SpectralRegularization(weight).compute_with_gradients(embeddings, graph, edge_weights)


def adamw(params, grads, lr, eps, max_norm):
    return rt.AdamW((5, 3), lr, eps=eps).step(params, grads, max_norm=max_norm), params


def sgd(params, grads, rows, lr, momentum):
    return rt.SGD((5, 3), lr, momentum=momentum).step(params, grads, rows=rows), params


def mine(anchors, candidates, k, positives, exclude, margin, max_score):
    miner = rt.HardNegativeMiner.semi_hard(margin)
    filters = {"positives": positives, "exclude": exclude, "max_score": max_score}
    return miner.mine(anchors, candidates, k, return_scores=True, **filters)


def draw(anchors, candidates, k, temperature, anchor_ids, candidate_ids, seed):
    miner = rt.HardNegativeMiner(rt.MiningStrategy.DISTANCE_WEIGHTED, temperature=temperature, seed=seed)
    return miner.mine(anchors, candidates, k, anchor_ids=anchor_ids, candidate_ids=candidate_ids)


def in_batch(anchors, ids, k):
    return rt.InBatchMiner(rt.MiningStrategy.HARDEST).mine(anchors, k, ids=ids)


def near_in_graph(graph, embeddings, k, min_hops, max_hops):
    return rt.GraphNegativeMiner(graph, min_hops=min_hops, max_hops=max_hops).mine(embeddings, k)


def adapt(x, rows, grad):
    adapter = rt.MLPAdapter(7, 4, hidden=5)
    y, saved = adapter.forward_rows(x, rows)
    return y, list(adapter.backward(saved, grad).values())


METRICS = ["recall@3", "ndcg@2", "map@r"]


def evaluate(queries, documents, relevant):
    return list(rt.evaluate_retrieval(queries, documents, relevant=relevant, metrics=METRICS).values())


def fit(queries, documents, pairs, temperature, epochs):
    model = rt.LinearAdapter(6, 4)
    few = min(epochs, 3) if isinstance(epochs, int) else epochs  # nobody waits for 2⁷⁰
    rt.Trainer(model, rt.InfoNCELoss(temperature), epochs=few).fit(queries, documents, pairs)
    return model.params["weight"]


def fit_labels(X, y):
    model = rt.LinearAdapter(6, 4)
    rt.Trainer(model, epochs=2, batch_size=4).fit_labels(X, y)
    return model.params["weight"]


def fit_graph(edges):
    table = rt.EmbeddingTable(8, 3)
    rt.Trainer(table, epochs=2, batch_size=4).fit_graph(edges)
    return table.weight


def logsumexp(x):
    if not x.size:
        return np.full(x.shape[:-1], -np.inf)
    return np.array([reference.logsumexp(row) for row in x.reshape(-1, x.shape[-1])]).reshape(x.shape[:-1])


# Function, and its good arguments by name.
FUNCTIONS = {
    "infonce in-batch": (lambda anchors, positives, temperature: infonce(anchors, positives, None, temperature),
        lambda r, t: {"anchors": array(r, t, 5, 7), "positives": array(r, t, 5, 7), "temperature": 0.1}),
    "infonce pool": (infonce, lambda r, t: {"anchors": array(r, t, 5, 7), "positives": array(r, t, 5, 7),
        "negatives": array(r, t, 9, 7), "temperature": 0.1}),
    "infonce gathered": (gathered, lambda r, t: {"anchors": array(r, t, 5, 7), "positives": array(r, t, 5, 7),
        "negatives": array(r, t, 9, 7), "negative_indices": indices(r, 9, 5, 4), "anchor_ids": indices(r, 4, 5),
        "negative_ids": indices(r, 4, 9), "temperature": 0.1}),
    "local contrastive": (local, lambda r, t: {"anchors": array(r, t, 5, 7), "positives": array(r, t, 5, 7),
        "negatives": array(r, t, 5, 3, 7), "margin": 1.0}),
    "local contrastive graph": (local_graph, lambda r, t: {"embeddings": array(r, t, 8, 3),
        "edges": indices(r, 8, 6, 2), "negative_edges": indices(r, 8, 4, 2), "margin": 1.0}),
    "spectral": (spectral, lambda r, t: {"embeddings": array(r, t, 8, 3), "graph": indices(r, 8, 6, 2),
        "edge_weights": abs(array(r, t, 6)), "weight": 0.1}),
    "adamw": (adamw, lambda r, t: {"params": array(r, t, 5, 3), "grads": array(r, t, 5, 3), "lr": 0.1, "eps": 1e-8,
        "max_norm": 1.0}),
    "sgd rows": (sgd, lambda r, t: {"params": array(r, t, 5, 3), "grads": array(r, t, 4, 3),
        "rows": indices(r, 5, 4), "lr": 0.1, "momentum": 0.9}),
    "clip_grad_norm": (rt.clip_grad_norm, lambda r, t: {"grads": array(r, t, 5, 3), "max_norm": 1.0}),
    "logsumexp": (rt.logsumexp, lambda r, t: {"x": array(r, t, 5, 7), "axis": -1}),
    "cosine_similarity": (rt.cosine_similarity, lambda r, t: {"a": array(r, t, 5, 7), "b": array(r, t, 4, 7),
        "eps": 1e-8}),
    "top_k": (rt.top_k, lambda r, t: {"queries": array(r, t, 5, 7), "candidates": array(r, t, 20, 7), "k": 3}),
    "weighted_sample": (rt.weighted_sample, lambda r, t: {"weights": abs(array(r, t, 5, 9)), "k": 3, "seed": 1}),
    "mine": (mine, lambda r, t: {"anchors": array(r, t, 5, 7), "candidates": array(r, t, 20, 7), "k": 3,
        "positives": array(r, t, 5, 7), "exclude": indices(r, 20, 5, 2), "margin": 0.2, "max_score": 0.9}),
    "draw": (draw, lambda r, t: {"anchors": array(r, t, 5, 7), "candidates": array(r, t, 20, 7), "k": 3,
        "temperature": 1.0, "anchor_ids": indices(r, 4, 5), "candidate_ids": indices(r, 4, 20), "seed": 0}),
    "in-batch miner": (in_batch, lambda r, t: {"anchors": array(r, t, 12, 5), "ids": indices(r, 3, 12),
        "k": 2}),
    "graph miner": (near_in_graph, lambda r, t: {"graph": indices(r, 12, 20, 2), "embeddings": array(r, t, 12, 5),
        "k": 2, "min_hops": 2, "max_hops": 3}),
    "adapter": (adapt, lambda r, t: {"x": array(r, t, 9, 7), "rows": indices(r, 9, 5), "grad": array(r, t, 5, 4)}),
    "evaluate_retrieval": (evaluate, lambda r, t: {"queries": array(r, t, 4, 6), "documents": array(r, t, 9, 6),
        "relevant": indices(r, 9, 4, 2)}),
    "ndcg_at_k": (rt.ndcg_at_k, lambda r, t: {"ranked": rankings(r, 9, 4, 5), "relevant": indices(r, 9, 4), "k": 3}),
    "map_at_r": (rt.map_at_r, lambda r, t: {"ranked": rankings(r, 9, 4, 5), "relevant": indices(r, 9, 4, 3)}),
    "alignment": (rt.alignment, lambda r, t: {"x": array(r, t, 5, 3), "y": array(r, t, 5, 3), "alpha": 2.0}),
    "uniformity": (rt.uniformity, lambda r, t: {"x": array(r, t, 5, 3), "t": 2.0}),
    "trainer fit": (fit, lambda r, t: {"queries": array(r, t, 5, 6), "documents": array(r, t, 8, 6),
        "pairs": indices(r, 5, 7, 2), "temperature": 0.1, "epochs": 2}),
    "trainer fit_labels": (fit_labels, lambda r, t: {"X": array(r, t, 9, 6), "y": indices(r, 3, 9)}),
    "trainer fit_graph": (fit_graph, lambda r, t: {"edges": indices(r, 8, 9, 2)}),
}  # fmt: skip
# What else a message may call an argument: by what it makes of it, or the constructor's word for it.
ALSO = {
    "graph": ("edges",),
    "edges": ("graph",),
    "negative_ids": ("ids",),
    "anchor_ids": ("ids",),
    "documents": ("queries",),
}

ORACLES = {
    "infonce in-batch": lambda r, anchors, positives, temperature: (
        r[0], reference.infonce(anchors, positives, None, temperature).mean()),
    "infonce pool": lambda r, anchors, positives, negatives, temperature: (
        r[0], reference.infonce(anchors, positives, negatives, temperature).mean()),
    "logsumexp": lambda r, x, axis: (r, logsumexp(x.reshape(-1) if axis is None else np.moveaxis(x, axis, -1))),
    "cosine_similarity": lambda r, a, b, eps: (r, reference.cosine_similarity(a, b, eps)),
    "top_k": lambda r, queries, candidates, k: (
        r[0], -np.sort(-reference.cosine_similarity(queries, candidates), axis=1)[:, :k]),
}  # fmt: skip


def same(one, other):
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    return one is other is None or np.array_equal(one, other, equal_nan=True)


def clean(value):
    return np.array(value, order="C") if isinstance(value, np.ndarray) else value


def test_cases__are_ten_thousand():
    assert CASES * len(FUNCTIONS) >= 10_000


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=CASES // AT_ONCE, derandomize=True, deadline=None, database=None)
@given(random=st.randoms(use_true_random=True))
def test_function__gives_what_is_right_or_names_what_is_wrong(name, random):
    for _ in range(AT_ONCE):
        check_one_case(name, random)


def check_one_case(name, random):
    function, good = FUNCTIONS[name]
    dtype, seed = random.choice([np.float32, np.float64]), random.randint(0, 20)
    arguments = good(np.random.default_rng(seed), dtype)
    wrong = random.sample(sorted(arguments), min(len(arguments), random.choice([0, 1, 1, 2, 2, 2])))
    for argument in wrong:
        value = arguments[argument]
        if isinstance(value, np.ndarray):
            faults = FLOATS if value.dtype.kind == "f" else INTEGERS
            fault = random.choice(sorted(faults))
            arguments[argument] = faults[fault](value)
        else:
            fault = arguments[argument] = random.choice(NUMBERS)
        note(f"{name}, {dtype.__name__}, seed {seed}: {argument} is {fault!r}")
    before = {k: v.copy() for k, v in arguments.items() if isinstance(v, np.ndarray)}
    copies = {k: clean(v) for k, v in arguments.items()}
    try:
        result = function(**arguments)
    except (ValueError, TypeError) as error:
        names = [word for k in arguments for word in (k, *ALSO.get(k, ()))]
        assert any(re.search(rf"\b{word}\b", str(error)) for word in names), error
        changed = ()
    else:
        assert same(result, function(**copies))
        if name in ORACLES:
            wide = {k: np.asarray(v, np.float64) if np.ndim(v) else v for k, v in arguments.items()}
            with np.errstate(all="ignore"):
                actual, expected = ORACLES[name](result, **wide)
            bad = ~np.isfinite(expected)
            np.testing.assert_array_equal(np.asarray(actual)[bad], np.asarray(expected)[bad])
            actual, expected = np.where(bad, 0, actual), np.where(bad, 0, expected)
            if np.abs(expected).max(initial=0) > 1e-35:  # else float32 has not the digits
                assert relative_error(actual, expected) < TOLERANCE[np.float32]
        changed = ("params", "grads") if name in ("adamw", "sgd rows", "clip_grad_norm") else ()
    for key, value in before.items():
        if key not in changed:
            np.testing.assert_array_equal(arguments[key], value)


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_step__refuses_gradients_that_share_memory_with_params(wanted):
    whole = np.ones((8, 3))
    with pytest.raises(ValueError, match="grads must not share memory with params"):
        rt.AdamW((5, 3)).step(whole[:5], whole[wanted : wanted + 5])
    assert (whole == 1).all()
