"""The contrastive losses beside torch eager, from the same arrays to the same gradients."""

import tracemalloc

import numpy as np

import rvtrain as rt

from .common import Benchmark, median_seconds, speedup


class Losses(Benchmark):
    """A loss of ours and one of torch's on the same data; subclasses say which, in `setup`."""

    wrt: tuple[str, ...] = ("anchors", "positives")

    def vectors(self, *shape):
        return self.rng().normal(size=shape).astype(np.float32)

    def gradients(self):
        return self.loss.compute_with_gradients(*self.arrays, wrt=self.wrt, **self.options)

    def speedup_over_torch(self, formula):
        """`formula` gives torch's loss from tensors of the arrays; its gradients are the ones we compute."""
        import torch

        tensors = dict(zip(("anchors", "positives", "negatives"), map(torch.from_numpy, self.arrays), strict=False))
        wanted = [tensors[name].requires_grad_() for name in self.wrt]
        return speedup(self.gradients, lambda: torch.autograd.grad(formula(*tensors.values()), wanted))


class InBatch(Losses):
    """InfoNCE over the other rows' positives, one-sided and symmetric."""

    params = (["1024x128", "4096x128", "1024x768"], [False, True])
    param_names = ("shape", "symmetric")

    def setup(self, shape, symmetric):
        self.arrays = self.vectors(2, *map(int, shape.split("x")))
        self.loss, self.options = rt.InfoNCELoss(0.07, symmetric=symmetric), {}
        self.time_compute()
        self.time_gradients()

    def time_compute(self, *_):
        self.loss.compute(*self.arrays)

    def time_gradients(self, *_):
        self.gradients()

    def track_speedup_over_torch(self, shape, symmetric):
        import torch
        from torch.nn import functional

        labels = torch.arange(self.arrays.shape[1])

        def formula(anchors, positives):
            logits = functional.normalize(anchors) @ functional.normalize(positives).T / 0.07
            loss = functional.cross_entropy(logits, labels)
            return (loss + functional.cross_entropy(logits.T, labels)) / 2 if symmetric else loss

        return self.speedup_over_torch(formula)

    def track_time_of_three_products(self, *_):
        """Our time over that of the three BLAS products that the loss contains; below 1, it is free beside them."""
        a, p = self.arrays
        scores = a @ p.T

        def products():
            np.matmul(a, p.T, out=scores)
            return scores @ p, scores.T @ a

        ours, bare = median_seconds(self.gradients, products)
        return ours / bare

    def track_memory_of_score_matrices(self, *_):
        """Peak of what a call allocates, in units of the (n, n) matrix that it never makes."""
        rt.release_workspaces()
        tracemalloc.start()
        self.gradients()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak / (4 * self.arrays.shape[1] ** 2)

    track_speedup_over_torch.unit = "x"
    track_time_of_three_products.unit = "x"
    track_memory_of_score_matrices.unit = "matrices"


class Negatives(Losses):
    """Negatives of a shared pool, of each row's own, and of rows of a pool by index, in either loss."""

    params = (["InfoNCE", "pairwise", "triplet"], ["pool", "own", "gathered"])
    param_names = ("loss", "negatives")
    wrt = ("anchors", "positives", "negatives")

    def setup(self, loss, negatives):
        batch, dim = 512, 128
        shape = {"pool": (2048, dim), "own": (batch, 32, dim), "gathered": (20_000, dim)}[negatives]
        self.arrays = *self.vectors(2, batch, dim), self.vectors(*shape)
        if loss == "InfoNCE":
            self.loss = rt.InfoNCELoss(0.07)
        else:  # distances of these vectors lie about 16: a margin that is at work
            self.loss = rt.LocalContrastiveLoss(16.0, form=loss)
        self.options = {}
        if negatives == "gathered":
            self.options["negative_indices"] = self.rng().integers(0, len(self.arrays[2]), size=(batch, 32))
        self.time_gradients()

    def time_gradients(self, *_):
        self.gradients()

    def track_speedup_over_torch(self, loss, negatives):
        import torch
        from torch.nn import functional

        labels = torch.zeros(len(self.arrays[0]), dtype=torch.long)

        def infonce(a, p, n):
            a, p, n = (functional.normalize(x, dim=-1) for x in (a, p, n))
            scores = a @ n.T if n.ndim == 2 else torch.einsum("bd,bnd->bn", a, n)
            own = (a * p).sum(dim=1, keepdim=True)
            return functional.cross_entropy(torch.cat([own, scores], dim=1) / 0.07, labels)

        def local(a, p, n):
            near = torch.linalg.vector_norm(a - p, dim=1)
            far = torch.cdist(a, n) if n.ndim == 2 else torch.linalg.vector_norm(a[:, None] - n, dim=2)
            if loss == "triplet":
                return functional.relu(near[:, None] - far + 16.0).mean()
            return (near**2 + (functional.relu(16.0 - far) ** 2).mean(dim=1)).mean()

        formula = infonce if loss == "InfoNCE" else local
        if negatives != "gathered":
            return self.speedup_over_torch(formula)
        indices = torch.from_numpy(self.options["negative_indices"])
        return self.speedup_over_torch(lambda a, p, n: formula(a, p, n[indices]))

    track_speedup_over_torch.unit = "x"
