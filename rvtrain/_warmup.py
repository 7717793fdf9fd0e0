"""Compile all kernels ahead of use, for container images and for clusters that share a cache folder."""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import rvtrain as rt
from rvtrain._engine._bfloat16 import has_bfloat16
from rvtrain._kernels import _cache, _compiling, disabled
from rvtrain.mining._certified import FEWEST_CANDIDATES, is_possible
from rvtrain.optimizers._clip import SMALL
from rvtrain.training._adapter_kernels import add_rows, take_rows

ROWS, DIM = 40, 8
DTYPES = ("float32", "float64")
Task = tuple[str, str]
"""A key of `WORK`, and a dtype."""


def compile_all() -> Iterator[tuple[int, int]]:
    """Compile all kernels, in as many processes as there are processors; yields (tasks done, number of tasks).

    Raises
    ------
    OSError
        If there is no cache folder, or NUMBA_DISABLE_JIT is set.
    """
    if disabled():
        raise OSError("nothing to compile: NUMBA_DISABLE_JIT is set")
    if _cache.folder() is None:
        raise OSError("nowhere to keep compiled kernels: set RVTRAIN_CACHE_DIR to a folder of your own")
    tasks = [(name, dtype) for name in WORK for dtype in DTYPES]
    processes = min(len(tasks), os.cpu_count() or 1)
    with concurrent.futures.ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for done, task in enumerate(concurrent.futures.as_completed(pool.submit(compile_one, t) for t in tasks), 1):
            task.result()
            yield done, len(tasks)


def compile_one(task: Task) -> None:
    """Run the calls of one task, which compile kernels or read them from disk."""
    name, dtype = task
    with _compiling.listening(lambda running: None):  # no line on stderr, because the caller shows a progress bar
        WORK[name](np.dtype(dtype), np.random.default_rng(0))


def _infonce(dtype: np.dtype, rng: np.random.Generator) -> None:
    a, p, n = rng.normal(size=(3, ROWS, DIM)).astype(dtype)
    every = ("anchors", "positives", "negatives", "temperature")
    _score_all(rt.InfoNCELoss(), every, a, p, n)
    if dtype == np.float64:  # rows whose squares overflow have a kernel of their own
        rt.InfoNCELoss().compute(1e160 * a, p)
    for temperature in (0.5, 0.001):
        symmetric = rt.InfoNCELoss(temperature, symmetric=True)
        symmetric.compute_with_gradients(a, p, wrt=every[:2])
        symmetric.compute_with_gradients(a, p, wrt=every[:2], guide=(a, p))
    directions = ("query_to_document", "query_to_query", "document_to_query", "document_to_document")
    for loss in (rt.InfoNCELoss(directions=directions), rt.InfoNCELoss(similarity="euclidean")):
        loss.compute_with_gradients(a, p, wrt=every[:2])


def _score_all(loss: Any, every: tuple[str, ...], a: np.ndarray, p: np.ndarray, n: np.ndarray) -> None:
    """In-batch negatives, a pool, and negatives gathered from a pool, with gradients."""
    ids = np.arange(ROWS)
    indices = np.stack([ids, ids[::-1], ids], axis=1)
    loss.compute_with_gradients(a, p, wrt=every[:2], anchor_ids=ids)
    loss.compute_with_gradients(a, p, n, wrt=every, anchor_ids=ids, negative_ids=ids)
    loss.compute_with_gradients(a, p, n, wrt=every, negative_indices=indices)
    loss.compute_with_gradients(a, p, n[indices], wrt=every)


def _softmax_family(dtype: np.dtype, rng: np.random.Generator) -> None:
    a, p, n = rng.normal(size=(3, ROWS, DIM)).astype(dtype)
    every = ("anchors", "positives", "negatives")
    for loss in (rt.DecoupledContrastiveLoss(), rt.HardNegativeContrastiveLoss(), rt.SigmoidLoss()):
        _score_all(loss, every, a, p, n)


