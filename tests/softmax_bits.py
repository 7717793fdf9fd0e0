"""Hashes of what InfoNCE returns, for one processor and one compiler: `python softmax_bits.py` prints them as JSON.

`softmax_bits.json` keeps those of commit 69434a3, before the engine was opened to other losses. "other last digits"
are the cases in which the order of a sum has changed since: dot products of own negatives, whose loops are vectorised
in another way, and column sums of the symmetric loss in float64.
"""

import hashlib
import json
import sys

import numba
import numpy as np
from llvmlite import binding

import rvtrain as rt

SHAPES = [
    (1, 1),
    (2, 3),
    (7, 5),
    (17, 100),
    (64, 64),
    (101, 31),
    (13, 768),
    (257, 128),
    (700, 16),
]
KINDS = ["in_batch", "symmetric", "pool", "own", "gathered", "ids"]


def machine():
    """What decides the last bits, beside the source: compiler, processor, vector width."""
    name = numba.config.CPU_NAME or binding.get_host_cpu_name()
    features = numba.config.CPU_FEATURES or binding.get_host_cpu_features().flatten()
    flags = {f[1:] for f in features.split(",") if f.startswith("+")}
    width = 512 if "avx512f" in flags else 256 if "avx2" in flags else 128
    checked = ", bounds checked" if numba.config.BOUNDSCHECK else ""
    return f"numba {numba.__version__}, {name}, {width} bits{checked}"


def results(kind, batch, dim, dtype, temperature):
    """Values and all gradients of one call, as arrays."""
    rng = np.random.default_rng([batch, dim])
    anchors = rng.normal(size=(batch, dim)).astype(dtype)
    positives = (anchors + rng.normal(size=(batch, dim))).astype(dtype)
    args, extra, names = (anchors, positives), {}, ("anchors", "positives", "temperature")
    if kind == "pool":
        args = (*args, rng.normal(size=(2 * batch + 1, dim)).astype(dtype))
    elif kind == "own":
        args = (*args, rng.normal(size=(batch, 3, dim)).astype(dtype))
    elif kind == "gathered":
        args = (*args, rng.normal(size=(batch + 2, dim)).astype(dtype))
        extra = {"negative_indices": rng.integers(-1, batch + 2, size=(batch, 4))}
    elif kind == "ids":
        extra = {"anchor_ids": rng.integers(0, 1 + batch // 2, batch), "positive_ids": np.arange(batch)}
    if len(args) == 3:
        names = (*names[:2], "negatives", names[2])
    loss = rt.InfoNCELoss(temperature, "none", symmetric=kind == "symmetric")
    values = loss.compute(*args, **extra)
    again, gradients = loss.compute_with_gradients(*args, wrt=names, **extra)
    return [values, again, *map(np.asarray, gradients)]


def hashes():
    """{"kind batch x dim dtype τ": hash}"""
    out = {}
    for kind in KINDS:
        for batch, dim in SHAPES:
            for dtype in (np.float32, np.float64):
                for temperature in (0.5, 0.07, 0.005):
                    digest = hashlib.sha256()
                    for array in results(kind, batch, dim, dtype, temperature):
                        digest.update(array.tobytes())
                    name = f"{kind} {batch}x{dim} {np.dtype(dtype).name} {temperature}"
                    out[name] = digest.hexdigest()[:16]
    return out


if __name__ == "__main__":
    json.dump({machine(): hashes()}, sys.stdout, indent=0)
