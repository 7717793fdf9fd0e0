"""The command `evaluate`: rank the documents for each query, and print metrics."""

import argparse
import json

from rvtrain import _progress
from rvtrain import _validation as check
from rvtrain._commands import _embeddings, _files
from rvtrain._commands._split import to_measure
from rvtrain.training._metrics import parsed


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    parsed(options.metrics, "--metrics")
    check.integer("--memory", options.memory, low=0)
    if options.rescore is not None:
        check.integer("--rescore", options.rescore, low=0)
        if options.precision != "binary":
            raise ValueError(f"--rescore is for --precision binary, got {options.precision}")
    data = _files.inputs(options)
    both = _embeddings.towers(options.model, data)
    if options.truncate_dim is not None:
        width = data.queries.shape[1] if both[0] is None else both[0].out_features
        check.integer("--truncate-dim", options.truncate_dim, low=1, high=width)
    measured = to_measure(options.model, data, options.all)
    with _progress.shown(None, "rows") as bar:
        found = _embeddings.measured(
            both, data, measured.pairs, options.metrics, options, bar, options.truncate_dim,
            precision=options.precision, rescore_multiplier=4 if options.rescore is None else options.rescore,
        )  # fmt: skip
    if options.json:
        print(json.dumps(found | {"pairs": len(measured.pairs), "which": measured.name}))
        return 0
    print(measured.sentence)
    for name, value in found.items():
        print(f"{name:14} {value:.4f}")
    return 0
