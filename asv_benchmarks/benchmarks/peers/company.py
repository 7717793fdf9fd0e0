"""What a kernel and a product of NumPy cost one another."""

import statistics
import time

import numpy as np

import rvtrain as rt

from ..common import ONCE
from .common import Benchmark, ratio


class BesideBlas(Benchmark):
    """A product of NumPy and a kernel in turns, over the sum of both alone: does either leave threads spinning?"""

    turns = 20 if ONCE else 1000

    def prepare(self):
        self.a = self.rng().normal(size=(256, 256)).astype(np.float32)
        self.g = np.ones(500_000, np.float32)
        self.kernel()

    def kernel(self):
        rt.clip_grad_norm(self.g, 1e9)

    def product(self):
        self.a @ self.a

    @ratio("of the time of both alone")
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
