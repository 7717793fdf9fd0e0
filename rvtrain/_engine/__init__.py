"""Kernels that two or more domains share."""
