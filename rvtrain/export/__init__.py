"""Trained adapters in the forms of other libraries: sentence-transformers, faiss, and plain arrays."""

from rvtrain.export._arrays import to_arrays
from rvtrain.export._faiss import to_faiss
from rvtrain.export._sentence_transformers import to_sentence_transformers

__all__ = ["to_arrays", "to_faiss", "to_sentence_transformers"]
