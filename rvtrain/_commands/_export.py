"""The command `export`: write a model in the form of another library."""

import argparse
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

import rvtrain as rt
from rvtrain import export
from rvtrain._commands import _embeddings, _outputs


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    is_folder = options.format == "sentence-transformers"
    if options.encoder is not None and not is_folder:
        raise ValueError(f"--encoder is for the format sentence-transformers, got {options.format}")
    if options.format == "numpy":
        _outputs.ending("-o", options.output, ".npz")
    if not is_folder:
        _outputs.check({"-o": options.output}, [options.model])
    model = rt.load_model(options.model)
    if options.side is not None:
        model = _embeddings.side(options.model, model, options.side)
    _WRITERS[options.format](model, options)
    print(f"written: {options.output}")
    return 0


def _safetensors(model: Any, options: argparse.Namespace) -> None:
    rt.save_model(options.output, model, format="safetensors")


def _sentence_transformers(model: Any, options: argparse.Namespace) -> None:
    export.to_sentence_transformers(model, options.output, encoder=options.encoder)


def _faiss(model: Any, options: argparse.Namespace) -> None:
    if isinstance(model, rt.TwoTower) and not model.is_shared:
        raise ValueError(f"--side query or --side document is needed: {options.model} has an adapter for each")
    transform = export.to_faiss(model)
    faiss: Any = importlib.import_module("faiss")
    writer = faiss.VectorIOWriter()
    faiss.write_VectorTransform(transform, writer)
    with _outputs.replacing(options.output) as file:
        file.write(_outputs.elements(faiss.vector_to_array(writer.data)))


def _numpy(model: Any, options: argparse.Namespace) -> None:
    arrays = export.to_arrays(model)
    with _outputs.replacing(options.output) as file:
        np.savez(file, allow_pickle=False, **arrays)


_WRITERS: dict[str, Callable[[Any, argparse.Namespace], None]] = {
    "safetensors": _safetensors, "sentence-transformers": _sentence_transformers, "faiss": _faiss, "numpy": _numpy,
}  # fmt: skip
