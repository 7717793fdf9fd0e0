"""Contrastive losses with analytic gradients."""

from rvtrain.losses._decoupled import DecoupledContrastiveLoss
from rvtrain.losses._hard_negative import HardNegativeContrastiveLoss
from rvtrain.losses._infonce import InfoNCELoss
from rvtrain.losses._local_contrastive import LocalContrastiveLoss
from rvtrain.losses._multi_similarity import MultiSimilarityLoss
from rvtrain.losses._sigmoid import SigmoidLoss
from rvtrain.losses._spectral import SpectralRegularization
from rvtrain.losses._supcon import SupConLoss

__all__ = [
    "DecoupledContrastiveLoss",
    "HardNegativeContrastiveLoss",
    "InfoNCELoss",
    "LocalContrastiveLoss",
    "MultiSimilarityLoss",
    "SigmoidLoss",
    "SpectralRegularization",
    "SupConLoss",
]
