"""The script that writes the README's table."""

import importlib.util
import sys
from pathlib import Path

import matplotlib
import pytest

BENCHMARKS = Path(__file__).parents[1] / "asv_benchmarks"


@pytest.fixture
def overview(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("overview", BENCHMARKS / "overview.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    loaded = ("benchmarks", "dimensions", "machine", "scaling", "tables")
    for name in [name for name in sys.modules if name.split(".")[0] in loaded]:
        del sys.modules[name]


def test_rows__name_benchmarks_that_exist(overview):
    for _, _, benchmark, parameters, method in overview.ROWS:
        assert callable(getattr(benchmark, method))
        allowed = getattr(benchmark, "params", ())
        assert all(value in choices for value, choices in zip(parameters, allowed, strict=True))


def test_replaced__changes_the_table_and_nothing_else(overview):
    text = overview.README.read_text("utf-8")
    begin, end = overview.MARKERS
    assert text.count(begin) == text.count(end) == 1
    figures = {overview.key_of(row): 1.25 for row in overview.ROWS}
    here = {"machine": "here", "processor": "P", "threads": 2, "date": "D", "commit": "C", "versions": {"torch": "1"}}
    records = [here | {"figures": figures}, here | {"machine": "there", "figures": {}}]
    written = overview.replaced(text, records)
    assert written.count("| 1.2 |  |") == len(figures)
    assert "here: P; 2 threads on both sides; D, rvtrain C, torch 1." in written
    assert written.split(begin)[0] == text.split(begin)[0] and written.split(end)[1] == text.split(end)[1]
    assert overview.replaced(written, records) == written


def test_scaling__writes_a_table_for_each_machine(overview):
    import scaling

    here = {"machine": "here", "processor": "P", "threads": 2, "date": "D", "commit": "C", "versions": {}}
    block = scaling.block([here | {"times": [(1024, (0.1, 0.2, 0.4)), (65_536, (9.0, None, None))]}])
    assert "| 1,024 |" in block and "| 0.50 | 4.0× |" in block and "|  |  |" in block


def test_dimensions__writes_a_table_for_each_machine(overview):
    import dimensions

    here = {"machine": "here", "processor": "P", "threads": 2, "date": "D", "commit": "C", "versions": {}}
    times = {dimensions.OURS: 0.1, dimensions.PRODUCTS: 0.2, "torch": 0.25}
    block = dimensions.block([here | {"times": [[1024, times]]}] * 2)
    assert block.count("| d | GFLOP/s | over three sgemms | faster than torch |") == 2
    assert block.count("| 1,024 | 1031 | 0.50 | 2.50× |") == 2


def test_picture__depends_on_the_measurements_alone(overview, tmp_path, monkeypatch):
    backend = matplotlib.get_backend()
    import plot_overview

    matplotlib.use(backend)
    made = []
    for size in (10.0, 25.0):  # as a matplotlibrc in the folder may set it
        monkeypatch.setitem(matplotlib.rcParams, "font.size", size)
        monkeypatch.setattr(plot_overview, "PICTURE", tmp_path / f"{size}.svg")
        plot_overview.main()
        assert matplotlib.rcParams["font.size"] == size
        made.append(plot_overview.PICTURE.read_bytes())
    assert made[0] == made[1] and len(made[0]) > 10_000
    del sys.modules["plot_overview"]


def test_picture__has_no_bar_for_what_a_machine_has_not_measured(overview):
    backend = matplotlib.get_backend()
    import plot_overview

    matplotlib.use(backend)
    records = [
        {"machine": "one", "figures": {"a, beside b": 2.0}},
        {"machine": "two", "figures": {"a, beside b": 3.0, "c, beside d": 0.5}},
    ]
    axes = plot_overview.picture(records).axes[0]
    assert [text.get_text() for text in axes.texts] == ["2.0×", "3.0×", "0.5×"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a\nbeside b", "c\nbeside d"]
    del sys.modules["plot_overview"]
