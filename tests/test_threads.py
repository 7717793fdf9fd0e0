"""The threading layer, and what a call must leave as it found it."""

import importlib.util
import subprocess
import sys

import numba
import numpy as np
import pytest

import rvtrain as rt


def test_layer__is_tbb_where_it_is_installed():
    if importlib.util.find_spec("tbb") is None and sys.platform != "linux":
        pytest.skip("no TBB for this platform")
    code = (
        "import numpy as np, rvtrain as rt, numba\n"
        "rt.SGD(1_000_000, 0.1).step(np.zeros(1_000_000), np.ones(1_000_000))\n"
        "print(numba.threading_layer())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "tbb"


def test_calls__leave_the_users_thread_count(rng):
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        rt.InfoNCELoss().compute(rng.normal(size=(300, 64)), rng.normal(size=(300, 64)))
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)


def test_calls__from_several_threads_at_once_are_right(rng):
    from concurrent.futures import ThreadPoolExecutor

    batches = [rng.normal(size=(2, n, 32)).astype(np.float32) for n in (70, 90, 200, 300)] * 5
    loss, names = rt.InfoNCELoss(), ("anchors", "positives")

    def work(batch):
        value, (ga, gp) = loss.compute_with_gradients(*batch, wrt=names)
        return value, ga.tobytes(), gp.tobytes()

    alone = [work(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, batches)) == alone
