"""The sources that compiled code depends on: its own file and all files that it imports from the same package."""

import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
_IMPORTS = re.compile(
    r"^[ \t]*(?:from[ ]+(\.*)([\w.]*)[ ]+import[ ]+(\([^)]*\)|[^\n]*)|import[ ]+([^\n#]*))", re.MULTILINE
)


@functools.cache
def stamp(file: str) -> str | None:
    """A digest of the sources that a function in this file depends on; None if the file cannot be read.

    A file outside of this package is assumed to depend on all of this package, because it may use any public name.
    """
    path = Path(file)
    if not path.is_file():  # code typed at a prompt, or in a notebook's cell
        return None
    digest = hashlib.sha256()
    waiting = [path] if path.is_relative_to(_PACKAGE) else [path, *sorted(_PACKAGE.rglob("*.py"))]
    seen = set(waiting)
    while waiting:
        source, imported = _source(waiting.pop())
        digest.update(source)
        new = [path for path in imported if path not in seen]
        seen.update(new)
        waiting.extend(new)
    return digest.hexdigest()


@functools.cache
def _source(path: Path) -> tuple[bytes, list[Path]]:
    """A file's bytes, and the files of its own package that it imports on any line, also inside functions."""
    source = path.read_bytes()
    root, package = _place(path.parent)
    imported: dict[Path | None, None] = {}
    for first, second in _names(source.decode(errors="replace"), package):
        imported[_file(root, package, first) or _file(root, package, second)] = None
    return source, [path for path in imported if path is not None]


def _names(text: str, package: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Absolute names imported by a text in this package: (a.b.c, a.b), the second in case that c is not a module."""
    for dots, module, names, modules in _IMPORTS.findall(text):
        for name in modules.split(","):
            module_itself = name.strip().split(" ")[0]
            yield module_itself, module_itself
        above = package[: max(len(package) - len(dots) + 1, 0)] if dots else ()
        base = ".".join(part for part in (*above, module) if part)
        for name in re.findall(r"(\w+)(?:\s+as\s+\w+)?", names):
            yield f"{base}.{name}".lstrip("."), base


@functools.cache
def _place(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The import root (an entry of sys.path) of the modules in this folder, and their package."""
    package: tuple[str, ...] = ()
    while (folder / "__init__.py").is_file():
        folder, package = folder.parent, (folder.name, *package)
    return folder, package


@functools.cache
def _file(root: Path, package: tuple[str, ...], name: str) -> Path | None:
    """The file of a module, if it belongs to the importing file's package or is beside the importing script."""
    top, *rest = name.split(".")
    if (
        not top
        or (package and top != package[0])
        or (not package and root.name in ("site-packages", "dist-packages"))
    ):
        return None
    path = root.joinpath(top, *rest)
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)
