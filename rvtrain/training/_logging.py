"""The history of a run in a file, a line for each record."""

import csv
import json
import math
import os
from pathlib import Path

from rvtrain.training._callbacks import Record

ENDINGS = (".csv", ".jsonl")


class Log:
    """A .csv or .jsonl file with a line for each record of the history; NaN is empty, or null.

    A run writes the file anew, one that is resumed with the lines that it had.
    """

    def __init__(self, path: str | os.PathLike[str], columns: tuple[str, ...]) -> None:
        self.path, self.columns = Path(path), columns
        self._is_json = self.path.suffix.lower() == ".jsonl"

    def begin(self, records: list[Record]) -> None:
        """Write these records."""
        with open(self.path, "w", encoding="utf-8", newline="") as file:
            if not self._is_json:
                csv.writer(file).writerow(self.columns)
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Add a record."""
        values = {name: _shown(record[name]) for name in self.columns}
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            if self._is_json:
                file.write(json.dumps(values) + "\n")
            else:
                csv.writer(file).writerow("" if value is None else value for value in values.values())


def _shown(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 2**53 else value
