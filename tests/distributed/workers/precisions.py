"""Each rank saves what it gets for its rows in products of bfloat16: folder, size of the batch, columns, first rows.

Vectors stand for tile registers, on every processor.
"""

import sys

import numpy as np
from mpi4py import MPI
from shared_losses import cases

import rvtrain as rt
from rvtrain._engine import _precision as precision

precision.has_amx = precision.has_bfloat16 = lambda: True
comm = MPI.COMM_WORLD
folder, batch, dim, *firsts = sys.argv[1:]
bounds = [*map(int, firsts), int(batch)]
mine = slice(*bounds[comm.rank : comm.rank + 2])
found = {}
for chosen in ("medium", "high"):
    rt.set_float32_precision(chosen)
    for name in ("plain", "symmetric", "pool"):
        parts = cases(np.float32, int(batch), int(dim))[name].call(lambda x: x[mine], comm=comm)
        found |= {f"{chosen}/{name}/{what}": array for what, array in parts.items()}
np.savez(f"{folder}/{comm.rank}.npz", **found)
