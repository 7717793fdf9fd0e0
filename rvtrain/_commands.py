"""The commands that work on files of vectors: train, mine, evaluate, apply. Called by `cli`, which parses."""

import argparse
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import rvtrain as rt
from rvtrain import _validation as check

_BLOCK_ROWS = 8192


class Inputs(NamedTuple):
    """What the files of a command hold."""

    queries: np.ndarray
    documents: np.ndarray
    pairs: np.ndarray
    validation: np.ndarray | None


def read(options: argparse.Namespace) -> Inputs:
    """From one .npz with the arrays queries, documents, pairs, validation; or from two .npy, which stay on disk."""
    files = options.inputs
    if len(files) == 1:
        if not zipfile.is_zipfile(files[0]) and Path(files[0]).exists():
            raise ValueError(f"{files[0]} must be an .npz; two .npy are given as queries.npy documents.npy")
        with np.load(files[0], allow_pickle=False) as archive:
            if not {"queries", "documents"} <= set(archive.files):
                raise ValueError(
                    f"{files[0]} must hold the arrays queries and documents, got {sorted(archive.files)}"
                )
            queries, documents = archive["queries"], archive["documents"]
            pairs, validation = (archive[n] if n in archive.files else None for n in ("pairs", "validation"))
    elif len(files) == 2:
        queries, documents = (np.load(file, mmap_mode="r", allow_pickle=False) for file in files)
        pairs = validation = None
    else:
        raise ValueError(f"expected one .npz, or queries.npy and documents.npy, got {len(files)} files")
    if options.pairs:
        pairs = np.load(options.pairs, allow_pickle=False)
    if pairs is None:  # row by row
        if len(queries) != len(documents):
            raise ValueError(
                f"without pairs, queries and documents must be as many, got {len(queries)} and {len(documents)}"
            )
        pairs = np.repeat(np.arange(len(queries))[:, np.newaxis], 2, axis=1)
    pairs = _checked("pairs", pairs, queries, documents)
    if validation is not None:
        validation = _checked("validation", validation, queries, documents)
    return Inputs(queries, documents, pairs, validation)


