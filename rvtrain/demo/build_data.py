"""Build the demo's data set: names of the Python standard library, and the first sentences of their docstrings.

    python -m rvtrain.demo.build_data [OUTPUT]

Reads the library's sources with `ast`, without importing them, and writes a gzipped file of lines
"qualified name <tab> first sentence". The same sources give the same bytes.
"""

import ast
import gzip
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo", "ensurepip", "__pycache__"}
OUTPUT = Path(__file__).parent / "data" / "docstrings.tsv.gz"


def pairs(root: Path) -> list[tuple[str, str]]:
    """(qualified name, first sentence) of all public objects with a docstring in a source tree.

    Sentences that several objects share are left out, because they identify none of them.
    """
    found = [pair for path in sorted(root.rglob("*.py")) if _is_public(path, root) for pair in _of_file(path, root)]
    shared = Counter(sentence for _, sentence in found)
    return sorted({name: sentence for name, sentence in found if shared[sentence] == 1}.items())


def first_sentence(docstring: str) -> str:
    """The first sentence of the first paragraph, on one line."""
    paragraph = re.sub(r"\s+", " ", docstring.strip().split("\n\n")[0]).strip()
    return re.split(r"(?<=[.!?])\s", paragraph, maxsplit=1)[0]


def _is_public(path: Path, root: Path) -> bool:
    parts = path.relative_to(root).with_suffix("").parts
    return not SKIPPED.intersection(parts) and all(not p.startswith("_") or p == "__init__" for p in parts)


def _of_file(path: Path, root: Path) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # files of test suites that are invalid on purpose
        return
    parts = path.relative_to(root).with_suffix("").parts
    yield from _of_node(tree, ".".join(part for part in parts if part != "__init__"))


def _of_node(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[tuple[str, str]]:
    sentence = first_sentence(ast.get_docstring(node) or "")
    if len(sentence.split()) >= 3 and len(sentence) <= 300 and name:
        yield name, sentence
    if isinstance(node, (ast.Module, ast.ClassDef)):
        for child in node.body:
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not child.name.startswith(
                "_"
            ):
                yield from _of_node(child, f"{name}.{child.name}")


def main(output: Path = OUTPUT) -> None:
    """Build the data set from this interpreter's standard library and write it."""
    lines = "".join(f"{name}\t{sentence}\n" for name, sentence in pairs(Path(sysconfig.get_paths()["stdlib"])))
    with open(output, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write(lines.encode())
    print(f"{lines.count(chr(10))} pairs, {output.stat().st_size} bytes: {output}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
