"""Fixtures that every test may use, and how many processes share the tests."""

import numba
import numpy as np
import pytest

collect_ignore = ["distributed/workers"]  # scripts that MPI starts


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Two processes where pytest-xdist is installed and the command line says nothing else (-n, -d, --pdb)."""
    option = config.option
    asked = option.usepdb or getattr(option, "distload", True) or option.tx or option.dist != "no"
    if not asked and option.numprocesses is None and not hasattr(config, "workerinput"):
        option.numprocesses, option.dist = 2, "worksteal"


@pytest.fixture
def rng():
    """The same random numbers in every run of a test."""
    return np.random.default_rng(0)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    """Both element types of the package."""
    return request.param


@pytest.fixture(params=[1, 2], ids=["1thread", "2threads"])
def threads(request):
    """Run the test with this many threads, and put the user's number back."""
    before = numba.get_num_threads()
    if request.param > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("this machine has one core")
    numba.set_num_threads(request.param)
    yield request.param
    numba.set_num_threads(before)


def from_python(inner):
    """An inner function of kernels, compiled alike but to be called from here: it has no wrapper for that."""
    if not hasattr(inner, "targetoptions"):  # under NUMBA_DISABLE_JIT
        return inner
    options = {k: v for k, v in inner.targetoptions.items() if not k.endswith("_wrapper")}
    return numba.jit(inner.py_func, **options)


def import_torch():
    """torch with one thread, because waiting threads spin and take the cores from the tests; skips without torch."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


def relative_error(actual, expected):
    """Largest error, measured against the largest magnitude that was expected."""
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max(initial=0.0) / max(np.abs(expected).max(initial=0.0), 1e-300)


# What "right" means everywhere: the largest relative error against a float64 oracle.
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-11}
