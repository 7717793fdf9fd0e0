"""Machine code of one function alone, with symbols that no other function has.

# Design: numba makes machine code of each function that is compiled into a kernel, though nobody calls it, and gives
# it a symbol of its name and argument types. Two processes may give the same symbol to different functions (say, of
# two named tuple classes of one name), and where code of both is read from disk, the linker takes the first for both:
# wrong numbers. So a compilation makes no machine code; `finish` then makes that of the whole module, from which
# nothing but the function itself is seen outside. Nor does it optimize: all is optimized once, where it is compiled
# into, not each function before as well. Both halve the time that a kernel takes to compile.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from numba.core import registry
from numba.core.codegen import CPUCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.environment import lookup_environment

from rvtrain._kernels import _compiling


# What is taken out of numba during a compilation.
_OF_CODEGEN = ("_add_module", "set_env")
_PASSES = {name: getattr(CPUCodeLibrary, name) for name in ("_optimize_functions", "_optimize_final_module")}


@contextlib.contextmanager
def machine_code(made: bool) -> Iterator[None]:
    """Whether numba optimizes the libraries that it finalizes meanwhile, and makes machine code of them.

    To be entered under numba's compiler lock.
    """
    codegen = registry.cpu_target.target_context.codegen()
    outer = {name: codegen.__dict__.pop(name, None) for name in _OF_CODEGEN}
    passes = {name: getattr(CPUCodeLibrary, name) for name in _PASSES}
    for name in _OF_CODEGEN if not made else ():
        setattr(codegen, name, _nothing)
    for name, function in _PASSES.items():
        setattr(CPUCodeLibrary, name, function if made else _nothing)
    try:
        yield
    finally:
        for name, function in passes.items():
            setattr(CPUCodeLibrary, name, function)
        for name, value in outer.items():
            codegen.__dict__.pop(name, None)
            if value is not None:
                setattr(codegen, name, value)


def _nothing(*arguments: Any) -> None:
    pass


def finish(library: Any, *exported: str) -> None:
    """Optimize a library that was compiled without, and make its machine code, with these functions as its symbols."""
    module = library._final_module
    for function in module.functions:
        if not function.is_declaration and function.name not in exported:
            function.linkage = "internal"
    _PASSES["_optimize_functions"](library, module)
    _PASSES["_optimize_final_module"](library)
    module = library._final_module
    library._dynamic_globals.clear()  # of which the optimization has left none, or those that keep it off the disk
    library._finalize_dynamic_globals()
    JITCPUCodegen._add_module(library.codegen, module)
    for name in [variable.name for variable in module.global_variables]:
        if (environment := lookup_environment(name)) is not None:
            JITCPUCodegen.set_env(library.codegen, name, environment)


def told_and_alone(compile_function: Callable) -> Callable:
    """The compilation of a function that Python calls, told, with machine code of this function alone."""

    def compile_alone(*args: Any) -> Any:
        with global_compiler_lock:
            with machine_code(False):
                result = compile_function(*args)
            finish(result.library, result.fndesc.llvm_func_name, result.fndesc.llvm_cpython_wrapper_name)
            executable = result.target_context.get_executable(result.library, result.fndesc, result.environment)
        return result._replace(entry_point=executable)

    return _compiling.told(compile_alone)
