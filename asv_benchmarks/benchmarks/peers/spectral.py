"""Spectral regularization beside SciPy's Laplacian."""

import numpy as np

import rvtrain as rt

from .common import Benchmark, beside, relative_time


class Graph(Benchmark):
    """A random graph of about ten edges a node."""

    params = ([10_000], [64, 256])
    param_names = ("nodes", "dim")

    def prepare(self, nodes, dim):
        rng = self.rng()
        edges = rng.integers(0, nodes, size=(10 * nodes, 2))
        self.edges = np.unique(np.sort(edges[edges[:, 0] != edges[:, 1]], axis=1), axis=0)
        self.negatives = rng.integers(0, nodes, size=(5 * nodes, 2))
        self.weights = rng.random(len(self.edges), dtype=np.float32)
        self.z = rng.normal(size=(nodes, dim)).astype(np.float32) / np.float32(np.sqrt(dim))


class Spectral(Graph):
    """The normalised form, from the edge list to the gradients."""

    def prepare(self, nodes, dim):
        super().prepare(nodes, dim)
        self.loss = rt.SpectralRegularization(0.01)
        self.gradient()

    def gradient(self):
        self.loss.compute_with_gradients(self.z, self.edges, self.weights)

    @beside("scipy", "of scipy's time")
    def track_time_over_scipy(self, nodes, dim):
        """Value and gradient, against csgraph.laplacian and a sparse product."""
        from scipy import sparse

        def peer():
            upper = sparse.coo_array((self.weights, self.edges.T), shape=(nodes, nodes))
            laplacian = sparse.csgraph.laplacian((upper + upper.T).tocsr(), normed=True)
            product = laplacian @ self.z
            return 0.01 * float((self.z * product).sum()), 0.02 * product

        return relative_time(lambda: self.gradient(), peer)
