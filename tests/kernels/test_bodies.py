"""Kernels, drivers and the bodies that they share: what is compiled, kept and read again."""

import importlib
import os
import subprocess
import sys
import textwrap
from collections import Counter

import numpy as np
import processes
import pytest

from rvtrain._kernels import Kernel, kernel

HELPER = """
from rvtrain._kernels import njit

@njit
def twice(x):
    return 2 * x
"""
SHARED = """
from rvtrain._kernels import body, driver, kernel
from helper import twice

@body
def add_twice(x, i, out):
    out[i] += twice(x[i])

@kernel
def once(start, stop, x, out):
    for i in range(start, stop):
        add_twice(x, i, out)

@kernel
def thrice(start, stop, x, out):
    for i in range(start, stop):
        for _ in range(3):
            add_twice(x, i, out)

launch_once, launch_thrice = once.launch, thrice.launch

@driver
def four_times(threads, x, out):
    launch_once(threads, len(x), x, out)
    launch_thrice(threads, len(x), x, out)
"""
ALL = {name: 1 for name in ("twice", "add_twice", "once", "thrice", "once entry", "thrice entry", "four_times")}
# What is overloaded for a named tuple stands in the file of its class, of which the kernel's file knows nothing.
SEAM = """
import numpy as np
from rvtrain._kernels import kernel

def value(treatment, x):
    raise NotImplementedError

@kernel
def treated(start, stop, treatment, x, out):
    for i in range(start, stop):
        out[i] = value(treatment, x[i])
"""
TREATMENT = """
from typing import NamedTuple
from rvtrain._kernels import overload
from seam import treated, value

class Affine(NamedTuple):
    slope: float
    offset: {kind}

@overload(value)
def _value(treatment, x):
    if treatment.instance_class is Affine:
        return lambda treatment, x: treatment.slope * x + treatment.offset
"""
CALL_TREATED = "treated(3, Affine(2.0, {kind}(1)), x, out)"
# Prints the output, and the functions that numba has compiled.
COMPILED = """
import sys
sys.modules["scipy"] = None  # a fifth of a second: numba would load its BLAS
import numpy as np
from numba.core import event
compiled = []
class Listener(event.Listener):
    def on_start(self, e):
        compiled.append(e.data["dispatcher"].py_func.__qualname__)
    def on_end(self, e):
        pass
event.register("numba:compile", Listener())
x, out = np.array([1.0, 2.0, 3.0]), np.zeros(3)
{}
print(*map(int, out), *compiled, sep=",")
"""


class Modules:
    """Modules in a folder of their own, a cache in another, and processes that use both."""

    def __init__(self, path, **sources):
        self.path, self.cache = path / "modules", path / "cache"
        self.path.mkdir()
        for name, source in sources.items():
            self.write(name, source)

    def write(self, name, source):
        (self.path / f"{name}.py").write_text(source)

    def environment(self, **changed):
        """The environment of a process that uses both."""
        plain = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
        path = os.pathsep.join([str(self.path), os.environ.get("PYTHONPATH", "")])
        return {**plain, "PYTHONPATH": path, "RVTRAIN_CACHE_DIR": str(self.cache), **changed}

    def call(self, code, **environment):
        """The output of a call, and how often each function was compiled for it."""
        env = self.environment(**environment)
        often = "PYTHONHASHSEED" in environment
        return told(printed(processes.run(COMPILED.format(textwrap.dedent(code)), env=env, often=often)))

    def run(self, script):
        """The same of a script."""
        call = [sys.executable, str(script)]
        return told(
            printed(subprocess.run(call, capture_output=True, text=True, timeout=120, env=self.environment()))
        )

    def kept(self):
        """The entries of each function."""
        found = {}
        for path in self.cache.glob("*.nbc"):
            found.setdefault(path.name.rsplit("-", 1)[0], []).append(path)
        return found


def printed(result):
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def told(line):
    parts = line.split(",")
    return [int(x) for x in parts[:3]], Counter(parts[3:])


@pytest.fixture
def modules(tmp_path):
    return Modules(tmp_path, helper=HELPER, shared=SHARED)


EVERYTHING = "from shared import *; once(3, x, out); thrice.serial(3, x, out); four_times(x, out)"


def test_body__is_compiled_once_for_all_kernels_and_kept(modules):
    assert modules.call(EVERYTHING) == ([16, 32, 48], ALL)
    kept = {name: len(entries) for name, entries in modules.kept().items()}
    assert kept == {name.replace(" ", "-"): 1 for name in ALL if name != "twice"}
    assert modules.call(EVERYTHING) == ([16, 32, 48], {})
    assert modules.call("from shared import *; four_times(x, out)") == ([8, 16, 24], {})


def test_body__whose_entry_is_lost_is_compiled_for_the_kernels_that_are_kept(modules):
    modules.call(EVERYTHING)
    (entry,) = modules.kept()["add_twice"]
    entry.unlink()
    assert modules.call(EVERYTHING) == ([16, 32, 48], {"add_twice": 1, "twice": 1})
    entry.write_bytes(b"garbage")
    assert modules.call("from shared import *; once(3, x, out)") == ([2, 4, 6], {"add_twice": 1, "twice": 1})
    assert modules.call(EVERYTHING) == ([16, 32, 48], {})


