"""What a user waits for before anything is computed: the import, and the first call; and what company costs."""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import rvtrain as rt

from .common import Benchmark

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


class BesideBlas(Benchmark):
    """A product of NumPy and a kernel in turns, over the sum of both alone: does either leave threads spinning?"""

    turns = 1000

    def setup(self):
        self.a = self.rng().normal(size=(256, 256)).astype(np.float32)
        self.g = np.ones(500_000, np.float32)
        self.kernel()

    def kernel(self):
        rt.clip_grad_norm(self.g, 1e9)

    def product(self):
        self.a @ self.a

    def track_over_the_sum_of_both(self):
        def seconds(*calls):
            time.sleep(0.25)
            begin = time.perf_counter()
            for _ in range(self.turns):
                for call in calls:
                    call()
            return time.perf_counter() - begin

        rounds = [(seconds(self.product, self.kernel), seconds(self.product), seconds(self.kernel)) for _ in range(5)]
        both, product, kernel = (statistics.median(column) for column in zip(*rounds, strict=True))
        return both / (product + kernel)

    track_over_the_sum_of_both.unit = "x"
