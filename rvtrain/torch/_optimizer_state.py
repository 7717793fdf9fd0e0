"""States of optimizers as torch keeps and saves them, and as rvtrain does."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

import rvtrain

_STATE = "state/params/"
"""What stands before the name of a buffer in a state dict of rvtrain."""
_MOMENTS = {"momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
"""Buffers that ``state_dtype`` is about."""
_NOT_HERE = {"weight_decay": 0, "lr_decay": 0, "maximize": False}
"""Options of torch's optimizers by which a rule differs, and their values without effect."""


def check_rule(kind: type, groups: list[dict[str, Any]]) -> None:
    """Refuse saved groups whose options of ``torch.optim`` make another rule than that of the optimizer `kind`."""
    own = inspect.signature(kind).parameters
    for name, needed in {**_NOT_HERE, "decoupled_weight_decay": kind is rvtrain.AdamW}.items():
        for group in groups:
            if name in group and name not in own and group[name] != needed:
                raise ValueError(
                    f"state_dict must be of the rule of {kind.__name__}, with {name}={needed}, got {group[name]}"
                )


def tensors_of(optimizer: Any) -> dict[str, Any]:
    """The state of an optimizer as torch keeps it."""
    state = {}
    for name, value in optimizer.state_dict().items():
        if name.startswith(_STATE):
            array = np.asarray(value)
            brain = array.dtype == np.uint16
            tensor = torch.as_tensor(np.array(array.view(np.int16) if brain else array))
            state[name[len(_STATE) :]] = tensor.view(torch.bfloat16) if brain else tensor
    state["step"] = state["step"].to(torch.float32)
    return state


def arrays_of(optimizer: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of an optimizer with these buffers."""
    found = dict(optimizer.state_dict()) | {_STATE + "step": 1}  # which torch's SGD does not count
    for name, value in state.items():
        brain = isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16
        array = value.view(torch.int16).numpy().view(np.uint16) if brain else np.asarray(value)
        found[_STATE + name] = int(array) if name == "step" else array
    return found


def fitted(buffers: Mapping[str, Any], state_dtype: str) -> dict[str, torch.Tensor]:
    """Copies of the saved tensors of a parameter, moments in this type."""
    found = {name: torch.as_tensor(x).clone() for name, x in buffers.items() if x is not None}
    for name in _MOMENTS & found.keys():
        if state_dtype == "bfloat16":
            found[name] = found[name].to(torch.bfloat16)
        elif state_dtype == "int8" and found[name].is_floating_point():
            raise ValueError(
                f"state_dict must have {name} in 8 bits, since state_dtype is int8, got {found[name].dtype}: take "
                "state_dtype 'bfloat16' or 'float32'"
            )
    return found


def for_adagrad_of_torch(state: dict[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The state with what ``torch.optim.Adagrad`` needs: options, and sums also of parameters not yet stepped."""
    needed = {"lr_decay": 0.0, "weight_decay": 0.0}
    buffers = dict(state["state"])
    for packed, group in zip(state["param_groups"], groups, strict=True):
        for key, p in zip(packed["params"], group["params"], strict=True):
            if key not in buffers and not group["rowwise"]:
                buffers[key] = {"step": torch.tensor(0.0), "sum": torch.zeros_like(p)}
    return {"state": buffers, "param_groups": [needed | packed for packed in state["param_groups"]]}
