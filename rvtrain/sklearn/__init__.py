"""Transformers for scikit-learn, which they need (the extra ``sklearn``)."""

from rvtrain.sklearn._adapter import ContrastiveAdapter
from rvtrain.sklearn._text import ContrastiveTextEncoder

__all__ = ["ContrastiveAdapter", "ContrastiveTextEncoder"]
