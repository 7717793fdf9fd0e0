"""`rvtrain warmup`: afterwards nothing has to be compiled."""

import subprocess
import sys

import pytest

from rvtrain._kernels import _cache

# The command, but for what the demo does not use, which takes minutes to compile; .ci/run calls it whole.
WARMUP = """
from rvtrain import _warmup, cli
_warmup.DTYPES = ("float32",)
for name in ("compact optimizers", "local and spectral", "functional"):
    del _warmup.WORK[name]
raise SystemExit(cli.main(["warmup"]))
"""
# Two mined epochs are enough to call all that the demo calls.
DEMO = """
from rvtrain import cli
from rvtrain.demo import _train
_train.WARM_EPOCHS, _train.LATE_EPOCHS, _train.EPOCHS = 1, 2, 3
cli.main(["demo"])
"""
# Prints each kernel that what follows compiles instead of reading it. A listing of the folder would not do: other
# processes may put their own kernels there.
COMPILED = """
from rvtrain._kernels import _cache
kept = _cache._DiskCache.save_overload
def save_overload(self, sig, data):
    print("compiled", self._name, sig)
    kept(self, sig, data)
_cache._DiskCache.save_overload = save_overload
"""
# Prints how many kernels the package has, and those that the work of warmup leaves out.
REGISTRY = """
import gc, importlib, pkgutil
import rvtrain
from rvtrain import _warmup
from rvtrain._kernels import Kernel
from rvtrain._engine._byte_tile import byte_tile

for module in pkgutil.walk_packages(rvtrain.__path__, "rvtrain."):
    if module.name not in ("rvtrain.__main__", "rvtrain.demo.build_data"):
        importlib.import_module(module.name)
for name in _warmup.WORK:
    _warmup.compile_one((name, "float32", False))
kernels = [x for x in gc.get_objects() if isinstance(x, Kernel)]
print(len(kernels))
for kernel in kernels:
    if "_certified" in kernel.serial.py_func.__module__ and byte_tile() is None:
        continue
    if not kernel.serial.signatures and not kernel.parallel.parallel.signatures:
        print(kernel.__name__)
"""


def run(*command):
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=1200, check=False)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def warm():
    folder = _cache.folder()
    if folder is None:
        pytest.skip("nowhere to keep compiled kernels")
    result = run("-c", WARMUP)
    assert str(folder) in result.stdout
    return folder


def test_warmup__leaves_the_demo_nothing_to_compile(warm):
    printed = run("-c", COMPILED + DEMO).stdout
    assert "Recall@10" in printed
    assert "compiled" not in printed
    assert list(warm.glob("*.nbc"))


def test_warmup__calls_every_kernel(warm):
    count, *missed = run("-c", REGISTRY).stdout.split()
    assert int(count) > 30
    assert missed == []


def test_warmup__says_where_it_cannot_write(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    command = (
        f"import os; os.environ['RVTRAIN_CACHE_DIR'] = {str(shared)!r}; from rvtrain import cli; cli.main(['warmup'])"
    )
    result = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert "RVTRAIN_CACHE_DIR" in result.stderr
    assert "Traceback" not in result.stderr
