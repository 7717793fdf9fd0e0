"""The cache of compiled kernels: used again, never stale, never trusted when damaged or foreign."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import rvtrain

HELPER = """
from rvtrain._jit import njit

@njit
def twice(x):
    return 2 * x
"""
KERNEL = """
from rvtrain._jit import kernel, prange
from rvtrain._small_helper import twice

@kernel
def doubled(x, out):
    for i in prange(len(x)):
        out[i] = twice(x[i])
"""
# Prints the numbers, and whether the code that made them came from the disk.
CALL = """
import sys
import numpy as np
from rvtrain._small import doubled
for dtype in sys.argv[1].split(","):
    before = sum(doubled.serial.stats.cache_hits.values())
    x = np.array([1.5, 4.0]).astype(dtype)
    out = np.empty_like(x)
    doubled.serial(x, out)
    print(out.tolist(), "read" if sum(doubled.serial.stats.cache_hits.values()) > before else "compiled", end=" ")
"""
COMPILED, READ = "[3.0, 8.0] compiled", "[3.0, 8.0] read"
RACES = int(os.environ.get("RVTRAIN_RACES", "5"))
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and paths")


@pytest.fixture
def package(tmp_path):
    """A copy of the package that may be edited, with one small kernel more and its helper in another file."""
    root = tmp_path / "package"
    source = Path(rvtrain.__file__).parent
    shutil.copytree(source, root / "rvtrain", ignore=shutil.ignore_patterns("__pycache__", "data"))
    (root / "rvtrain" / "_small_helper.py").write_text(HELPER)
    (root / "rvtrain" / "_small.py").write_text(KERNEL)
    return root


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def start(package, cache, dtype="float64", **environment):
    """A process of its own that runs the kernel in the copied package."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    env = {**plain, "RVTRAIN_CACHE_DIR": str(cache), **environment}
    call = [sys.executable, "-c", CALL, dtype]
    return subprocess.Popen(call, cwd=package, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output.strip()


def run(*args, **options):
    return finish(start(*args, **options))


def test_second_process__reads_what_the_first_compiled(package, cache):
    assert run(package, cache) == COMPILED
    assert run(package, cache) == READ
    for setting in ({"NUMBA_OPT": "1"}, {"NUMBA_BOUNDSCHECK": "1"}, {"NUMBA_CPU_NAME": "generic"}):
        assert run(package, cache, **setting) == COMPILED
        assert run(package, cache, **setting) == READ
    assert run(package, cache) == READ


def test_damaged_entries__are_compiled_anew(package, cache):
    assert run(package, cache) == COMPILED
    (entry,) = cache.iterdir()
    whole = entry.read_bytes()
    for damage in (whole[: len(whole) // 2], b"garbage", whole[:-100] + bytes(100)):
        entry.write_bytes(damage)
        assert run(package, cache) == COMPILED
    assert run(package, cache) == READ


def test_changed_helper_in_another_file__gives_new_code(package, cache):
    assert run(package, cache) == COMPILED
    (package / "rvtrain" / "_small_helper.py").write_text(HELPER.replace("2 * x", "3 * x"))
    assert run(package, cache) == "[4.5, 12.0] compiled"


def test_processes_racing_on_an_empty_folder__all_get_their_own_code(package, cache):
    dtypes = ["float32", "float64", "int32", "int64"]
    for _ in range(RACES):
        shutil.rmtree(cache, ignore_errors=True)
        lines = [finish(process) for process in [start(package, cache, ",".join(dtypes)) for _ in range(4)]]
        for line in lines:
            assert line.replace("read", "compiled") == " ".join([COMPILED] * 2 + ["[2, 8] compiled"] * 2)
        assert len(list(cache.iterdir())) == len(dtypes)  # no temporary file is left
    assert run(package, cache, ",".join(dtypes)).count("read") == len(dtypes)


@POSIX
def test_folder_that_others_may_write_to__is_not_used(package, cache):
    cache.mkdir()
    cache.chmod(stat.S_IRWXU | stat.S_IWOTH | stat.S_IXOTH)
    assert run(package, cache) == COMPILED
    assert not list(cache.iterdir())


@POSIX
def test_no_folder_to_write_to__is_no_obstacle(package, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert run(package, blocked / "cache") == COMPILED
    assert run(package, "", HOME=str(blocked), XDG_CACHE_HOME="") == COMPILED
