"""The cache of compiled kernels: used again, never stale, never trusted when damaged or foreign."""

import ctypes
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import processes
import pytest
from numba.core import registry

import rvtrain
from rvtrain._kernels import _cache

HELPER = """
from rvtrain._kernels import njit

@njit
def twice(x):
    return 2 * x
"""
KERNEL = """
from rvtrain._kernels import kernel
from rvtrain._small_helper import twice

@kernel
def doubled(start, stop, x, out):
    for i in range(start, stop):
        out[i] = twice(x[i])
"""
# Prints the numbers, and whether the code that made them came from the disk.
CALL = """
import sys
sys.modules["scipy"] = None  # a fifth of a second: numba would load its BLAS
import numpy as np
from rvtrain._kernels import _compiling
from rvtrain._small import doubled
for dtype in sys.argv[1].split(","):
    x, compilations = np.array([1.5, 4.0]).astype(dtype), []
    out = np.empty_like(x)
    with _compiling.listening(compilations.append):
        doubled.serial(2, x, out)
    print(out.tolist(), "compiled" if compilations else "read", end=" ")
"""
# Four processes for each race, which have imported everything and compiled no kernel yet, let go at once.
RACE = """
import os, shutil, sys
sys.modules["scipy"] = None
import numba, numpy as np
from rvtrain._kernels import _cache
from rvtrain._small import doubled
numba.njit(lambda x: x + 1)(1)  # what every first compilation has to set up, once for all races
for race in range(int(sys.argv[2])):
    shutil.rmtree(os.environ["RVTRAIN_CACHE_DIR"], ignore_errors=True)
    barrier, go = os.pipe()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(go)
                os.read(barrier, 1)  # until the parent closes its end
                for dtype in sys.argv[1].split(","):
                    x = np.array([1.5, 4.0]).astype(dtype)
                    out = np.empty_like(x)
                    doubled.serial(2, x, out)
                    assert out.tolist() == (2 * x).tolist(), (dtype, out)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    os.close(barrier)
    os.close(go)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    left = os.listdir(os.environ["RVTRAIN_CACHE_DIR"])
    assert len(left) == 2 * len(sys.argv[1].split(",")), left  # bodies and entries, no temporary file
print("raced", race + 1)
"""
# A container's user without a name, whose home is nowhere; a package that nobody may write to.
NOBODY = """
import pwd
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
import rvtrain
from rvtrain._kernels import _cache
assert _cache.folder() is None
try:
    open(rvtrain.__path__[0] + "/new", "w")
except OSError:
    print("read-only", end=" ")
"""
COMPILED, READ = "[3.0, 8.0] compiled", "[3.0, 8.0] read"
DTYPES = ["float32", "int64"]  # several entries to race for
RACES = int(os.environ.get("RVTRAIN_RACES", "2"))
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


def environment(package, cache, without=(), **changed):
    """The environment of a process that uses the copied package."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_") and k not in without}
    return {**plain, "PYTHONPATH": str(package), "RVTRAIN_CACHE_DIR": str(cache), **changed}


def start(package, cache, dtype, *, code=CALL, power=True, **options):
    """A fresh process that runs the kernel."""
    call = [sys.executable, "-c", code, dtype]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = environment(package, cache, **options)
    return subprocess.Popen(call, cwd=package, env=env, preexec_fn=None if power else obey_modes, **pipes)


def obey_modes():
    """Let a superuser's process be bound by file modes too: drop CAP_DAC_OVERRIDE before it starts."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


