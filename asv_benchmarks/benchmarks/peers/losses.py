"""InfoNCE, beside torch and the matrix products that it contains."""

import shutil

import numpy as np

import rvtrain as rt

from .common import Benchmark, beside, ratio, relative_time

TAU = 0.07
BOTH = ("anchors", "positives")


def torch_infonce(anchors, positives, compiled=False, bfloat16=False):
    """Normalise, multiply, cross-entropy, backward, as one writes it in torch; products in bfloat16 by autocast."""
    import torch

    leaves = [torch.tensor(x, requires_grad=True) for x in (anchors, positives)]
    labels = torch.arange(len(anchors))

    def loss(anchors, positives):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            a, p = (torch.nn.functional.normalize(x, dim=1) for x in (anchors, positives))
            return torch.nn.functional.cross_entropy(a @ p.T / TAU, labels)

    loss = torch.compile(loss) if compiled else loss

    def call():
        for leaf in leaves:
            leaf.grad = None
        loss(*leaves).backward()

    return call


class InBatch(Benchmark):
    """Loss and both gradients of a batch against itself."""

    params = ([(1024, 128), (4096, 128), (8192, 128), (4096, 384)],)
    param_names = ("shape",)

    def prepare(self, shape):
        self.anchors, self.positives = self.rng().normal(size=(2, *shape)).astype(np.float32)
        self.loss, self.symmetric = rt.InfoNCELoss(TAU), rt.InfoNCELoss(TAU, symmetric=True)
        self.scores = np.empty((shape[0], shape[0]), np.float32)
        self.gradients()

    def gradients(self):
        self.loss.compute_with_gradients(self.anchors, self.positives, wrt=BOTH)

    def product(self):
        np.matmul(self.anchors, self.positives.T, out=self.scores)

    def products(self):
        self.product()
        self.scores @ self.positives
        self.scores.T @ self.anchors

    @ratio("of three sgemms' time")
    def track_time_over_three_sgemms(self, shape):
        return relative_time(self.gradients, self.products)

    @beside("torch", "of torch's time")
    def track_time_over_torch(self, shape):
        return relative_time(self.gradients, torch_infonce(self.anchors, self.positives))

    @ratio("of one sgemm's time")
    def track_value_over_one_sgemm(self, shape):
        return relative_time(lambda: self.loss.compute(self.anchors, self.positives), self.product)

    @ratio("of the one-sided loss's time")
    def track_symmetric_over_one_sided(self, shape):
        return relative_time(
            lambda: self.symmetric.compute_with_gradients(self.anchors, self.positives, wrt=BOTH), self.gradients
        )


class Medium(Benchmark):
    """Products of bfloat16, beside those of float32 and beside torch's."""

    params = ([(4096, 128), (4096, 384)],)
    param_names = ("shape",)
    precision = "medium"

    def prepare(self, shape):
        if rt.InfoNCELoss(precision=self.precision).precision_used != self.precision:
            raise NotImplementedError("the processor has no instructions for it")
        self.anchors, self.positives = self.rng().normal(size=(2, *shape)).astype(np.float32)

    def gradients(self, precision):
        loss = rt.InfoNCELoss(TAU, precision=precision)
        return lambda: loss.compute_with_gradients(self.anchors, self.positives, wrt=BOTH)

    @ratio("of float32's time")
    def track_time_over_highest(self, shape):
        return relative_time(self.gradients(self.precision), self.gradients("highest"))

    @beside("torch", "of torch.compile's time")
    def track_time_over_torch_compile(self, shape):
        if shutil.which("g++") is None:
            raise NotImplementedError("torch.compile needs g++")
        peer = torch_infonce(self.anchors, self.positives, compiled=True, bfloat16=self.precision == "medium")
        return relative_time(self.gradients(self.precision), peer)


class High(Medium):
    """Products of sums of two bfloat16 numbers, beside those of float32, ours and torch's."""

    precision = "high"


class BesideTorchCompile(Benchmark):
    """The same beside torch.compile, which needs a C++ compiler: skipped where there is none."""

    def prepare(self):
        if shutil.which("g++") is None:
            raise NotImplementedError("torch.compile needs g++")
        self.anchors, self.positives = self.rng().normal(size=(2, 4096, 128)).astype(np.float32)
        self.loss = rt.InfoNCELoss(TAU)

    @beside("torch", "of torch.compile's time")
    def track_time_over_torch_compile(self):
        return relative_time(
            lambda: self.loss.compute_with_gradients(self.anchors, self.positives, wrt=BOTH),
            torch_infonce(self.anchors, self.positives, compiled=True),
        )
