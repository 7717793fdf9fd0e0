"""The loop in the README runs as written, and trains."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parents[1] / "README.md"
# The package is specified by this loop: it must keep running word for word.
LOOP = """\
loss = rt.InfoNCELoss(0.07)
optimizer = rt.AdamW(512, 0.001, 0.01)
curriculum = rt.CurriculumScheduler.linear(3, 1000, 5, 20, 1.0, 0.1)
miner = rt.HardNegativeMiner.semi_hard(0.2)
for epoch in range(num_epochs):
    stage = curriculum.current_params()
    neg_indices = miner.mine(anchor, candidates, stage.k_neighbors)
    loss_val, grads = loss.compute_with_gradients(anchor, positive, candidates[neg_indices])
    optimizer.step(params, grads)
    curriculum.step(batch_size)
"""


def test_readme__loop_runs_and_brings_the_anchor_to_its_positive():
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block.endswith(LOOP)
    scope: dict = {}
    exec(block.replace("for epoch", "first = params.copy()\nfor epoch"), scope)

    def value(anchor):
        return scope["loss"].compute(anchor, scope["positive"], scope["candidates"][1:])

    assert np.isfinite(scope["loss_val"])
    assert scope["neg_indices"].shape == (20,)
    assert scope["curriculum"].is_complete
    assert value(scope["params"]) < 0.9 * value(scope["first"])
