"""The benchmarks: a larger figure is a worse one, every public name is timed, and no peer is imported among them."""

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

import rvtrain as rt

FOLDER = Path(__file__).parents[1] / "asv_benchmarks"
TIMED = sorted(path.stem for path in (FOLDER / "benchmarks").glob("*.py") if path.stem != "__init__")
PEERS = sorted(f"peers.{path.stem}" for path in (FOLDER / "benchmarks" / "peers").glob("*.py"))
# Of times, of memory, of misses: whatever it is, less is better. No rates, no shares of a peak, no "times faster".
LESS_IS_BETTER = re.compile(r"bytes per parameter|of .*(time|misses)\b.*")
# Protocols, records and enumerations compute nothing; `release_workspaces` frees memory.
COMPUTES_NOTHING = {
    "Callback",
    "CurriculumStage",
    "EmbeddingModel",
    "GraphLoss",
    "LabelLoss",
    "Miner",
    "MiningReport",
    "MiningStrategy",
    "Model",
    "Optimizer",
    "PairLoss",
    "TwoSidedModel",
    "__version__",
    "release_workspaces",
}


@pytest.fixture
def load(monkeypatch):
    """Imports a module of the folder, and forgets them all afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in [name for name in sys.modules if name.split(".")[0] in ("benchmarks", "compare", "planted")]:
        del sys.modules[name]


def methods_of(module):
    """(class name, method name, method) of what asv runs in a module."""
    for name, benchmark in inspect.getmembers(module, inspect.isclass):
        for figure, method in inspect.getmembers(benchmark, inspect.isfunction):
            if benchmark.__module__ == module.__name__ and re.match("(time|timeraw|peakmem|track)_", figure):
                yield name, figure, method


@pytest.mark.parametrize("module", PEERS)
def test_ratios__are_worse_when_larger(module, load):
    for name, figure, method in methods_of(load(f"benchmarks.{module}")):
        assert figure.startswith("track_"), f"{name}.{figure} belongs to the benchmarks without peers"
        assert LESS_IS_BETTER.fullmatch(method.unit), f"{name}.{figure} is in {method.unit!r}"
        assert not re.search("speedup|faster|rate|share|per_second|gflops", figure), f"{name}.{figure}"


@pytest.mark.parametrize("module", TIMED)
def test_times__are_times_with_names(module, load):
    for name, figure, method in methods_of(load(f"benchmarks.{module}")):
        assert not figure.startswith("track_"), f"{name}.{figure} belongs to peers/"
        assert method.pretty_name, f"{name}.{figure}"


@pytest.mark.parametrize("module", TIMED)
def test_times__import_no_peer(module):
    tree = ast.parse((FOLDER / "benchmarks" / f"{module}.py").read_text("utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        )
    }
    assert imported <= {*sys.stdlib_module_names, "numba", "numpy", "rvtrain", "common", ""}


def test_every_public_name_that_computes__is_timed():
    timed = set()
    for module in TIMED:
        source = (FOLDER / "benchmarks" / f"{module}.py").read_text("utf-8")
        timed |= {
            node.attr
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "rt"
        }
        timed |= {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)} & {
            *rt.__all__
        }  # getattr(rt, name)
    assert set(rt.__all__) - timed == COMPUTES_NOTHING - timed
    assert set(rt.__all__) >= COMPUTES_NOTHING


def test_relative_time__grows_with_our_time(load, monkeypatch):
    common = load("benchmarks.peers.common")
    monkeypatch.setattr(common, "median_seconds", lambda *calls: [call() for call in calls])
    assert common.relative_time(lambda: 3.0, lambda: 2.0) == 1.5


def test_ratios__are_skipped_where_the_peer_is_missing(load):
    common = load("benchmarks.peers.common")

    @common.beside("a_peer_that_nobody_has", "of its time")
    def method(self):
        return 1.0

    with pytest.raises(NotImplementedError, match="not installed"):
        method.setup()


def test_setup__prepares_once_and_takes_the_clock_of_the_threads(load):
    common = load("benchmarks.common")

    class Counted(common.Benchmark):
        params, param_names = ([1, "all"],), ("threads",)
        prepared = 0

        def prepare(self, threads):
            self.prepared += 1

    before = common.numba.get_num_threads()
    try:
        benchmark = Counted()
        for _ in range(3):
            benchmark.setup(1)
        assert benchmark.prepared == 1
        assert benchmark.timer is common.time.process_time
        assert common.numba.get_num_threads() == 1
        benchmark.setup("all")
        assert benchmark.prepared == 2
        assert benchmark.timer is common.time.perf_counter
        assert common.numba.get_num_threads() == common.all_threads()
    finally:
        common.numba.set_num_threads(before)
