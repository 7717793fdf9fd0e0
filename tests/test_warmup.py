"""`rvtrain warmup`: afterwards nothing has to be compiled."""

import subprocess
import sys

import pytest

from rvtrain._kernels import _cache

# The command, but for what the demo does not use, which takes minutes to compile; .ci/run calls it whole.
WARMUP = """
from rvtrain import _warmup, cli
_warmup.DTYPES = ("float32",)
left_out = "compact optimizers", "softmax family", "labelled and graded", "local and spectral", "functional", "graphs"
for name in (*left_out, "medium precision"):
    del _warmup.WORK[name]
raise SystemExit(cli.main(["warmup"]))
"""
# Two mined epochs are enough to call all that the demo calls. Prints whether anything was compiled for them: a list
# of the folder would not do, since other processes may put their own kernels there.
DEMO = """
from rvtrain import cli
from rvtrain._kernels import _compiling
from rvtrain.demo import _train
_train.WARM_EPOCHS, _train.LATE_EPOCHS, _train.EPOCHS = 1, 2, 3
compilations = []
with _compiling.listening(compilations.append):
    cli.main(["demo"])
print("compilations:", len(compilations))
"""
# Prints how many kernels, drivers and bodies the package has, and those that the work of warmup leaves out.
REGISTRY = """
import gc, importlib, pkgutil
import rvtrain
from rvtrain import _warmup
from rvtrain._kernels import Driver, _bodies
from rvtrain._engine._amx import has_amx
from rvtrain._engine._bfloat16 import has_bfloat16
from rvtrain._engine._byte_tile import byte_tile
from rvtrain.mining import _certified_kernels, _codes_kernels, _window_kernels

of_bytes = {*vars(_certified_kernels), *vars(_codes_kernels), *vars(_window_kernels)}
for module in pkgutil.walk_packages(rvtrain.__path__, "rvtrain."):
    if module.name not in ("rvtrain.__main__", "rvtrain.demo.build_data") and "torch" not in module.name:
        importlib.import_module(module.name)
for task in [(name, "float32") for name in _warmup.WORK] + [("infonce", "float64")]:  # some kernels have no float32
    _warmup.compile_one(task)
bodies = _bodies.known()
drivers = {x.__name__: x for x in gc.get_objects() if isinstance(x, Driver)}
print(len(bodies) + len(drivers))
for name, made in (bodies | drivers).items():
    impossible = (
        (byte_tile() is None and name.rsplit(".", 1)[-1] in of_bytes)
        or ("_word" in name and (not has_bfloat16() or has_amx()))
        or ("_amx" in name and not has_amx())
    )
    if not made.signatures and not impossible:
        print(name)
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
    printed = run("-c", DEMO).stdout
    assert "Recall@10" in printed
    assert "compilations: 0" in printed
    assert list(warm.glob("*.nbc"))


def test_warmup__calls_every_kernel(warm):
    count, *missed = run("-c", REGISTRY).stdout.split()
    assert int(count) > 100
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
