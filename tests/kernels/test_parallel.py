"""Kernels and drivers under each threading layer: parts, number of threads, exceptions, forks, many callers."""

import os
import textwrap

import processes
import pytest

# Each part of a kernel's range writes where it begins; a sum over rows for the comparison of bits; what raises.
KERNELS = """
import os, sys, threading, warnings
import numba, numpy as np
from rvtrain._kernels import driver, kernel
from rvtrain._kernels._threads import layer

warnings.simplefilter("ignore")  # of forks in a process with threads

@kernel
def parts(start, stop, out):
    for i in range(start, stop):
        out[i] = start

@kernel
def sums(start, stop, x, out):
    for i in range(start, stop):
        total = np.float32(0)
        for k in range(x.shape[1]):
            total += x[i, k] * x[i, k]
        out[i] = total

launch_sums, launch_parts = sums.launch, parts.launch

@driver
def sums_again(threads, times, x, out):
    for _ in range(times):
        launch_sums(threads, len(x), x, out)

@driver
def parts_again(threads, times, out):
    for _ in range(times):
        launch_parts(threads, len(out), out)

@kernel
def refuses(start, stop, x):
    for i in range(start, stop):
        if x[i] > 0:
            raise ValueError("x must not be positive")

@kernel
def beyond(start, stop, x):
    for i in range(start, stop):
        x[i + 1] = 0

def parts_of(count):
    out = np.full(count, -1)
    parts(count, out)
    return [int(i) for i in np.flatnonzero(out == np.arange(count))]

x = np.random.default_rng(0).normal(size=(1000, 50)).astype(np.float32)
expected = np.empty(1000, np.float32)
sums.serial(1000, x, expected)

def work():
    out = np.zeros(1000, np.float32)
    sums_again(3, x, out)
    return np.array_equal(out, expected)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that returns what a process with four threads prints."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "kernels_of_tests.py").write_text(KERNELS)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])

    def run(code, layer="default", **environment):
        env = os.environ | {"PYTHONPATH": path, "NUMBA_NUM_THREADS": "4"} | environment
        first = f"import numba; numba.config.THREADING_LAYER = {layer!r}\nfrom kernels_of_tests import *\n"
        result = processes.run(first + textwrap.dedent(code), env=env, often="NUMBA_DISABLE_JIT" not in environment)
        if "No threading layer could be loaded" in result.stderr:
            pytest.skip(f"numba has no {layer} here")
        assert result.returncode == 0, result.stderr[-2000:]
        return result.stdout.splitlines()

    return run


@pytest.fixture(params=["tbb", "omp", "workqueue"])
def layer(request):
    """Each layer that numba has here; workqueue it has everywhere."""
    return request.param


def test_range__is_shared_among_as_many_threads_as_the_user_set(run, layer):
    code = """
    for threads in (4, 3, 1):
        numba.set_num_threads(threads)
        print(*(parts_of(count) for count in (1000, 5, 3, 2, 1, 0)), numba.get_num_threads())
    numba.set_num_threads(4)
    numba.set_parallel_chunksize(1)
    print(parts_of(1000), numba.get_parallel_chunksize(), numba.threading_layer())
    """
    four, three, one, chunks = run(code, layer)
    assert three == "[0, 333, 666] [0, 1, 3] [0, 1, 2] [0, 1] [0] [] 3"
    assert one == "[0] [0] [0] [0] [0] [] 1"
    if layer == "tbb":  # a thread may take several parts that follow each other
        assert four.endswith("[0] [] 4") and chunks.endswith("] 1 tbb")
    else:
        assert four == "[0, 250, 500, 750] [0, 1, 2, 3] [0, 1, 2] [0, 1] [0] [] 4"
        assert chunks == f"[0, 250, 500, 750] 1 {layer}"


def test_callers__may_be_many_and_children_forked(run, layer):
    code = """
        found = []
        callers = [threading.Thread(target=lambda: found.extend(work() for _ in range(100))) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        print(len(found), all(found))
        if hasattr(os, "fork"):
            child = os.fork()
            if child == 0:
                os._exit(0 if work() and work() else 3)
            assert os.waitpid(child, 0)[1] == 0
        print(work(), numba.threading_layer())
    """
    assert run(code, layer) == ["800 True", f"True {layer}"]


def test_serial_calls__start_no_threads(run, layer):
    code = """
    before = threading.active_count(), len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0
    out = np.zeros(1000, np.float32)
    sums_again.serial(3, x, out)
    sums.sized(10)(1000, x, out)
    after = threading.active_count(), len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0
    print(before == after, layer())
    sums(1000, x, out)
    print(layer())
    """
    assert run(code, layer) == ["True none: nothing parallel has run", layer]


def test_launches_in_a_loop__do_not_grow_the_stack(run):
    assert run("out = np.zeros(2, np.int64); parts_again(200_000, out); print(out)") == ["[0 1]"]


def test_exception__of_a_part_is_raised_by_the_call(run, layer):
    code = """
    half = np.repeat([0.0, 1.0], 500)
    for call in (refuses, refuses.serial):
        for _ in range(3):
            try:
                call(1000, half)
            except ValueError as error:
                print(error)
        call(400, half)
    print(work())
    """
    assert run(code, layer) == ["x must not be positive"] * 6 + ["True"]


def test_index_out_of_bounds__is_an_error_where_bounds_are_checked(run, layer):
    code = """
    for call in (beyond, beyond.serial):
        call(9, np.zeros(10))
        try:
            call(10, np.zeros(10))
        except IndexError as error:
            print(error)
    """
    assert run(code, layer, NUMBA_BOUNDSCHECK="1") == ["index is out of bounds"] * 2


def test_interpreted__neither_starts_threads_nor_compiles(run):
    code = "print(work(), parts_of(5), layer(), refuses.__doc__)"
    assert run(code, NUMBA_DISABLE_JIT="1") == ["True [0] none: nothing parallel has run None"]
