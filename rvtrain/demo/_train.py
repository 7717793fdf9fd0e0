"""Two linear adapters, trained in-batch and then against mined hard negatives."""

import copy
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np

import rvtrain as rt
from rvtrain._kernels import _compiling
from rvtrain.demo._data import Pairs, load
from rvtrain.demo._features import TfIdf

FEATURES, STRONGEST, DIM = 2048, 16_384, 256
"""Number of features for training, number of features of the strongest untrained baseline (more did not help, because
few n-grams share a bucket), and dimension of the embeddings."""

BATCH, PEAK_RATE, DECAY = 256, 2e-3, 0.1
WARM_EPOCHS, LATE_EPOCHS = 5, 3
"""Number of epochs with in-batch negatives at the start, and of the epochs after them, which may mine negatives."""
EPOCHS = WARM_EPOCHS + LATE_EPOCHS


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
    """The pairs, and features of both sides, fitted on the training pairs."""

    pairs: Pairs
    sentences: np.ndarray
    """Features of the sentences to train on."""
    held_back: np.ndarray
    """Features of the sentences to measure on."""
    names: np.ndarray
    """Features of all names."""

    def quality(self, model: Any = None) -> Quality:
        """Quality of the search for held-back sentences among all names, untrained or embedded by a model."""
        queries, documents, held = self.held_back, self.names, self.pairs.held_back
        if model is not None:
            queries, documents = model.query.transform(queries), model.document.transform(documents)
        return Quality(
            *rt.evaluate_retrieval(queries, documents, held, ["recall@1", "recall@10", "ndcg@10"]).values()
        )


def featured(pairs: Pairs, buckets: int) -> Data:
    """Features with `buckets` buckets; without those for training if `buckets` exceeds `FEATURES`."""
    train, held_back = ([pairs.sentences[i] for i in part] for part in (pairs.train, pairs.held_back))
    tfidf = TfIdf(buckets).fit(train + [pairs.names[i] for i in pairs.train])
    sentences = tfidf.transform(train if buckets <= FEATURES else [])
    return Data(pairs, sentences, tfidf.transform(held_back), tfidf.transform(pairs.names))


def warm_up(data: Data, seed: int, state_dtype: str = "float32") -> rt.Trainer:
    """Two adapters and a trainer for the in-batch epochs."""
    model = rt.TwoTower(*(rt.LinearAdapter(FEATURES, DIM, seed=seed) for _ in "qd"))  # one start for both sides
    return rt.Trainer(
        model,
        rt.InfoNCELoss(0.07),
        rt.AdamW(model.params, PEAK_RATE, DECAY, state_dtype=state_dtype),
        schedule=_rates(data),
        epochs=WARM_EPOCHS,
        batch_size=BATCH,
        seed=seed,
        progress=False,
    )


def rest(warm: rt.Trainer, data: Data, hard: bool) -> rt.Trainer:
    """A trainer for the epochs that follow, on copies of the model and the optimizer; hard: with mined negatives."""
    model, optimizer = copy.deepcopy((warm.model, warm.optimizer))
    rate, done, count = _rates(data), warm.step, len(data.pairs.train)
    return rt.Trainer(
        model,
        rt.InfoNCELoss(),
        optimizer,
        schedule=lambda step: rate(done + step),
        curriculum=rt.CurriculumScheduler(
            [
                rt.CurriculumStage("hard", count, temperature=0.06, k_neighbors=2),
                rt.CurriculumStage("harder", (LATE_EPOCHS - 1) * count, temperature=0.05, k_neighbors=4),
            ]
        ),
        mining=rt.Mining(rt.HardNegativeMiner.hardest(relative_margin=0.05)) if hard else None,
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
    """Train on the training pairs; returns Recall@10 on the held-back pairs after each epoch."""
    train, curve = data.pairs.train, []

    def listen(trainer: rt.Trainer, record: dict[str, float]) -> None:
        progress(len(train))
        describe(f"{name}: evaluating")
        curve.append(data.quality(trainer.model).recall_10)
        describe(name)

    trainer.callbacks = (listen,)
    describe(name)
    trainer.fit(data.sentences, data.names[train])
    return curve


def run(seed: int, progress: Callable[[int], None], describe: Callable[[str], None]) -> Result:
    """Train and compare. Calls `progress` with numbers of finished samples and `describe` with the current phase.

    Both trainings share their first epochs, whose seconds count in both lines. The strongest baseline is measured in
    another process during the first training, because on the first run both spend most of their time compiling.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as aside:
        strongest = aside.submit(_aside, seed, STRONGEST)
        describe("features")
        begin = time.perf_counter()
        data = featured(load(seed), FEATURES)
        seconds = time.perf_counter() - begin
        warm = warm_up(data, seed)
        curve = fit(warm, data, progress, describe, "in-batch")
        rows = [baseline(data, FEATURES, seconds), strongest.result()]
    curves = {}
    for name, hard in (("in-batch only", False), ("with hard negatives", True)):
        late = rest(warm, data, hard)
        curves[name] = curve + fit(late, data, progress, describe, name)
        spent = float(warm.history["seconds"].sum() + late.history["seconds"].sum())
        rows.append(Row(f"trained: {name}", data.quality(late.model), spent))
    return Result(rows, curves)


def _aside(seed: int, buckets: int) -> Row:
    """`untrained` without the line on stderr about compilation, because the main process shows a progress bar."""
    with _compiling.listening(lambda running: None):
        return untrained(seed, buckets)


def untrained(seed: int, buckets: int) -> Row:
    """The table's line for untrained features, including the time to compute them."""
    begin = time.perf_counter()
    data = featured(load(seed), buckets)
    return baseline(data, buckets, time.perf_counter() - begin)


def baseline(data: Data, buckets: int, seconds: float) -> Row:
    """The table's line for untrained features that took `seconds` to compute."""
    begin = time.perf_counter()
    quality = data.quality()
    return Row(f"untrained: tf-idf, {buckets} buckets", quality, seconds + time.perf_counter() - begin)


def samples(seed: int) -> int:
    """Number of samples that `run` will report to `progress`."""
    return (WARM_EPOCHS + 2 * LATE_EPOCHS) * len(load(seed).train)
