"""Searches of candidates of which each rank has some rows; each rank saves what it finds."""

import sys

import numpy as np
from mpi4py import MPI
from shared_searches import CALLS, MINERS, mined, searched

import rvtrain as rt

comm = MPI.COMM_WORLD
found = {}
for name in CALLS:
    scores, indices = searched(name, comm)
    found |= {f"{name}/scores": scores, f"{name}/indices": indices}
for name in MINERS:
    found |= {f"{name}/mined/{what}": value for what, value in mined(name, comm).items()}
rank, x = comm.Get_rank(), np.eye(12)
hardest = rt.HardNegativeMiner.hardest()
MISTAKES = {
    "k": lambda: searched("ties", comm, k=501),
    "ranks": lambda: searched("ties", comm, k=2 + rank),
    "queries": lambda: rt.top_k(x + rank, x, 1, comm=comm),
    "anchors": lambda: hardest.mine(x + rank, x, 1, comm=comm),
    "draws": lambda: rt.HardNegativeMiner.random(seed=rank).mine(x, x, 1, comm=comm),
    "iterator": lambda: hardest.mine(x, iter([x]), 1, comm=comm),
    "not finite": lambda: hardest.mine(x, x if rank else x * np.inf, 1, comm=comm),
    "rescore": lambda: hardest.mine(x, x, 1, comm=comm, rescore=lambda i, j: i if rank else i / 0.0),
    "exclude": lambda: hardest.mine(x, x, 1, comm=comm, exclude=np.full((12, 1), 12 * comm.Get_size())),
    "no candidates": lambda: hardest.mine(x, x[:0] if rank else x, 1, comm=comm),
}
np.seterr(all="ignore")
for name, call in MISTAKES.items():
    try:
        call()
    except (RuntimeError, TypeError, ValueError) as error:
        found[name] = f"{type(error).__name__}: {error}"
np.savez(f"{sys.argv[1]}/{comm.Get_rank()}.npz", **found)
