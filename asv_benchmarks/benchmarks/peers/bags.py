"""A retriever of texts, beside the same training with EmbeddingBag and SparseAdam of torch."""

import numpy as np

import rvtrain as rt
from rvtrain.demo._data import load

from .common import Benchmark, beside, relative_time

ROWS, DIM, EPOCHS, BATCH = 2**16, 256, 10, 256
RATE, TEMPERATURE = 0.005, 0.05


def ours(start, queries, documents, pairs, epochs=EPOCHS):
    model = rt.BagEncoder(ROWS, DIM, "sum", scale=0.0)
    model.params["table"][...] = start
    trainer = rt.Trainer(
        model,
        rt.InfoNCELoss(TEMPERATURE),
        rt.Adam(model.params, RATE),
        epochs=epochs,
        batch_size=BATCH,
        progress=False,
    )
    trainer.fit(queries, documents, pairs)
    return model.transform(queries), model.transform(documents)


def in_torch(start, queries, documents, pairs, epochs=EPOCHS):
    import torch
    from torch.nn.functional import cross_entropy, normalize

    weight = torch.from_numpy(start.copy())
    bag = torch.nn.EmbeddingBag(ROWS, DIM, mode="sum", sparse=True, include_last_offset=True, _weight=weight)
    optimizer = torch.optim.SparseAdam(bag.parameters(), RATE)

    def embedded(bags):
        arrays = (torch.from_numpy(x) for x in (bags.indices, bags.offsets.astype(np.int32), bags.weights))
        rows, offsets, weights = arrays
        return bag(rows, offsets, weights)

    for epoch in range(epochs):
        order = np.random.default_rng([0, epoch]).permutation(len(pairs))
        for start in range(0, len(order), BATCH):
            batch = pairs[order[start : start + BATCH]]
            q, d = (normalize(embedded(x[batch[:, side]])) for side, x in enumerate((queries, documents)))
            loss = cross_entropy(q @ d.T / TEMPERATURE, torch.arange(len(batch)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return embedded(queries).numpy(), embedded(documents).numpy()


class Bags(Benchmark):
    """Docstrings and the names that they describe: 4,070 pairs of bags, one table of 65,536 × 256."""

    def prepare(self):
        data = load(0)
        features = rt.HashedNgrams(ROWS).fit([data.sentences[i] for i in data.train] + data.names)
        self.queries, self.documents = features.transform(data.sentences), features.transform(data.names)
        self.held_back = data.held_back
        start = rt.BagEncoder(ROWS, DIM).params["table"]  # is not drawn in the time of either
        self.data = start, self.queries, self.documents, np.stack([data.train, data.train], axis=1)
        ours(*self.data, epochs=1)

    def recall(self, embedded):
        queries, documents = embedded
        found = rt.evaluate_retrieval(queries[self.held_back], documents, self.held_back, ["recall@10"])
        return found["recall@10"]

    @beside("torch", "of torch's time")
    def track_time_over_torch(self):
        return relative_time(lambda: ours(*self.data, epochs=2), lambda: in_torch(*self.data, epochs=2), budget=20)

    @beside("torch", "of torch's misses")
    def track_misses_over_torch(self):
        return (1 - self.recall(ours(*self.data))) / (1 - self.recall(in_torch(*self.data)))
