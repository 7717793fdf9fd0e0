"""The benchmarks: asv takes a larger figure as a worse one, so that each figure has to grow with our time."""

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "asv_benchmarks"
MODULES = sorted(path.stem for path in (FOLDER / "benchmarks").glob("*.py") if path.stem != "__init__")
# Of times, of memory, of misses: whatever it is, less is better. No rates, no shares of a peak, no "times faster".
LESS_IS_BETTER = re.compile(
    r"s|ms|MiB|ms over bare Python|ms per (GB|GFLOP)|bytes per parameter|of .*(time|misses)\b.*"
)


@pytest.fixture
def load(monkeypatch):
    """Imports a module of the folder, and forgets them all afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield lambda name: importlib.import_module(f"benchmarks.{name}")
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]


@pytest.mark.parametrize("module", MODULES)
def test_figures__are_worse_when_larger(module, load):
    for name, benchmark in inspect.getmembers(load(module), inspect.isclass):
        for figure, method in inspect.getmembers(benchmark, inspect.isfunction):
            if figure.startswith("track_"):
                assert LESS_IS_BETTER.fullmatch(method.unit), f"{name}.{figure} is in {method.unit!r}"
                assert not re.search("speedup|faster|rate|share|per_second|gflops", figure), f"{name}.{figure}"


def test_relative_time__grows_with_our_time(load, monkeypatch):
    common = load("common")
    monkeypatch.setattr(common, "median_seconds", lambda *calls: [call() for call in calls])
    assert common.relative_time(lambda: 3.0, lambda: 2.0) == 1.5
