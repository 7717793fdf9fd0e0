"""Kernels that several subpackages share: the sweep over all pairs, matrix products, norms, random numbers."""
