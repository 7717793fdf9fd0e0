"""Contrastive losses with analytic gradients, each fetched from its module when it is first used."""

from typing import TYPE_CHECKING

from rvtrain._lazy import fetcher

if TYPE_CHECKING:
    from rvtrain.losses._decoupled import DecoupledContrastiveLoss
    from rvtrain.losses._distillation import DistillKLLoss, ListNetLoss, MarginMSELoss
    from rvtrain.losses._graded import CoSENTLoss, CosineSimilarityLoss
    from rvtrain.losses._hard_negative import HardNegativeContrastiveLoss
    from rvtrain.losses._infonce import InfoNCELoss
    from rvtrain.losses._local_contrastive import LocalContrastiveLoss
    from rvtrain.losses._matryoshka import MatryoshkaLoss
    from rvtrain.losses._multi_similarity import MultiSimilarityLoss
    from rvtrain.losses._sigmoid import SigmoidLoss
    from rvtrain.losses._spectral import SpectralRegularization
    from rvtrain.losses._spread import SpreadRegularization
    from rvtrain.losses._supcon import SupConLoss

__all__ = [
    "CoSENTLoss",
    "CosineSimilarityLoss",
    "DecoupledContrastiveLoss",
    "DistillKLLoss",
    "HardNegativeContrastiveLoss",
    "InfoNCELoss",
    "ListNetLoss",
    "LocalContrastiveLoss",
    "MarginMSELoss",
    "MatryoshkaLoss",
    "MultiSimilarityLoss",
    "SigmoidLoss",
    "SpectralRegularization",
    "SpreadRegularization",
    "SupConLoss",
]

__getattr__ = fetcher(
    __name__,
    {
        "_decoupled": ("DecoupledContrastiveLoss",),
        "_distillation": ("DistillKLLoss", "ListNetLoss", "MarginMSELoss"),
        "_graded": ("CoSENTLoss", "CosineSimilarityLoss"),
        "_hard_negative": ("HardNegativeContrastiveLoss",),
        "_infonce": ("InfoNCELoss",),
        "_local_contrastive": ("LocalContrastiveLoss",),
        "_matryoshka": ("MatryoshkaLoss",),
        "_multi_similarity": ("MultiSimilarityLoss",),
        "_sigmoid": ("SigmoidLoss",),
        "_spectral": ("SpectralRegularization",),
        "_spread": ("SpreadRegularization",),
        "_supcon": ("SupConLoss",),
    },
)
