"""The benchmarks: a larger figure is a worse one, every public name is timed, and no peer is imported among them."""

import ast
import configparser
import importlib
import inspect
import json
import re
import sys
from pathlib import Path

import numba
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
    "get_float32_precision",
    "set_float32_precision",
    "release_workspaces",
}


@pytest.fixture
def load(monkeypatch):
    """Imports a module of the folder, and forgets them all afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    scripts = ("benchmarks", "compare", "machine", "phases", "planted")
    for name in [name for name in sys.modules if name.split(".")[0] in scripts]:
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
    assert imported <= {*sys.stdlib_module_names, "numba", "numpy", "rvtrain", "common", "optimizer_table", ""}


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
        assert benchmark.clock is common.time.process_time
        assert common.numba.get_num_threads() == 1
        benchmark.setup("all")
        assert benchmark.prepared == 2
        assert benchmark.clock is common.time.perf_counter
        assert common.numba.get_num_threads() == common.all_threads()
    finally:
        common.numba.set_num_threads(before)


def test_sample__is_the_least_time_of_the_calls_in_its_window(load):
    common = load("benchmarks.common")

    class Varying(common.Benchmark):
        window = 0.01
        calls = 0

        def prepare(self):
            self.time_call()
            assert self.calls == 1, "the call of `prepare` is no sample"
            self.now, self.clock = 0.0, lambda: self.now

        def time_call(self):
            self.now = getattr(self, "now", 0.0) + (2.0 if self.calls % 3 else 1.0)
            self.calls += 1

    benchmark = Varying()
    benchmark.setup()
    for sample in (1.0, 2.0, 3.0):
        benchmark.time_call()
        assert benchmark.timer() == sample
    assert benchmark.calls > 10


def test_median_interval__holds_the_median_as_often_as_it_says(load, rng):
    compare = load("compare")
    inside = 0
    for _ in range(400):
        middle, low, high = compare.median_interval(list(rng.lognormal(size=25)), 0.9)
        assert low < middle < high
        inside += low < 1 < high
    assert 0.9 <= inside / 400 < 0.99


def test_median_interval__of_few_values_is_unbounded(load):
    assert load("compare").median_interval([1.0, 2.0, 3.0]) == (2.0, -float("inf"), float("inf"))


def test_ratios__compare_turns_that_alternate(load):
    compare = load("compare")
    asked = []

    class Side:
        def __init__(self, seconds):
            self.seconds = seconds

        def ask(self, word, place):
            asked.append(self.seconds)
            return self.seconds

    ratios = list(compare.ratios(Side(0.5), Side(0.75), 0))
    assert ratios == [1.5] * 15
    assert asked[:4] == [0.5, 0.75, 0.75, 0.5]


@pytest.mark.parametrize("script", ["compare", "planted"])
def test_scripts__name_benchmarks_that_exist(script, load):
    module = load(script)
    if script == "compare":
        names = [(home, cls, method, parameters) for home, cls, parameters, method in module.TELLING]
    else:
        parts = [pattern.replace("\\", "").split("(", 1) for _, _, pattern in module.KERNELS.values()]
        names = [(*path.split("."), ast.literal_eval("(" + parameters[:-1] + ",)")) for path, parameters in parts]
        for path, call, _ in module.KERNELS.values():
            defined = (FOLDER.parent / path).read_text("utf-8")
            assert re.search(rf"^(class|def) {call.split('.')[0]}\b", defined, re.MULTILINE)
    for home, cls, method, parameters in names:
        benchmark = getattr(load(f"benchmarks.{home}"), cls)
        assert hasattr(benchmark, method)
        assert all(value in choices for value, choices in zip(parameters, benchmark.params, strict=True))


def test_phases__of_the_sweep_are_all_shown(load, monkeypatch, capsys):
    phases = load("phases")
    monkeypatch.setattr(phases, "least", lambda seconds: seconds() or 1e-9)
    monkeypatch.setattr("sys.argv", ["phases.py", "--shapes", "130x20", "--threads", "1"])
    before = numba.get_num_threads()
    try:
        phases.main()
    finally:
        numba.set_num_threads(before)
    _, header, row = (line for line in capsys.readouterr().out.splitlines() if "threads" not in line)
    assert all(phase in header for phase in phases.PHASES) and row.split()[0] == "130x20"
    assert row.count("%") == len(phases.PHASES)


def test_machine__says_what_decides_the_figures(load):
    line = load("machine").description()
    assert re.search(r"; vectors of \d+ bits; 8-bit products: .+; has ", line)


@pytest.mark.parametrize("clock", ["process_time", "perf_counter"])
def test_planted_slowdown__is_of_the_size_that_it_says(clock, load, monkeypatch):
    now = [0.0]

    def tick():
        now[0] += 1e-3
        return now[0]

    def work():
        now[0] += 1.0

    planted = load("planted")
    monkeypatch.setattr(planted.time, clock, tick)
    space = {"work": work}
    exec(planted.SLOWED.format(name="work", slowdown=1.3, clock=clock), space)
    for _ in range(1000):
        space["work"]()
    assert now[0] == pytest.approx(1300, rel=0.01)


def test_slower__names_the_kernels_that_the_table_marks(load):
    planted = load("planted")
    table = """
