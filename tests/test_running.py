"""The suite runs in whatever environment a contributor has."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parents[1]
# A plugin that warns when the run begins and ends, as pytest-benchmark does beside xdist and pytest-asyncio unset.
NOISY = """
import warnings
import pytest

def pytest_configure(config):
    warnings.warn(pytest.PytestDeprecationWarning("set an option of mine"))

def pytest_unconfigure(config):
    warnings.warn(pytest.PytestWarning("I do nothing beside xdist"))
"""


def run(tmp_path, *options):
    """Exit code and output of pytest on one quick test, beside the noisy plugin."""
    (tmp_path / "pytest_noisy.py").write_text(NOISY)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    test = "tests/test_benchmarks.py::test_relative_time__grows_with_our_time"
    call = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "pytest_noisy", *options, test]
    result = subprocess.run(call, capture_output=True, text=True, check=False, cwd=TREE, env=environment)
    return result.returncode, result.stdout + result.stderr


def test_pytest__runs_without_xdist(tmp_path):
    code, output = run(tmp_path, "-p", "no:xdist")
    assert code == 0 and "1 passed" in output, output


@pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="pytest-xdist is not installed")
def test_pytest__runs_in_two_processes(tmp_path):
    code, output = run(tmp_path)
    assert code == 0 and "1 passed" in output and "2 workers" in output, output
