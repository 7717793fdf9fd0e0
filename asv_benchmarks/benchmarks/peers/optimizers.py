"""Optimizer steps, beside torch's fused ones and the memory they have to move."""

import numpy as np

import rvtrain as rt
from rvtrain._kernels import kernel

from .. import optimizer_table
from ..optimizer_table import OPTIMIZERS, make
from .common import Benchmark, beside, ratio, relative_time

LARGE = 20_000_000


CASES = [f"{name}, {format_}" for name, dtype, format_ in optimizer_table.cases() if dtype == "float32"]
"""One parameter, because asv makes a process for each combination of two, also of those that do not exist."""


class Stepping(Benchmark):
    """One step of 20 million float32 parameters. "unchecked", as torch does it, has no pass that looks for NaN."""

    version = "4"
    param_names = ("step",)

    def prepare(self, case):
        self.name, self.format = case.split(", ")
        shape = optimizer_table.shape(self.name, LARGE)
        self.p, self.g = (np.resize(x, shape) for x in self.rng().standard_normal((2, 1 << 20), dtype=np.float32))
        self.optimizer = make(self.name, self.p, self.format)
        self.step()

    def step(self):
        self.optimizer.step(self.p, self.g)


class Steps(Stepping):
    """A step beside a copy that moves as many bytes."""

    params = (CASES,)

    @ratio("of a copy's time")
    def track_time_over_a_copy(self, case):
        source = np.zeros(optimizer_table.moved(self.name, "float32", self.format, LARGE) // 2, np.uint8)
        target = np.empty_like(source)
        return relative_time(self.step, lambda: copy(len(source), source, target))


class StepsBesideTorch(Stepping):
    """A step of the optimizers that torch has too."""

    params = ([case for case in CASES if OPTIMIZERS[case.split(", ")[0]].torch],)

    @beside("torch", "of torch's time")
    def track_time_over_torch_fused(self, case):
        import torch

        entry = OPTIMIZERS[self.name]
        parameter = torch.nn.Parameter(torch.tensor(self.p))
        parameter.grad = torch.tensor(self.g)
        peer = getattr(torch.optim, entry.torch)([parameter], lr=1e-3, fused=True, **entry.options)
        return relative_time(self.step, peer.step)


class State(Benchmark):
    """The memory that an optimizer keeps for each parameter of a table."""

    params = (CASES,)
    param_names = ("optimizer",)

    def prepare(self, case):
        name, format_ = case.split(", ")
        self.count = LARGE // 100
        parameters = np.zeros(optimizer_table.shape(name, self.count), np.float32)
        self.optimizer = make(name, parameters, format_)
        self.optimizer.step(parameters, np.ones_like(parameters))

    @ratio("bytes per parameter")
    def track_state_bytes_per_parameter(self, case):
        saved = self.optimizer.state_dict()
        held = sum(value.nbytes for key, value in saved.items() if key.startswith("state/") and np.ndim(value))
        return held / self.count


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
