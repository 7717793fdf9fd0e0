"""The cache of compiled kernels: used again, never stale, never trusted when damaged or foreign."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import rvtrain

CODE = """
import numpy as np
from rvtrain._primitives._norms import inverse_norms
out = np.empty(2)
inverse_norms.serial(np.array([[3.0, 4.0], [0.0, 2.0]]), 1e-8, out)
print(out.tolist(), sum(inverse_norms.serial.stats.cache_hits.values()))
"""
MISS, HIT = "[0.2, 0.5] 0", "[0.2, 0.5] 1"


def run(cache, package=None, **environment):
    env = {**os.environ, "RVTRAIN_CACHE_DIR": str(cache), **environment}
    env["PYTHONPATH"] = str(package or Path(rvtrain.__file__).parents[1])
    result = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env=env, check=False, cwd=sys.prefix
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def entries(cache):
    return sorted(cache.glob("*.nbc"))


def test_second_process__reads_what_the_first_compiled(tmp_path):
    assert run(tmp_path) == MISS
    assert len(entries(tmp_path)) == 1
    assert run(tmp_path) == HIT


def test_damaged_entries__are_compiled_anew(tmp_path):
    assert run(tmp_path) == MISS
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    for damage in (whole[: len(whole) // 2], b"garbage", whole[:-100] + bytes(100)):
        entry.write_bytes(damage)
        assert run(tmp_path) == MISS
        assert run(tmp_path) == HIT


def test_changed_helper__gives_new_code(tmp_path):
    package = tmp_path / "source"
    shutil.copytree(Path(rvtrain.__file__).parent, package / "rvtrain", ignore=shutil.ignore_patterns("__pycache__"))
    cache = tmp_path / "cache"
    assert run(cache, package) == MISS
    assert run(cache, package) == HIT
    other = package / "rvtrain" / "_primitives" / "_random.py"
    other.write_text(other.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    assert run(cache, package) == MISS


def test_compiler_settings__have_entries_of_their_own(tmp_path):
    assert run(tmp_path) == MISS
    assert run(tmp_path, NUMBA_OPT="1") == MISS
    assert run(tmp_path, NUMBA_OPT="1") == HIT
    assert run(tmp_path) == HIT


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_folder__others_may_write_to_is_not_used(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(stat.S_IRWXU | stat.S_IWOTH | stat.S_IXOTH)
    assert run(cache) == MISS
    assert entries(cache) == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX paths")
def test_no_folder__is_no_obstacle(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert run(blocked / "cache") == MISS
