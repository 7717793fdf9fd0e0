"""A whole training beside the same loop in torch: two linear adapters, in-batch and then mined negatives."""

import numpy as np

import rvtrain as rt

from .common import Benchmark, beside, ratio, relative_time

PAIRS, HELD_BACK, DIM = 5400, 600, 384
EPOCHS, BATCH, NEGATIVES, MINE_FROM, MINE_EVERY = 12, 256, 4, 4, 2
RATE, DECAY, TEMPERATURE = 1e-3, 0.01, 0.05


def data(rng):
    """Queries and documents that share a hidden part, seen through different rotations and noise."""
    hidden = rng.normal(size=(PAIRS + HELD_BACK, 48))
    sides = (hidden @ rng.normal(size=(48, DIM)) + 14 * rng.normal(size=(len(hidden), DIM)) for _ in range(2))
    return [side.astype(np.float32) for side in sides]


def ours(queries, documents, frozen=False):
    model = rt.TwoTower(rt.LinearAdapter(DIM), "frozen" if frozen else rt.LinearAdapter(DIM))
    pairs = np.repeat(np.arange(PAIRS)[:, np.newaxis], 2, axis=1)
    trainer = rt.Trainer(
        model,
        rt.InfoNCELoss(TEMPERATURE),
        rt.AdamW(model.params, RATE, DECAY),
        mining=rt.Mining(rt.HardNegativeMiner.hardest(), NEGATIVES, MINE_FROM + 1, MINE_EVERY),
        epochs=EPOCHS,
        batch_size=BATCH,
        progress=False,
    )
    trainer.fit(queries, documents, pairs)
    return model.query.transform(queries), model.document.transform(documents)


def in_torch(queries, documents, frozen=False):
    import torch
    from torch.nn.functional import cross_entropy, normalize

    queries, documents = torch.from_numpy(queries), torch.from_numpy(documents)
    towers = [torch.nn.Linear(DIM, DIM, bias=False) for _ in range(2)]
    for tower in towers:
        torch.nn.init.eye_(tower.weight)
    if frozen:
        towers[1] = torch.nn.Identity()
        documents = normalize(documents)
    trained = [weight for tower in towers for weight in tower.parameters()]
    optimizer = torch.optim.AdamW(trained, RATE, weight_decay=DECAY, fused=True)
    generator = torch.Generator().manual_seed(0)
    mined = None
    for epoch in range(EPOCHS):
        if epoch >= MINE_FROM and (epoch - MINE_FROM) % MINE_EVERY == 0:
            with torch.no_grad():
                q, d = (normalize(tower(x[:PAIRS])) for tower, x in zip(towers, (queries, documents), strict=True))
                scores = q @ d.T
                scores.fill_diagonal_(-torch.inf)
                mined = scores.topk(NEGATIVES).indices
        order = torch.randperm(PAIRS, generator=generator)
        for batch in order.split(BATCH):
            rows = batch if mined is None else torch.cat([batch, mined[batch].flatten()])
            q = normalize(towers[0](queries[batch]))
            d = documents[rows] if frozen else normalize(towers[1](documents[rows]))
            scores = q @ d.T / TEMPERATURE
            if mined is not None:  # what is a row's own document is none of its negatives
                same = rows[None, :] == batch[:, None]
                same[torch.arange(len(batch)), torch.arange(len(batch))] = False
                scores = scores.masked_fill(same, -torch.inf)
            loss = cross_entropy(scores, torch.arange(len(batch)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return tuple(tower(x).numpy() for tower, x in zip(towers, (queries, documents), strict=True))


def recall(embedded):
    queries, documents = embedded
    return rt.evaluate_retrieval(queries[PAIRS:], documents, np.arange(PAIRS, PAIRS + HELD_BACK), ["recall@10"])[
        "recall@10"
    ]


class Training(Benchmark):
    """Two adapters of 384 × 384 on 5,400 pairs, 12 epochs, 4 mined negatives from the fifth on."""

    def prepare(self):
        self.queries, self.documents = data(self.rng())
        ours(self.queries, self.documents)

    @beside("torch", "of torch's time")
    def track_time_over_torch(self):
        return relative_time(
            lambda: ours(self.queries, self.documents), lambda: in_torch(self.queries, self.documents), budget=30.0
        )

    @beside("torch", "of torch's time")
    def track_frozen_time_over_torch(self):
        """Documents taken as they are, by both."""
        ours(self.queries, self.documents, frozen=True)
        return relative_time(
            lambda: ours(self.queries, self.documents, frozen=True),
            lambda: in_torch(self.queries, self.documents, frozen=True),
            budget=30.0,
        )

    @ratio("of the time with two trained sides")
    def track_frozen_time_over_unfrozen(self):
        return relative_time(
            lambda: ours(self.queries, self.documents, frozen=True),
            lambda: ours(self.queries, self.documents),
            budget=30.0,
        )

    @beside("torch", "of torch's misses")
    def track_misses_over_torch(self):
        """Held-back queries whose document is not among the first ten, beside torch's."""
        mine, theirs = (1 - recall(train(self.queries, self.documents)) for train in (ours, in_torch))
        return mine / theirs
