"""What a user waits for before the first result: the import, and the first call with and without a cache."""

import os
import statistics
import subprocess
import sys
import tempfile
import time

from .common import Benchmark

FIRST_CALL = """
import numpy as np
import rvtrain as rt
x = np.eye(8, dtype=np.float32)
rt.InfoNCELoss().compute_with_gradients(x, x, wrt=("anchors", "positives"))
"""


def seconds(code: str, **environment: str) -> float:
    """Wall-clock time of a Python process of its own."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **environment})
    return time.perf_counter() - start


class Start(Benchmark):
    """Each measure starts processes of its own, so that nothing is warm but the file system."""

    def track_import(self):
        """`import rvtrain` over bare Python: the median difference of interleaved runs."""
        seconds("import rvtrain")
        return 1000 * statistics.median(seconds("import rvtrain") - seconds("pass") for _ in range(15))

    def track_first_call_cold(self):
        """From nothing to the gradients of a small batch, compilation included."""
        with tempfile.TemporaryDirectory() as empty:
            return seconds(FIRST_CALL, RVTRAIN_CACHE_DIR=empty)

    def track_first_call_cached(self):
        """The same, with the kernels on disk."""
        seconds(FIRST_CALL)
        return statistics.median(seconds(FIRST_CALL) for _ in range(3))

    track_import.unit = "ms"
    track_first_call_cold.unit = "s"
    track_first_call_cached.unit = "s"
