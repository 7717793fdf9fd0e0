"""Transform the rows of a .npy of any size, a block at a time."""

import argparse

import numpy as np

import rvtrain as rt
from rvtrain._commands import _embeddings, _files, _outputs
from rvtrain._commands._progress import progress


def run(options: argparse.Namespace) -> int:
    """The command."""
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
    size = shape[0] * shape[1] * tower.dtype.itemsize
    with _outputs.replacing(options.output, size=size) as file, progress(len(source)) as shown:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(tower.dtype), "fortran_order": False, "shape": shape}
        )
        for start in range(0, len(source), _files.BLOCK_ROWS):
            block = tower.transform(_files.finite_block(options.vectors, source, start))
            file.write(memoryview(block).cast("B"))
            shown.update(len(block))
    print(f"written: {options.output}, {shape[0]} × {shape[1]} {tower.dtype}")
    return 0
