"""Several MPI processes, started for a test; the test skips without mpi4py or a launcher."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKERS = Path(__file__).parent / "distributed" / "workers"


def launch(ranks, script, *arguments, threads=1, timeout=300, module=()):
    """What `mpiexec -n ranks python script` does, a CompletedProcess; the script is one of `workers`.

    With `module`, that of Python and its arguments are run instead of the script.
    """
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("could not import 'mpi4py'")
    beside = Path(sys.executable).with_name("mpiexec")
    launcher = str(beside) if beside.exists() else shutil.which("mpiexec")
    if launcher is None:
        pytest.skip("could not import 'mpi4py' with a launcher: no mpiexec")
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = dict(os.environ, NUMBA_NUM_THREADS=str(threads), PYTHONPATH=path)
    program = ["-m", *module] if module else [str(WORKERS / script)]
    call = [launcher, "-n", str(ranks), sys.executable, *program, *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, timeout=timeout, check=False, env=env)


def results(ranks, script, folder, *arguments, threads=1):
    """The arrays that each rank has saved as ``rank.npz`` in a folder, by rank, of a script that must succeed."""
    folder.mkdir()
    done = launch(ranks, script, folder, *arguments, threads=threads)
    assert done.returncode == 0, done.stderr[-3000:]
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(ranks)]
