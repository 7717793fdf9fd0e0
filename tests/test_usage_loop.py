"""The loop in the README runs as written, and trains."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parents[1] / "README.md"


def test_readme__loop_runs_and_brings_the_anchor_to_its_positive():
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    scope: dict = {}
    exec(block.replace("for epoch", "first = params.copy()\nfor epoch"), scope)

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert np.isfinite(scope["loss_val"])
    assert scope["neg_indices"].shape == (20,)
    assert scope["curriculum"].is_complete
    assert cosine(scope["params"], scope["positive"]) > cosine(scope["first"], scope["positive"])


def test_guide__snippets_run():
    guide = README.parent / "docs" / "guide.md"
    scope: dict = {}
    for block in re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, scope)
    assert scope["gradient"].shape == (4, 8)
    assert scope["state"]["optimizer"]["kind"] == "AdamW"
