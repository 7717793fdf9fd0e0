"""The command `search`: the documents that are most similar to a query, by a model of texts."""

import argparse
import json

import numpy as np

import rvtrain as rt
from rvtrain import _progress
from rvtrain import _validation as check
from rvtrain._commands import _embeddings, _files, _text_files


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    check.integer("-k", options.k, low=1)
    model = rt.load_model(options.model)
    towers = [_embeddings.side(options.model, model, name) for name in ("query", "document")]
    for tower in towers:
        _embeddings.check_kind(options.model, tower, of_texts=True)
    queries = towers[0].transform([options.query])
    if not np.any(queries):
        raise ValueError(f"QUERY must have words, got {options.query!r}")
    texts = _text_files.texts(options.documents)
    with _progress.shown(len(texts), "texts") as bar:
        bar.phase("embedding documents")
        found: list[tuple[float, int]] = []
        for start in range(0, len(texts), _files.BLOCK_ROWS):
            block = texts[start : start + _files.BLOCK_ROWS]
            scores, rows = rt.top_k(queries, towers[1].transform(block), min(options.k, len(block)))
            found += zip(scores[0].tolist(), (start + rows[0]).tolist(), strict=True)
            bar.update(len(block))
    found = sorted(found, key=lambda hit: (-hit[0], hit[1]))[: options.k]
    for rank, (score, row) in enumerate(found, 1):
        if options.json:
            print(json.dumps({"rank": rank, "score": score, "text": texts[row]}, ensure_ascii=False))
        else:
            print(f"{rank:>4}  {score:7.4f}  {' '.join(texts[row].split())}")
    return 0
