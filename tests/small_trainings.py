"""Sixty pairs of queries and documents to train on, and comparisons of parameters, for tests of runs."""

import numpy as np

PAIRS = np.stack([np.arange(60)] * 2, axis=1)


def queries_and_documents(rng):
    """Queries, documents, pairs to train on and pairs held back."""
    documents = rng.normal(size=(60, 8)).astype(np.float32)
    queries = documents[:, ::-1] + rng.normal(size=(60, 8)).astype(np.float32) / 2
    return np.ascontiguousarray(queries), documents, PAIRS[:40], PAIRS[40:]


def values(model):
    """Copies of the model's parameters."""
    return {name: array.copy() for name, array in model.params.items()}


def assert_equal(params, others):
    """Raise unless all parameters are equal."""
    for name, array in params.items():
        np.testing.assert_array_equal(array, others[name])
