"""Optimizer steps, beside torch's fused ones and the memory they have to move."""

import numpy as np

import rvtrain as rt

from .common import Benchmark, median_seconds, speedup

LARGE = 20_000_000


class Steps(Benchmark):
    """One step of 20 million parameters."""

    params = (["AdamW", "SGD"],)
    param_names = ("optimizer",)

    def setup(self, kind):
        self.p, self.g = self.rng().standard_normal((2, LARGE), dtype=np.float32)
        self.options = {"momentum": 0.9} if kind == "SGD" else {}
        self.optimizer = getattr(rt, kind)(LARGE, lr=1e-3, **self.options)
        self.time_step(kind)

    def time_step(self, kind):
        self.optimizer.step(self.p, self.g)

    def track_gigabytes_per_second(self, kind):
        arrays = {"AdamW": 7, "SGD": 5}[kind]  # read p, g and the state; write p and the state
        return 4e-9 * LARGE * arrays / median_seconds(lambda: self.time_step(kind))[0]

    track_gigabytes_per_second.unit = "GB/s"

    def track_speedup_over_torch_fused(self, kind):
        import torch

        torch.set_num_threads(2)
        parameter = torch.nn.Parameter(torch.tensor(self.p))
        parameter.grad = torch.tensor(self.g)
        peer = getattr(torch.optim, kind)([parameter], lr=1e-3, fused=True, **self.options)
        return speedup(lambda: self.time_step(kind), peer.step)

    track_speedup_over_torch_fused.unit = "x"


class ClipStepZero(Benchmark):
    """Clip, step and zero of 20 million parameters: one call, beside torch's three."""

    def setup(self):
        self.p, self.g = self.rng().standard_normal((2, LARGE), dtype=np.float32)
        self.optimizer = rt.AdamW(LARGE)
        self.step()

    def step(self):
        self.optimizer.step(self.p, self.g, max_norm=1.0, zero_grads=True)

    def track_speedup_over_torch(self):
        import torch

        torch.set_num_threads(2)
        parameter = torch.nn.Parameter(torch.tensor(self.p))
        parameter.grad = torch.tensor(self.g)
        peer = torch.optim.AdamW([parameter], fused=True)

        def three():
            torch.nn.utils.clip_grad_norm_([parameter], 1.0)
            peer.step()
            peer.zero_grad(set_to_none=False)

        return speedup(self.step, three)

    track_speedup_over_torch.unit = "x"


class Rows(Benchmark):
    """8,192 random rows of a table of 500,000 × 128."""

    params = (["idle", "exact"],)
    param_names = ("lazy",)

    def setup(self, lazy):
        rng = self.rng()
        self.table = np.zeros((500_000, 128), np.float32)
        self.rows = rng.integers(0, len(self.table), 8192)
        self.g = rng.normal(size=(8192, 128)).astype(np.float32)
        self.optimizer = rt.Adam(self.table, lazy=lazy)
        self.time_step(lazy)

    def time_step(self, lazy):
        self.optimizer.step(self.table, self.g, rows=self.rows)

    def track_speedup_over_torch_sparse_adam(self, lazy):
        import torch

        torch.set_num_threads(2)
        parameter = torch.nn.Parameter(torch.tensor(self.table))
        places = torch.tensor(self.rows)[None]
        parameter.grad = torch.sparse_coo_tensor(
            places, torch.tensor(self.g), self.table.shape, check_invariants=False
        )
        peer = torch.optim.SparseAdam([parameter])
        return speedup(lambda: self.time_step(lazy), peer.step)

    track_speedup_over_torch_sparse_adam.unit = "x"


class Small(Benchmark):
    """What a call costs when there is next to nothing to do."""

    def setup(self):
        self.p, self.g = np.ones((2, 512), np.float32)
        self.optimizer = rt.AdamW(512)
        self.time_512_parameters()
        self.time_clip_512_gradients()

    def time_512_parameters(self):
        self.optimizer.step(self.p, self.g)

    def time_clip_512_gradients(self):
        rt.clip_grad_norm(self.g, 1e9)
