"""Tensors as arrays of the same memory."""

from typing import Any

import torch
from torch.autograd import forward_ad

_HALF = (torch.float16, torch.bfloat16)


def array_of(name: str, value: Any) -> Any:
    """A tensor as an array without a copy, but for 16 bits, which become float32; other values as they are."""
    if isinstance(value, (tuple, list)) and any(isinstance(x, torch.Tensor) for x in value):
        return type(value)(array_of(name, x) for x in value)
    if not isinstance(value, torch.Tensor):
        return value
    if value.device.type != "cpu":
        raise ValueError(f"{name} must be a tensor on the CPU, got one on {value.device}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}")
    if forward_ad.unpack_dual(value).tangent is not None:
        raise RuntimeError(
            f"{name} must not be a dual tensor: losses of rvtrain.torch have no derivatives in forward mode"
        )
    plain = value.detach().resolve_neg()
    plain = plain.float() if plain.dtype in _HALF else plain
    try:
        return plain.numpy()
    except RuntimeError as error:  # a tensor without memory
        raise RuntimeError(
            f"{name} must be a tensor with memory of its own, as those within torch.func and vmap are not"
        ) from error


def in_place(name: str, tensor: torch.Tensor) -> Any:
    """The memory of a parameter as an array that may be written; TypeError or ValueError if there is none."""
    if tensor.device.type != "cpu":
        raise ValueError(f"{name} must be on the CPU, got a tensor of shape {tuple(tensor.shape)} on {tensor.device}")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} must be float32 or float64, got a tensor of {tensor.dtype}")
    if tensor.layout != torch.strided or not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous, got a tensor of shape {tuple(tensor.shape)}")
    return tensor.detach().numpy().reshape(tuple(tensor.shape) or (1,))
