"""The door to numba: decorators, compiled code on disk, threads, and functions that emit LLVM instructions."""

from numba.extending import overload, register_jitable

from rvtrain._kernels._bodies import body
from rvtrain._kernels._decorators import (
    FASTMATH,
    cpu_features,
    in_order,
    inlined,
    intrinsic,
    njit,
    trailing_zeros,
)
from rvtrain._kernels._parallel import Driver, Kernel, driver, kernel
from rvtrain._kernels._seams import implements, seam

__all__ = [
    "FASTMATH",
    "Driver",
    "Kernel",
    "body",
    "cpu_features",
    "driver",
    "implements",
    "in_order",
    "inlined",
    "intrinsic",
    "kernel",
    "njit",
    "overload",
    "register_jitable",
    "seam",
    "trailing_zeros",
]
