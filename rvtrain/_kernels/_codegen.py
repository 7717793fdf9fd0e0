"""Machine code of one function alone, with symbols that no other function has.

# Design: numba optimizes each function that is compiled into a kernel, makes machine code of it, though nobody calls
# it, and gives it a symbol of its name and argument types. Here all this waits until the functions stand in one
# module: that halves the time that a kernel takes to compile. Of this module nothing but the kernel itself is seen
# outside, because two processes may give one symbol to different functions (say, of two named tuple classes of one
# name). Where code of both is read from disk, the linker takes the first for both: wrong numbers.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from llvmlite.binding import Linkage
from numba.core.codegen import CPUCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.environment import lookup_environment


def alone() -> contextlib.AbstractContextManager[None]:
    """Meanwhile numba optimizes functions that Python calls, and makes machine code of them, but of no others.

    A helper under `numba.njit` is one that Python may call. To be entered under numba's compiler lock, as `as_usual`.
    """
    return _replaced(_ALONE)


def as_usual() -> contextlib.AbstractContextManager[None]:
    """Meanwhile numba does as it does, also within `alone`."""
    return _replaced(_AS_USUAL)


def compiled_alone(compile_function: Callable) -> Callable:
    """The same compilation of a function that Python calls, `alone`."""

    def compile_alone(*args: Any) -> Any:
        with global_compiler_lock, alone():
            return compile_function(*args)

    return compile_alone


def finish(library: Any) -> None:
    """Optimize a library that was compiled `alone` and that Python does not call, and make its machine code."""
    _optimize(library)
    library._dynamic_globals.clear()  # of which the optimization has left none, or those that keep it off the disk
    library._finalize_dynamic_globals()
    _add(library.codegen, library._final_module)


def _optimize(library: Any) -> None:
    module = library._final_module
    for function in module.functions:
        if not function.is_declaration and function.linkage != Linkage.external:  # compiled into this one
            function.linkage = "internal"
    _usual_functions(library, module)
    _usual_module(library)


def _add(codegen: Any, module: Any) -> None:
    _usual_add(codegen, module)
    for name in [variable.name for variable in module.global_variables]:
        if (environment := lookup_environment(name)) is not None:
            _usual_env(codegen, name, environment)


def _is_called(module: Any) -> bool:
    """Whether Python calls the function of a module: it has a wrapper of its own for that."""
    return any(f.name.startswith("_ZN7cpython") and f.linkage == Linkage.external for f in module.functions)


def _optimize_if_called(library: Any) -> None:
    if _is_called(library._final_module):
        _optimize(library)


def _add_if_called(codegen: Any, module: Any) -> None:
    if _is_called(module):
        _add(codegen, module)


def _nothing(*arguments: Any) -> None:
    pass


_OF_NUMBA: list[tuple[Any, str]] = [
    (CPUCodeLibrary, "_optimize_functions"),
    (CPUCodeLibrary, "_optimize_final_module"),
    (JITCPUCodegen, "_add_module"),
    (JITCPUCodegen, "set_env"),
]
_AS_USUAL = [getattr(owner, name) for owner, name in _OF_NUMBA]
_usual_functions, _usual_module, _usual_add, _usual_env = _AS_USUAL
_ALONE = [_nothing, _optimize_if_called, _add_if_called, _nothing]


@contextlib.contextmanager
def _replaced(functions: list[Any]) -> Iterator[None]:
    before = [getattr(owner, name) for owner, name in _OF_NUMBA]
    for (owner, name), function in zip(_OF_NUMBA, functions, strict=True):
        setattr(owner, name, function)
    try:
        yield
    finally:
        for (owner, name), function in zip(_OF_NUMBA, before, strict=True):
            setattr(owner, name, function)
