"""Losses against a teacher's scores, on graded pairs, on one set of embeddings and on prefixes, beside torch."""

import numpy as np

import rvtrain as rt

from .common import Benchmark, beside, ratio, relative_time

ALL = ("anchors", "positives", "negatives")


def backward(loss, *arrays):
    """A call of `loss` on torch tensors, and of its backward pass."""
    import torch

    leaves = [torch.tensor(x, requires_grad=True) for x in arrays]

    def call():
        for leaf in leaves:
            leaf.grad = None
        loss(*leaves).backward()

    return call


class Teachers(Benchmark):
    """Loss and all three gradients of lists of a positive and 8 negatives, or of a pool that all anchors share."""

    params = (["margin", "divergence", "listnet"], ["own", "gathered", "pool"])
    param_names = ("loss", "negatives")

    def prepare(self, loss, negatives):
        rng = self.rng()
        makers = {"margin": rt.MarginMSELoss, "divergence": rt.DistillKLLoss, "listnet": rt.ListNetLoss}
        self.loss = makers[loss]()
        self.anchors, self.positives = rng.normal(size=(2, 4096, 128)).astype(np.float32)
        self.indices = rng.integers(0, 20_000, (4096, 8)) if negatives == "gathered" else None
        shape = {"own": (4096, 8, 128), "gathered": (20_000, 128), "pool": (4096, 128)}[negatives]
        self.negatives = rng.normal(size=shape).astype(np.float32)
        self.teacher = rng.normal(size=(4096, 4097 if negatives == "pool" else 9)).astype(np.float32)
        self.gradients()

    def gradients(self):
        self.loss.compute_with_gradients(
            self.anchors, self.positives, self.negatives, self.teacher, wrt=ALL, negative_indices=self.indices
        )

    def torch(self, kind):
        import torch
        from torch.nn import functional

        teacher = torch.tensor(self.teacher)
        indices = None if self.indices is None else torch.tensor(self.indices)

        def loss(a, p, n):
            n = n if indices is None else n[indices]
            a, p, n = (functional.normalize(x, dim=-1) for x in (a, p, n))
            others = a @ n.T if n.ndim == 2 else torch.einsum("bd,bkd->bk", a, n)
            c = torch.cat([(a * p).sum(1, keepdim=True), others], 1)
            if kind == "margin":
                return functional.mse_loss(c[:, :1] - c[:, 1:], teacher[:, :1] - teacher[:, 1:])
            if kind == "divergence":
                return functional.kl_div(c.log_softmax(1), teacher.softmax(1), reduction="batchmean")
            return functional.cross_entropy(c, teacher.softmax(1))

        return backward(loss, self.anchors, self.positives, self.negatives)

    @beside("torch", "of torch's time")
    def track_time_over_torch(self, loss, negatives):
        return relative_time(self.gradients, self.torch(loss))


class Graded(Benchmark):
    """Loss and both gradients of 10,000 graded pairs; torch compares all pairs of pairs for CoSENT."""

    params = (["cosent", "cosine"],)
    param_names = ("loss",)

    def prepare(self, loss):
        self.loss = rt.CoSENTLoss() if loss == "cosent" else rt.CosineSimilarityLoss()
        self.a, self.b = self.rng().normal(size=(2, 10_000, 128)).astype(np.float32)
        self.scores = self.rng().random(10_000).astype(np.float32)
        self.gradients()

    def gradients(self):
        self.loss.compute_with_gradients(self.a, self.b, self.scores, wrt=("a", "b"))

    def torch(self, kind):
        import torch

        y = torch.tensor(self.scores)

        def loss(a, b):
            c = torch.cosine_similarity(a, b)
            if kind == "cosine":
                return torch.nn.functional.mse_loss(c, y)
            terms = 20.0 * (c[:, None] - c[None, :]) - (y[:, None] >= y[None, :]).float() * 1e12
            return torch.logsumexp(torch.cat([torch.zeros(1), terms.view(-1)]), 0)

        return backward(loss, self.a, self.b)

    @beside("torch", "of torch's time")
    def track_time_over_torch(self, loss):
        return relative_time(self.gradients, self.torch(loss))


class Spread(Benchmark):
    """Penalty and gradient of embeddings in a cone, whose cosines torch writes out."""

    params = ([(4096, 384), (256, 768)],)
    param_names = ("shape",)

    def prepare(self, shape):
        self.z = (self.rng().normal(size=shape) + 0.5).astype(np.float32)
        self.loss = rt.SpreadRegularization()
        self.gradients()

    def gradients(self):
        self.loss.compute_with_gradients(self.z)

    def torch(self):
        import torch

        def loss(z):
            unit = torch.nn.functional.normalize(z, dim=1)
            cosines = unit @ unit.T
            squares = cosines.square().sum() - cosines.diagonal().square().sum()
            return torch.relu(squares / (len(z) * (len(z) - 1)) - 1.0 / z.shape[1])

        return backward(loss, self.z)

    @beside("torch", "of torch's time")
    def track_time_over_torch(self, shape):
        return relative_time(self.gradients, self.torch())


class Matryoshka(Benchmark):
    """InfoNCE of a batch against itself on four prefixes, beside the same on whole embeddings, and torch."""

    dims = (384, 256, 128, 64)

    def prepare(self):
        self.arrays = self.rng().normal(size=(2, 4096, 384)).astype(np.float32)
        self.inner = rt.InfoNCELoss(0.07)
        self.loss = rt.MatryoshkaLoss(self.inner, self.dims)
        self.gradients()

    def gradients(self):
        self.loss.compute_with_gradients(*self.arrays, wrt=ALL[:2])

    def torch(self):
        import torch
        from torch.nn import functional

        labels = torch.arange(4096)

        def loss(anchors, positives):
            total = 0.0
            for m in self.dims:
                a, p = (functional.normalize(x[:, :m], dim=1) for x in (anchors, positives))
                total = total + functional.cross_entropy(a @ p.T / 0.07, labels)
            return total

        return backward(loss, *self.arrays)

    @ratio("of the wrapped loss's time")
    def track_time_over_one_length(self):
        return relative_time(self.gradients, lambda: self.inner.compute_with_gradients(*self.arrays, wrt=ALL[:2]))

    @beside("torch", "of torch's time")
    def track_time_over_torch(self):
        return relative_time(self.gradients, self.torch())
