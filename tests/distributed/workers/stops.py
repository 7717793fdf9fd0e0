"""Trainings that one rank ends in its third step, and in its first epoch: each rank saves steps and parameters."""

import sys

import numpy as np
from mpi4py import MPI
from shared_trainings import trained

comm = MPI.COMM_WORLD


class Stop:
    """Asks to end on rank 1 alone."""

    def __init__(self, when):
        setattr(self, when, lambda trainer, record: comm.Get_rank() == 1 and record["step"] == 3 and trainer.stop())


found = {}
for when in ("on_step_end", "on_epoch_end"):
    trainer = trained("symmetric", comm, epochs=50, callbacks=[Stop(when)])
    found |= {f"{when}/step": trainer.step, f"{when}/epoch": trainer.epoch}
    found |= {f"{when}/{name}": value for name, value in trainer.params.items()}
np.savez(f"{sys.argv[1]}/{comm.Get_rank()}.npz", **found)
