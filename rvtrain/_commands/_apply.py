"""The command `apply`: transform the rows of a .npy, or the texts of a file, a block at a time."""

import argparse
import os
from collections.abc import Callable
from typing import Any

import numpy as np

import rvtrain as rt
from rvtrain import _progress
from rvtrain import _validation as check
from rvtrain._commands import _embeddings, _files, _outputs, _text_files
from rvtrain.functional import checked_ranges


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    _outputs.ending("-o", options.output, ".npy")
    _outputs.check({"-o": options.output}, [options.model, options.source])
    model = rt.load_model(options.model)
    if isinstance(model, rt.TwoTower) and not model.is_shared and options.side is None:
        raise ValueError(f"--side query or --side document is needed: {options.model} has an adapter for each")
    tower = _embeddings.side(options.model, model, options.side or "query")
    table, block_from = _source(options, tower)
    count, ranges = len(table), _ranges(options, tower, table)
    first = _coded(tower.transform(block_from(0)), options, ranges)
    shape = (count, first.shape[1])
    with _outputs.array(options.output, shape, first.dtype) as file, _progress.shown(count, "rows") as bar:
        bar.phase("transforming")
        for start in range(0, count, _files.BLOCK_ROWS):
            block = _coded(tower.transform(block_from(start)), options, ranges) if start else first
            file.write(_outputs.elements(block))
            bar.update(len(block))
    print(f"written: {options.output}, {shape[0]} × {shape[1]} {first.dtype}")
    return 0


def _ranges(options: argparse.Namespace, tower: Any, table: np.ndarray) -> np.ndarray | None:
    """The ranges for codes of 8 bits, from the file --ranges or made from the input and written there."""
    if options.precision != "int8":
        if options.ranges is not None:
            raise ValueError(f"--ranges is for --precision int8, got {options.precision}")
        return None
    if options.ranges is None:
        raise ValueError("--ranges is needed for --precision int8: codes cannot be read without their ranges")
    if os.path.exists(options.ranges):
        return checked_ranges(_files.array(options.ranges), tower.out_features, options.ranges)
    _outputs.check({"-o": options.output, "--ranges": options.ranges}, [options.model, options.source])
    _outputs.ending("--ranges", options.ranges, ".npy")
    ranges = _embeddings.ranges(tower, table)
    with _outputs.array(options.ranges, ranges.shape, ranges.dtype) as file:
        file.write(_outputs.elements(ranges))
    return ranges


def _coded(block: np.ndarray, options: argparse.Namespace, ranges: np.ndarray | None) -> np.ndarray:
    """Embeddings as --precision wants them."""
    if options.precision in ("int8", "binary"):
        return rt.quantize(block, options.precision, ranges)
    if options.precision is None:
        return block
    with np.errstate(over="ignore"):
        found = block.astype(options.precision)
    check.finite(f"embeddings in {options.precision}", found)
    return found


def _source(options: argparse.Namespace, tower: Any) -> tuple[np.ndarray, Callable[[int], np.ndarray]]:
    """The rows of the input, and a function that reads and checks the block from a row on."""
    of_texts = options.source.lower().endswith(_text_files.LISTS)
    _embeddings.check_kind(options.model, tower, of_texts)
    if of_texts:
        texts = _text_files.texts(options.source, options.side or "document", distinct=False)
        return texts, lambda start: texts[start : start + _files.BLOCK_ROWS]
    source = _files.vectors(options.source)
    if source.shape[1] != tower.in_features:
        raise ValueError(f"{options.source} must have {tower.in_features} columns, got shape {source.shape}")
    return source, lambda start: _files.finite_block(options.source, source, start)
