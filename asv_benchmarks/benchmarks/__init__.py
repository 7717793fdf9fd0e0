"""Benchmarks of rvtrain, run by asv."""
