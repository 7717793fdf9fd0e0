"""A run in a file: saved after each epoch, and gone on with."""

import dataclasses
import enum
import inspect
import os
from typing import TYPE_CHECKING, Any

from rvtrain._engine._precision import get_float32_precision
from rvtrain.checkpoint import load_checkpoint, save_checkpoint
from rvtrain.training._losses import LossCall
from rvtrain.training._run import Run, check_shapes, put

if TYPE_CHECKING:
    from rvtrain.training._loop import Loop
    from rvtrain.training._trainer import Trainer


def settings_of(trainer: "Trainer") -> dict[str, Any]:
    """The arguments that a run must share with the trainer that goes on with it; functions are not compared."""
    losses = [_described(loss, bool(LossCall(loss).learnable)) for loss, _ in trainer.losses]
    mining = trainer.mining
    return {
        "seed": trainer.seed,
        "batch_size": trainer.batch_size,
        "micro_batch_size": trainer.micro_batch_size,
        "max_grad_norm": trainer.max_grad_norm,
        "float32_precision": get_float32_precision(),
        "eval_every": trainer.eval_every,
        "metrics": list(trainer.metrics),
        "loss": [
            [loss, None if callable(weight) else float(weight)]
            for loss, (_, weight) in zip(losses, trainer.losses, strict=True)
        ],
        "optimizer": _arguments_of(trainer.optimizer),
        "schedule": None if trainer.schedule is None else "a function of the step",
        "learning_rate": float(trainer.optimizer.learning_rate) if trainer.schedule is None else None,
        "loss_learning_rate": trainer.loss_learning_rate,
        "mining": None
        if mining is None
        else [
            _arguments_of(mining.miner),
            repr(getattr(mining.miner, "filters", None)),
            mining.k,
            mining.start,
            mining.every,
        ],
        "curriculum": _arguments_of(trainer.curriculum),
        "annealing": _arguments_of(trainer.annealing),
    }


def save(path: str | os.PathLike[str], loop: "Loop") -> None:
    """Write the run, with the parameters to go on from and the states of all parts."""
    trainer = loop.trainer
    state = {
        "params": trainer.params,
        "parts": {name: part.state_dict() for name, part in _parts(loop).items()},
        "settings": loop.settings,
        "run": loop.run.state_dict(),
    }
    save_checkpoint(path, trainer=state, extra=trainer.checkpoint_extra)


def resume(path: str | os.PathLike[str], loop: "Loop") -> None:
    """Take over the run in the file, if it is one of the same data, settings and parts; else change nothing."""
    saved = load_checkpoint(path)
    name = os.fspath(path)
    if "trainer" not in saved:
        raise ValueError(f"{name!r} holds no run of a Trainer, but {sorted(saved)}")
    trainer, state = loop.trainer, saved["trainer"]
    try:
        settings = dict(state["settings"])
        if trainer._run.records:  # a trainer that has trained: a callback may have set its learning rate
            settings["learning_rate"] = loop.settings["learning_rate"]
        _check_settings(name, settings, loop.settings)
        before, now = state["run"]["data"], loop.run.data
        other = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if other:
            raise ValueError(f"{', '.join(other)} must be as in the run in {name!r}, got other values")
        check_shapes(state["params"], trainer.params)
        run = Run(loop.run.columns, loop.run.monitored)
        run.load_state_dict(state["run"], trainer.params)
        _load_parts(_parts(loop), state["parts"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{name!r} holds no run that can be read: {error!r}") from None
    put(state["params"], trainer.params)
    loop.run = trainer._run = run


def _check_settings(path: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if before.get(name) != value:
            raise ValueError(
                f"{name} must be that of the run in {path!r}, {_shown(before.get(name))}, got {_shown(value)}"
            )


def _load_parts(parts: dict[str, Any], states: dict[str, Any]) -> None:
    """Give each part its state; all have their own again if one refuses it."""
    if set(parts) != set(states):
        raise ValueError(f"the trainer must have the parts of the run, {sorted(states)}, got {sorted(parts)}")
    before = {name: part.state_dict() for name, part in parts.items()}
    try:
        for name, part in parts.items():
            part.load_state_dict(states[name])
    except BaseException:
        for name, part in parts.items():
            part.load_state_dict(before[name])
        raise


def _parts(loop: "Loop") -> dict[str, Any]:
    """What has a state beside the model and the run."""
    trainer = loop.trainer
    named = {"optimizer": trainer.optimizer, "curriculum": trainer.curriculum, "annealing": trainer.annealing}
    named["miner"] = None if trainer.mining is None else trainer.mining.miner
    named["learned"] = loop.learned if loop.learned else None
    named |= {f"callback {i}": callback for i, callback in enumerate(loop.hooks.stateful)}
    return {name: part for name, part in named.items() if part is not None and hasattr(part, "state_dict")}


def _described(part: Any, changes: bool = False) -> str:
    """What tells parts with other options apart; the name alone of a part that changes while it is trained."""
    text = repr(part)
    return type(part).__name__ if changes or " at 0x" in text else text


def _arguments_of(part: Any) -> str | None:
    """The class of a part, with those arguments of its constructor that it keeps under their names, if it is plain.

    The learning rate is left out, which changes while a run goes on.
    """
    if part is None:
        return None
    try:
        names = list(inspect.signature(type(part)).parameters)
    except (TypeError, ValueError):
        names = []
    kept = {n: getattr(part, n) for n in names if n not in ("lr", "learning_rate") and hasattr(part, n)}
    shown = ", ".join(f"{name}={value!r}" for name, value in kept.items() if _is_plain(value))
    return f"{type(part).__name__}({shown})"


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(_is_plain(getattr(value, field.name)) for field in dataclasses.fields(value))
    return value is None or isinstance(value, (bool, int, float, str, enum.Enum))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