def finish(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output.strip()


def run(package, cache, dtype="float64", *, code=CALL, arguments=(), **options):
    """What a process prints that runs the kernel."""
    result = processes.run(code, dtype, *arguments, env=environment(package, cache, **options), cwd=package)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_second_process__reads_what_the_first_compiled(package, cache):
    assert run(package, cache) == COMPILED
    assert run(package, cache) == READ
    for setting in ({"NUMBA_OPT": "1"}, {"NUMBA_BOUNDSCHECK": "1"}, {"NUMBA_CPU_NAME": "generic"}):
        assert run(package, cache, **setting) == COMPILED
    assert run(package, cache, **setting) == READ
    assert run(package, cache) == READ


def test_fresh_process__reads_code_before_numba_is_ready_to_compile(package, cache):
    assert run(package, cache) == COMPILED
    ready = CALL + "print('numba.np.arraymath' in sys.modules)"
    assert finish(start(package, cache, "float64", code=ready)) == f"{READ} False"
    assert finish(start(package, cache, "float64,int64", code=ready)) == f"{READ} [2, 8] compiled True"


def test_entry__that_needs_an_unknown_symbol_makes_numba_ready_first(monkeypatch):
    context, refreshed = registry.cpu_target.target_context, []
    monkeypatch.setattr(context, "refresh", lambda: refreshed.append(True))
    _cache.provide(["NRT_Free", "PyErr_SetString"])
    assert not refreshed
    _cache.provide(["NRT_Free", "of no library"])
    assert refreshed


def test_damaged_entries__are_compiled_anew(package, cache):
    dtypes, numbers = "float32,float64,int32", ("[3.0, 8.0]", "[3.0, 8.0]", "[2, 8]")
    compiled, read = (" ".join(f"{x} {how}" for x in numbers) for how in ("compiled", "read"))
    assert run(package, cache, dtypes) == compiled
    for of_entries in (False, True):
        cut, replaced, changed = (path for path in cache.iterdir() if ("-entry-" in path.name) == of_entries)
        cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
        replaced.write_bytes(b"garbage")
        changed.write_bytes(changed.read_bytes()[:-100] + bytes(100))
        assert run(package, cache, dtypes) == compiled
    assert run(package, cache, dtypes) == read


def test_changed_helper_in_another_file__gives_new_code(package, cache):
    assert run(package, cache) == COMPILED
    (package / "rvtrain" / "_small_helper.py").write_text(HELPER.replace("2 * x", "3 * x"))
    assert run(package, cache) == "[4.5, 12.0] compiled"


def test_changes_elsewhere__leave_the_code_of_a_kernel_alone(package, cache):
    assert run(package, cache) == COMPILED
    with open(package / "rvtrain" / "cli.py", "a") as file:
        file.write("# a remark\n")
    (package / "rvtrain" / "_new.py").write_text("x = 1\n")
    assert run(package, cache) == READ


def test_changed_constant_of_a_file_imported_in_turn__gives_new_code(package, cache):
    (package / "rvtrain" / "_constant.py").write_text("TWO = 2\n")
    helper = HELPER.replace("2 * x", "TWO * x").replace(
        "import njit", "import njit\nfrom rvtrain._constant import TWO"
    )
    (package / "rvtrain" / "_small_helper.py").write_text(helper)
    assert run(package, cache) == COMPILED
    (package / "rvtrain" / "_constant.py").write_text("TWO = 3\n")
    assert run(package, cache) == "[4.5, 12.0] compiled"


def test_fresh_processes_racing_on_an_empty_folder__all_get_their_own_code(package, cache):
    lines = [finish(process) for process in [start(package, cache, ",".join(DTYPES)) for _ in range(2)]]
    for line in lines:
        assert line.replace("read", "compiled") == f"{COMPILED} [2, 8] compiled"
    assert len(list(cache.iterdir())) == 2 * len(DTYPES)  # bodies and entries, no temporary file
    assert run(package, cache, ",".join(DTYPES)).count("read") == len(DTYPES)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_processes_racing_on_an_empty_folder__again_and_again(package, cache):
    raced = run(package, cache, ",".join(DTYPES), code=RACE, arguments=[str(RACES)])
    assert raced == f"raced {RACES}"
    assert run(package, cache, ",".join(DTYPES)).count("read") == len(DTYPES)


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


@POSIX
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only a superuser gives files away")
def test_folder_of_somebody_else__is_not_used(package, cache):
    assert run(package, cache) == COMPILED
    entries = sorted(cache.iterdir())
    os.chown(cache, 65534, -1)
    # What lies there is not even read, and nothing is added.
    assert run(package, cache, "float64,float32") == f"{COMPILED} {COMPILED}"
    assert sorted(cache.iterdir()) == entries
    os.chown(cache, 0, -1)
    assert run(package, cache) == READ


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drops a capability")
def test_read_only_install_with_no_home__is_no_obstacle(package):
    for path in (package, *package.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        homeless = ("HOME", "XDG_CACHE_HOME")
        process = start(package, "", "float64", code=NOBODY + CALL, without=homeless, power=False)
        assert finish(process) == f"read-only {COMPILED}"
    finally:
        for path in (package, *package.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
