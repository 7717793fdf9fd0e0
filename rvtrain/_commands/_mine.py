"""Write hard negatives of each pair: row numbers, or triplets of texts."""

import argparse
import json
from typing import Any

import numpy as np

import rvtrain as rt
from rvtrain import _progress
from rvtrain import _validation as check
from rvtrain._commands import _embeddings, _files, _mining, _outputs, _text_files


def run(options: argparse.Namespace) -> int:
    """The command."""
    miner = _mining.miner(options)
    _check(options)
    data = _files.inputs(options)
    options.k = _embeddings.negatives("-k", options.k, len(data.documents))
    texts = None
    if data.are_texts and options.output.lower().endswith(".jsonl"):
        texts = data.queries.tolist(), data.documents.tolist()
    elif options.texts:
        queries, documents = options.texts
        texts = (
            _files.lines(queries, len(data.queries), "queries"),
            _files.lines(documents, len(data.documents), "documents"),
        )
    both = _embeddings.towers(options.model, data)
    found = _mined(miner, options, data, both)
    if texts is None:
        with _outputs.array(options.output, found.shape, found.dtype) as file:
            file.write(_outputs.elements(found))
    else:
        with _outputs.replacing(options.output, "t") as file:
            _write_triplets(file, *texts, data.pairs, found)
    print(f"written: {options.output}, {int((found >= 0).sum())} negatives of {len(found)} pairs")
    _print_report(miner.last_report)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Check the options, as far as is possible before the files are read."""
    _outputs.check({"-o": options.output}, _files.paths(options))
    kind = _outputs.ending("-o", options.output, ".npy", ".jsonl")
    of_texts = any(map(_text_files.are_pairs, options.inputs))
    if of_texts and options.texts:
        raise ValueError(f"--texts is for vectors, got texts in {options.inputs[0]}")
    if kind == ".jsonl" and not (options.texts or of_texts):
        raise ValueError("-o with .jsonl writes texts and needs --texts QUERIES DOCUMENTS; .npy takes row numbers")
    if kind == ".npy" and options.texts:
        raise ValueError("--texts writes lines of JSON and needs -o with .jsonl; .npy takes row numbers")
    if options.k is not None:
        check.integer("-k", options.k, low=1)
    check.integer("--memory", options.memory, low=0)


def _mined(
    miner: rt.HardNegativeMiner, options: argparse.Namespace, data: _files.Inputs, both: tuple[Any, Any]
) -> np.ndarray:
    query_rows = np.ascontiguousarray(data.pairs[:, 0])
    answers = _files.answers(data.known, query_rows)
    with _progress.shown(None, "rows") as bar:
        bar.phase("embedding queries")
        queries = _embeddings.rows(both[0], data.queries, query_rows)
        documents = _embeddings.embedded(both[1], data.documents, options, bar, "documents")
        in_blocks = not isinstance(documents, np.ndarray)  # then the bar counts the rows that are embedded
        positives = None
        if options.strategy == "semi_hard" or miner.needs_positives:
            positives = _positives(data, both, answers) if in_blocks else answers
        bar.phase("embedding and mining" if in_blocks else "mining")
        return miner.mine(
            queries,
            documents,
            options.k,
            positives=positives,
            exclude=answers,
            progress=None if in_blocks else bar.reach,
        )


def _print_report(report: rt.MiningReport | None) -> None:
    """Print how similar the negatives are, and what filters have dropped."""
    if report is None or report.negative_scores is None:
        return
    for name, scores in (("positives", report.positive_scores), ("negatives", report.negative_scores)):
        if scores is not None:
            print(f"cosines of {name}, quartiles: " + ", ".join(f"{score:.3f}" for score in scores))
    for name, count in report.dropped.items():
        print(f"dropped by {name}: {count}")
    if report.short:
        print(f"pairs with fewer negatives than asked for: {report.short}")


def _positives(data: _files.Inputs, both: tuple[Any, Any], answers: np.ndarray) -> np.ndarray:
    """The embedded documents of each pair's query, (P, most, d); where it has fewer, one of them again."""
    filled = np.where(answers >= 0, answers, answers[:, :1])
    return _embeddings.rows(both[1], data.documents, filled.ravel()).reshape(*filled.shape, -1)


def _write_triplets(
    file: Any, queries: list[str], documents: list[str], pairs: np.ndarray, found: np.ndarray
) -> None:
    """JSON lines with anchor, positive and negative, as sentence-transformers' trainers load them."""
    for (query, document), row in zip(pairs, found, strict=True):
        for negative in row[row >= 0]:
            texts = {"anchor": queries[query], "positive": documents[document], "negative": documents[negative]}
            file.write(json.dumps(texts, ensure_ascii=False) + "\n")
