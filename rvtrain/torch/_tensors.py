"""Tensors as arrays of the same memory."""

from typing import Any

import torch

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
    plain = value.detach().resolve_neg()
    return (plain.float() if plain.dtype in _HALF else plain).numpy()
