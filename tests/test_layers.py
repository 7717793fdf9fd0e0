"""Every threading layer, in processes of their own: many threads at once, forked children, the same bits."""

import functools
import os
import textwrap

import processes
import pytest

WORK = """
import hashlib, os, sys, threading, warnings
import numba, numpy as np, rvtrain as rt

warnings.simplefilter("ignore")  # of forks in a process with threads
rng = np.random.default_rng(0)
anchors, positives = rng.normal(size=(2, 300, 48)).astype(np.float32)
candidates = rng.normal(size=(2000, 48)).astype(np.float32)
start, grads = rng.normal(size=(2, 60_000)).astype(np.float32)

def work():
    '''A digest of what a loss, a miner and an optimizer return, all large enough for the parallel kernels.'''
    digest = hashlib.sha256()
    value, pair = rt.InfoNCELoss().compute_with_gradients(anchors, positives, wrt=("anchors", "positives"))
    params = start.copy()
    rt.AdamW(params).step(params, grads, max_norm=1.0)
    drawn = rt.HardNegativeMiner.distance_weighted().mine(anchors, candidates, 5)
    for array in (np.array(value), *pair, rt.top_k(anchors, candidates, 7)[1], drawn, params):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
"""

EVERYTHING = """
edges = rng.integers(0, 2000, (6000, 2))
rows = rng.integers(0, 2000, 300)

def everything():
    '''The same of the other losses, miners and optimizers.'''
    names, found = ("anchors", "positives"), []
    for loss in (rt.InfoNCELoss(symmetric=True), rt.LocalContrastiveLoss(), rt.LocalContrastiveLoss(form="triplet")):
        found += [loss.compute(anchors, positives), *loss.compute_with_gradients(anchors, positives, wrt=names)[1]]
    local, spectral = rt.LocalContrastiveLoss(), rt.SpectralRegularization(normalized=True)
    for value, gradients in (
        local.compute_graph_with_gradients(candidates, edges, edges[::-1, ::-1]),
        spectral.compute_with_gradients(candidates, edges),
    ):
        found += [value, gradients]
    for strategy in rt.MiningStrategy:
        options = {"positives": positives} if strategy == rt.MiningStrategy.SEMI_HARD else {}
        found.append(rt.HardNegativeMiner(strategy).mine(anchors, candidates, 5, **options))
        found.append(rt.InBatchMiner(strategy).mine(anchors, 5, **options))
    found.append(rt.GraphNegativeMiner(edges).mine(candidates, 5))
    for make in (rt.SGD, rt.Adam):
        for state_dtype in ("float32", "int8"):
            table = candidates.copy()
            optimizer = make(table, 0.1, state_dtype=state_dtype, **({"momentum": 0.9} if make is rt.SGD else {}))
            for _ in range(2):
                optimizer.step(table, anchors, rows=rows, max_norm=1.0)
                optimizer.step(table, candidates, max_norm=1.0)
            found.append(table)
    digests = [hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest()[:8] for x in found
        for part in (x if isinstance(x, (tuple, list)) else [x])]
    return " ".join(digests)
"""


def run(code, layer=None, timeout=240):
    """What another process prints, under that layer."""
    chosen = f"import numba; numba.config.THREADING_LAYER = {layer!r}" if layer else ""
    code = chosen + WORK + textwrap.dedent(code)
    result = processes.run(code, env=os.environ, timeout=timeout)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.strip()


@functools.cache
def available(layer):
    """Whether numba can use the layer here. Anything else that fails in asking is an error."""
    module = layer if layer == "workqueue" else f"{layer}pool"
    code = f"""
import rvtrain
rvtrain.SGD  # kernels: what they have loaded is all that numba may find
try:
    import numba.np.ufunc.{module}
except ImportError:
    print("no")
else:
    print("yes")
"""
    return processes.run(code, env=os.environ).stdout == "yes\n"


NAMES = ("tbb", "omp", "workqueue")
CALLS = int(os.environ.get("RVTRAIN_THREAD_CALLS", "5"))
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")


@pytest.fixture(params=NAMES)
def layer(request):
    """Each layer that numba has here; workqueue it has everywhere."""
    if request.param != "workqueue" and not available(request.param):
        pytest.skip(f"numba has no {request.param} here")
    return request.param


@pytest.fixture(scope="module")
def expected():
    """The digest of a process with one thread."""
    return run("numba.set_num_threads(1); print(work())")


@pytest.fixture(scope="module")
def everything():
    """The digests of a process with one thread, which may have to compile for all others."""
    return run(EVERYTHING + "numba.set_num_threads(1); print(work(), everything())", timeout=600)


def test_same_bits_in_every_layer(layer, everything):
    code = (
        "print(work(), everything(), numba.threading_layer()); numba.set_num_threads(1); print(work(), everything())"
    )
    assert run(EVERYTHING + code, layer).splitlines() == [f"{everything} {layer}", everything]


def test_eight_threads_at_once(layer, expected):
    code = f"""
        found = []
        threads = [threading.Thread(target=lambda: found.extend(work() for _ in range({CALLS}))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(len(found), *set(found))
    """
    assert run(code, layer) == f"{8 * CALLS} {expected}"


FORKS = {
    "fork": """
        child = os.fork()
        if child == 0:
            os._exit(0 if work() == expected else 3)
        ok = os.wait()[1] == 0
    """,
    "grandchild": """
        if os.fork() == 0:
            if os.fork() == 0:
                os._exit(0 if work() == expected else 3)
            os._exit(os.wait()[1] != 0 or work() != expected)
        ok = os.wait()[1] == 0
    """,
    "Process": """
        queue = fork.Queue()
        process = fork.Process(target=lambda: queue.put(work()))
        process.start()
        ok = queue.get(timeout=5) == expected
        process.join()
    """,
    "Pool": """
        with fork.Pool(2) as pool:
            ok = pool.map_async(call, range(4)).get(timeout=5) == [expected] * 4
    """,
    "ProcessPoolExecutor": """
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=fork) as pool:
            ok = list(pool.map(call, range(4), timeout=5)) == [expected] * 4
    """,
    "DataLoader": """
        from torch.utils.data import DataLoader
        loader = DataLoader(
            [0, 1, 2], num_workers=2, batch_size=None, collate_fn=call, multiprocessing_context=fork, timeout=20
        )
        ok = list(loader) == [expected] * 3
    """,
}


@needs_fork
@pytest.mark.parametrize("torch", [False, True], ids=["standard library", "torch"])
def test_forked_children_compute_after_their_parent_has(layer, torch, expected):
    """One way after the other in one process."""
    if torch:
        pytest.importorskip("torch")
    ways = [way for way in FORKS if (way == "DataLoader") is torch]
    code = """
import concurrent.futures, multiprocessing
fork = multiprocessing.get_context("fork")
expected = work()
print(expected)
def call(_):
    return work()
"""
    for way in ways:
        code += f"{textwrap.dedent(FORKS[way])}\nprint('{way}', ok, flush=True)\n"
    assert run(code, layer, timeout=60).splitlines() == [expected, *(f"{way} True" for way in ways)]
