"""Types: a stub that names what the package has, and results whose types a checker knows."""

import ast
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

import rvtrain as rt

ROOT = Path(rt.__file__).parent
README = Path(__file__).parents[1] / "README.md"
NAMES = [name for name in rt.__all__ if not name.startswith("__")]
# Model: with a type for x, a model of fewer kinds of inputs would not be one; what forward saves is the model's own.
# load_model: a file holds a model of any class; of a union each use would have to rule out all classes but one.
LOOSE = {"Model", "load_model"}
# Calls whose result depends on an argument, in the scope of the README's loop.
CALLS = {
    "stage.temperature": "float",
    "curriculum.progress": "float",
    "loss.compute(anchor, positive, candidates)": None,
    'loss.compute_with_gradients(anchor, positive, candidates, wrt=("anchors", "positives"))': None,
    "rt.MatryoshkaLoss(loss, [512]).compute(anchor, positive, candidates)": None,
    "rt.MatryoshkaLoss(loss, [512]).compute_with_gradients(anchor, positive, candidates)": None,
    'rt.MatryoshkaLoss(loss, [512]).compute_with_gradients(anchor, positive, candidates, wrt=("anchors",))': None,
    "optimizer.step(params, grads)": "None",
    "optimizer.step(params, grads, max_norm=1.0)": "float",
    "rt.SpectralRegularization().compute_with_gradients(candidates, [[0, 1]])": None,
    'rt.SpectralRegularization().compute_with_gradients(candidates, [[0, 1]], wrt=("embeddings",))': None,
    "rt.EMA(grads).average": None,
    'rt.EMA({"weight": grads}).average["weight"]': None,
    "rt.clip_grad_norm(grads, 1.0)": "float",
    "rt.warmup_cosine(1.0, 10, 100)(5)": "float",
    "rt.TemperatureAnnealing().step()": "float",
    "miner.mine(anchor, candidates, 4)": None,
    "miner.mine(anchor, candidates, 4, return_scores=True)": None,
    "rt.InBatchMiner.random().mine(anchor, 4, return_scores=True)": None,
    "rt.GraphNegativeMiner([[0, 1]]).mine(candidates, 4, return_scores=True)": None,
    "rt.top_k(anchor, candidates, 4)": None,
    "rt.weighted_sample(candidates, 4, 0)": None,
    "rt.cosine_similarity(candidates, candidates)": None,
    "rt.logsumexp(candidates)": None,
    "rt.logsumexp(candidates, None)": None,
}
# NumPy itself writes Any for a shape that is not known, and for such a precision.
NUMPY_UNKNOWN = re.compile(r"tuple\[Any, \.\.\.\]|(?:floating|integer|signedinteger|unsignedinteger)\[Any\]")


def revealed(source, asked, indent, folder):
    """The types that mypy reveals of expressions at the end of a script, in which everything else is strict too."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("needs mypy")
    script = folder / "script.py"
    script.write_text(source + "".join(f"{indent}reveal_type({one})\n" for one in asked), encoding="utf-8")
    installed = {"site-packages", "dist-packages"} & set(ROOT.parts)
    env = os.environ if installed else {**os.environ, "MYPYPATH": str(ROOT.parent)}
    options = ["--strict", "--follow-imports=silent", "--config-file=", "--no-error-summary", "--no-pretty"]
    command = [sys.executable, "-m", "mypy", *options, f"--cache-dir={folder / 'cache'}", str(script)]
    run = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    answers = re.findall(r'note: Revealed type is "(.*)"$', run.stdout, re.MULTILINE)
    return dict(zip(asked, answers, strict=True))


def test_stub__names_what_the_package_has():
    tree = ast.parse((ROOT / "__init__.pyi").read_text(encoding="utf-8"))
    names = [(node.module, name) for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names]
    assert all(name.asname == name.name for _, name in names)  # written so, an import is a public name
    modules = {name.name for module, name in names if module == "rvtrain"}
    homes = {name.name: module for module, name in names if module != "rvtrain"}
    assert sorted(homes) == sorted(NAMES)
    assert modules == {module for module in rt._HOMES if not module.startswith("_")}
    for name, module in homes.items():
        assert getattr(importlib.import_module(module), name) is getattr(rt, name)


def functions(thing):
    """The functions of this package that a public name is, or that it offers as methods and properties."""
    members = [thing]
    if inspect.isclass(thing):
        members = [
            getattr(member, "__func__", getattr(member, "fget", member))
            for cls in thing.__mro__
            for name, member in vars(cls).items()
            if name == "__init__" or not name.startswith("_")
        ]
    return [f for f in members if inspect.isfunction(f) and f.__module__.startswith("rvtrain")]


@pytest.mark.parametrize("name", sorted(set(NAMES) - LOOSE))
def test_public_functions__are_annotated_and_take_no_any(name):
    for function in functions(getattr(rt, name)):
        signature = inspect.signature(function)
        parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
        missing = [p.name for p in parameters if p.annotation is p.empty]
        single = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        loose = [p.name for p in single if Any in (p.annotation, *get_args(p.annotation)) and p.name != "state"]
        assert not missing and not loose, f"{function.__qualname__}: no types of {missing}, Any for {loose}"
        assert signature.return_annotation not in (signature.empty, Any), function.__qualname__


def test_readme__loop_has_no_any(tmp_path):
    """Objects and results of the loop, and of calls whose results depend on their arguments."""
    text = README.read_text(encoding="utf-8").partition("<!-- tests/test_usage_loop.py runs this block -->")[2]
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    results = ["loss", "optimizer", "curriculum", "miner", "stage", "loss_val", "grads"]
    assert all(re.search(rf"\b{name}\b.* = ", block) for name in results)
    types = revealed(block, [*results, *CALLS, *(f"rt.{name}" for name in NAMES)], "    ", tmp_path)
    assert not [name for name in NAMES if types[f"rt.{name}"] == "Any"]
    asked = {one: NUMPY_UNKNOWN.sub("", types[one]) for one in (*results, *CALLS)}
    unknown = {one: kind for one, kind in asked.items() if re.search(r"\bAny\b", kind)}
    assert not unknown
    assert asked["optimizer"].endswith("AdamW")
    for one, kind in CALLS.items():
        assert kind is None or asked[one].removeprefix("builtins.") == kind
