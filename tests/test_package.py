"""The house rules that a machine can check: a lazy import, layers, file sizes, documented names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rvtrain

ROOT = Path(rvtrain.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
NAMES = [name for name in rvtrain.__all__ if not name.startswith("__")]
# From the ground up: a module may import from its own layer and those before it.
LAYERS = [
    {"_atomic", "_errors", "_lazy", "_safetensors", "_validation"},
    {"_kernels"},
    {"_progress"},
    {"_engine"},
    {"distributed"},
    {"_graph_kernels", "graph"},
    {"losses", "optimizers", "mining", "curriculum", "functional", "checkpoint", "text"},
    {"training"},
    {"demo", "_machine", "_warmup"},
    {"report", "export"},
    {"sklearn", "torch"},
    {"_commands", "_plots"},
    {"cli"},
    {"__main__"},
]


def run(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_import__is_lazy():
    heavy = "{'numba', 'numpy', 'scipy', 'torch', 'tqdm', 'llvmlite', 'mpi4py'}"
    assert run(f"import sys, rvtrain; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_import__of_everything_needs_only_numpy_and_numba():
    blocked = "for name in ('tqdm', 'scipy', 'torch', 'sklearn', 'matplotlib'): sys.modules[name] = None"
    assert (
        run(f"import sys\n{blocked}\nimport rvtrain\nfor n in rvtrain.__all__: getattr(rvtrain, n)\nprint(1)") == "1"
    )


def test_import__of_everything_loads_no_mpi():
    code = "import sys, rvtrain\nfor n in rvtrain.__all__: getattr(rvtrain, n)\nprint('mpi4py' in sys.modules)"
    assert run(code) == "False"


def test_import__of_the_part_for_torch_says_that_it_needs_torch():
    code = "import sys; sys.modules['torch'] = None\ntry: import rvtrain.torch\nexcept ImportError as e: print(e)"
    assert run(code) == "rvtrain.torch needs torch: pip install torch"


def test_getattr__knows_its_names_and_no_others():
    for name in rvtrain.__all__:
        assert getattr(rvtrain, name) is not None
        assert name in dir(rvtrain)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        rvtrain.nonsense  # noqa: B018


def imports(path):
    """Absolute names of the modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_source__keeps_to_its_layer_and_size(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    place = path.relative_to(ROOT).with_suffix("").parts[0]
    if place != "__init__":
        level = next(i for i, layer in enumerate(LAYERS) if place in layer)
        allowed = set().union(*LAYERS[: level + 1])
        for name in imports(path):
            if name.startswith("rvtrain."):
                assert name.split(".")[1] in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_numba__is_known_to_one_room_alone(path):
    if path.relative_to(ROOT).parts[0] != "_kernels":
        assert not {name.split(".")[0] for name in imports(path)} & {"numba", "llvmlite"}


@pytest.mark.parametrize("name", NAMES)
def test_public_name__is_documented(name):
    text = getattr(rvtrain, name).__doc__
    assert "Examples\n" in text and ">>> " in text
    if name not in ("release_workspaces", "get_float32_precision"):
        assert "References\n" in text
