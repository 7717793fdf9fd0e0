"""Each rank saves what it gets for its rows of each case: folder, size of the batch, columns, first rows of ranks."""

import sys

import numpy as np
from mpi4py import MPI
from shared_losses import cases

comm = MPI.COMM_WORLD
folder, batch, dim, *firsts = sys.argv[1:]
bounds = [*map(int, firsts), int(batch)]
mine = slice(*bounds[comm.rank : comm.rank + 2])
found = {}
for dtype in (np.float32, np.float64):
    for name, case in cases(dtype, int(batch), int(dim)).items():
        parts = case.call(lambda x: x[mine], comm=comm)
        found |= {f"{np.dtype(dtype)}/{name}/{what}": array for what, array in parts.items()}
np.savez(f"{folder}/{comm.rank}.npz", **found)
