"""Optimizer steps, beside torch's fused ones and the memory they have to move."""

import numpy as np

import rvtrain as rt
from rvtrain._kernels import kernel

from .common import Benchmark, beside, ratio, relative_time

LARGE = 20_000_000


class Steps(Benchmark):
    """One step of 20 million parameters; unchecked, as torch's is: without the pass that looks for NaN."""

    params = (["AdamW", "SGD"], ["float32", "bfloat16", "int8", "float32 unchecked"])
    param_names = ("optimizer", "state")

    def prepare(self, kind, state):
        self.p, self.g = self.rng().standard_normal((2, LARGE), dtype=np.float32)
        self.options = {"momentum": 0.9} if kind == "SGD" else {}
        state_dtype, _, unchecked = state.partition(" ")
        checked = {"nonfinite": "ignore" if unchecked else "raise", "state_dtype": state_dtype}
        self.optimizer = getattr(rt, kind)(LARGE, lr=1e-3, **self.options, **checked)
        self.step()

    def step(self):
        self.optimizer.step(self.p, self.g)

    def moved(self, kind, state):
        """Bytes of a step: g is read, p and the state are read and written."""
        each = {"float32": 4, "bfloat16": 2, "int8": 1}[state.partition(" ")[0]]
        return LARGE * (12 + 2 * each * {"AdamW": 2, "SGD": 1}[kind])

    @ratio("of a copy's time")
    def track_time_over_a_copy(self, kind, state):
        """Beside a copy that moves as many bytes."""
        source = np.zeros(self.moved(kind, state) // 2, np.uint8)
        target = np.empty_like(source)
        return relative_time(lambda: self.step(), lambda: copy(len(source), source, target))

    @beside("torch", "of torch's time")
    def track_time_over_torch_fused(self, kind, state):
        import torch

        parameter = torch.nn.Parameter(torch.tensor(self.p))
        parameter.grad = torch.tensor(self.g)
        peer = getattr(torch.optim, kind)([parameter], lr=1e-3, fused=True, **self.options)
        return relative_time(lambda: self.step(), peer.step)

    @ratio("bytes per parameter")
    def track_state_bytes_per_parameter(self, kind, state):
        saved = self.optimizer.state_dict()
        return (
            sum(value.nbytes for key, value in saved.items() if key.startswith("state/") and np.ndim(value)) / LARGE
        )


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
