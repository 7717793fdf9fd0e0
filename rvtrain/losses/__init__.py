"""Contrastive losses with analytic gradients."""

from rvtrain.losses._infonce import InfoNCELoss

__all__ = ["InfoNCELoss"]