def _labelled_and_graded(dtype: np.dtype, rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, ROWS, DIM)).astype(dtype)
    labels, grades = np.arange(ROWS) // 2, rng.random(ROWS)
    for labelled in (rt.SupConLoss(), rt.MultiSimilarityLoss()):
        labelled.compute_with_gradients(a, labels)
    rt.SupConLoss().compute_with_gradients(a, labels, b, labels, wrt=("embeddings", "references"))
    for graded in (rt.CoSENTLoss(), rt.CosineSimilarityLoss()):
        graded.compute_with_gradients(a, b, grades, wrt=("a", "b"))
    rt.SpreadRegularization().compute_with_gradients(a)
    every, scores = ("anchors", "positives", "negatives"), rng.random((ROWS, ROWS + 1))
    indices = rng.integers(0, ROWS, (ROWS, 3))
    for taught in (rt.MarginMSELoss(), rt.DistillKLLoss(), rt.ListNetLoss()):
        taught.compute_with_gradients(a, b, a, scores, wrt=every)
        taught.compute_with_gradients(a, b, a, scores[:, :4], wrt=every, negative_indices=indices)


def _local_and_spectral(dtype: np.dtype, rng: np.random.Generator) -> None:
    a, p, n = rng.normal(size=(3, ROWS, DIM)).astype(dtype)
    edges, others = rng.integers(0, ROWS, (2, ROWS, 2))
    for form in ("pairwise", "triplet"):
        loss = rt.LocalContrastiveLoss(2.0, form=form)
        every = ("anchors", "positives", "negatives")
        loss.compute_with_gradients(a, p, wrt=every[:2], anchor_ids=edges[:, 0])
        loss.compute_with_gradients(a, p, n, wrt=every)
        loss.compute_with_gradients(a, p, n, wrt=every, negative_indices=others)
        loss.compute_graph_with_gradients(a, edges, others)
    for normalized in (True, False):
        spectral = rt.SpectralRegularization(normalized=normalized)
        wrt = ("embeddings", "edge_weights")
        spectral.compute_with_gradients(a, edges, rng.random(ROWS).astype(dtype), wrt=wrt)
        spectral.compute_with_gradients(a, edges)


def _optimizers(dtype: np.dtype, rng: np.random.Generator, state_dtype: str = "float32") -> None:
    grads, rows = rng.normal(size=(ROWS, DIM)).astype(dtype), rng.integers(0, ROWS, ROWS)
    for lazy in ("idle", "exact"):
        for make, options in (
            (rt.SGD, {"momentum": 0.9}),
            (rt.Adam, {"amsgrad": True}),
            (rt.Lion, {"betas": (0.9, 0.9)}),
        ):
            for choice in ({}, options):
                optimizer = make((ROWS, DIM), 0.01, lazy=lazy, state_dtype=state_dtype, **choice)
                params = grads.copy()
                for here in (None, rows, rows[:3], rows, None):
                    g = grads if here is None else grads[: len(here)]
                    optimizer.step(params, g.copy(), rows=here, max_norm=1.0, zero_grads=here is None)
                    optimizer.step(params, g, rows=here)
    if state_dtype == "float32":
        averaging = rt.ScheduleFreeAdamW((ROWS, DIM), lazy="exact")
        for other in (rt.Adagrad((ROWS, DIM)), rt.Adagrad((ROWS, DIM), rowwise=True), averaging):
            params = grads.copy()
            for here in (None, rows, rows[:3]):
                other.step(params, grads if here is None else grads[: len(here)], rows=here)
        averaging.eval(params)
    large = np.zeros(SMALL + 1, dtype)  # small arrays are checked by NumPy, not by a kernel
    rt.SGD(len(large), 0.01).step(large, large.copy())
    rt.clip_grad_norm(grads, 1.0)
    rt.EMA(grads).update(grads)


def _compact(dtype: np.dtype, rng: np.random.Generator) -> None:
    for state_dtype in ("bfloat16", "int8"):
        _optimizers(dtype, rng, state_dtype)


def _search(dtype: np.dtype, rng: np.random.Generator) -> None:
    candidates = rng.normal(size=(FEWEST_CANDIDATES, DIM)).astype(dtype)
    for queries in (candidates[:ROWS], candidates[0]):
        rt.top_k(queries, candidates, 3)
        if is_possible(len(candidates), DIM, dtype):
            rt.top_k(queries, candidates, 3, method="bounds")
            miner = rt.HardNegativeMiner.hardest()
            for _ in range(2):  # the second call knows the choice of the first
                miner.mine(queries, candidates, 3, method="bounds")
            miner.mine(queries, candidates, 3, max_score=0.2, method="bounds")  # a ceiling among the scores
        rt.top_k(queries, iter([candidates]), 3)
        rt.HardNegativeMiner.semi_hard().mine(queries, candidates, 3, positives=queries, range_max=9)
        rt.HardNegativeMiner.hardest().mine(queries, candidates, 3, range_max=9, sampling="random")
        for strategy in rt.MiningStrategy:
            rt.HardNegativeMiner(strategy).mine(queries, candidates, 3, positives=queries, sampling="random")
            rt.HardNegativeMiner(strategy, density="wu2017").mine(queries, candidates, 3, range_min=1)


