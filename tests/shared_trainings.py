"""Trainings on pairs, labels and graphs, which several ranks may share."""

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


def table():
    return rt.EmbeddingTable(150, 8, seed=1)


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
    "graph": (False, table, lambda: rt.InfoNCELoss(0.2, learn_temperature=True), lambda: {"max_grad_norm": 1.0}),
    "graph, own": (False, table, lambda: rt.InfoNCELoss(0.2), dict),
    "graph, own temperature": (False, table, lambda: rt.InfoNCELoss(0.2, learn_temperature=True), dict),
    "graph, pairwise": (False, table, lambda: rt.LocalContrastiveLoss(form="pairwise"), dict),
    "graph, triplets": (False, table, lambda: rt.LocalContrastiveLoss(form="triplet"), dict),
}


def trained(name, comm, checkpoint=None, epochs=3, resume=False, **options):
    """The trainer of one of them after its epochs."""
    several, model, loss, more = TRAININGS[name]
    model = model()
    lazy = {"lazy": "exact"} if name == "graph, triplets" else {}
    trainer = rt.Trainer(
        model,
        loss(),
        rt.AdamW(model.params, 0.01, **lazy),
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
    if name.startswith("graph"):
        rng = np.random.default_rng(6)
        first, second = rng.integers(0, 150, 300), rng.integers(0, 15, 300)
        edges = np.stack([first, first % 10 + 10 * second], axis=1)  # within ten groups
        options = {"shared_negatives": "own" not in name, "resume": resume}
        options |= {"walks": rt.RandomWalks(2, 2, 1)} if name == "graph, own" else {}
        return trainer.fit_graph(edges[50:], None, edges[:50], **options)
    if name.startswith("label"):
        labels = np.arange(150) % 13
        sampler = Backwards() if name == "labels" else None
        return trainer.fit_labels(documents, labels, (queries, labels), sampler=sampler, resume=resume)
    if name == "texts":
        queries = [f"where is thing {i} of kind{i % 11} or sort{i % 13}" for i in range(150)]
        documents = [f"thing{i} kind{i % 11} sort{i % 13}" for i in range(150)]
    weight = None if several else np.linspace(0.5, 1, len(pairs))
    return trainer.fit(queries, documents, pairs, held_back, sample_weight=weight, resume=resume)
