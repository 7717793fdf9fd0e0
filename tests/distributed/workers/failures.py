"""A training in which rank 1 fails after the second epoch, or has other data. Arguments: how, and the checkpoint."""

import os
import signal
import sys

import numpy as np
from mpi4py import MPI
from shared_trainings import data, towers, trained

import rvtrain as rt

comm = MPI.COMM_WORLD
how, checkpoint = sys.argv[1:]


def fail(trainer, record):
    if record["epoch"] == 2 and comm.Get_rank() == 1:
        if how in ("killed", "interrupted"):
            os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGINT)
        raise ArithmeticError("planted")


if how in ("killed", "interrupted", "raises"):
    trained("symmetric", comm, checkpoint, 50, callbacks=[fail])
else:
    queries, documents, pairs, _ = data(False)
    model = towers()
    if comm.Get_rank() == 1:
        changed = {
            "rows": lambda: (queries, documents[:-1], pairs[(pairs < 149).all(axis=1)]),
            "dtype": lambda: (queries.astype(np.float64), documents, pairs),
            "elements": lambda: (queries + np.float32(1), documents, pairs),
        }
        queries, documents, pairs = changed.get(how, lambda: (queries, documents, pairs))()
        if how == "version":
            rt.__version__ = "0.0.1"
    if how == "sampler":

        class Odd(rt.MPerClass):
            """A sampler whose batches depend on the rank."""

            def batches(self, labels, batch_size, rng):
                return super().batches(labels, batch_size, np.random.default_rng(comm.Get_rank()))

        trainer = rt.Trainer(model.query, rt.SupConLoss(), comm=comm, progress=False)
        trainer.fit_labels(queries, np.arange(150) % 7, sampler=Odd(2))
    if how == "mined":

        class Miner:
            """A miner that finds other documents on each rank."""

            def mine(self, anchors, candidates, k):
                return np.full((len(anchors), k), comm.Get_rank())

        mining = rt.Mining(Miner(), 1)
        rt.Trainer(model, rt.InfoNCELoss(), mining=mining, comm=comm, progress=False).fit(queries, documents, pairs)
    size = 50 - comm.Get_rank() if how == "settings" else 50
    options = {"epochs": 10 + comm.Get_rank()} if how == "epochs" else {}
    trainer = rt.Trainer(model, rt.InfoNCELoss(), batch_size=size, comm=comm, progress=False, **options)
    trainer.fit(queries, documents, pairs)
