"""Arguments of a trainer, checked before the first step."""

import inspect
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.losses import InfoNCELoss
from rvtrain.optimizers import Adam, AdamW, constant
from rvtrain.training import _metrics
from rvtrain.training._logging import ENDINGS
from rvtrain.training._losses import LossCall
from rvtrain.training._mining import Mining
from rvtrain.training._models import Params, checked_model


def check_model(model: Any) -> bool:
    """Raise unless the model is one, of one side or two or a table; returns whether it is a table."""
    if hasattr(model, "query") and hasattr(model, "document"):
        checked_model("model.query", model.query)
        checked_model("model.document", model.document)
        if not isinstance(getattr(model, "params", None), Mapping):
            raise TypeError(f"model must have params, a dict of the arrays of both sides, got {type(model).__name__}")
    elif set(getattr(model, "params", ())) == {"weight"} and (
        getattr(model, "accepts_ids", False) or not hasattr(model, "backward")
    ):
        return True
    else:
        checked_model("model", model)
    if not model.params:
        raise ValueError(f"model must have parameters to train, got {model!r}, which has none")
    return False


def parsed_losses(loss: Any, is_table: bool) -> list[tuple[Any, Any]]:
    """Pairs of a loss and its weight."""
    if loss is None:
        loss = InfoNCELoss(0.2) if is_table else InfoNCELoss(0.05, symmetric=True)
    pairs = list(loss) if isinstance(loss, (list, tuple)) else [loss]
    if not pairs:
        raise ValueError("loss must not be empty")
    found = []
    for pair in pairs:
        one = pair if isinstance(pair, tuple) else (pair, 1.0)
        methods = ("compute", "compute_with_gradients")
        if len(one) != 2 or isinstance(one[0], type) or not all(callable(getattr(one[0], m, None)) for m in methods):
            raise TypeError(
                f"loss must be a loss, with compute and compute_with_gradients, or a sequence of losses or of pairs "
                f"of a loss and its weight, got {pair!r}"
            )
        if getattr(one[0], "reduction", "mean") == "none":
            raise ValueError(f"loss must have reduction 'mean' or 'sum', got {one[0]!r}")
        found.append(one if callable(one[1]) else (one[0], check.number("loss weight", one[1])))
    return found


def parsed_optimizer(optimizer: Any, params: Params, is_table: bool) -> Any:
    """The optimizer, or the default one: a row of a table takes part in few steps, which have to be long."""
    if optimizer is None:
        return Adam(params, 0.05) if is_table else AdamW(params, 1e-3, 0.01)
    if isinstance(optimizer, type) or not hasattr(optimizer, "step") or not hasattr(optimizer, "learning_rate"):
        raise TypeError(f"optimizer must be an optimizer, as AdamW(model.params), got {optimizer!r}")
    return optimizer


def check_clipping(optimizer: Any) -> None:
    """Raise if the optimizer cannot clip gradients."""
    try:
        parameters = inspect.signature(optimizer.step).parameters.values()
    except (TypeError, ValueError):
        return
    if not any(p.name == "max_norm" or p.kind == p.VAR_KEYWORD for p in parameters):
        raise TypeError(f"max_grad_norm needs an optimizer whose step takes max_norm, got {optimizer!r}")


def parsed_schedule(schedule: Any) -> Callable[[int], float] | None:
    """A function of the step; a number is a constant rate."""
    if schedule is None or callable(schedule):
        return schedule
    if isinstance(schedule, (int, float, np.number)) and not isinstance(schedule, bool):
        return constant(check.number("schedule", schedule, low=0.0))
    raise TypeError(f"schedule must be a function of the step, as warmup_cosine makes, or a number, got {schedule!r}")


def parsed_mining(mining: Any) -> Mining | None:
    """A `Mining`; a miner alone stands for one with the defaults."""
    if mining is None or isinstance(mining, Mining):
        return mining
    if callable(getattr(mining, "mine", None)) and not isinstance(mining, type):
        return Mining(mining)
    raise TypeError(f"mining must be a Mining, as Mining(HardNegativeMiner.hardest(), k=4), got {mining!r}")


def parsed_metrics(metrics: Any) -> tuple[str, ...]:
    """Names of metrics, each once."""
    if not isinstance(metrics, Iterable):
        raise TypeError(f"metrics must be names such as 'recall@10', got {metrics!r}")
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    if names:
        _metrics.parsed(names)
    return tuple(dict.fromkeys(str(name) for name in names))


def parsed_path(name: str, path: Any) -> Path | None:
    """A path, or None."""
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, got {path!r}")
    return None if path is None else Path(path)


def parsed_log(log: Any) -> Path | None:
    """The path of a log."""
    path = parsed_path("log", log)
    if path is None:
        return None
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"log must end in {' or '.join(ENDINGS)}, got {os.fspath(log)!r}")
    return path


def part_with(name: str, part: Any, method: str) -> Any:
    """A part of a training, or None; TypeError if it lacks the method that the training calls."""
    if part is not None and not hasattr(part, method):
        raise TypeError(f"{name} must have a method {method!r}, got {part!r}")
    return part


def optional_integer(name: str, value: Any) -> int | None:
    """None, or an integer of at least 1."""
    return None if value is None else check.integer(name, value, low=1)


def parsed_progress(progress: Any) -> bool | None:
    """Whether to show a bar; None where that is seen later."""
    if isinstance(progress, str) and progress == "auto":
        return None
    if not isinstance(progress, (bool, np.bool_)):
        error = ValueError if isinstance(progress, str) else TypeError
        raise error(f"progress must be 'auto', True or False, got {progress!r}")
    return bool(progress)


def no_mining(method: str, mining: Any) -> None:
    """Raise if there is a miner, for which this method has no use."""
    if mining is not None:
        raise ValueError(f"{method} takes no mining, which is for fit, got {mining!r}")


def all_contrast(calls: list[LossCall]) -> bool:
    """Whether all losses compare a pair with negatives, without which they are 0."""
    return all(call.kind == "pairs" and hasattr(call.loss, "temperature") for call in calls)


def batches_have_negatives(calls: list[LossCall], batch_size: int, name: str, samples: int) -> None:
    """Raise where every batch would be one pair, which a softmax has nothing to compare with.

    `name` is the argument that the samples come from.
    """
    if not all_contrast(calls):
        return
    for argument, count in (("batch_size", batch_size), (name, samples)):
        if count == 1:
            raise ValueError(
                f"{argument} must be at least 2 without mining, got 1: a pair alone has loss 0 whatever the model"
            )


def can_be_written(name: str, path: Any) -> None:
    """Raise OSError if no file can be written at this path."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{name} must be in a folder that exists, got {os.fspath(path)!r}")
    if target.is_dir():
        raise IsADirectoryError(f"{name} must be a file, got the folder {os.fspath(path)!r}")
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}."):
        pass
