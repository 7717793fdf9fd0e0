"""The named kernels, beside scipy, torch and BLAS; and the microkernel beside the machine."""

import numpy as np

import rvtrain as rt

from .common import Benchmark, beside, median_seconds, ratio, relative_time
from .peak import flops_of_a_round, repeat_fmas, repeat_tiles


class LogSumExp(Benchmark):
    """Rows of 8,192."""

    def prepare(self):
        self.x = (self.rng().normal(size=(4096, 8192)) * 5).astype(np.float32)
        rt.logsumexp(self.x)

    @beside("torch", "of torch's time")
    def track_time_over_torch(self):
        import torch

        tensor = torch.tensor(self.x)
        return relative_time(lambda: rt.logsumexp(self.x), lambda: torch.logsumexp(tensor, 1))

    @beside("scipy", "of scipy's time")
    def track_time_over_scipy(self):
        from scipy.special import logsumexp

        return relative_time(lambda: rt.logsumexp(self.x), lambda: logsumexp(self.x, axis=1))


class Cosine(Benchmark):
    """All cosines of 4,096 rows with 4,096 others."""

    def prepare(self):
        self.a, self.b = self.rng().normal(size=(2, 4096, 128)).astype(np.float32)
        rt.cosine_similarity(self.a, self.b)

    @ratio("of one sgemm's time")
    def track_time_over_one_sgemm(self):
        return relative_time(lambda: rt.cosine_similarity(self.a, self.b), lambda: self.a @ self.b.T)


class Microkernel(Benchmark):
    """The register tile on packed panels, beside independent FMAs, which are all that the machine can do."""

    def prepare(self):
        from rvtrain._engine._tile import tile_shape, vector_bytes

        rows, columns, _ = tile_shape(np.float32)
        rng, self.steps = self.rng(), 256
        self.left = rng.normal(size=(2, self.steps, rows)).astype(np.float32)
        self.right = rng.normal(size=(2, self.steps, columns)).astype(np.float32)
        self.out = np.empty((2, rows, columns), np.float32)
        self.flops = 2 * 2 * self.left[0].size * columns
        self.done = np.empty((2, vector_bytes() // 4), np.float32)
        repeat_tiles(2, self.left, self.right, 1, self.out)
        repeat_fmas(2, 1, self.done)

    @ratio("of the time at peak")
    def track_time_over_peak(self):
        tiles, fmas = 20_000, 4_000_000
        ours, peak = median_seconds(
            lambda: repeat_tiles(2, self.left, self.right, tiles, self.out), lambda: repeat_fmas(2, fmas, self.done)
        )
        return (ours / (tiles * self.flops)) / (peak / (fmas * flops_of_a_round() * 2))
