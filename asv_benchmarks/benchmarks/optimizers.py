"""Optimizer steps, beside torch's fused ones and the memory they have to move."""

import numpy as np

import rvtrain as rt
from rvtrain._kernels import kernel

from .common import Benchmark, median_seconds, relative_time

LARGE = 20_000_000


class Steps(Benchmark):
    """One step of 20 million parameters."""

    params = (["AdamW", "SGD"], ["float32", "bfloat16", "int8"])
    param_names = ("optimizer", "state")

    def setup(self, kind, state):
        self.p, self.g = self.rng().standard_normal((2, LARGE), dtype=np.float32)
        self.options = {"momentum": 0.9} if kind == "SGD" else {}
        self.optimizer = getattr(rt, kind)(LARGE, lr=1e-3, **self.options, state_dtype=state)
        self.time_step(kind, state)

    def time_step(self, kind, state):
        self.optimizer.step(self.p, self.g)

    def moved(self, kind, state):
        """Bytes of a step: g is read, p and the state are read and written."""
        each = {"float32": 4, "bfloat16": 2, "int8": 1}[state]
        return LARGE * (12 + 2 * each * {"AdamW": 2, "SGD": 1}[kind])

    def track_ms_per_gigabyte(self, kind, state):
        return 1e3 * median_seconds(lambda: self.time_step(kind, state))[0] / (1e-9 * self.moved(kind, state))

    track_ms_per_gigabyte.unit = "ms per GB"

    def track_time_over_a_copy(self, kind, state):
        """Beside a copy that moves as many bytes."""
        source = np.zeros(self.moved(kind, state) // 2, np.uint8)
        target = np.empty_like(source)
        return relative_time(lambda: self.time_step(kind, state), lambda: copy(len(source), source, target))

    track_time_over_a_copy.unit = "of a copy's time"

    def track_time_over_torch_fused(self, kind, state):
        import torch

        torch.set_num_threads(2)
        parameter = torch.nn.Parameter(torch.tensor(self.p))
        parameter.grad = torch.tensor(self.g)
        peer = getattr(torch.optim, kind)([parameter], lr=1e-3, fused=True, **self.options)
        return relative_time(lambda: self.time_step(kind, state), peer.step)

    track_time_over_torch_fused.unit = "of torch's time"

    def track_state_bytes_per_parameter(self, kind, state):
        saved = self.optimizer.state_dict()
        return (
            sum(value.nbytes for key, value in saved.items() if key.startswith("state/") and np.ndim(value)) / LARGE
        )

    track_state_bytes_per_parameter.unit = "bytes per parameter"


@kernel
def copy(start, stop, source, target):
    """target ← source, by all threads; both (n,)."""
    source, target = source[start:stop], target[start:stop]
    for i in range(len(source)):
        target[i] = source[i]


class ClipStepZero(Benchmark):
    """Clip, step and zero of 20 million parameters: one call, beside torch's three."""

    def setup(self):
        self.p, self.g = self.rng().standard_normal((2, LARGE), dtype=np.float32)
        self.optimizer = rt.AdamW(LARGE)
        self.step()

    def step(self):
        self.optimizer.step(self.p, self.g, max_norm=1.0, zero_grads=True)

    def track_time_over_torch(self):
        import torch

        torch.set_num_threads(2)
        parameter = torch.nn.Parameter(torch.tensor(self.p))
        parameter.grad = torch.tensor(self.g)
        peer = torch.optim.AdamW([parameter], fused=True)

        def three():
            torch.nn.utils.clip_grad_norm_([parameter], 1.0)
            peer.step()
            peer.zero_grad(set_to_none=False)

        return relative_time(self.step, three)

    track_time_over_torch.unit = "of torch's time"


class Rows(Benchmark):
    """8,192 random rows of a table of 500,000 × 128, others each time."""

    params = (["idle", "exact"],)
    param_names = ("lazy",)

    def setup(self, lazy):
        rng = self.rng()
        self.table = np.zeros((500_000, 128), np.float32)
        self.rows = [rng.integers(0, len(self.table), 8192) for _ in range(64)]
        self.turn = 0
        self.g = rng.normal(size=(8192, 128)).astype(np.float32)
        self.optimizer = rt.Adam(self.table, lazy=lazy)
        for _ in self.rows:
            self.time_step(lazy)

    def time_step(self, lazy):
        self.turn = (self.turn + 1) % len(self.rows)
        self.optimizer.step(self.table, self.g, rows=self.rows[self.turn])

    def track_time_over_torch_sparse_adam(self, lazy):
        import torch

        torch.set_num_threads(2)
        parameter = torch.nn.Parameter(torch.tensor(self.table))
        places, values = [torch.tensor(rows)[None] for rows in self.rows], torch.tensor(self.g)
        peer = torch.optim.SparseAdam([parameter])

        def step():
            parameter.grad = torch.sparse_coo_tensor(
                places[self.turn], values, self.table.shape, check_invariants=False
            )
            peer.step()

        return relative_time(lambda: self.time_step(lazy), step)

    track_time_over_torch_sparse_adam.unit = "of torch's time"


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
