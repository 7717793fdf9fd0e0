"""What a user waits for before anything is computed: the import, and the first call."""

import os
import statistics
import subprocess
import sys
import tempfile
import time

FIRST_CALL = (
    "import numpy as np, rvtrain as rt\n"
    "x = np.random.default_rng(0).normal(size=(2, 256, 64)).astype(np.float32)\n"
    "rt.InfoNCELoss().compute_with_gradients(*x, wrt=('anchors', 'positives'))\n"
)


def seconds(code, environment=None):
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return time.perf_counter() - begin


class Import:
    """``import rvtrain`` is lazy."""

    timeout = 300

    def track_import_ms(self):
        rounds = [(seconds("import rvtrain"), seconds("pass")) for _ in range(9)]
        ours, bare = (statistics.median(column) for column in zip(*rounds, strict=True))
        return 1000 * (ours - bare)

    track_import_ms.unit = "ms over bare Python"


class FirstCall:
    """From ``python`` to the result of the first InfoNCE: compiling, and from the cache."""

    timeout = 300

    def track_cold_seconds(self):
        with tempfile.TemporaryDirectory() as folder:
            return seconds(FIRST_CALL, {**os.environ, "RVTRAIN_CACHE_DIR": folder})

    track_cold_seconds.unit = "s"

    def track_warm_seconds(self):
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "RVTRAIN_CACHE_DIR": folder}
            seconds(FIRST_CALL, environment)
            return statistics.median(seconds(FIRST_CALL, environment) for _ in range(3))

    track_warm_seconds.unit = "s"