| Change   | Before     | After      | Ratio   | Benchmark (Parameter)                                        |
|          | n/a        | n/a        | n/a     | losses.InfoNCE.time_gradients((1024, 128), 'float32', 'all') |
| +        | 12.8±0.2ms | 15.8±0.5ms | 1.23    | losses.InfoNCE.time_gradients((1024, 128), 'float32', 1)     |
| -        | 40.0±1μs | 30.0±2μs | 0.75    | optimizers.StepsInCache.time_step('AdamW')                   |
|          | 14.3±0.7μs | 20.3±1μs | ~1.40   | optimizers.Clip.time_norm(50000, 1)                          |
"""
    assert planted.slower(table, list(planted.KERNELS)) == {"InfoNCE"}
    assert planted.slower(table, ["AdamW", "top_k"]) == set()


def test_plant__slows_every_kernel_in_one_commit(load, tmp_path):
    planted = load("planted")
    planted.git(tmp_path, "init", "-q", "-b", "main")
    for path in {"rvtrain/__init__.py", *(path for path, _, _ in planted.KERNELS.values())}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("before = True\n", "utf-8")
    planted.git(tmp_path, "add", ".")
    planted.git(tmp_path, "commit", "-q", "-m", "base")
    base = planted.git(tmp_path, "rev-parse", "HEAD").strip()
    planted.plant(tmp_path, base, "all", list(planted.KERNELS), 1.3)
    for path, call, _ in planted.KERNELS.values():
        text = (tmp_path / path).read_text("utf-8")
        assert text.startswith("before = True") and f"{call} = _slowed({call})" in text
    planted.plant(tmp_path, base, "unchanged", [], 1.3)
    assert planted.git(tmp_path, "diff", "--name-only", base).split() == ["rvtrain/__init__.py"]


def test_neighbours__disturb_when_the_probe_takes_longer_than_the_least_of_the_hour(load, tmp_path, monkeypatch):
    common = load("benchmarks.common")
    neighbours = common.Neighbours(tmp_path)
    times = iter([2.0, 1.0, 1.1, 1.4, 1.4, 1.4])
    monkeypatch.setattr(neighbours, "probe", lambda: next(times))
    assert [neighbours.disturb() for _ in range(4)] == [False, False, False, True]
    neighbours.file.write_text("no number", "utf-8")
    assert not neighbours.disturb()
    hours_ago = neighbours.file.stat().st_mtime - 7200
    neighbours.file.write_text("1.0", "utf-8")
    common.os.utime(neighbours.file, (hours_ago, hours_ago))
    assert not neighbours.disturb(), "the least time of another hour is forgotten"
    assert [path.name for path in tmp_path.iterdir()] == [neighbours.file.name]


def test_sample__waits_while_neighbours_disturb(load, monkeypatch):
    common = load("benchmarks.common")

    class Disturbed(common.Benchmark):
        window, patience, calls = 0.001, 60.0, 0

        def prepare(self):
            self.clock = lambda: float(-self.calls) if self.calls % 2 else 0.0

        def time_call(self):
            self.calls += 1

    answers = iter([True, True, False])
    monkeypatch.setattr(common.NEIGHBOURS, "disturb", lambda: next(answers))
    benchmark = Disturbed()
    benchmark.setup()
    benchmark.time_call()
    assert next(answers, None) is None
    monkeypatch.setattr(common.NEIGHBOURS, "disturb", lambda: True)
    benchmark.patience = 0.01
    benchmark.time_call()


def test_median_seconds__leaves_out_the_first_short_call_after_a_rest(load, monkeypatch):
    common = load("benchmarks.peers.common")
    monkeypatch.setattr(common, "REST", 0.01)
    rested = []
    monkeypatch.setattr(common.time, "sleep", rested.append)

    def call():
        end = common.time.perf_counter() + (0.01 if rested else 0.0)  # slow after a rest
        rested.clear()
        while common.time.perf_counter() < end:
            pass

    (seconds,) = common.median_seconds(call, rounds=4)
    assert seconds < 0.005


def test_environment_of_the_ratios__gets_every_peer_that_a_ratio_names():
    (install,) = json.loads((FOLDER / "asv_peers.conf.json").read_text("utf-8"))["install_command"]
    assert install.endswith("pip install {wheel_file}[peers]")
    extras = configparser.ConfigParser()
    extras.read(FOLDER.parent / "setup.cfg", "utf-8")
    peers = set(re.findall(r"^[a-z-]+", extras["options.extras_require"]["peers"], re.MULTILINE))
    named = {
        name
        for path in (FOLDER / "benchmarks" / "peers").glob("*.py")
        for name in re.findall(r'@beside\("(\w+)"', path.read_text("utf-8"))
    }
    distributions = {
        "faiss": "faiss-cpu",
        "sklearn": "scikit-learn",
        "sentence_transformers": "sentence-transformers",
    }
    assert named and {distributions.get(name, name) for name in named} <= peers


def test_kept_results__are_of_described_machines_and_name_no_folder():
    results = FOLDER / "results"
    described = json.loads((results / "benchmarks.json").read_text("utf-8"))
    kept = [path for path in results.glob("*/*.json") if path.name != "machine.json"]
    assert kept
    for path in kept:
        record = json.loads(path.read_text("utf-8"))
        machine = json.loads((path.parent / "machine.json").read_text("utf-8"))
        assert record["params"]["machine"] == machine["machine"] == path.parent.name
        assert re.search(r"vectors of \d+ bits.*L1", machine["cpu"]) and int(machine["num_cpu"]) > 0
        assert record["commit_hash"].startswith(path.name.split("-")[0]) and set(record["results"]) & set(described)
    assert not any(re.search(r"/(home|root|tmp|work)/", path.read_text("utf-8")) for path in results.rglob("*.json"))
