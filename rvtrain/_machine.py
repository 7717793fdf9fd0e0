"""Facts about this machine for `rvtrain info` and for bug reports: versions, threads, vectors, caches and folders."""

import importlib.metadata
import platform

import numpy as np

import rvtrain
from rvtrain._engine._amx import has_amx
from rvtrain._engine._bfloat16 import has_bfloat16
from rvtrain._engine._blocks import block_panels
from rvtrain._engine._byte_tile import byte_tile
from rvtrain._engine._layout import slab_bytes
from rvtrain._engine._tile import tile_shape, vector_bytes
from rvtrain._kernels import _cache, _tbb, _threads
from rvtrain._kernels._caches import cache_sizes
from rvtrain.distributed import _threads as sharing


def facts() -> dict[str, str | int]:
    """Versions, threads, vectors, caches and folders, by name.

    Runs a kernel, because numba chooses its threading layer at the first parallel call.
    """
    rvtrain.clip_grad_norm(np.zeros(2 * _threads.SERIAL_BELOW, np.float32), 1.0)
    tiles = {name: "{}×{}".format(*tile_shape(np.dtype(name))) for name in ("float32", "float64")}
    return {
        "rvtrain": rvtrain.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": _version("numba"),
        "llvmlite": _version("llvmlite"),
        "tbb": _version("tbb"),
        "tbb file": _tbb.where(),
        "threading layer": _threads.layer(),
        "threads": _threads.thread_count(),
        "processors": _processors(),
        "threads of ranks": _of_ranks(),
        "mpi4py": _version("mpi4py"),
        "vector bits": 8 * vector_bytes(),
        "tile float32": tiles["float32"],
        "tile float64": tiles["float64"],
        "caches": ", ".join(f"L{level} {_size(size)}" for level, size in enumerate(cache_sizes(), 1)),
        "block of columns": ", ".join(f"{_block(dim)} of {dim} float32" for dim in (128, 384, 768)),
        "slab of scores": _size(slab_bytes()),
        "8-bit products": tile.instructions if (tile := byte_tile()) else "no",
        "16-bit products": "AMX" if has_amx() else "AVX-512 BF16" if has_bfloat16() else "no",
        "cache folder": str(_cache.folder() or "none: nowhere to write, kernels are compiled in each process"),
    }


def _processors() -> str:
    """Those that the process may use, and what limits them."""
    limit = sharing.quota()
    return f"{len(sharing.processors())} by affinity, {'no quota' if limit is None else f'{limit:g} by quota'}"


def _of_ranks() -> str:
    """Threads that `rvtrain train` takes for each rank on this node, for some numbers of ranks."""
    found, limit = len(sharing.processors()), sharing.quota()
    return ", ".join(f"{sharing.threads_of_a_rank(found, limit, n)} for each of {n}" for n in (1, 2, 4, 8))


def _size(count: int) -> str:
    """Bytes in the largest unit that divides them."""
    return f"{count >> 20} MiB" if count % (1 << 20) == 0 else f"{count / 1024:g} KiB"


def _block(dim: int) -> int:
    """Number of columns of this length in a block."""
    return block_panels(dim, np.dtype(np.float32)) * tile_shape(np.dtype(np.float32))[1]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
