"""A long life: mixed calls again and again, in a process of their own, and nothing grows."""

import json
import os
import subprocess
import sys

import pytest

SOAK = """
import json, os, sys
import numpy as np, rvtrain as rt

rng = np.random.default_rng(0)
pool = rng.normal(size=(3000, 32)).astype(np.float32)
table, optimizer = pool.copy(), rt.Adam(pool, state_dtype="int8", lazy="exact")
miner, loss = rt.HardNegativeMiner.distance_weighted(), rt.InfoNCELoss()
edges = rng.integers(0, 3000, (5000, 2))

def mixed():
    size = int(rng.integers(1, 400))
    anchors, positives = rng.normal(size=(2, size, 32)).astype(np.float32)
    loss.compute_with_gradients(anchors, positives, pool[miner.mine(anchors, pool, 3)])
    rt.top_k(anchors, pool, 5)
    optimizer.step(table, anchors, rows=rng.integers(0, 3000, size), max_norm=1.0)
    rt.SpectralRegularization().compute_with_gradients(pool, edges)
    try:
        loss.compute(anchors, positives[:, :5])
    except ValueError:
        pass
    rt.save_checkpoint(sys.argv[1], optimizer=optimizer, table=table)
    optimizer.load_state_dict(rt.load_checkpoint(sys.argv[1])["optimizer"])

def usage():
    resident = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resident, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

for _ in range(100):
    mixed()
before = usage()
for _ in range(int(sys.argv[2])):
    mixed()
print(json.dumps([before, usage()]))
"""
CALLS = os.environ.get("RVTRAIN_SOAK", "50")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_mixed_calls__let_nothing_grow(tmp_path):
    call = [sys.executable, "-W", "error", "-c", SOAK, str(tmp_path / "soak.npz"), CALLS]
    result = subprocess.run(call, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    (resident, threads, files), (resident_after, threads_after, files_after) = json.loads(result.stdout)
    assert resident_after - resident < 16  # MiB, that malloc may keep
    assert (threads_after, files_after) == (threads, files)
