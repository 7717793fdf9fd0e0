"""Train adapters of vectors or an encoder of texts, and write them when the last epoch is done."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import rvtrain as rt
from rvtrain import _plots, _progress, report
from rvtrain import _validation as check
from rvtrain._commands import _embeddings, _files, _mining, _outputs, _ranks, _text_files
from rvtrain._commands import _split as splits
from rvtrain.distributed._ranks import Ranks
from rvtrain.training._logging import ENDINGS
from rvtrain.training._metrics import parsed
from rvtrain.training._saving import described

_SETTINGS = (
    "kind", "shared", "dim", "rank", "hidden", "epochs", "batch_size", "lr", "weight_decay", "temperature",
    "frozen_documents", "rows", "split_case", "negatives", "strategy", *_mining.FILTERS, "mine_from", "mine_every",
    "hold_back", "metric", "metrics", "patience", "seed",
)  # fmt: skip
"""The options that a resumed run must share with the interrupted one."""

_HOLD_BACK = 0.1
_VECTORS = {"kind": "linear", "epochs": 12, "lr": 1e-3, "weight_decay": 0.01, "temperature": 0.05}
_TEXTS = {"kind": "bags", "epochs": 6, "lr": 0.05, "temperature": 0.1, "dim": 256, "rows": 2**16, "negatives": 0}
"""Values of options that depend on the kind of data."""
_OF_VECTORS = ("kind", "shared", "rank", "hidden", "frozen_documents", "weight_decay")
_OF_TEXTS = ("rows", "split_case")
_Metrics = dict[str, float] | None


def run(options: argparse.Namespace) -> int:
    """The command."""
    part, comm = f"{options.output}.part", _ranks.communicator()
    ranks = None if comm is None else Ranks(comm)
    first = ranks is None or ranks.rank == 0
    _fill_in(options)
    if first:
        _check(options, part)
    if comm is not None:
        comm.Barrier()  # other ranks begin when the first has seen that there is nothing to refuse
    data = _files.inputs(options, ranks)
    split = _split(options, data)
    model = _text_model(options, data, split) if data.are_texts else _model(options, data)
    trainer = _trainer(options, model, split, part, comm)
    trainer.checkpoint_extra = {"settings": _settings(options, model, data)}
    if Path(part).exists():
        _check_resumed(trainer, part)
    elif options.resume and first:
        print(f"rvtrain: there is no {part} to resume: beginning at the first epoch", file=sys.stderr)
    if options.negatives and options.mine_from > options.epochs and first:
        never = f"--mine-from {options.mine_from} is above --epochs {options.epochs}"
        print(f"rvtrain: no negatives will be mined: {never}", file=sys.stderr)
    untrained, visible = model if data.are_texts else None, None if first else False
    with _progress.shown(None, "rows", visible=visible) as bar:
        before = _quality(untrained, data, split, options, bar, ranks)
    first_ranking = _ranking(untrained, data, split, options) if options.report and first else None
    _fit(trainer, data, split)
    with _progress.shown(None, "rows", visible=visible) as bar:
        after = _quality(model, data, split, options, bar, ranks)
    if not first:
        return 0
    with _outputs.naming(options.output):
        rt.save_checkpoint(options.output, model=described(model), split=splits.state(split, data))
    Path(part).unlink(missing_ok=True)
    history = {name: column.tolist() for name, column in trainer.history.items()}
    kept = None if after is None else int(trainer.best_epoch)
    at_first, at_last = (None if found is None else found[options.metric] for found in (before, after))
    done = _plots.Run(model, data, split, history, options.metric, at_first, at_last, kept, options.batch_size)
    if options.json:
        print(_as_json(options, done, before, after))
    else:
        print("\n".join(_summary(options, done, before, after)))
    if options.plot:
        _plots.draw(options.plot, done)
    if options.report:
        last_ranking = _ranking(model, data, split, options)
        texts = (list(data.queries), list(data.documents)) if data.are_texts else (None, None)
        report.write_report(
            options.report, trainer, first_ranking, last_ranking, title=f"Training of {Path(options.output).name}",
            settings=_facts(options, data, split), command=options.command_line, seed=options.seed,
            query_texts=texts[0], document_texts=texts[1],
        )  # fmt: skip
    return 0


def _fill_in(options: argparse.Namespace) -> None:
    """Give options their values for texts or for vectors; ValueError if one is of the other."""
    of_texts = any(map(_text_files.are_pairs, options.inputs))
    for name in _OF_VECTORS if of_texts else _OF_TEXTS:
        if getattr(options, name) not in (None, False):
            kinds = ("vectors", "texts") if of_texts else ("texts", "vectors")
            raise ValueError(f"{_flag(name)} is for {kinds[0]}, got {kinds[1]} in {options.inputs[0]}")
    for name, value in (_TEXTS if of_texts else _VECTORS).items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def _check(options: argparse.Namespace, part: str) -> None:
    """Everything that can be said before the files are read."""
    _outputs.ending("-o", options.output, ".npz")
    written = {
        "-o": options.output, "the checkpoint": part, "--plot": options.plot, "--log": options.log,
        "--report": options.report,
    }  # fmt: skip
    _outputs.check(written, _files.paths(options))
    if options.log:
        _outputs.ending("--log", options.log, *ENDINGS)
    if options.report:
        _outputs.ending("--report", options.report, ".html", ".htm")
    if options.plot:
        _plots.needed(options.plot)
    if Path(part).exists() and not options.resume:
        raise ValueError(
            f"{part} is of a run that was interrupted: --resume goes on from it; to begin again, remove it"
        )
    for name, low in (
        ("dim", 1), ("rank", 1), ("hidden", 1), ("rows", 1), ("epochs", 1), ("negatives", 0), ("mine_from", 1),
        ("mine_every", 1), ("patience", 1), ("memory", 0),
    ):  # fmt: skip
        if getattr(options, name) is not None:
            check.integer(_flag(name), getattr(options, name), low=low)
    for name in ("lr", "weight_decay"):
        if getattr(options, name) is not None:
            check.number(_flag(name), getattr(options, name), low=0.0, open_low=name == "lr")
    _mining.miner(options)
    check.number("--temperature", options.temperature, low=1e-15, high=1e15)
    if options.hold_back is not None and not 0 <= options.hold_back < 1:
        raise ValueError(f"--hold-back must be in [0, 1), got {options.hold_back}")
    for name, kind in (("rank", "linear"), ("hidden", "mlp")):
        if getattr(options, name) is not None and options.kind != kind:
            raise ValueError(f"{_flag(name)} is for --kind {kind}, got --kind {options.kind}")
    if options.batch_size < 2 and (options.batch_size < 1 or options.negatives == 0 or options.mine_from > 1):
        raise ValueError(
            f"--batch-size must be at least 2, got {options.batch_size}: the other pairs of a batch are the "
            "negatives, and without negatives the loss is 0 and nothing is learnt (1 is possible with --mine-from 1)"
        )
    parsed([options.metric], "--metric")
    parsed(options.metrics, "--metrics")


def _split(options: argparse.Namespace, data: _files.Inputs) -> splits.Split:
    if options.hold_back and data.validation is not None:
        raise ValueError("--hold-back is for files without validation pairs, got a file that has them")
    if options.hold_back is None:
        options.hold_back = _HOLD_BACK if data.validation is None else 0.0
    if options.patience is not None and data.validation is None and not options.hold_back:
        raise ValueError("--patience needs pairs to measure on: validation pairs in the file, or --hold-back above 0")
    options.negatives = _embeddings.negatives("--negatives", options.negatives, len(data.documents))
    split = splits.split(data, options.hold_back, options.seed)
    if len(split.train) < 2:
        raise ValueError(f"there must be at least 2 pairs to train on, got {len(split.train)}")
    return split


def _model(options: argparse.Namespace, data: _files.Inputs) -> Any:
    sizes = [data.queries.shape[1], data.documents.shape[1]]
    if options.frozen_documents and options.shared:
        raise ValueError(
            "--frozen-documents trains queries alone, and --shared one adapter for both: give one of them"
        )
    if options.frozen_documents and options.dim not in (None, sizes[1]):
        raise ValueError(
            f"--dim must be the size of the documents, {sizes[1]}, if they are frozen, got {options.dim}"
        )
    if options.shared and sizes[0] != sizes[1]:
        raise ValueError(f"--shared needs queries and documents of one size, got {sizes[0]} and {sizes[1]}")
    out = sizes[1] if options.frozen_documents else min(sizes) if options.dim is None else options.dim

    def tower(size: int) -> Any:
        if options.kind == "mlp":
            return rt.MLPAdapter(size, out, hidden=options.hidden, seed=options.seed)
        return rt.LinearAdapter(size, out, rank=options.rank, seed=options.seed)

    if options.frozen_documents:
        return rt.TwoTower(tower(sizes[0]), "frozen")
    return rt.TwoTower(tower(sizes[0])) if options.shared else rt.TwoTower(tower(sizes[0]), tower(sizes[1]))


def _text_model(options: argparse.Namespace, data: _files.Inputs, split: splits.Split) -> Any:
    """One encoder for both sides, with features fitted on all documents and on the queries to train on."""
    features = rt.HashedNgrams(options.rows, split_case=options.split_case)
    features.fit([*data.queries[np.unique(split.train[:, 0])], *data.documents])
    return rt.TwoTower(rt.BagEncoder(options.rows, options.dim, features=features, seed=options.seed), "shared")


def _settings(options: argparse.Namespace, model: Any, data: _files.Inputs) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in _SETTINGS}
    return given | {"dim": model.query.out_features, "data": splits.fingerprint(data)}


def _trainer(options: argparse.Namespace, model: Any, split: splits.Split, part: str, comm: Any) -> rt.Trainer:
    per_epoch = -(-len(split.train) // options.batch_size)
    mining = None
    if options.negatives and options.mine_from <= options.epochs:
        mining = rt.Mining(_mining.miner(options), options.negatives, options.mine_from, options.mine_every)
    optimizer: Any
    if options.kind == "bags":
        optimizer = rt.Adagrad(model.params, options.lr, rowwise=True)
    else:
        optimizer = rt.AdamW(model.params, options.lr, options.weight_decay)
    return rt.Trainer(
        model,
        rt.InfoNCELoss(options.temperature, symmetric=True),
        optimizer,
        schedule=rt.warmup_cosine(options.lr, max(1, per_epoch // 2), max(2, options.epochs * per_epoch)),
        mining=mining,
        epochs=options.epochs,
        batch_size=options.batch_size,
        metrics=(options.metric, *options.metrics),
        patience=options.patience,
        seed=options.seed,
        memory_limit=options.memory << 20,
        checkpoint=part,
        log=options.log,
        callbacks=(_print_line,) if (comm is None or comm.Get_rank() == 0) and not _progress.is_visible() else (),
        comm=comm,
    )


def _check_resumed(trainer: rt.Trainer, part: str) -> None:
    """ValueError if the run in the file had other settings."""
    extra, settings = rt.load_checkpoint(part).get("extra"), trainer.checkpoint_extra["settings"]
    if not isinstance(extra, dict) or not isinstance(extra.get("settings"), dict):
        raise ValueError(f"{part} is of another kind of run: to begin again, remove it")
    earlier = extra["settings"]
    for name in _SETTINGS:
        if earlier.get(name) != settings[name]:
            raise ValueError(f"{_flag(name)} was {earlier.get(name)} in the run to resume, got {settings[name]}")
    others = [name for name, digest in settings["data"].items() if earlier["data"].get(name) != digest]
    if others:
        raise ValueError(f"{' and '.join(others)} must be those of the run to resume, got others")


def _fit(trainer: rt.Trainer, data: _files.Inputs, split: splits.Split) -> None:
    try:
        with _outputs.naming(str(trainer.checkpoint)):
            trainer.fit(
                data.queries, data.documents, split.train, split.selection, sample_weight=split.weights, resume=True
            )
    except KeyboardInterrupt:
        again = f"the same command with --resume goes on after epoch {trainer.epoch} of {trainer.epochs}"
        raise KeyboardInterrupt(again if trainer.epoch else "before the first epoch was done") from None
    except ValueError:  # the same numbers would fail again
        Path(str(trainer.checkpoint)).unlink(missing_ok=True)
        raise


def _quality(
    model: Any, data: _files.Inputs, split: splits.Split, options: argparse.Namespace, bar: _progress.Bar,
    ranks: Ranks | None,
) -> dict[str, float] | None:  # fmt: skip
    """The metrics at the end, as vectors are or as the model embeds them; None where they are not defined."""
    if split.measured is None or (model is None and data.queries.shape[1] != data.documents.shape[1]):
        return None
    both = (None, None) if model is None else (model.query, model.document)
    names = [options.metric, *options.metrics]
    return _embeddings.measured(both, data, split.measured, names, options, bar, ranks=ranks)


def _ranking(
    model: Any, data: _files.Inputs, split: splits.Split, options: argparse.Namespace
) -> report.Ranking | None:
    """Ranks for the report, of the queries that `_quality` measures; None where they are not defined."""
    if split.measured is None or (model is None and data.queries.shape[1] != data.documents.shape[1]):
        return None
    names, limit = (options.metric, *options.metrics), options.memory << 20
    vectors = data.queries, data.documents
    return report.rank_queries(model, *vectors, split.measured, names, known=data.known, memory_limit=limit)


def _facts(options: argparse.Namespace, data: _files.Inputs, split: splits.Split) -> dict[str, object]:
    """The settings that the trainer does not have: the split, and digests of the data."""
    parts = {name: getattr(split, name) for name in ("train", "selection", "report")}
    counts = {f"pairs to {name}": len(pairs) for name, pairs in parts.items() if pairs is not None}
    digests = ", ".join(f"{name} {digest}" for name, digest in splits.fingerprint(data).items())
    return {"hold back": options.hold_back, **counts, "digests of the data": digests}


def _as_json(options: argparse.Namespace, run: _plots.Run, before: _Metrics, after: _Metrics) -> str:
    history = {name: [None if np.isnan(x) else x for x in column] for name, column in run.history.items()}
    parts = {name: getattr(run.split, name) for name in ("train", "selection", "report")}
    counts = {name: 0 if pairs is None else len(pairs) for name, pairs in parts.items()}
    found = {"model": options.output, "metric": run.metric, "before": run.before, "after": run.after}
    found["metrics"] = {"before": before, "after": after}
    return json.dumps(found | {"best_epoch": run.kept, "pairs": counts, "history": history})


def _summary(options: argparse.Namespace, run: _plots.Run, before: _Metrics, after: _Metrics) -> Iterator[str]:
    if after is not None:
        kind = "validation pairs" if run.split.report is None else "pairs held back"
        for name, value in after.items():
            untrained = "" if before is None else f", untrained {before[name]:.3f}"
            yield f"{name} on {len(run.split.measured)} {kind}: {value:.3f}{untrained}"
        chosen = "these pairs" if run.split.report is None else f"{len(run.split.selection)} others"
        yield f"best epoch: {run.kept} of {len(run.history['epoch']) - 1}, chosen on {chosen}"
    for path in (options.output, options.plot, options.report):
        if path:
            yield f"written: {path}"


def _print_line(trainer: Any, record: dict[str, float]) -> None:
    names = ("loss", "temperature", "negatives", *trainer.metrics, "seconds")
    values = "  ".join(f"{name} {record[name]:.4g}" for name in names if name in record)
    print(f"epoch {record['epoch']:.0f}/{trainer.epochs}  {values}", file=sys.stderr)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
