"""What a trainer is made of, checked before the first step."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.losses import InfoNCELoss, SpectralRegularization
from rvtrain.optimizers import Adam, AdamW, constant


def parsed_losses(loss: Any, graph: bool) -> list[tuple[Any, Any]]:
    """Pairs of a loss and its weight."""
    if loss is None:
        loss = InfoNCELoss(0.2 if graph else 0.05)
    pairs = list(loss) if isinstance(loss, (list, tuple)) else [(loss, 1.0)]
    if not pairs:
        raise ValueError("loss must not be empty")
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not hasattr(pair[0], "compute_with_gradients"):
            raise TypeError(f"loss must be a loss or pairs of a loss and its weight, got {pair!r}")
        if getattr(pair[0], "reduction", "mean") == "none":
            raise ValueError(f"loss must have reduction 'mean' or 'sum', got {pair[0]!r}")
        if not graph and isinstance(pair[0], SpectralRegularization):
            raise TypeError(f"loss must take anchors and positives, got {pair[0]!r}, which is for fit_graph")
        if graph and getattr(pair[0], "symmetric", False):
            raise ValueError(
                f"loss must take drawn nodes as negatives in fit_graph, got {pair[0]!r}: give edges both ways"
            )
        if not callable(pair[1]):
            check.number("loss weight", pair[1])
    return pairs


def parsed_optimizer(optimizer: Any, params: dict[str, np.ndarray], graph: bool) -> Any:
    """The optimizer, or the default one: a row of a table takes part in few steps, which have to be long."""
    if optimizer is None:
        return Adam(params, 0.05) if graph else AdamW(params, 1e-3, 0.01)
    if not hasattr(optimizer, "step") or not hasattr(optimizer, "learning_rate"):
        raise TypeError(f"optimizer must be an optimizer, as AdamW(model.params), got {optimizer!r}")
    return optimizer


def parsed_schedule(schedule: Any) -> Callable[[int], float] | None:
    """A function of the step; a number is a constant rate."""
    if schedule is None or callable(schedule):
        return schedule
    if isinstance(schedule, (int, float, np.number)) and not isinstance(schedule, bool):
        return constant(float(schedule))
    raise TypeError(f"schedule must be a function of the step, as warmup_cosine makes, or a number, got {schedule!r}")


def parsed_callbacks(callbacks: Any) -> tuple[Callable[..., Any], ...]:
    """The callbacks, all of which can be called."""
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks must be callable, got {callback!r}")
    return tuple(callbacks)


def part_with(name: str, part: Any, method: str) -> Any:
    """A part of a training, or None; TypeError if it lacks the method that the training calls."""
    if part is not None and not hasattr(part, method):
        raise TypeError(f"{name} must have a method {method!r}, got {part!r}")
    return part


def no_miner(method: str, miner: Any) -> None:
    """Raise if there is a miner, which this method has no use for."""
    if miner is not None:
        raise ValueError(f"{method} takes no miner, which is for fit, got {miner!r}")


def batches_have_negatives(
    losses: list[tuple[Any, Any]], miner: Any, batch_size: int, name: str, samples: int
) -> None:
    """Raise where every batch would be one pair, which InfoNCE has nothing to compare with.

    `name` is the argument that the samples come from.
    """
    if miner is not None or not all(isinstance(loss, InfoNCELoss) for loss, _ in losses):
        return
    for argument, count in (("batch_size", batch_size), (name, samples)):
        if count == 1:
            raise ValueError(
                f"{argument} must be at least 2 without a miner, got 1: a pair alone has loss 0 whatever the model"
            )


def can_be_written(name: str, path: Any) -> None:
    """Raise OSError if no file can be written at this path."""
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{name} must be a file, got the folder {os.fspath(path)!r}")
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}."):
        pass
