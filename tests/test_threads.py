"""The threading layer, and what a call must leave as it found it."""

import importlib.metadata
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest

import rvtrain as rt


def has_tbb():
    try:
        return bool(importlib.metadata.version("tbb"))
    except importlib.metadata.PackageNotFoundError:
        return False


needs_tbb = pytest.mark.skipif(not has_tbb(), reason="TBB has no wheels for this platform")


# A call that is large enough to wake the threads.
STEP = """
import os, numba, numpy as np, rvtrain as rt
def step():
    params = np.zeros(1_000_000)
    rt.SGD(1_000_000, 0.5).step(params, np.ones(1_000_000))
    return set(params.tolist())
"""


def run(code):
    """What a process of its own prints after `code`, run where a forked child is a matter of course."""
    call = [sys.executable, "-W", "ignore", "-c", STEP + code]
    result = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@needs_tbb
def test_layer__is_tbb_where_it_is_installed():
    assert run("step(); print(numba.threading_layer())") == "tbb"


def test_layer__is_another_where_tbb_is_not_installed():
    missing = """
import importlib.metadata
found = importlib.metadata.files
def files(name):
    if name == "tbb":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.files = files
print(step() == {-0.5}, numba.threading_layer() in ("omp", "workqueue"))
"""
    assert run(missing) == "True True"


@needs_tbb
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_forked_child__computes_after_its_parent_has():
    fork = "step()\nif os.fork():\n    print(os.wait()[1])\nelse:\n    os._exit(step() != {-0.5})"
    assert run(fork) == "0"


def test_calls__leave_the_users_thread_count(rng):
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        rt.InfoNCELoss().compute(rng.normal(size=(300, 64)), rng.normal(size=(300, 64)))
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)


def test_calls__from_several_threads_at_once_are_right(rng):
    batches = [rng.normal(size=(2, n, 32)).astype(np.float32) for n in (70, 90, 200, 300)] * 5
    loss, names = rt.InfoNCELoss(), ("anchors", "positives")

    def work(batch):
        value, (ga, gp) = loss.compute_with_gradients(*batch, wrt=names)
        return value, ga.tobytes(), gp.tobytes()

    alone = [work(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, batches)) == alone


@needs_tbb
def test_info__tells_what_is_used(capsys):
    from rvtrain import cli

    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["threading layer"] in ("tbb", "omp", "workqueue")
    assert facts["threads"] == numba.get_num_threads() and facts["vector bits"] in (128, 256, 512)
    assert facts["numba"] == numba.__version__ and facts["tbb"] == importlib.metadata.version("tbb")
    assert cli.main(["info"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(facts)


def test_alternating_with_blas__changes_nothing(rng):
    """What it costs is measured by a benchmark."""
    before = numba.get_num_threads(), numba.config.THREADING_LAYER, dict(os.environ)
    a = rng.normal(size=(128, 128)).astype(np.float32)
    product, norm = a @ a, None
    for _ in range(300):
        assert np.array_equal(a @ a, product)
        now = rt.clip_grad_norm(np.ones(200_000, np.float32), 1e9)
        assert norm in (None, now)
        norm = now
    assert before == (numba.get_num_threads(), numba.config.THREADING_LAYER, dict(os.environ))