def test_changed_helper__gives_new_code(modules):
    modules.call(EVERYTHING)
    modules.write("helper", HELPER.replace("2 * x", "3 * x"))
    assert modules.call(EVERYTHING) == ([24, 48, 72], ALL)
    modules.write("helper", HELPER)
    assert modules.call(EVERYTHING) == ([16, 32, 48], {})


def test_helper__is_found_by_relative_imports_of_another_package(tmp_path):
    modules = Modules(tmp_path)
    package = modules.path / "package" / "inner"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "shared.py").write_text(SHARED.replace("from helper", "from ..helper"))
    (package.parent / "helper.py").write_text(HELPER)
    call = "from package.inner.shared import once; once(3, x, out)"
    compiled = {name: 1 for name in ("twice", "add_twice", "once", "once entry")}
    assert modules.call(call) == ([2, 4, 6], compiled)
    assert modules.call(call) == ([2, 4, 6], {})
    (package.parent / "helper.py").write_text(HELPER.replace("2 * x", "3 * x"))
    assert modules.call(call) == ([3, 6, 9], compiled)


@pytest.mark.parametrize("kind", ["float", "int"])  # a tuple of one type is another class of numba's than one of two
def test_changed_overload__in_the_file_of_a_named_tuple_gives_new_code(tmp_path, kind):
    modules = Modules(tmp_path, seam=SEAM, treatment=TREATMENT.format(kind=kind))
    call = f"from treatment import *; {CALL_TREATED.format(kind=kind)}"
    values, compiled = modules.call(call)
    assert values == [3, 5, 7] and compiled["treated"] == 1
    assert modules.call(call) == ([3, 5, 7], {})
    modules.write("treatment", TREATMENT.format(kind=kind).replace("* x +", "* x -"))
    values, compiled = modules.call(call)
    assert values == [1, 3, 5] and compiled["treated"] == 1


def test_script__with_a_named_tuple_of_its_own_is_read_again_and_once(tmp_path):
    counted = """
    from rvtrain._kernels import _cache
    loads, load = [], _cache.Entries.load
    _cache.Entries.load = lambda self, key: loads.append(key) or load(self, key)
    """
    twice = f"{CALL_TREATED}; before = len(loads); {CALL_TREATED}; assert len(loads) == before".format(kind="float")
    code = TREATMENT.format(kind="float") + textwrap.dedent(counted) + twice
    modules = Modules(tmp_path, seam=SEAM, script=COMPILED.format(code))
    script = modules.path / "script.py"
    values, compiled = modules.run(script)
    assert values == [3, 5, 7] and compiled["treated"] == compiled["treated entry"] == 1
    assert modules.run(script) == ([3, 5, 7], {})
    (entry,) = modules.kept()["treated"]
    entry.unlink()
    values, compiled = modules.run(script)
    assert values == [3, 5, 7] and compiled["treated"] == 1 and compiled["treated entry"] == 0


def test_prompt__may_define_a_kernel_again_and_keeps_none(tmp_path):
    cells = [
        HELPER,
        SHARED.replace("from helper", "# "),
        HELPER.replace("2 * x", "3 * x"),
        SHARED.replace("from h", "# "),
    ]
    code = f"""
    for cell in {cells!r}:
        exec(cell, globals())
        if "once" in globals():
            once(3, x, out)
    """
    modules = Modules(tmp_path)
    values, compiled = modules.call(code)
    assert values == [2 + 2 + 3, 4 + 4 + 6, 6 + 6 + 9]  # the kernel of the second cell, twice, and that of the fourth
    assert compiled["once"] == compiled["add_twice"] == 2
    assert not modules.kept()


FACTORY = """
import numpy as np
from rvtrain._kernels import Kernel, njit

def make(factor, name):
    @njit
    def rotate(x):  # too large to be put in place of its calls
        for _ in range(9):
            x = np.sin(x) + np.tanh(x) + np.exp(-abs(x)) + np.arctan(x) * np.log(abs(x) + 1) + factor * np.cos(x)
        return x

    def rotated(start, stop, x, out):
        for i in range(start, stop):
            out[i] = 1000 * (rotate(x[i]) + rotate(x[i] + 1) * rotate(x[i] + 2))

    return Kernel(rotated, name)

two, three = make(2, "two"), make(3, "three")
"""


def test_factory__makes_kernels_that_are_told_apart_by_name(tmp_path):
    """Even by the linker, where numba counts its functions alike in one process and the next."""
    modules, same = Modules(tmp_path, factory=FACTORY), {"PYTHONHASHSEED": "0"}
    expected, _ = modules.call("from factory import three; three(3, x, out)", RVTRAIN_CACHE_DIR="", HOME="/dev/null")
    two, _ = modules.call("from factory import two; two(3, x, out)", **same)
    assert two != expected
    both = "from factory import two, three; two(3, x, out); three(3, x, out)"
    compiled = {"three": 1, "three entry": 1, "make.<locals>.rotate": 1}
    assert modules.call(both, **same) == (expected, compiled)
    assert modules.call(both, **same) == (expected, {})


