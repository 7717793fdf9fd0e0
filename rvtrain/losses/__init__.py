"""Contrastive losses with analytic gradients."""

from rvtrain.losses._infonce import InfoNCELoss
from rvtrain.losses._local_contrastive import LocalContrastiveLoss
from rvtrain.losses._spectral import SpectralRegularization

__all__ = ["InfoNCELoss", "LocalContrastiveLoss", "SpectralRegularization"]
