"""The command `apply`: transform the rows of a .npy, or the texts of a file, a block at a time."""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import rvtrain as rt
from rvtrain import _progress
from rvtrain._commands import _embeddings, _files, _outputs, _text_files


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    _outputs.ending("-o", options.output, ".npy")
    _outputs.check({"-o": options.output}, [options.model, options.source])
    model = rt.load_model(options.model)
    if isinstance(model, rt.TwoTower) and not model.is_shared and options.side is None:
        raise ValueError(f"--side query or --side document is needed: {options.model} has an adapter for each")
    tower = _embeddings.side(options.model, model, options.side or "query")
    count, block_from = _source(options, tower)
    shape = (count, tower.out_features)
    with _outputs.array(options.output, shape, tower.dtype) as file, _progress.shown(count, "rows") as bar:
        bar.phase("transforming")
        for start in range(0, count, _files.BLOCK_ROWS):
            block = tower.transform(block_from(start))
            file.write(_outputs.elements(block))
            bar.update(len(block))
    print(f"written: {options.output}, {shape[0]} × {shape[1]} {tower.dtype}")
    return 0


def _source(options: argparse.Namespace, tower: Any) -> tuple[int, Callable[[int], np.ndarray]]:
    """The number of rows of the input, and a function that reads the block from a row on."""
    of_texts = options.source.lower().endswith(_text_files.LISTS)
    _embeddings.check_kind(options.model, tower, of_texts)
    if of_texts:
        texts = _text_files.texts(options.source, options.side or "document", distinct=False)
        return len(texts), lambda start: texts[start : start + _files.BLOCK_ROWS]
    source = _files.vectors(options.source)
    if source.shape[1] != tower.in_features:
        raise ValueError(f"{options.source} must have {tower.in_features} columns, got shape {source.shape}")
    return len(source), lambda start: _files.finite_block(options.source, source, start)