OTHERS = """
from typing import NamedTuple
from rvtrain._kernels import implements, kernel, seam

@seam
def value(treatment, x):
    pass

@kernel
def treated(start, stop, treatment, x, out):
    for i in range(start, stop):
        out[i] = value(treatment, x[i])
"""
SAME_NAME = """
from typing import NamedTuple
from others import implements, treated, value

class Scaled(NamedTuple):
    factor: float

@implements(value, Scaled)
def _(treatment, x):
    return treatment.factor * x + {}
"""


def test_classes__of_one_name_are_told_apart(tmp_path):
    modules = Modules(tmp_path, others=OTHERS, first=SAME_NAME.format(0), second=SAME_NAME.format(5))
    one, other = ("import first; first.treated(3, first.Scaled(1.0), x, out)",
                  "import second; second.treated(3, second.Scaled(1.0), x, out)")  # fmt: skip
    both = f"{one}; assert out.tolist() == [1, 2, 3]; {other}"
    assert modules.call(both)[0] == [6, 7, 8]
    values, compiled = modules.call(both)
    assert values == [6, 7, 8] and compiled == {}
    assert modules.call(other)[0] == [6, 7, 8]
    assert modules.call(f"{other}; {one}")[0] == [1, 2, 3]


def test_class__that_a_notebook_defines_again_gets_new_code(tmp_path):
    code = f"""
    for source in ({SAME_NAME.format(0)!r}, {SAME_NAME.format(5)!r}):
        exec(source, globals())
        treated(3, Scaled(1.0), x, out)
    """
    assert Modules(tmp_path, others=OTHERS).call(code)[0] == [6, 7, 8]


def test_name__that_another_kernel_has_is_refused_but_not_to_a_reloaded_module(tmp_path, monkeypatch):
    modules = Modules(tmp_path, factory_of_two=FACTORY)
    monkeypatch.syspath_prepend(modules.path)
    module = importlib.import_module("factory_of_two")
    with pytest.raises(ValueError, match=r"differ from kernel to kernel, got 'factory_of_two\.two'"):
        module.make(4, "two")
    modules.write("factory_of_two", FACTORY.replace("range(9)", "range(8)"))
    importlib.invalidate_caches()
    again = importlib.reload(module)
    assert again.two is not None
    with pytest.raises(ValueError, match="name must differ"):
        again.make(5, "three")


def test_kernel__of_the_same_function_may_be_made_again():
    def fill(start, stop, x):
        for i in range(start, stop):
            x[i] = i

    def made():
        x = np.empty(3)
        kernel(fill)(3, x)
        return x.tolist()

    assert made() == made() == [0, 1, 2]


OF_NUMBA = """
import numba
from rvtrain._kernels import kernel, njit

@numba.njit
def factorial(n):
    return 1.0 if n <= 1 else n * factorial(n - 1)

@njit
def shifted(x):
    return factorial(x) + 1

@kernel
def factorials(start, stop, x, out):
    for i in range(start, stop):
        out[i] = shifted(x[i])
"""


def test_helper__of_numbas_own_may_be_called_from_python_too(tmp_path):
    modules = Modules(tmp_path, of_numba=OF_NUMBA)
    call = "from of_numba import *; factorials(3, x, out); assert factorial(3.0) == 6 and factorial(4) == 24"
    for _ in range(2):
        assert modules.call(call)[0] == [2, 3, 7]


def scaled_sums(start, stop, x, factor, out):
    """out[i] = factor Σ_k x[i, k]²."""
    for i in range(start, stop):
        total = 0.0
        for k in range(x.shape[1]):
            total += x[i, k] * x[i, k]
        out[i] = factor * total


SCALED_SUMS = Kernel(scaled_sums)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
def test_parallel_and_serial_calls__return_the_same_bits(count, dtype, threads, rng):
    x = rng.normal(size=(count, 37)).astype(dtype)
    serial, parallel = np.zeros((2, count), dtype)
    SCALED_SUMS.serial(count, x, 0.3, serial)
    SCALED_SUMS(count, x, 0.3, parallel)
    np.testing.assert_array_equal(serial, parallel)
    np.testing.assert_allclose(serial, 0.3 * (x.astype(float) ** 2).sum(axis=1), rtol=1e-5)


def test_sized__is_serial_for_little_work():
    assert SCALED_SUMS.sized(10) is SCALED_SUMS.serial
    assert SCALED_SUMS.sized(10**9) is SCALED_SUMS
    assert SCALED_SUMS.__name__ == "scaled_sums" and "Σ_k" in SCALED_SUMS.__doc__


def test_interpreted_kernels__do_the_same(modules):
    assert modules.call(EVERYTHING, NUMBA_DISABLE_JIT="1") == ([16, 32, 48], {})
