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
    size = 50 - comm.Get_rank() if how == "settings" else 50
    rt.Trainer(model, rt.InfoNCELoss(), batch_size=size, comm=comm, progress=False).fit(queries, documents, pairs)
