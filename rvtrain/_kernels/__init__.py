"""All use of numba: decorators, compiled code on disk, threads, and functions that emit LLVM instructions."""

from rvtrain._kernels._bodies import body
from rvtrain._kernels._decorators import (
    FASTMATH,
    cpu_features,
    disabled,
    in_order,
    inlined,
    njit,
    overload,
    register_jitable,
    trailing_zeros,
)
from rvtrain._kernels._emitted import element_type, emitted
from rvtrain._kernels._parallel import Driver, Kernel, driver, kernel
from rvtrain._kernels._permission import tiles_permitted
from rvtrain._kernels._seams import implements, seam
from rvtrain._kernels._threads import thread_count

__all__ = [
    "FASTMATH",
    "Driver",
    "Kernel",
    "body",
    "cpu_features",
    "disabled",
    "driver",
    "element_type",
    "emitted",
    "implements",
    "in_order",
    "inlined",
    "kernel",
    "njit",
    "overload",
    "register_jitable",
    "seam",
    "thread_count",
    "tiles_permitted",
    "trailing_zeros",
]
