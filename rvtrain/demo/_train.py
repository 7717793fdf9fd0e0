"""An encoder of raw texts, trained with in-batch negatives, and then with mined hard negatives."""

import copy
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

import rvtrain as rt
from rvtrain.demo._data import Pairs, load

ROWS, DIM = 2**16, 384
"""Rows of the table that n-grams are hashed to, and dimension of the embeddings."""

WORDS, CHARACTERS = (1, 1), (2, 3)
"""On 600 of the training pairs of three splits, n-grams of 2 and 3 characters were better by 1.3 points of Recall@10
than those of 3 and 4, and words without their pairs by 3.6 points of Recall@1."""

BATCH, PEAK_RATE, TEMPERATURE = 256, 0.05, 0.1
"""On the same pairs, a temperature of 0.1 was better than 0.07 by 0.7 points, and than 0.05 by 1.6."""

WARM_EPOCHS, LATE_EPOCHS = 3, 2
"""Number of epochs with in-batch negatives at the start, and of the epochs after them, which may mine negatives."""
EPOCHS = WARM_EPOCHS + LATE_EPOCHS

METRICS = ["recall@1", "recall@10", "ndcg@10"]


class Quality(NamedTuple):
    """Means over the held-back queries, each of which has one correct answer."""

    recall_1: float
    recall_10: float
    ndcg_10: float


class Row(NamedTuple):
    """A line of the demo's table."""

    method: str
    quality: Quality
    seconds: float


class Result(NamedTuple):
    """Results of the demo: the table, and Recall@10 after each epoch of both trainings."""

    rows: list[Row]
    curves: dict[str, list[float]]


class Data(NamedTuple):
    """The pairs, and the features of their texts, fitted on the training pairs."""

    pairs: Pairs
    features: rt.HashedNgrams

    def sentences(self, rows: np.ndarray) -> list[str]:
        """The sentences of these rows."""
        return [self.pairs.sentences[row] for row in rows]

    def quality(self, model: Any) -> Quality:
        """Quality of a model's search for held-back sentences among all names."""
        held = self.pairs.held_back
        queries, documents = model.encode_query(self.sentences(held)), model.encode_document(self.pairs.names)
        return Quality(*rt.evaluate_retrieval(queries, documents, held, METRICS).values())

    def untrained(self) -> Quality:
        """Quality of the same search by the cosine of the features themselves, without an embedding."""
        held = self.pairs.held_back
        bags = self.features.transform(self.sentences(held)), self.features.transform(self.pairs.names)
        return Quality(*(_share(held, nearest(*bags, 10), metric) for metric in METRICS))


def featured(pairs: Pairs) -> Data:
    """Features fitted on the sentences and the names to train on."""
    # Names of code are short, and their words begin with capitals.
    features = rt.HashedNgrams(ROWS, words=WORDS, characters=CHARACTERS, split_case=True)
    return Data(pairs, features.fit([side[i] for side in (pairs.sentences, pairs.names) for i in pairs.train]))


def nearest(queries: rt.Bags, documents: rt.Bags, k: int) -> np.ndarray:
    """The k documents whose bags have the greatest products with each query's bag, best first.

    By an inverted list: for each row of the table, the documents that have it.
    """
    order = np.argsort(documents.indices, kind="stable")
    owners = np.repeat(np.arange(len(documents)), np.diff(documents.offsets))[order]
    weights = documents.weights[order]
    starts = np.searchsorted(documents.indices[order], np.arange(documents.shape[1] + 1))
    scores = np.zeros((len(queries), len(documents)))
    for out, start, stop in zip(scores, queries.offsets[:-1], queries.offsets[1:], strict=True):
        rows = queries.indices[start:stop]
        having = [slice(*bounds) for bounds in zip(starts[rows].tolist(), starts[rows + 1].tolist(), strict=True)]
        if having:
            products = np.repeat(queries.weights[start:stop], starts[rows + 1] - starts[rows])
            products *= np.concatenate([weights[span] for span in having])
            out += np.bincount(np.concatenate([owners[span] for span in having]), products, len(documents))
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def _share(correct: np.ndarray, found: np.ndarray, metric: str) -> float:
    """A metric of `METRICS` of these answers."""
    name, k = metric.split("@")
    if name == "ndcg":
        return rt.ndcg_at_k(found, correct[:, np.newaxis], int(k))
    return float((found[:, : int(k)] == correct[:, np.newaxis]).any(axis=1).mean())


