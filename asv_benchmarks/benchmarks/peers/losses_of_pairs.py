"""The family of losses on the sweep: beside torch of the same loss, and beside InfoNCE."""

import numpy as np

import rvtrain as rt

from .common import Benchmark, beside, ratio, relative_time

SHAPE = (4096, 128)
PAIRS = {
    "decoupled": lambda: rt.DecoupledContrastiveLoss(),
    "hard_negative": lambda: rt.HardNegativeContrastiveLoss(),
    "sigmoid": lambda: rt.SigmoidLoss(),
}
LABELLED = {"supcon": lambda: rt.SupConLoss(), "multi_similarity": lambda: rt.MultiSimilarityLoss()}


def torch_loss(name, anchors, positives, labels):
    """Loss and backward pass of the same formula in torch."""
    import torch
    from torch.nn import functional

    leaves = [torch.tensor(x, requires_grad=True) for x in (anchors, positives)]
    labels, eye = torch.tensor(labels), torch.eye(len(anchors), dtype=torch.bool)
    same = (labels[:, None] == labels) & ~eye

    def compute(a, p):
        a, p = functional.normalize(a), functional.normalize(p)
        if name in LABELLED:
            cosines = a @ a.T
            if name == "supcon":
                logits = (cosines / 0.1).masked_fill(eye, -torch.inf)
                log = logits - logits.logsumexp(1, keepdim=True)
                count = same.sum(1)
                return -(log.masked_fill(~same, 0.0).sum(1) / count.clamp(min=1))[count > 0].mean()
            pull = torch.exp(-2.0 * (cosines - 0.5)).masked_fill(~same, 0.0).sum(1)
            push = torch.exp(50.0 * (cosines - 0.5)).masked_fill(same | eye, 0.0).sum(1)
            return (torch.log1p(pull) / 2.0 + torch.log1p(push) / 50.0).mean()
        cosines = a @ p.T
        positive = cosines.diagonal()
        if name == "sigmoid":
            return -functional.logsigmoid((2.0 * eye - 1.0) * (10.0 * cosines - 10.0)).sum(1).mean()
        if name == "decoupled":
            return ((cosines / 0.07).masked_fill(eye, -torch.inf).logsumexp(1) - positive / 0.07).mean()
        s, count = (cosines / 0.5).masked_fill(eye, -torch.inf), len(a) - 1
        r = count * torch.exp(2.0 * s).sum(1) / torch.exp(s).sum(1)
        own = torch.exp(positive / 0.5)
        g = ((r - count * 0.1 * own) / 0.9).clamp(min=count * float(np.exp(-2.0)))
        return -torch.log(own / (own + g)).mean()

    def call():
        for leaf in leaves:
            leaf.grad = None
        compute(*leaves).backward()

    return call


class Family(Benchmark):
    """Loss and all gradients of 4096 × 128, in-batch or labelled by 512 classes."""

    params = ([*PAIRS, *LABELLED],)
    param_names = ("loss",)

    def prepare(self, name):
        rng = self.rng()
        self.anchors, self.positives = rng.normal(size=(2, *SHAPE)).astype(np.float32)
        self.labels = rng.integers(0, 512, SHAPE[0])
        self.loss = (PAIRS | LABELLED)[name]()
        self.infonce = rt.InfoNCELoss()
        self.gradients(name)
        self.gradients_of_infonce()

    def gradients(self, name):
        if name in LABELLED:
            self.loss.compute_with_gradients(self.anchors, self.labels)
        else:
            self.loss.compute_with_gradients(self.anchors, self.positives, wrt=("anchors", "positives"))

    def gradients_of_infonce(self):
        self.infonce.compute_with_gradients(self.anchors, self.positives, wrt=("anchors", "positives"))

    @ratio("of InfoNCE's time")
    def track_time_over_infonce(self, name):
        return relative_time(lambda: self.gradients(name), self.gradients_of_infonce)

    @beside("torch", "of torch's time")
    def track_time_over_torch(self, name):
        peer = torch_loss(name, self.anchors, self.positives, self.labels)
        return relative_time(lambda: self.gradients(name), peer)


class Guided(Benchmark):
    """InfoNCE whose false negatives are found by a guide of the same length."""

    def prepare(self):
        self.anchors, self.positives, *guide = self.rng().normal(size=(4, *SHAPE)).astype(np.float32)
        self.guide, self.loss = tuple(guide), rt.InfoNCELoss()
        self.gradients()
        self.gradients(self.guide)

    def gradients(self, guide=None):
        self.loss.compute_with_gradients(self.anchors, self.positives, wrt=("anchors", "positives"), guide=guide)

    @ratio("of InfoNCE's time")
    def track_time_over_infonce(self):
        return relative_time(lambda: self.gradients(self.guide), self.gradients)
