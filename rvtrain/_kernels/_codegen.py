"""Code generation for one function together with its callees, as one module with one visible symbol.

# Design: numba optimizes every callee of a kernel on its own and makes machine code of it that nobody calls. Here
# both steps wait until all callees are linked into the kernel's module, which halves the compile time of a kernel.
# All symbols of the module but the kernel's own are made private, because two processes may give one symbol to
# different functions (for example, of two named tuple classes of one name). A process that reads the code of both
# from disk would then link one function in place of the other, and results would be wrong.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import binding, ir
from llvmlite.binding import Linkage
from numba.core import types
from numba.core.codegen import CPUCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.environment import lookup_environment
from numba.core.lowering import Lower


def alone() -> contextlib.AbstractContextManager[None]:
    """While entered, numba optimizes and generates machine code for functions that Python calls, and for no others.

    A helper under plain `numba.njit` counts as called from Python. Enter it, like `as_usual`, under numba's compiler
    lock.
    """
    return _replaced(_ALONE)


def as_usual() -> contextlib.AbstractContextManager[None]:
    """While entered, numba's own code generation is in force, also within `alone`."""
    return _replaced(_AS_USUAL)


@contextlib.contextmanager
def borrowing(func: Callable) -> Iterator[None]:
    """While entered, `func` is compiled such that it does not count references to arrays among its arguments.

    Its caller holds them. numba counts each view of an array, up and down, by atomic additions to a number that all
    threads share, which took up to a third of the time of kernels with a view or two for each block. `func` may not
    return an array.
    """
    owner: Any = Lower
    usual = owner.extract_function_arguments

    def extract(lower: Any) -> Any:
        found = usual(lower)
        if lower.func_ir.func_id.func is func:
            kinds = lower.fndesc.argtypes
            lower.fnargs = [_borrowed(lower.builder, *each) for each in zip(kinds, found, strict=True)]
        return lower.fnargs

    owner.extract_function_arguments = extract
    try:
        yield
    finally:
        owner.extract_function_arguments = usual


def _borrowed(builder: Any, kind: Any, value: Any) -> Any:
    """The same argument, with arrays that belong to nobody: their first field is the counted owner of the memory."""
    if isinstance(kind, types.Array):
        return builder.insert_value(value, ir.Constant(value.type.elements[0], None), 0)
    if isinstance(kind, types.BaseTuple):
        parts: Any = kind
        for i, part in enumerate(parts):
            value = builder.insert_value(value, _borrowed(builder, part, builder.extract_value(value, i)), i)
    return value


def compiled_alone(compile_function: Callable) -> Callable:
    """Wrap a compile function such that it runs under `alone`."""

    def compile_alone(*args: Any) -> Any:
        with global_compiler_lock, alone():
            return compile_function(*args)

    return compile_alone


def finish(library: Any) -> None:
    """Optimize a library compiled under `alone` that Python does not call, and generate its machine code."""
    _optimize(library)
    library._dynamic_globals.clear()  # listed again below: optimization removes most; code with any is not kept
    library._finalize_dynamic_globals()
    _add(library.codegen, library._final_module)


def serialized(library: Any) -> Any:
    """A library's machine code in the form that numba's `unserialize_library` reads.

    numba adds the code's LLVM module, which would be linked into callers from other libraries. There are none, but to
    parse it takes a third of the time of loading. In its place is a module that defines the same visible symbols,
    because numba looks for their names there.
    """
    name, kind, (machine_code, _) = library.serialize_using_object_code()
    module = library._final_module
    visible = [x for x in (*module.functions, *module.global_variables) if not x.is_declaration]
    functions = {function.name for function in module.functions}
    lines = [
        f'define void @"{x.name}"() {{ ret void }}' if x.name in functions else f'@"{x.name}" = global i8 0'
        for x in visible
        if x.linkage not in (Linkage.internal, Linkage.private)
    ]
    return name, kind, (machine_code, binding.parse_assembly("\n".join(lines)).as_bitcode())


def _optimize(library: Any) -> None:
    module = library._final_module
    for function in module.functions:
        if not function.is_declaration and function.linkage != Linkage.external:  # a callee
            function.linkage = "internal"
    _usual_functions(library, module)
    _usual_module(library)


def _add(codegen: Any, module: Any) -> None:
    _usual_add(codegen, module)
    for name in [variable.name for variable in module.global_variables]:
        if (environment := lookup_environment(name)) is not None:
            _usual_env(codegen, name, environment)


def _is_called(module: Any) -> bool:
    """Whether Python calls the function of a module; such a module contains a wrapper for CPython."""
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