def warm_up(data: Data, seed: int) -> rt.Trainer:
    """One encoder for both sides and a trainer for the in-batch epochs."""
    model = rt.TwoTower(rt.BagEncoder(ROWS, DIM, features=data.features, seed=seed), "shared")
    return rt.Trainer(
        model,
        rt.InfoNCELoss(TEMPERATURE, symmetric=True),
        rt.Adagrad(model.params, PEAK_RATE, rowwise=True),
        schedule=_rates(data),
        epochs=WARM_EPOCHS,
        batch_size=BATCH,
        seed=seed,
        progress=False,
    )


def rest(warm: rt.Trainer, data: Data, hard: bool) -> rt.Trainer:
    """A trainer for the epochs that follow, on copies of the model and the optimizer; hard: with mined negatives."""
    model, optimizer = copy.deepcopy((warm.model, warm.optimizer))
    rate, done = _rates(data), warm.step
    return rt.Trainer(
        model,
        rt.InfoNCELoss(TEMPERATURE, symmetric=True),
        optimizer,
        schedule=lambda step: rate(done + step),
        mining=rt.Mining(rt.HardNegativeMiner.hardest(relative_margin=0.2), k=1) if hard else None,
        epochs=LATE_EPOCHS,
        batch_size=BATCH,
        seed=warm.seed + 1,
        progress=False,
    )


def _rates(data: Data) -> Callable[[int], float]:
    """Learning rates of all epochs, by the step."""
    per_epoch = -(-len(data.pairs.train) // BATCH)
    return rt.warmup_cosine(PEAK_RATE, per_epoch // 2, EPOCHS * per_epoch)


def fit(
    trainer: rt.Trainer, data: Data, progress: Callable[[int], None], describe: Callable[[str], None], name: str
) -> list[float]:
    """Train on the texts of the training pairs; returns Recall@10 on the held-back pairs after each epoch."""
    train, curve = data.pairs.train, []

    def listen(trainer: rt.Trainer, record: dict[str, float]) -> None:
        progress(len(train))
        describe(f"{name}: evaluating")
        curve.append(data.quality(trainer.model).recall_10)
        describe(name)

    trainer.callbacks = (listen,)
    describe(name)
    trainer.fit(data.sentences(train), data.pairs.names, np.stack([np.arange(len(train)), train], axis=1))
    return curve


def run(seed: int, progress: Callable[[int], None], describe: Callable[[str], None]) -> Result:
    """Train and compare. Calls `progress` with numbers of finished samples and `describe` with the current phase.

    Both trainings share their first epochs, whose seconds count in both lines.
    """
    describe("features")
    begin = perf_counter()
    data = featured(load(seed))
    rows = [Row("untrained: n-grams by tf-idf", data.untrained(), perf_counter() - begin)]
    warm = warm_up(data, seed)
    begin = perf_counter()
    rows.append(Row("untrained: embeddings", data.quality(warm.model), perf_counter() - begin))
    curve = fit(warm, data, progress, describe, "in-batch")
    curves = {}
    for name, hard in (("in-batch only", False), ("with hard negatives", True)):
        late = rest(warm, data, hard)
        curves[name] = curve + fit(late, data, progress, describe, name)
        spent = float(warm.history["seconds"].sum() + late.history["seconds"].sum())
        rows.append(Row(f"trained: {name}", data.quality(late.model), spent))
    return Result(rows, curves)


def samples(seed: int) -> int:
    """Number of samples that `run` will report to `progress`."""
    return (WARM_EPOCHS + 2 * LATE_EPOCHS) * len(load(seed).train)
