"""Trainings in which rank 1 differs: each rank saves the error that it gets. Argument: folder."""

import sys

import numpy as np
from mpi4py import MPI
from shared_trainings import data, towers

import rvtrain as rt

rank = MPI.COMM_WORLD.Get_rank()
queries, documents, pairs, _ = data(False)


class Odd(rt.MPerClass):
    """A sampler whose batches depend on the rank."""

    def batches(self, labels, batch_size, rng):
        return super().batches(labels, batch_size, np.random.default_rng(rank))


class Miner:
    """A miner that finds other documents on each rank."""

    def mine(self, anchors, candidates, k):
        return np.full((len(anchors), k), rank)


def trainer(model=None, loss=None, **options):
    return rt.Trainer(model or towers(), loss or rt.InfoNCELoss(), comm=MPI.COMM_WORLD, progress=False, **options)


def with_version(version):
    usual = rt.__version__
    try:
        rt.__version__ = version if rank else usual
        trainer().fit(queries, documents, pairs)
    finally:
        rt.__version__ = usual


labels, edges = np.arange(150) % 7, np.stack([np.arange(60), (np.arange(60) + 1 + rank) % 60], axis=1)
CASES = {
    "version": lambda: with_version("0.0.1"),
    "epochs": lambda: trainer(epochs=10 + rank).fit(queries, documents, pairs),
    "memory": lambda: trainer(memory_limit=rank).fit(queries, documents, pairs),
    "mined": lambda: trainer(mining=rt.Mining(Miner(), 1)).fit(queries, documents, pairs),
    "sampler": lambda: trainer(rt.LinearAdapter(12), rt.SupConLoss()).fit_labels(queries, labels, sampler=Odd(2)),
    "labels": lambda: trainer(rt.LinearAdapter(12), rt.SupConLoss()).fit_labels(queries, labels + rank * labels % 2),
    "edges": lambda: trainer(rt.EmbeddingTable(60, 4)).fit_graph(edges),
}
found = {}
for name, call in CASES.items():
    try:
        call()
    except ValueError as error:
        found[name] = str(error)
np.savez(f"{sys.argv[1]}/{rank}.npz", **found)
