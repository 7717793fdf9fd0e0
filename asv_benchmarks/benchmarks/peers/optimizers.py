"""Optimizer steps, beside torch's fused ones and the memory they have to move."""

import numpy as np

import rvtrain as rt
from rvtrain._kernels import kernel

from .. import optimizer_table
from ..optimizer_table import FORMATS, OPTIMIZERS, make
from .common import Benchmark, beside, median_seconds, ratio, relative_time

LARGE = 20_000_000


class Stepping(Benchmark):
    """One step of 20 million float32 parameters. "unchecked", as torch does it, has no pass that looks for NaN."""

    version = "3"
    param_names = ("optimizer", "format")

    def prepare(self, name, format_):
        if not optimizer_table.exists(name, format_):
            raise NotImplementedError("no such format")
        shape = optimizer_table.shape(name, LARGE)
        self.p, self.g = (np.resize(x, shape) for x in self.rng().standard_normal((2, 1 << 20), dtype=np.float32))
        self.optimizer = make(name, self.p, format_)
        self.step()

    def step(self):
        self.optimizer.step(self.p, self.g)


class Steps(Stepping):
    """A step, and the memory that it moves."""

    params = (list(OPTIMIZERS), list(FORMATS))

    @ratio("seconds per gigabyte")
    def track_seconds_per_gigabyte(self, name, format_):
        """The inverse of GB/s, because asv takes a larger figure as a worse one."""
        return median_seconds(self.step)[0] / optimizer_table.moved(name, "float32", format_, LARGE) * 1e9

    @ratio("of a copy's time")
    def track_time_over_a_copy(self, name, format_):
        """Beside a copy that moves as many bytes."""
        source = np.zeros(optimizer_table.moved(name, "float32", format_, LARGE) // 2, np.uint8)
        target = np.empty_like(source)
        return relative_time(self.step, lambda: copy(len(source), source, target))

    @ratio("bytes per parameter")
    def track_state_bytes_per_parameter(self, name, format_):
        saved = self.optimizer.state_dict()
        return (
            sum(value.nbytes for key, value in saved.items() if key.startswith("state/") and np.ndim(value)) / LARGE
        )


class StepsBesideTorch(Stepping):
    """A step of the optimizers that torch has too."""

    params = ([name for name, entry in OPTIMIZERS.items() if entry.torch], list(FORMATS))

    @beside("torch", "of torch's time")
    def track_time_over_torch_fused(self, name, format_):
        import torch

        entry = OPTIMIZERS[name]
        parameter = torch.nn.Parameter(torch.tensor(self.p))
        parameter.grad = torch.tensor(self.g)
        peer = getattr(torch.optim, entry.torch)([parameter], lr=1e-3, fused=True, **entry.options)
        return relative_time(self.step, peer.step)


class StepsIn8Bits(Benchmark):
    """One step of two million parameters with state in 8 bits."""

    params = ([name for name, entry in OPTIMIZERS.items() if entry.bitsandbytes],)
    param_names = ("optimizer",)

    def prepare(self, name):
        self.p, self.g = self.rng().standard_normal((2, LARGE // 10), dtype=np.float32)
        self.optimizer = make(name, self.p, "int8")
        self.step()

    def step(self):
        self.optimizer.step(self.p, self.g)

    @beside("bitsandbytes", "of bitsandbytes' time")
    def track_time_over_bitsandbytes(self, name):
        import bitsandbytes
        import torch

        entry = OPTIMIZERS[name]
        parameter = torch.nn.Parameter(torch.tensor(self.p))
        parameter.grad = torch.tensor(self.g)
        peer = getattr(bitsandbytes.optim, entry.bitsandbytes)([parameter], lr=1e-3, **entry.options)
        return relative_time(self.step, peer.step)


@kernel
def copy(start, stop, source, target):
    """target ← source, by all threads; both (n,)."""
    source, target = source[start:stop], target[start:stop]
    for i in range(len(source)):
        target[i] = source[i]


class ClipStepZero(Benchmark):
    """Clip, step and zero of 20 million parameters: one call, beside torch's three."""

    def prepare(self):
        self.p, self.g = self.rng().standard_normal((2, LARGE), dtype=np.float32)
        self.optimizer = rt.AdamW(LARGE)
        self.step()

    def step(self):
        self.optimizer.step(self.p, self.g, max_norm=1.0, zero_grads=True)

    @beside("torch", "of torch's time")
    def track_time_over_torch(self):
        import torch

        parameter = torch.nn.Parameter(torch.tensor(self.p))
        parameter.grad = torch.tensor(self.g)
        peer = torch.optim.AdamW([parameter], fused=True)

        def three():
            torch.nn.utils.clip_grad_norm_([parameter], 1.0)
            peer.step()
            peer.zero_grad(set_to_none=False)

        return relative_time(self.step, three)


class Rows(Benchmark):
    """8,192 random rows of a table of 500,000 × 128, others each time."""

    params = (["idle", "exact"],)
    param_names = ("lazy",)

    def prepare(self, lazy):
        rng = self.rng()
        self.table = np.zeros((500_000, 128), np.float32)
        self.rows = [rng.integers(0, len(self.table), 8192) for _ in range(64)]
        self.turn = 0
        self.g = rng.normal(size=(8192, 128)).astype(np.float32)
        self.optimizer = rt.Adam(self.table, lazy=lazy)
        for _ in self.rows:
            self.step()

    def step(self):
        self.turn = (self.turn + 1) % len(self.rows)
        self.optimizer.step(self.table, self.g, rows=self.rows[self.turn])

    @beside("torch", "of torch's time")
    def track_time_over_torch_sparse_adam(self, lazy):
        import torch

        parameter = torch.nn.Parameter(torch.tensor(self.table))
        places, values = [torch.tensor(rows)[None] for rows in self.rows], torch.tensor(self.g)
        peer = torch.optim.SparseAdam([parameter])

        def step():
            parameter.grad = torch.sparse_coo_tensor(
                places[self.turn], values, self.table.shape, check_invariants=False
            )
            peer.step()

        return relative_time(lambda: self.step(), step)
