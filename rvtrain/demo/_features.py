"""Text to vectors with NumPy alone: hashed character n-grams, weighted by tf-idf."""

import functools

import numpy as np

_LENGTHS = (3, 4)
_PRIME = np.uint64(1099511628211)  # of the FNV-1a hash
_OFFSET = np.uint64(14695981039346656037)


class TfIdf:
    """Features of texts: hashed character 3- and 4-grams weighted by (1 + log tf) · idf, in unit rows.

    Parameters
    ----------
    dim : int
        Number of buckets that n-grams are hashed to, and of features.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def fit(self, texts: list[str]) -> "TfIdf":
        """Learn the inverse document frequencies, log((1 + n) / (1 + df)) + 1."""
        present = np.bincount(np.concatenate([np.unique(self._buckets(text)) for text in texts]), minlength=self.dim)
        self.idf = np.log((1 + len(texts)) / (1 + present)) + 1
        return self

    def transform(self, texts: list[str]) -> np.ndarray:
        """float32 (n, dim), unit rows, or a zero row for a text without n-grams."""
        out = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(out, texts, strict=True):
            used, counts = np.unique(self._buckets(text), return_counts=True)
            weights = (1 + np.log(counts)) * self.idf[used]
            row[used] = weights / np.linalg.norm(weights)
        return out

    def _buckets(self, text: str) -> np.ndarray:
        return (_hashes(text) % np.uint64(self.dim)).astype(np.int64)


@functools.cache  # the same texts are hashed by fit, by transform, and again for other numbers of buckets
def _hashes(text: str) -> np.ndarray:
    """FNV-1a hashes of all n-grams; unlike those of `hash`, they are the same on every machine and in every run."""
    spaced = "".join(f" {c.lower()}" if c.isupper() else c if c.isalnum() else " " for c in text)
    letters = np.frombuffer(f" {' '.join(spaced.split())} ".encode(), np.uint8).astype(np.uint64)
    hashes = []
    for length in _LENGTHS:
        value = np.full(max(len(letters) - length + 1, 0), _OFFSET)
        for place in range(length):
            value = (value ^ letters[place : place + len(value)]) * _PRIME
        hashes.append(value)
    value = np.concatenate(hashes)
    return value ^ (value >> np.uint64(29))
