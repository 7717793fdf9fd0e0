"""Calls that fail on one of two ranks, or ask for different things: each rank saves the error that it gets."""

import sys
import threading

import numpy as np
from mpi4py import MPI

import rvtrain as rt

FEW = {"plain": rt.InfoNCELoss, "symmetric": lambda comm: rt.InfoNCELoss(symmetric=True, comm=comm)}
comm = MPI.COMM_WORLD
first, x = comm.rank == 0, np.random.default_rng(comm.rank).normal(size=(8, 4))
broken = x.copy()
broken[3, 1] = np.nan


def compute(a=x, b=x, temperature=0.1, make=rt.InfoNCELoss, wrt=None, **arguments):
    loss = make(temperature, comm=comm)
    return loss.compute_with_gradients(a, b, wrt=wrt, **arguments) if wrt else loss.compute(a, b, **arguments)


def in_a_thread():
    errors = []

    def work():
        try:
            compute()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    raise errors[0]


def with_version(module, version):
    """A call whose rank 1 has another version of a package."""
    usual = module.__version__
    try:
        module.__version__ = usual if first else version
        compute()
    finally:
        module.__version__ = usual


CALLS = {
    "version": lambda: with_version(rt, "0.0.1"),
    "numpy": lambda: with_version(np, "1.0.0"),
    "no rows": lambda: compute(*((x if first else x[:0],) * 2)),
    "dtype": lambda: compute(*(x.astype(np.float32 if first else np.float64) for _ in "ab")),
    "columns": lambda: compute(*(x[:, : 4 - comm.rank] for _ in "ab")),
    "parameters": lambda: compute(temperature=0.1 if first else 0.2),
    "class": lambda: compute(make=rt.InfoNCELoss if first else rt.DecoupledContrastiveLoss),
    "gradients": lambda: compute(wrt="anchors" if first else ("anchors", "positives")),
    "weights": lambda: compute(sample_weight=None if first else np.ones(8)),
    "negatives": lambda: compute(negatives=None if first else x),
    "not finite": lambda: compute(b=x if first else broken),
    "shape": lambda: compute(b=x[:7] if first else x),
    "weight": lambda: compute(sample_weight=np.full(8, 1.0 if first else -1.0)),
    "zero weights": lambda: compute(sample_weight=np.zeros(8)),
    "indices": lambda: compute(negatives=x, negative_indices=np.zeros((8, 2), int)),
    "one pair": lambda: compute(x[0], x[0]),
    "labels": lambda: rt.SupConLoss(comm=comm).compute(x, np.arange(8 if first else 7)),
    "references": lambda: rt.SupConLoss(comm=comm).compute(x, np.arange(8), *(() if first else (x, np.arange(8)))),
    "thread": in_a_thread,
}
found = {}
for name, call in CALLS.items():
    try:
        call()
        found[name] = "no error"
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"
found["afterwards"] = compute()  # no exchange is left over
for name, make in FEW.items():  # fewer rows than segments of a batch
    found[f"few/{name}"] = make(comm=comm).compute_with_gradients(x[: 2 - comm.rank], x[: 2 - comm.rank, ::-1])[1]
for name, other in {"self": MPI.COMM_SELF, "split": comm.Split(comm.rank)}.items():  # of this rank alone
    found[name] = rt.InfoNCELoss(comm=other).compute(x, x[:, ::-1])
labels = np.array([0, 1 - comm.rank])[: 2 - comm.rank]
found["few/labels"] = rt.SupConLoss(comm=comm).compute_with_gradients(x[: 2 - comm.rank], labels)[1]
np.savez(f"{sys.argv[1]}/{comm.rank}.npz", **found)
