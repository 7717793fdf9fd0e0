"""Texts as bags of hashed n-grams."""

from rvtrain.text._bags import Bags
from rvtrain.text._ngrams import HashedNgrams

__all__ = ["Bags", "HashedNgrams"]
