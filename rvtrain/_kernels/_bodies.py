"""Functions that are compiled once, on their own, and called by their address.

# Design: numba compiles a function into each of its callers, and again into theirs. A *body* is compiled for its
# argument types once: its machine code has a symbol, and a caller holds a call of this symbol.
#
#     @kernel f ──▶ entry (from Python) ──call──▶ "rvtrain.f.1a2b…"  ──call──▶ "rvtrain.score_block.3c4d…"
#                                                 body, compiled once           body, shared by many kernels
#
# A caller's machine code can only be loaded when the symbols that it calls are known. An entry on disk therefore
# lists these symbols (`needs`), and loading it registers them first (`register`). A symbol contains a hash of
# everything that the code depends on, so a caller is never linked with another version of a body.
"""

import hashlib
import importlib
import inspect
import itertools
import os
import pickle
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numba
from llvmlite import binding
from numba.core import cgutils, registry, types
from numba.core.compiler_lock import global_compiler_lock

from rvtrain._kernels import _cache, _codegen, _compiling
from rvtrain._kernels._decorators import FASTMATH, INNER, disabled, intrinsic_of

Args = tuple[Any, ...]
"""numba types of arguments."""


class Need(NamedTuple):
    """A symbol that compiled code calls, and the body behind it."""

    symbol: str
    module: str
    name: str
    args: bytes
    """Argument types, pickled by reference, because a class of `__main__` must come back as the same class."""


_PREFIX = f"{_cache.OWN} body "
_bodies: dict[str, "Body"] = {}
_symbols: dict[str, tuple["Body", Args]] = {}
_named: dict[str, tuple[Callable, Any]] = {}
_unkept = itertools.count()


class Body:
    """A function without result, its compiled code by argument types, and how compiled code calls it."""

    def __init__(self, func: Callable, name: str | None = None) -> None:
        self.name = unique_name(func, name)
        self.func = func
        self.parameters = list(inspect.signature(func).parameters)
        self._known: dict[Args, tuple[str, Any]] = {}
        self._dispatcher: Any = None
        self._entries = _cache.Entries(self.name, func)
        _bodies[self.name] = self

    @property
    def signatures(self) -> list[Args]:
        """Argument types for which this process has compiled code."""
        return list(self._known)

    def symbol(self, args: Args) -> str:
        """The symbol of the code for these argument types; reads the code from disk or compiles it if necessary."""
        with global_compiler_lock:  # `_codegen` replaces functions of numba meanwhile
            if args not in self._known:
                key = self._entries.key(args)
                digest = hashlib.sha256(key.encode()).hexdigest()[:32] if key else f"unkept{next(_unkept)}"
                symbol = f"{_PREFIX}{self.name}.{digest}"
                address, library = self._load(key) or self._compile(key, args)
                binding.add_symbol(symbol, address)
                if key:
                    _symbols[symbol] = self, args
                self._known[args] = symbol, library  # the library keeps the machine code alive
        return self._known[args][0]

    def _load(self, key: str | None) -> tuple[int, Any] | None:
        payload = self._entries.load(key)
        if payload is None:
            return None
        try:
            needed, symbols, stored, function = payload
            _cache.provide(symbols)
            register(needed)
            with _codegen.as_usual():  # needed when this body is loaded while its caller is being compiled
                library = registry.cpu_target.target_context.codegen().unserialize_library(stored)
            return library.get_pointer_to_function(function), library
        except Exception:  # written by another numba, or a body that it calls has changed: compile
            return None

    def _compile(self, key: str | None, args: Args) -> tuple[int, Any]:
        if self._dispatcher is None:  # not made before, because most code is read from disk
            self._dispatcher = numba.njit(self.func, fastmath=FASTMATH, **INNER)
        with _codegen.alone(), _codegen.borrowing(self.func):
            _compiling.announced(self._dispatcher.compile)(args)
        result = self._dispatcher.overloads[args]
        library, function = result.library, result.fndesc.llvm_func_name
        _codegen.finish(library)
        address = library.get_pointer_to_function(function)
        if key and not library.has_dynamic_globals and (needed := needs(library)) is not None:
            code = _codegen.serialized(library)
            self._entries.save(key, (needed, _cache.external(library), code, function))
        return address, library

    def call(self, context: Any, builder: Any, args: Args, values: Iterable[Any]) -> Any:
        """Emit a call; returns numba's status of it."""
        function = context.call_conv.get_function_type(types.none, args)
        callee = cgutils.get_or_insert_function(builder.module, function, self.symbol(args))
        status, _ = context.call_conv.call_function(builder, callee, types.none, args, values)
        return status


def known() -> dict[str, Body]:
    """All bodies of this process by name, including the bodies of kernels."""
    return dict(_bodies)


def body(func: Callable) -> Any:
    """Decorate a function without result: compile it once, and let compiled code call it by its symbol.

    Use it for large functions that several kernels share: a call costs a few nanoseconds and is never inlined.
    """
    if disabled():
        return func
    made = Body(func)

    def typing(typingctx, *args):
        args = unliteral(args)
        made.symbol(args)

        def generate(context, builder, signature, values):
            propagate(context, builder, made.call(context, builder, args, values))
            return context.get_dummy_value()

        return types.none(*args), generate

    return intrinsic_of(typing, func, made.parameters)


def propagate(context: Any, builder: Any, status: Any) -> None:
    """Emit code that returns with the exception of a call if the call raised one."""
    with cgutils.if_unlikely(builder, status.is_error):
        context.call_conv.return_status_propagate(builder, status)


def unliteral(args: Iterable[Any]) -> Args:
    """Argument types with literal types replaced by general ones, because a literal's value is part of its type."""
    return tuple(types.unliteral(arg) for arg in args)


def unique_name(func: Any, name: str | None = None) -> str:
    """The name of a kernel, driver or body on disk and in symbols: its module and qualified name.

    The same function may be registered again, and so may a function that a reloaded module or a notebook redefines.

    Raises
    ------
    ValueError
        If another function has the name. A factory of kernels must give each of them a name.
    """
    if name is not None:
        func.__qualname__ = name  # numba derives symbols from it
    full = f"{func.__module__}.{func.__qualname__}"
    run = func.__globals__, getattr(sys.modules.get(func.__module__), "__spec__", None)
    known, known_run = _named.get(full, (func, run))
    same = known is func or (known.__code__ == func.__code__ and known.__closure__ is func.__closure__ is None)
    same_run = all(a is b for a, b in zip(run, known_run, strict=True)) and os.path.isfile(func.__code__.co_filename)
    if same_run and not same:
        raise ValueError(f"name must differ from kernel to kernel, got {full!r} twice")
    _named[full] = func, run
    return full


def needs(library: Any) -> list[Need] | None:
    """The bodies that compiled code calls; None if one of them cannot be looked up in another process."""
    declared = (f.name for f in library._final_module.functions if f.is_declaration)
    try:
        called = [(name, *_symbols[name]) for name in declared if name.startswith(_PREFIX)]
        return [Need(name, made.func.__module__, made.name, pickle.dumps(args)) for name, made, args in called]
    except (KeyError, pickle.PicklingError, AttributeError):  # a body not on disk, or a class defined in a function
        return None


def register(needed: Iterable[Need]) -> None:
    """Register the symbols of bodies with the linker; reads or compiles their code.

    Raises
    ------
    LookupError
        If a body has changed since the caller was compiled.
    """
    for need in needed:
        if need.name not in _bodies:
            importlib.import_module(need.module)
        if _bodies[need.name].symbol(pickle.loads(need.args)) != need.symbol:
            raise LookupError(need.symbol)