def _training(dtype: np.dtype, rng: np.random.Generator) -> None:
    x = rng.normal(size=(ROWS, DIM)).astype(dtype)
    for adapter in (rt.LinearAdapter(DIM, rank=2, dtype=dtype), rt.MLPAdapter(DIM, dtype=dtype)):
        y, saved = adapter.forward_rows(x, np.arange(5))
        adapter.backward(saved, y, to_input=True)
    add_rows.serial(DIM, y, np.arange(5), y.copy())
    take_rows.serial(5, y, np.arange(5), y.copy())
    features = rt.HashedNgrams(ROWS, dtype=dtype).fit(["a text", "another"])
    encoder = rt.BagEncoder(ROWS, DIM, features=features, dtype=dtype)
    y, bags = encoder.forward(["a text", "more"])
    encoder.backward(bags, y)["table"].toarray()
    one = np.arange(ROWS)
    several = np.stack([np.tile(one, 2), np.append(one, np.roll(one, 1))], axis=1)  # documents of two queries each
    adapter = rt.LinearAdapter(DIM, dtype=dtype)
    trainer = rt.Trainer(
        adapter, rt.InfoNCELoss(symmetric=True), rt.SGD(adapter.params, 0.01), epochs=1, progress=False
    )
    trainer.fit(x, x, several)


def _medium(dtype: np.dtype, rng: np.random.Generator) -> None:
    """Products of bfloat16, which float64 does not have; those of "high" run the same code on other sizes."""
    if dtype == np.float64 or not has_bfloat16():
        return
    before = rt.get_float32_precision()
    rt.set_float32_precision("medium")
    try:
        _infonce(dtype, rng)
        adapter, x = rt.LinearAdapter(DIM), rng.normal(size=(ROWS, DIM)).astype(dtype)
        adapter.backward(adapter.forward_rows(x, np.arange(5))[1], x[:5], to_input=True)
    finally:
        rt.set_float32_precision(before)


def _graphs(dtype: np.dtype, rng: np.random.Generator) -> None:
    edges, walks = rng.integers(0, ROWS, (ROWS, 2)), rt.RandomWalks(3, 2, 1)
    for loss in (rt.LocalContrastiveLoss(), rt.LocalContrastiveLoss(form="triplet"), rt.InfoNCELoss(0.2)):
        for state_dtype in ("float32", "bfloat16"):  # steps in the kernel, and by the gradients
            table = rt.EmbeddingTable(ROWS, DIM, dtype=dtype)
            optimizer = rt.Adam(table.params, 0.05, state_dtype=state_dtype)
            trainer = rt.Trainer(table, loss, optimizer, epochs=1, progress=False)
            trainer.fit_graph(edges, walks=walks, ns_exponent=0.75, shared_negatives=False)


def _functional(dtype: np.dtype, rng: np.random.Generator) -> None:
    x = rng.normal(size=(ROWS, DIM)).astype(dtype)
    rt.logsumexp(x)
    rt.cosine_similarity(x, x)
    rt.weighted_sample(np.abs(x), 2, 0)
    rt.top_k_quantized(x, rt.quantize(x, "binary"), 2, "binary")
    rt.InBatchMiner(rt.MiningStrategy.HARDEST).mine(x, 2, positives=x, ids=np.arange(ROWS))
    rt.GraphNegativeMiner(rng.integers(0, ROWS, (2 * ROWS, 2))).mine(x, 2)


WORK: dict[str, Callable[[np.dtype, np.random.Generator], None]] = {
    "infonce": _infonce,
    "medium precision": _medium,
    "softmax family": _softmax_family,
    "labelled and graded": _labelled_and_graded,
    "local and spectral": _local_and_spectral,
    "optimizers": _optimizers,
    "compact optimizers": _compact,
    "training": _training,
    "graphs": _graphs,
    "search": _search,
    "functional": _functional,
}
