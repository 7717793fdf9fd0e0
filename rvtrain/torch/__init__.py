"""Losses, optimizers and mining for torch's tensors on the CPU. It needs torch; the rest of rvtrain does not."""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError("rvtrain.torch needs torch: pip install torch") from error

from rvtrain.torch._cached_ranking import CachedMultipleNegativesRankingLoss
from rvtrain.torch._hard_negatives import mine_hard_negatives
from rvtrain.torch._losses import (
    CoSENTLoss,
    CosineSimilarityLoss,
    DecoupledContrastiveLoss,
    DistillKLLoss,
    HardNegativeContrastiveLoss,
    InfoNCELoss,
    ListNetLoss,
    LocalContrastiveLoss,
    LossModule,
    MarginMSELoss,
    MatryoshkaLoss,
    MultiSimilarityLoss,
    SigmoidLoss,
    SpectralRegularization,
    SpreadRegularization,
    SupConLoss,
)
from rvtrain.torch._optimizers import SGD, Adagrad, Adam, AdamW, Lion, RvtrainOptimizer, ScheduleFreeAdamW
from rvtrain.torch._ranking import MultipleNegativesRankingLoss

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "CachedMultipleNegativesRankingLoss",
    "CoSENTLoss",
    "CosineSimilarityLoss",
    "DecoupledContrastiveLoss",
    "DistillKLLoss",
    "HardNegativeContrastiveLoss",
    "InfoNCELoss",
    "Lion",
    "ListNetLoss",
    "LocalContrastiveLoss",
    "LossModule",
    "MarginMSELoss",
    "MatryoshkaLoss",
    "MultiSimilarityLoss",
    "MultipleNegativesRankingLoss",
    "RvtrainOptimizer",
    "ScheduleFreeAdamW",
    "SigmoidLoss",
    "SpectralRegularization",
    "SpreadRegularization",
    "SupConLoss",
    "mine_hard_negatives",
]
