"""Threads of ranks that share the processors of a node."""

import math
import os
import socket
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

from rvtrain._kernels._threads import thread_count
from rvtrain.distributed._ranks import Ranks

_LOCAL = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")
"""Number of ranks on this node, as launchers say it: those of MPICH and Intel, of Open MPI, and of MVAPICH."""


def processors() -> set[int]:
    """Those that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Processors' worth of time that the container or job may use, by its control group; None without a limit."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return None if int(limit) <= 0 else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def ranks_here(environment: Mapping[str, str] = os.environ) -> int:
    """Number of ranks of this job on this node, as the launcher says; 1 if none does."""
    return next((int(environment[name]) for name in _LOCAL if environment.get(name, "").isdigit()), 1)


def threads_of_a_rank(
    found: int, limit: float | None, ranks: int, environment: Mapping[str, str] = os.environ
) -> int:
    """Threads for each of so many ranks on this node.

    NUMBA_NUM_THREADS or OMP_NUM_THREADS, if set; else the processors, of which there are `found` and by quota
    `limit`, divided by the ranks that share them.
    """
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        if environment.get(name, "").isdigit():
            return max(1, int(environment[name]))
    usable = found if limit is None else min(found, max(1, math.ceil(limit)))
    return max(1, usable // ranks)


def warn_if_crowded(ranks: Ranks) -> None:
    """Warn, on the first rank of a node, if the threads of ranks that share its processors are more than these."""
    mine = processors()
    host, mask = (zlib.crc32(text.encode()) for text in (socket.gethostname(), repr(sorted(mine))))
    usable = min(len(mine), math.ceil(quota() or len(mine)))
    found = ranks.agree({}, (host, mask, thread_count(), usable))
    sharing = (found[:, 0] == host) & (found[:, 1] == mask)
    threads = int(found[sharing, 2].sum())
    if threads > usable and ranks.rank == int(sharing.argmax()):
        count = int(sharing.sum())
        advice = f"start at most {usable} here" if count > usable else f"set NUMBA_NUM_THREADS={usable // count}"
        warnings.warn(
            f"{count} ranks with {threads} threads in all share {usable} processors: {advice}, or let the launcher "
            "bind each rank to processors of its own",
            RuntimeWarning,
            stacklevel=3,
        )
