"""The script that writes the README's table."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "asv_benchmarks"


@pytest.fixture
def overview(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("overview", BENCHMARKS / "overview.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
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
    figures = [1.25] * len(overview.ROWS)
    written = overview.replaced(text, figures, "Here.")
    assert written.count("| 1.2 |") == len(figures)
    assert written.split(begin)[0] == text.split(begin)[0] and written.split(end)[1] == text.split(end)[1]
    assert overview.replaced(written, figures, "Here.") == written
