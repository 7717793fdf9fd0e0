"""Computations that several MPI processes share. Nothing here imports mpi4py: callers pass its communicators."""