def _checked(name: str, pairs: np.ndarray, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    pairs = check.integer_array(name, pairs, (None, 2))
    for side, table in enumerate((queries, documents)):
        check.indices(f"{name}[:, {side}]", pairs[:, side], (None,), len(table))
    if not len(pairs):
        raise ValueError(f"{name} must not be empty")
    return pairs


def train(options: argparse.Namespace) -> int:
    """Train adapters, and write them when the last epoch is done."""
    data = read(options)
    if options.plot:
        from rvtrain import _plots

        _plots.needed()
    pairs, held_back = data.pairs, data.validation
    if held_back is None and options.hold_back > 0:
        pairs, held_back = _split(pairs, options.hold_back, options.seed)
    model = _model(options, data)
    losses = rt.InfoNCELoss(options.temperature)
    per_epoch = -(-len(pairs) // options.batch_size)
    trainer = rt.Trainer(
        model,
        losses,
        rt.AdamW(model.params, options.lr, options.weight_decay),
        schedule=rt.warmup_cosine(options.lr, max(1, per_epoch // 2), max(2, options.epochs * per_epoch)),
        miner=rt.HardNegativeMiner(options.strategy) if options.negatives else None,
        negatives=options.negatives or 1,
        mine_from=options.mine_from,
        mine_every=options.mine_every,
        epochs=options.epochs,
        batch_size=options.batch_size,
        metric=options.metric,
        patience=options.patience if held_back is not None else None,
        seed=options.seed,
        checkpoint=f"{options.output}.part",
        memory_limit=options.memory << 20,
        progress=True,
        callbacks=() if sys.stderr.isatty() else (_print_line,),
    )
    part = Path(f"{options.output}.part")
    if options.resume and part.exists():
        trainer.load(part)
    before = None
    if held_back is not None and data.queries.shape[1] == data.documents.shape[1]:
        before = _measured(None, data, held_back, [options.metric], options)
    trainer.fit(data.queries, data.documents, pairs, held_back)
    rt.save_model(options.output, model)
    part.unlink(missing_ok=True)
    history = {name: column.tolist() for name, column in trainer.history.items()}
    if options.plot:
        _plots.draw(options.plot, model, data, held_back, history, (before or {}).get(options.metric), options.metric)
    if options.json:
        print(
            json.dumps(
                {"model": options.output, "metric": options.metric, "before": before, "history": _plain(history)}
            )
        )
        return 0
    if held_back is not None:
        start = "" if not before else f", untrained {before[options.metric]:.3f}"
        print(f"{options.metric} on {len(held_back)} pairs held back: {max(history['metric']):.3f}{start}")
    print(f"written: {options.output}")
    return 0


def mine(options: argparse.Namespace) -> int:
    """Write hard negatives of each pair: row numbers, or triplets of texts."""
    data = read(options)
    asking = np.ascontiguousarray(data.pairs[:, 0])
    queries, documents = _embedded(options, data)
    order = np.argsort(asking, kind="stable")
    counts = np.bincount(asking, minlength=len(data.queries))
    answers = np.full((len(data.queries), int(counts.max())), -1)
    ranks = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    answers[asking[order], ranks] = data.pairs[order, 1]
    rows = documents if isinstance(documents, np.ndarray) else None
    positives = None
    if rows is not None:
        positives = rows[data.pairs[:, 1]]
    elif options.strategy == "semi_hard" or options.relative_margin is not None:
        positives = _apply(_tower(options, "document"), data.documents[np.asarray(data.pairs[:, 1])])
    found = rt.HardNegativeMiner(options.strategy, seed=options.seed).mine(
        queries[asking],
        documents,
        options.k,
        positives=positives,
        exclude=answers[asking],
        relative_margin=options.relative_margin,
        progress=True if sys.stderr.isatty() else None,
    )
    if options.texts:
        _write_triplets(options, data.pairs, found)
    else:
        with open(options.output, "wb") as file:
            np.save(file, found)
    print(f"written: {options.output}, {int((found >= 0).sum())} negatives of {len(found)} pairs")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Rank the documents for each query, and print metrics."""
    data = read(options)
    model = rt.load_model(options.model) if options.model else None
    wanted = data.pairs if data.validation is None else data.validation
    found = _measured(model, data, wanted, options.metrics, options)
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:14} {value:.4f}")
    return 0


def apply(options: argparse.Namespace) -> int:
    """Transform the rows of a .npy of any size, a block at a time."""
    source = np.load(options.vectors, mmap_mode="r", allow_pickle=False)
    tower = _tower(options, options.side)
    if source.ndim != 2 or source.shape[1] != tower.in_features:
        raise ValueError(f"{options.vectors} must have shape (n, {tower.in_features}), got {source.shape}")
    partial = f"{options.output}.part"
    target = np.lib.format.open_memmap(partial, "w+", tower.dtype, (len(source), tower.out_features))
    from tqdm import tqdm

    with tqdm(total=len(source), unit=" rows", unit_scale=True, disable=None) as bar:
        for start in range(0, len(source), _BLOCK_ROWS):
            block = tower.transform(source[start : start + _BLOCK_ROWS])
            target[start : start + len(block)] = block
            bar.update(len(block))
    target.flush()
    os.replace(partial, options.output)
    print(f"written: {options.output}, {len(source)} × {tower.out_features} {tower.dtype}")
    return 0


def _split(pairs: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Hold back this share of the queries, with all their pairs."""
    if not 0 < share < 1:
        raise ValueError(f"--hold-back must be in [0, 1), got {share}")
    asking = np.random.default_rng(seed).permutation(np.unique(pairs[:, 0]))
    out = np.isin(pairs[:, 0], asking[: max(1, round(share * len(asking)))])
    if out.all():
        raise ValueError(f"--hold-back {share} leaves nothing to train on, of {len(pairs)} pairs")
    return pairs[~out], pairs[out]


def _model(options: argparse.Namespace, data: Inputs) -> Any:
    sizes = [data.queries.shape[1], data.documents.shape[1]]
    if options.shared and sizes[0] != sizes[1]:
        raise ValueError(f"--shared needs queries and documents of one size, got {sizes[0]} and {sizes[1]}")
    out = options.dim or min(sizes)

    def tower(size: int) -> Any:
        if options.kind == "mlp":
            return rt.MLPAdapter(size, out, hidden=options.hidden, seed=options.seed)
        return rt.LinearAdapter(size, out, rank=options.rank, seed=options.seed)

    return rt.TwoTower(tower(sizes[0])) if options.shared else rt.TwoTower(tower(sizes[0]), tower(sizes[1]))


def _measured(
    model: Any, data: Inputs, pairs: np.ndarray, metrics: list[str], options: argparse.Namespace
) -> dict[str, float]:
    asking, group = np.unique(pairs[:, 0], return_inverse=True)
    relevant: list[list[int]] = [[] for _ in asking]
    for row, document in zip(group, pairs[:, 1], strict=True):
        relevant[row].append(int(document))
    return rt.evaluate_retrieval(
        _apply(model and _side(model, "query"), np.asarray(data.queries[asking])),
        _documents(model, data, options),
        relevant,
        metrics,
    )


def _embedded(options: argparse.Namespace, data: Inputs) -> tuple[np.ndarray, Any]:
    model = rt.load_model(options.model) if options.model else None
    return _apply(model and _side(model, "query"), np.asarray(data.queries)), _documents(model, data, options)


def _documents(model: Any, data: Inputs, options: argparse.Namespace) -> Any:
    """Embedded in memory, or block by block where that would take more than --memory."""
    tower = model and _side(model, "document")
    width = tower.out_features if tower else data.documents.shape[1]
    if 4 * width * len(data.documents) <= options.memory << 20:
        return _apply(tower, np.asarray(data.documents))
    return _blocks(tower, data.documents) if tower else data.documents


def _blocks(tower: Any, documents: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(documents), _BLOCK_ROWS):
        yield tower.transform(documents[start : start + _BLOCK_ROWS])


def _apply(tower: Any, x: np.ndarray) -> np.ndarray:
    return x if tower is None else np.asarray(tower.transform(x))


def _tower(options: argparse.Namespace, side: str) -> Any:
    return _side(rt.load_model(options.model), side) if options.model else None


def _side(model: Any, side: str) -> Any:
    if isinstance(model, rt.EmbeddingTable):
        raise ValueError("an EmbeddingTable cannot be applied to vectors")
    return getattr(model, side) if isinstance(model, rt.TwoTower) else model


def _print_line(trainer: Any, record: dict[str, float]) -> None:
    values = "  ".join(
        f"{trainer.metric if name == 'metric' else name} {record[name]:.4g}"
        for name in ("loss", "temperature", "k", "metric", "seconds")
        if not np.isnan(record[name])
    )
    print(f"epoch {record['epoch']:.0f}/{trainer.epochs}  {values}", file=sys.stderr)


def _plain(history: dict[str, list[float]]) -> dict[str, list[float | None]]:
    return {name: [None if np.isnan(x) else x for x in column] for name, column in history.items()}


def _write_triplets(options: argparse.Namespace, pairs: np.ndarray, found: np.ndarray) -> None:
    """JSON lines with anchor, positive and negative, as sentence-transformers' trainers load them."""
    queries, documents = (Path(file).read_text(encoding="utf-8").splitlines() for file in options.texts)
    most = int(pairs[:, 0].max()), int(max(pairs[:, 1].max(), found.max()))
    for lines, last, file in zip((queries, documents), most, options.texts, strict=True):
        if len(lines) <= last:
            raise ValueError(f"{file} must have a line for each row, at least {last + 1}, got {len(lines)}")
    with open(options.output, "w", encoding="utf-8") as file:
        for (query, document), row in zip(pairs, found, strict=True):
            for negative in row[row >= 0]:
                texts = {"anchor": queries[query], "positive": documents[document], "negative": documents[negative]}
                file.write(json.dumps(texts, ensure_ascii=False) + "\n")
