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
    parsed(options.metrics)
    check.integer("--memory", options.memory, low=0)
    data = _files.inputs(options)
    both = _embeddings.towers(options.model, data)
    measured = to_measure(options.model, data, options.all)
    with _progress.shown(None, "rows") as bar:
        found = _embeddings.measured(both, data, measured.pairs, options.metrics, options, bar)
    if options.json:
        print(json.dumps(found | {"pairs": len(measured.pairs), "which": measured.name}))
        return 0
    print(measured.sentence)
    for name, value in found.items():
        print(f"{name:14} {value:.4f}")
    return 0
