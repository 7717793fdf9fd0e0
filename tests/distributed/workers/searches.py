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
    indices, scores = mined(name, comm)
    found |= {f"{name}/indices": indices, f"{name}/scores": scores}
try:
    rt.HardNegativeMiner.random().mine(np.eye(3), np.eye(3), 1, comm=comm)
except ValueError as error:
    found["draws"] = str(error)
for name, arguments in {"k": {"k": 501}, "ranks": {"k": 2 + comm.Get_rank()}}.items():
    try:
        searched("ties", comm, **arguments)
    except ValueError as error:
        found[name] = str(error)
np.savez(f"{sys.argv[1]}/{comm.Get_rank()}.npz", **found)
