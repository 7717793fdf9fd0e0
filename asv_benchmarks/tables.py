"""Measurements of named machines, kept as files, and the tables of the README and the docs that are made of them."""

import argparse
import datetime
import importlib.metadata
import json
import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
MEASURED = FOLDER / "measured"
PACKAGES = ("numpy", "numba", "torch", "faiss-cpu", "scipy", "scikit-learn")


def arguments(doc: str) -> argparse.Namespace:
    """What both scripts take."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", default=platform.node(), help="name of this machine in the table")
    parser.add_argument("--write", action="store_true", help="write the table from the files, and measure nothing")
    parser.add_argument("--largest", type=int, default=65_536, help="largest batch, of scaling.py")
    return parser.parse_args()


def circumstances(machine: str, threads: int) -> dict[str, Any]:
    """The machine, its processor, threads of both sides, the date, the commit and versions."""
    import machine as described

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=FOLDER, capture_output=True, text=True)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "machine": machine,
        "processor": described.description(),
        "threads": threads,
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "versions": versions,
    }


def save(kind: str, record: dict[str, Any]) -> None:
    """Keep a measurement as ``measured/KIND-MACHINE.json``."""
    MEASURED.mkdir(exist_ok=True)
    path = MEASURED / f"{kind}-{record['machine']}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


def saved(kind: str) -> list[dict[str, Any]]:
    """All measurements of a kind, by the names of their machines."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(MEASURED.glob(f"{kind}-*.json"))]


def sentence(record: dict[str, Any]) -> str:
    """Where and when, with what, in a line."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"{record['machine']}: {record['processor']}; {record['threads']} threads on both sides; {record['date']}, "
        f"rvtrain {record['commit']}, {versions}."
    )


def block(records: list[dict[str, Any]], table: Callable[[Any], str]) -> str:
    """The table of each machine's times, with its circumstances above it."""
    return "\n\n".join(f"{sentence(record)}\n\n{table(record['times'])}" for record in records)


def between(text: str, markers: tuple[str, str], block: str) -> str:
    """The text with this block between its markers."""
    begin, end = markers
    return re.sub(f"{begin}.*{end}", lambda match: f"{begin}\n{block}\n{end}", text, flags=re.DOTALL)
