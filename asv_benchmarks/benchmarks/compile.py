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
    """From ``python`` to the result of the first InfoNCE, on an empty cache."""

    timeout = 300

    def track_cold_seconds(self):
        with tempfile.TemporaryDirectory() as folder:
            return seconds(FIRST_CALL, {**os.environ, "RVTRAIN_CACHE_DIR": folder})

    track_cold_seconds.unit = "s"


class SecondProcess:
    """The same with the kernels in the cache.

    numba loads the BLAS of scipy where scipy is installed, which our kernels do not need: with it, and without.
    """

    timeout = 300
    params = (["scipy", "no scipy"],)
    param_names = ("installed",)

    def setup(self, installed):
        hidden = "import sys; sys.modules['scipy'] = None\n" if installed == "no scipy" else ""
        self.code = hidden + FIRST_CALL
        seconds(self.code)

    def track_seconds(self, installed):
        return statistics.median(seconds(self.code) for _ in range(5))

    track_seconds.unit = "s"


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

    track_over_the_sum_of_both.unit = "of the time of both alone"
