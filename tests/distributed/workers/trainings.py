"""Trainings that all ranks share: each saves parameters and histories.

Arguments: folder, epochs, the folder of the checkpoints, of which existing ones are resumed, or -; and names.
"""

import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI
from shared_trainings import TRAININGS, trained

comm = MPI.COMM_WORLD
folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
found = {}
for name in sys.argv[4:] or TRAININGS:
    checkpoint = None if sys.argv[3] == "-" else Path(sys.argv[3]) / f"{name}.npz"
    trainer = trained(name, comm, checkpoint, epochs, resume=checkpoint is not None)
    found |= {f"{name}/{key}": value for key, value in trainer.params.items()}
    found |= {f"{name}/history/{k}": v for k, v in trainer.history.items() if k != "seconds"}
    comm.Barrier()
np.savez(folder / f"{comm.Get_rank()}.npz", **found)
