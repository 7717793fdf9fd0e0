"""InfoNCE and the local contrastive loss, beside torch and the matrix products they contain."""

import shutil
import tracemalloc

import numpy as np

import rvtrain as rt

from .common import Benchmark, median_seconds, relative_time

TAU = 0.07
BOTH = ("anchors", "positives")


def torch_infonce(anchors, positives, compiled=False):
    """Normalise, multiply, cross-entropy, backward, as one writes it in torch; two threads."""
    import torch

    torch.set_num_threads(2)
    leaves = [torch.tensor(x, requires_grad=True) for x in (anchors, positives)]
    labels = torch.arange(len(anchors))

    def loss(anchors, positives):
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

    params = ([(256, 128), (1024, 128), (4096, 128), (8192, 128), (4096, 384)],)
    param_names = ("shape",)

    def setup(self, shape):
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

    def time_gradients(self, shape):
        self.gradients()

    def track_ms_per_gflop(self, shape):
        count, dim = shape
        return 1e3 * median_seconds(self.gradients)[0] / (6e-9 * count * count * dim)

    track_ms_per_gflop.unit = "ms per GFLOP"

    def track_time_over_three_sgemms(self, shape):
        return relative_time(self.gradients, self.products)

    track_time_over_three_sgemms.unit = "of three sgemms' time"

    def track_time_over_torch(self, shape):
        return relative_time(self.gradients, torch_infonce(self.anchors, self.positives))

    track_time_over_torch.unit = "of torch's time"

    def track_value_over_one_sgemm(self, shape):
        return relative_time(lambda: self.loss.compute(self.anchors, self.positives), self.product)

    track_value_over_one_sgemm.unit = "of one sgemm's time"

    def track_symmetric_over_one_sided(self, shape):
        return relative_time(
            lambda: self.symmetric.compute_with_gradients(self.anchors, self.positives, wrt=BOTH), self.gradients
        )

    track_symmetric_over_one_sided.unit = "of the one-sided loss's time"


class BesideTorchCompile(Benchmark):
    """The same beside torch.compile, which needs a C++ compiler: skipped where there is none."""

    def setup(self):
        if shutil.which("g++") is None:
            raise NotImplementedError("torch.compile needs g++")
        self.anchors, self.positives = self.rng().normal(size=(2, 4096, 128)).astype(np.float32)
        self.loss = rt.InfoNCELoss(TAU)

    def track_time_over_torch_compile(self):
        return relative_time(
            lambda: self.loss.compute_with_gradients(self.anchors, self.positives, wrt=BOTH),
            torch_infonce(self.anchors, self.positives, compiled=True),
        )

    track_time_over_torch_compile.unit = "of torch.compile's time"


class Pools(Benchmark):
    """Negatives from elsewhere than the batch."""

    params = (["pool", "gathered"],)
    param_names = ("negatives",)

    def setup(self, kind):
        rng = self.rng()
        self.anchors, self.positives = rng.normal(size=(2, 512, 128)).astype(np.float32)
        self.pool = rng.normal(size=(20_000, 128)).astype(np.float32)
        self.extra = {"negative_indices": rng.integers(0, 20_000, (512, 16))} if kind == "gathered" else {}
        self.loss = rt.InfoNCELoss(TAU)
        self.time_gradients(kind)

    def time_gradients(self, kind):
        wrt = (*BOTH, "negatives")
        self.loss.compute_with_gradients(self.anchors, self.positives, self.pool, wrt=wrt, **self.extra)


class Memory(Benchmark):
    """What a call needs above its inputs, its outputs included; the square of the scores would be 1 and 16 GiB."""

    params = ([16_384, 65_536],)
    param_names = ("batch",)

    def setup(self, batch):
        self.anchors, self.positives = self.rng().normal(size=(2, batch, 128)).astype(np.float32)

    def track_extra_mib(self, batch):
        rt.release_workspaces()
        tracemalloc.start()
        rt.InfoNCELoss(TAU).compute_with_gradients(self.anchors, self.positives, wrt=BOTH)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / 2**20

    track_extra_mib.unit = "MiB"


class Local(Benchmark):
    """The local contrastive loss of a batch against itself."""

    params = (["pairwise", "triplet"],)
    param_names = ("form",)

    def setup(self, form):
        self.anchors, self.positives = self.rng().normal(size=(2, 512, 128)).astype(np.float32)
        self.loss = rt.LocalContrastiveLoss(10.0, form=form)
        self.time_gradients(form)

    def time_gradients(self, form):
        self.loss.compute_with_gradients(self.anchors, self.positives, wrt=BOTH)
