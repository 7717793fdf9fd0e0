"""The loop in the README runs as written, and trains."""

import re
from pathlib import Path

import numpy as np
import pytest

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


# What each page must have found by its end.
PAGES = {
    "retriever": lambda s: s["before"] < 0.1 < 0.7 < s["after"] and s["found"].shape == (300, 10),
    "migrate": lambda s: (
        s["before"]["new queries, old index"] < 0.02
        and 0.25 < s["mapped"]["ridge"] < s["mapped"]["procrustes"]
        and s["before"]["old queries, old index"] + 0.1 < s["mapped"]["trained, documents frozen"]
    ),
    "graph": lambda s: (
        s["smooth"].max() > 1.2 * s["plain"].max() > 0.4 and s["same"] > 0.8 and s["hard"].shape == (320, 5)
    ),
    "labels": lambda s: s["history"]["map@r"].max() > 2.5 * s["history"]["map@r"][0] and s["accuracy"] > s["plain"],
    "callbacks": lambda s: (
        s["trainer"].history["loss"][-1] < s["trainer"].history["loss"][1] and _lines(s["log"]) > 2 * 10
    ),
    "texts": lambda s: s["before"] < 0.35 < 0.6 < s["after"] and any("json" in name for name in s["answers"]),
    "torch": lambda s: s["values"][-1] < 0.5 * s["values"][0] and s["loss"].logit_scale.item() > 2.0,
    "lbfgs": lambda s: s["found"].fun < 0.95 * s["adam"] and s["before"] < 0.5 < s["after"],
    "report": lambda s: _lines(s["path"]) > 50,
    "negatives": lambda s: (
        not (s["found"][:20] == np.arange(500, 520)[:, np.newaxis]).any() and _lines(s["path"]) == 1000
    ),
}


def _lines(path):
    return len(Path(path).read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("page", PAGES)
def test_example__runs_and_shows_what_it_says(page):
    text = (README.parent / "docs" / "examples" / f"{page}.md").read_text(encoding="utf-8")
    for package in ("sklearn", "scipy", "torch"):
        if f"from {package}" in text or f"import {package}\n" in text:
            pytest.importorskip(package)
    scope: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, scope)
    assert PAGES[page](scope)


def test_guide__snippets_run():
    guide = README.parent / "docs" / "guide.md"
    scope: dict = {}
    for block in re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, scope)
    assert scope["gradient"].shape == (4, 8)
    assert scope["state"]["optimizer"]["kind"] == "AdamW"
