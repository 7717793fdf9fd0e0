"""The command `apply`: transform the rows of a .npy of any size, a block at a time."""

import argparse

import rvtrain as rt
from rvtrain import _progress
from rvtrain._commands import _embeddings, _files, _outputs


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    _outputs.ending("-o", options.output, ".npy")
    _outputs.check({"-o": options.output}, [options.model, options.vectors])
    model = rt.load_model(options.model)
    if isinstance(model, rt.TwoTower) and not model.is_shared and options.side is None:
        raise ValueError(f"--side query or --side document is needed: {options.model} has an adapter for each")
    tower = _embeddings.side(options.model, model, options.side or "query")
    source = _files.vectors(options.vectors)
    if source.shape[1] != tower.in_features:
        raise ValueError(f"{options.vectors} must have {tower.in_features} columns, got shape {source.shape}")
    shape = (len(source), tower.out_features)
    with _outputs.array(options.output, shape, tower.dtype) as file, _progress.shown(len(source), "rows") as bar:
        bar.phase("transforming")
        for start in range(0, len(source), _files.BLOCK_ROWS):
            block = tower.transform(_files.finite_block(options.vectors, source, start))
            file.write(_outputs.elements(block))
            bar.update(len(block))
    print(f"written: {options.output}, {shape[0]} × {shape[1]} {tower.dtype}")
    return 0
