"""Machine code of one function alone, with symbols that no other function has.

# Design: numba makes machine code of each function that is compiled into a kernel, though nobody calls it, and gives
# it a symbol of its name and argument types. Two processes may give the same symbol to different functions (say, of
# two named tuple classes of one name), and where code of both is read from disk, the linker takes the first for both:
# wrong numbers. So a compilation makes no machine code; `finish` then makes that of the whole module, from which
# nothing but the function itself is seen outside.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from numba.core import registry
from numba.core.codegen import JITCPUCodegen
from numba.core.environment import lookup_environment

from rvtrain._kernels import _compiling


@contextlib.contextmanager
def machine_code(made: bool) -> Iterator[None]:
    """Whether numba makes machine code of the libraries that it finalizes meanwhile, under its compiler lock."""
    codegen = registry.cpu_target.target_context.codegen()
    outer = {name: codegen.__dict__.pop(name, None) for name in ("_add_module", "set_env")}
    if not made:
        codegen._add_module = codegen.set_env = lambda *arguments: None
    try:
        yield
    finally:
        for name, value in outer.items():
            codegen.__dict__.pop(name, None)
            if value is not None:
                setattr(codegen, name, value)


def finish(library: Any, *exported: str) -> None:
    """Make the machine code of a library that was compiled without, with these functions as its only symbols."""
    module = library._final_module
    for function in module.functions:
        if not function.is_declaration and function.name not in exported:
            function.linkage = "internal"
    JITCPUCodegen._add_module(library.codegen, module)
    for name in [variable.name for variable in module.global_variables]:
        if (environment := lookup_environment(name)) is not None:
            JITCPUCodegen.set_env(library.codegen, name, environment)


def told_and_alone(compile_function: Callable) -> Callable:
    """The compilation of a function that Python calls, told, with machine code of this function alone."""

    def compile_alone(*args: Any) -> Any:
        with machine_code(False):
            result = compile_function(*args)
        finish(result.library, result.fndesc.llvm_func_name, result.fndesc.llvm_cpython_wrapper_name)
        executable = result.target_context.get_executable(result.library, result.fndesc, result.environment)
        return result._replace(entry_point=executable)

    return _compiling.told(compile_alone)
