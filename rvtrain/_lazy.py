"""Names of a package that are fetched from their modules when they are first used: importing all takes longer."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def fetcher(package: str, homes: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package, given its modules and their names (PEP 562)."""
    home_of = {name: module for module, names in homes.items() for name in names}

    def fetch(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return fetch
