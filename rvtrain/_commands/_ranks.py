"""The ranks of a command that a launcher of MPI has started several times."""

import os
import sys
from typing import Any

from rvtrain._kernels._threads import limit_threads
from rvtrain.distributed._ranks import end_all
from rvtrain.distributed._threads import processors, quota, ranks_here, threads_of_a_rank

_STARTED = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
"""Variables that launchers of MPI set for the processes that they start."""


def communicator() -> Any:
    """The communicator of all processes, with threads for each; None if there is one process."""
    if not any(name in os.environ for name in _STARTED):
        return None
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError("rvtrain under mpiexec needs mpi4py: pip install 'rvtrain[mpi]'") from error
    if MPI.COMM_WORLD.Get_size() == 1:
        return None
    limit_threads(threads_of_a_rank(len(processors()), quota(), ranks_here()))
    return MPI.COMM_WORLD


def end(code: int) -> int:
    """The exit code; one that says that the command has failed ends all ranks, which may wait for this one."""
    mpi = sys.modules.get("mpi4py.MPI")
    if code and mpi is not None and mpi.Is_initialized() and mpi.COMM_WORLD.Get_size() > 1:
        end_all(mpi.COMM_WORLD, code)
    return code
