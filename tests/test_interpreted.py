"""Under NUMBA_DISABLE_JIT kernels run as Python: slowly, but coverage sees their lines, and the results are equal."""

import os
import subprocess
import sys

import numpy as np
from conftest import relative_error

# Saves what small calls return, which between them go through most of the primitives.
CALLS = """
import sys
import numpy as np
import rvtrain as rt

rng = np.random.default_rng(0)
a, p, x = rng.normal(size=(3, 9, 5))
edges = rng.integers(0, 9, (12, 2))
everything = ("anchors", "positives", "temperature")
loss, gradients = rt.InfoNCELoss(0.1).compute_with_gradients(a, p, wrt=everything)
smoothness, to_nodes = rt.SpectralRegularization().compute_with_gradients(a, edges)
scores, found = rt.top_k(a.astype(np.float32), rng.normal(size=(60, 5)).astype(np.float32), 3)
near = rt.top_k(a[:2], x, 3)[1]
drawn = rt.weighted_sample(np.abs(x), 2, 0)
table, gradient = x.astype(np.float32), a.astype(np.float32)
optimizer = rt.AdamW(table, 0.1, state_dtype="int8")
optimizer.step(table, gradient, max_norm=1.0)
optimizer.step(table, gradient[:3], rows=[1, 4, 1])
np.savez(
    sys.argv[1], loss=loss, to_anchors=gradients[0], to_positives=gradients[1], to_temperature=gradients[2],
    smoothness=smoothness, to_nodes=to_nodes, scores=scores, found=found, near=near, drawn=drawn, table=table,
)
"""


def results(path, **environment):
    """What the calls return in a process of its own."""
    env = {**os.environ, **environment}
    subprocess.run([sys.executable, "-W", "error", "-c", CALLS, str(path)], check=True, timeout=600, env=env)
    return np.load(path)


def test_interpreted_kernels__agree_with_the_compiled(tmp_path):
    compiled = results(tmp_path / "compiled.npz")
    interpreted = results(tmp_path / "interpreted.npz", NUMBA_DISABLE_JIT="1")
    assert len(compiled.files) == 11
    for name in compiled.files:
        assert interpreted[name].dtype == compiled[name].dtype
        assert relative_error(interpreted[name], compiled[name]) < 1e-5, name


def test_info_and_warmup__say_that_nothing_is_compiled():
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    info, warmup = (
        subprocess.run(
            [sys.executable, "-m", "rvtrain", command], capture_output=True, text=True, env=env, check=False
        )
        for command in ("info", "warmup")
    )
    assert info.returncode == 0
    assert "none: nothing parallel has run" in info.stdout
    assert warmup.returncode != 0
    assert "NUMBA_DISABLE_JIT" in warmup.stderr and "Traceback" not in warmup.stderr
