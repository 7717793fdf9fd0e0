"""Functions that are compiled once, on their own, and called by their address.

# Design: numba compiles a function into each of its callers, and again into theirs. A *body* is compiled for its
# argument types once: its machine code has a symbol, and a caller holds a call of this symbol.
#
#     @kernel f ──▶ entry (from Python) ──call──▶ "rvtrain.f.1a2b…"  ──call──▶ "rvtrain.score_block.3c4d…"
#                                                 body, compiled once           body, shared by many kernels
#
# A compiled caller is of no use before the symbols that it calls are known: on disk, an entry names them (`needs`),
# and they are made known before its own code is loaded.
"""

import contextlib
import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numba
from llvmlite import binding
from numba.core import cgutils, registry, types
from numba.core.codegen import JITCPUCodegen
from numba.core.environment import lookup_environment
from numba.extending import intrinsic

from rvtrain._kernels import _cache, _compiling
from rvtrain._kernels._decorators import INNER, disabled

Signature = tuple[Any, ...]
"""numba types of the arguments."""

Need = tuple[str, str, Signature]
"""Module, name and argument types of a body."""

_bodies: dict[str, "Body"] = {}
_symbols: dict[str, Need] = {}
_named: dict[str, Any] = {}


class Body:
    """A function of no result, its compiled code by argument types, and how compiled code calls it."""

    def __init__(self, func: Callable, name: str | None = None, **flags: Any) -> None:
        self.name = unique_name(func, name)
        self.func = func
        self.parameters = list(inspect.signature(func).parameters)
        self._known: dict[Signature, tuple[str, Any]] = {}
        self._dispatcher: Any = numba.njit(func, **(INNER | flags))
        self._entries = _cache.Entries(self.name, func)
        _bodies[self.name] = self

    def symbol(self, args: Signature) -> str:
        """The symbol of the code for these argument types, which is read from disk or compiled if need be."""
        if args not in self._known:
            key = self._entries.key(args)
            symbol = f"rvtrain.{self.name}.{hashlib.sha256(key.encode()).hexdigest()[:16]}"
            address, library = self._load(key) or self._compile(key, args)
            binding.add_symbol(symbol, address)
            self._known[args] = symbol, library  # the library keeps the machine code alive
            _symbols[symbol] = self.func.__module__, self.name, args
        return self._known[args][0]

    def _load(self, key: str) -> tuple[int, Any] | None:
        payload = self._entries.load(key)
        if payload is None:
            return None
        needed, stored, function = payload
        register(needed)
        context = registry.cpu_target.target_context
        context.refresh()
        library = context.codegen().unserialize_library(stored)
        return library.get_pointer_to_function(function), library

    def _compile(self, key: str, args: Signature) -> tuple[int, Any]:
        with _alone():
            _compiling.told(self._dispatcher.compile)(args)
        result = self._dispatcher.overloads[args]
        library, function = result.library, result.fndesc.llvm_func_name
        JITCPUCodegen._add_module(library.codegen, library._final_module)
        for name in [variable.name for variable in library._final_module.global_variables]:
            if (environment := lookup_environment(name)) is not None:
                JITCPUCodegen.set_env(library.codegen, name, environment)
        address = library.get_pointer_to_function(function)
        if not library.has_dynamic_globals:
            self._entries.save(key, (needs(library), library.serialize_using_object_code(), function))
        return address, library

    def call(self, context: Any, builder: Any, args: Signature, values: Iterable[Any]) -> Any:
        """Emit a call; returns numba's status of it."""
        function = context.call_conv.get_function_type(types.none, args)
        callee = cgutils.get_or_insert_function(builder.module, function, self.symbol(args))
        status, _ = context.call_conv.call_function(builder, callee, types.none, args, values)
        return status


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Make no machine code of the functions that are compiled into a body: numba would, for each, though nobody calls it."""
    codegen = registry.cpu_target.target_context.codegen()
    outer = {name: codegen.__dict__.get(name) for name in ("_add_module", "set_env")}
    codegen._add_module = codegen.set_env = lambda *arguments: None
    try:
        yield
    finally:
        for name, value in outer.items():
            if value is None:
                delattr(codegen, name)
            else:
                setattr(codegen, name, value)


def body(func: Callable) -> Any:
    """Make a function of no result a body: called from compiled code alone."""
    if disabled():
        return func
    return _callable(Body(func))


def _callable(made: Body) -> Any:
    """The intrinsic by which compiled code calls a body."""

    def typing(typingctx, *args):
        args = unliteral(args)
        made.symbol(args)

        def generate(context, builder, signature, values):
            status = made.call(context, builder, args, values)
            with cgutils.if_unlikely(builder, status.is_error):
                context.call_conv.return_status_propagate(builder, status)
            return context.get_dummy_value()

        return types.none(*args), generate

    return intrinsic_of(typing, made.func, ["typingctx", *made.parameters])


def intrinsic_of(typing: Callable, func: Callable, parameters: list[str]) -> Any:
    """A numba intrinsic of that typing function, with the name of `func` and these parameters."""
    named: Any = typing
    named.__name__, named.__qualname__, named.__module__ = func.__name__, func.__qualname__, func.__module__
    named.__doc__ = func.__doc__
    named.__signature__ = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in parameters]
    )
    return intrinsic(named)


def unliteral(args: Iterable[Any]) -> Signature:
    """Types of arguments without the values of constants."""
    return tuple(types.unliteral(arg) for arg in args)


def unique_name(func: Callable, name: str | None = None) -> str:
    """The name by which a kernel or body is kept on disk.

    Raises
    ------
    ValueError
        If another function has it: a function that makes kernels has to name each of them.
    """
    full = f"{func.__module__}.{name or func.__qualname__}"
    known = _named.setdefault(full, func)
    again = known.__code__ == func.__code__ and known.__closure__ is None and func.__closure__ is None
    if known is not func and not again and func.__module__ != "__main__":
        raise ValueError(f"name must differ from kernel to kernel, got {full!r} twice")
    return full


def needs(library: Any) -> list[Need]:
    """The bodies that compiled code calls."""
    declared = (f.name for f in library._final_module.functions if f.is_declaration)
    return [_symbols[name] for name in declared if name in _symbols]


def register(needed: Iterable[Need]) -> None:
    """Make known the symbols of bodies, reading or compiling their code."""
    for module, name, args in needed:
        if name not in _bodies:
            importlib.import_module(module)
        _bodies[name].symbol(args)
