"""MultipleNegativesRankingLoss, forward and backward, beside sentence-transformers and the formula in torch."""

import numpy as np

from .common import Benchmark, beside, relative_time
from .losses import TAU, torch_infonce


def ranking(module, embeddings):
    """A call of a module's loss of the columns (B, d), forward and backward."""
    import torch

    leaves = [torch.tensor(x, requires_grad=True) for x in embeddings]
    loss = module.MultipleNegativesRankingLoss(torch.nn.Identity(), 1 / TAU)

    def call():
        for leaf in leaves:
            leaf.grad = None
        loss.compute_loss_from_embeddings(leaves, None).backward()

    return call


def over_sentence_transformers(embeddings):
    from sentence_transformers.sentence_transformer import losses

    import rvtrain.torch

    return relative_time(ranking(rvtrain.torch, embeddings), ranking(losses, embeddings))


class Ranking(Benchmark):
    """Anchors and positives."""

    def prepare(self):
        self.embeddings = self.rng().normal(size=(2, 4096, 384)).astype(np.float32)

    @beside("sentence_transformers", "of sentence-transformers' time")
    def track_time_over_sentence_transformers(self):
        return over_sentence_transformers(self.embeddings)

    @beside("torch", "of torch's time")
    def track_time_over_torch(self):
        import rvtrain.torch

        return relative_time(ranking(rvtrain.torch, self.embeddings), torch_infonce(*self.embeddings))


class RankingWithHardNegatives(Benchmark):
    """With two hard negatives for each pair: 12,288 documents."""

    def prepare(self):
        self.embeddings = self.rng().normal(size=(4, 4096, 384)).astype(np.float32)

    @beside("sentence_transformers", "of sentence-transformers' time")
    def track_time_over_sentence_transformers(self):
        return over_sentence_transformers(self.embeddings)
