"""Trainings on pairs and on labels, which several ranks may share."""

import numpy as np

import rvtrain as rt

METRICS = ("recall@1", "ndcg@10")


def data(several):
    """Queries, documents, pairs and held-back pairs; some queries have several documents, and some share one."""
    rng = np.random.default_rng(3)
    documents = rng.normal(size=(150, 12)).astype(np.float32)
    pairs = np.stack([np.arange(150)] * 2, axis=1)
    queries = documents[:, ::-1] + rng.normal(size=(150, 12)).astype(np.float32) / 2
    if several:
        pairs = np.concatenate([pairs, np.stack([np.arange(40), np.arange(40) + 30], axis=1)])
    rng.shuffle(pairs)
    return np.ascontiguousarray(queries), documents, pairs[40:], pairs[:40]


def towers():
    return rt.TwoTower(rt.LinearAdapter(12, seed=1), rt.MLPAdapter(12, hidden=9, seed=2))


class Backwards(rt.MPerClass):
    """A sampler of one's own."""

    def batches(self, labels, batch_size, rng):
        for rows in super().batches(labels, batch_size, rng):
            yield rows[::-1]


# What each training has: several documents of a query, the model, the loss, and other options.
TRAININGS = {
    "symmetric": (False, towers, lambda: rt.InfoNCELoss(0.1, symmetric=True, learn_temperature=True), dict),
    "several": (True, lambda: rt.LinearAdapter(12), lambda: rt.InfoNCELoss(0.1, symmetric=True), dict),
    "mined": (
        True,
        lambda: rt.TwoTower(rt.LinearAdapter(12), "frozen"),
        lambda: [rt.InfoNCELoss(0.1), (rt.SigmoidLoss(), 0.5)],
        lambda: {"mining": rt.Mining(rt.HardNegativeMiner.hardest(), 3), "max_grad_norm": 1.0},
    ),
    "texts": (
        False,
        lambda: rt.TwoTower(rt.BagEncoder(128, 6, features=rt.HashedNgrams(128), seed=1), "shared"),
        lambda: rt.InfoNCELoss(0.2, symmetric=True),
        dict,
    ),
    "drawn": (
        False,
        towers,
        lambda: rt.DecoupledContrastiveLoss(0.2),
        lambda: {"mining": rt.Mining(rt.HardNegativeMiner.random(), 2), "micro_batch_size": 3},
    ),
    "labels": (False, lambda: rt.LinearAdapter(12), lambda: rt.SupConLoss(0.2), dict),
    "labelled pairs": (
        False,
        towers,
        lambda: [rt.InfoNCELoss(0.2, learn_temperature=True), (rt.SigmoidLoss(), 0.5)],
        lambda: {"micro_batch_size": 3},
    ),
}


def trained(name, comm, checkpoint=None, epochs=3, resume=False, **options):
    """The trainer of one of them after its epochs."""
    several, model, loss, more = TRAININGS[name]
    model = model()
    trainer = rt.Trainer(
        model,
        loss(),
        rt.AdamW(model.params, 0.01),
        epochs=epochs,
        batch_size=45,
        metrics=METRICS,
        checkpoint=checkpoint,
        comm=comm,
        progress=False,
        **more(),
        **options,
    )
    queries, documents, pairs, held_back = data(several)
    if name.startswith("label"):
        labels = np.arange(150) % 13
        sampler = Backwards() if name == "labels" else None
        return trainer.fit_labels(documents, labels, (queries, labels), sampler=sampler, resume=resume)
    if name == "texts":
        queries = [f"where is thing {i} of kind{i % 11} or sort{i % 13}" for i in range(150)]
        documents = [f"thing{i} kind{i % 11} sort{i % 13}" for i in range(150)]
    weight = None if several else np.linspace(0.5, 1, len(pairs))
    return trainer.fit(queries, documents, pairs, held_back, sample_weight=weight, resume=resume)
