"""Two linear adapters, trained in-batch and then against mined hard negatives."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import rvtrain as rt
from rvtrain.demo._data import Pairs, load
from rvtrain.demo._features import TfIdf
from rvtrain.demo._metrics import Quality, quality

FEATURES, STRONGEST, DIM = 2048, 16_384, 256
"""Buckets of the features trained on and of the strongest untrained baseline; dimension of the embeddings."""

BATCH, PEAK_RATE, DECAY = 256, 2e-3, 0.1
WARM_EPOCHS, LATE_EPOCHS = 5, 3
"""In-batch for all; then the rest in-batch, or against mined negatives."""

Params = dict[str, np.ndarray]


class Row(NamedTuple):
    """A line of the demo's table."""

    method: str
    quality: Quality
    seconds: float


class Result(NamedTuple):
    """What the demo found: the table, and Recall@10 after each epoch of both trainings."""

    rows: list[Row]
    curves: dict[str, list[float]]


class Retriever:
    """Adapters for sentences and names, their optimizer, and what one epoch does."""

    def __init__(self, pairs: Pairs, seed: int) -> None:
        self.pairs = pairs
        self.rng = np.random.default_rng(seed)
        known = [texts[i] for texts in (pairs.sentences, pairs.names) for i in pairs.train]
        tfidf = TfIdf(FEATURES).fit(known)
        self.sentences, self.names = tfidf.transform(pairs.sentences), tfidf.transform(pairs.names)
        # One random projection for both sides: at the start the cosines are about those of the features.
        start = (self.rng.normal(size=(FEATURES, DIM)) / np.sqrt(DIM)).astype(np.float32)
        self.params: Params = {"sentences": start.copy(), "names": start}
        self.optimizer = rt.AdamW(self.params, PEAK_RATE, DECAY)
        self.miner = rt.HardNegativeMiner.hardest()
        count = len(pairs.train)
        self.curriculum = rt.CurriculumScheduler(
            [
                rt.CurriculumStage("in-batch", WARM_EPOCHS * count, temperature=0.07, k_neighbors=1),
                rt.CurriculumStage("hard", count, temperature=0.06, k_neighbors=2),
                rt.CurriculumStage("harder", (LATE_EPOCHS - 1) * count, temperature=0.05, k_neighbors=4),
            ]
        )
        epochs = WARM_EPOCHS + LATE_EPOCHS
        per_epoch = -(-count // BATCH)
        self.schedule = rt.warmup_cosine(PEAK_RATE, per_epoch // 2, epochs * per_epoch)
        self.steps = 0

    def epoch(self, hard: bool, progress: Callable[[int], None]) -> float:
        """Go once through the training pairs; Recall@10 on the held-back ones afterwards."""
        mined = self._mine() if hard else None
        order = self.rng.permutation(self.pairs.train)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            self.optimizer.learning_rate = self.schedule(self.steps)
            self.optimizer.step(self.params, self._gradients(batch, mined))
            self.curriculum.step(len(batch))
            self.steps += 1
            progress(len(batch))
        return self.evaluate().recall_10

    def _gradients(self, batch: np.ndarray, mined: np.ndarray | None) -> Params:
        """Gradients of InfoNCE over the batch's own names and the names mined for it, each projected once."""
        loss = rt.InfoNCELoss(self.curriculum.current_params().temperature)
        sentences = self.sentences[batch]
        pool = np.union1d(batch, batch if mined is None else mined[batch])
        names = self.names[pool]
        anchors, projected = sentences @ self.params["sentences"], names @ self.params["names"]
        own = np.searchsorted(pool, batch)
        _, (to_anchors, to_positives, to_pool) = loss.compute_with_gradients(
            anchors,
            projected[own],
            projected,
            wrt=("anchors", "positives", "negatives"),
            positive_ids=batch,
            negative_ids=pool,
        )
        to_pool[own] += to_positives
        return {"sentences": sentences.T @ to_anchors, "names": names.T @ to_pool}

    def _mine(self) -> np.ndarray:
        """For each training pair (by row of the data) the names that are wrongly near its sentence."""
        train = self.pairs.train
        k = self.curriculum.current_params().k_neighbors
        near = self.miner.mine(
            self.sentences[train] @ self.params["sentences"],
            self.names[train] @ self.params["names"],
            k,
            exclude=np.arange(len(train))[:, np.newaxis],
        )
        mined = np.zeros((len(self.names), k), np.int64)
        mined[train] = train[near]
        return mined

    def evaluate(self) -> Quality:
        """The held-back sentences against all names."""
        held = self.pairs.held_back
        queries = self.sentences[held] @ self.params["sentences"]
        return quality(queries, self.names @ self.params["names"], held)

    def snapshot(self) -> dict:
        """What is needed to go on from here."""
        return {
            "params": {name: value.copy() for name, value in self.params.items()},
            "optimizer": self.optimizer.state_dict(),
            "curriculum": self.curriculum.state_dict(),
            "rng": self.rng.bit_generator.state,
            "steps": self.steps,
        }

    def restore(self, snapshot: dict) -> None:
        """Go on from a `snapshot`."""
        for name, value in snapshot["params"].items():
            self.params[name][...] = value
        self.optimizer.load_state_dict(snapshot["optimizer"])
        self.curriculum.load_state_dict(snapshot["curriculum"])
        self.rng.bit_generator.state = snapshot["rng"]
        self.steps = snapshot["steps"]


def run(seed: int, progress: Callable[[int], None], describe: Callable[[str], None]) -> Result:
    """Train and compare; `progress` hears of samples done, `describe` of what is being done.

    Both trainings share their first epochs, whose seconds count in both lines.
    """
    describe("features")
    pairs = load(seed)
    begin = time.perf_counter()
    retriever = Retriever(pairs, seed)
    seconds = time.perf_counter() - begin
    held = pairs.held_back
    untrained = quality(retriever.sentences[held], retriever.names, held)
    rows = [Row(f"untrained: tf-idf, {FEATURES} buckets", untrained, seconds), strongest(pairs)]
    shared, curve = 0.0, []
    for _ in range(WARM_EPOCHS):
        describe("in-batch")
        recall, seconds = _timed(retriever, False, progress)
        shared += seconds
        curve.append(recall)
    half_way = retriever.snapshot()
    curves = {}
    for name, hard in (("in-batch only", False), ("with hard negatives", True)):
        retriever.restore(half_way)
        curves[name], total = list(curve), shared
        for _ in range(LATE_EPOCHS):
            describe(name)
            recall, seconds = _timed(retriever, hard, progress)
            total += seconds
            curves[name].append(recall)
        rows.append(Row(f"trained: {name}", retriever.evaluate(), total))
    return Result(rows, curves)


def samples(seed: int) -> int:
    """How many samples `run` will report to `progress`."""
    return (WARM_EPOCHS + 2 * LATE_EPOCHS) * len(load(seed).train)


def strongest(pairs: Pairs) -> Row:
    """The best untrained features of this kind that we found: so many buckets that few n-grams share one."""
    begin = time.perf_counter()
    tfidf = TfIdf(STRONGEST).fit([texts[i] for texts in (pairs.sentences, pairs.names) for i in pairs.train])
    queries = tfidf.transform([pairs.sentences[i] for i in pairs.held_back])
    found = quality(queries, tfidf.transform(pairs.names), pairs.held_back)
    return Row(f"untrained: tf-idf, {STRONGEST} buckets", found, time.perf_counter() - begin)


def _timed(retriever: Retriever, hard: bool, progress: Callable[[int], None]) -> tuple[float, float]:
    begin = time.perf_counter()
    recall = retriever.epoch(hard, progress)
    return recall, time.perf_counter() - begin
