"""What it takes to repeat a training: settings, versions, the machine and the command line."""

import functools
import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rvtrain._machine import facts
from rvtrain.report._html import Content, Html, element, section, short
from rvtrain.training import Trainer

_TRAINER = (
    "model", "optimizer", "schedule", "curriculum", "annealing", "mining", "epochs", "batch_size", "micro_batch_size",
    "max_grad_norm", "metrics", "patience", "eval_every", "loss_learning_rate", "seed",
)  # fmt: skip
_FOLDERS = ("tbb file", "cache folder")
"""Facts about the machine that no page should tell: they name the folders of a user."""
_LONGEST = 2000


def settings_of(trainer: Trainer) -> dict[str, object]:
    """The settings of a trainer by name, without those that are None."""
    losses = [each if weight == 1 else (each, weight) for each, weight in trainer.losses]
    found = {"loss": losses[0] if len(losses) == 1 else losses}
    found |= {name: getattr(trainer, name) for name in _TRAINER}
    return {name: value for name, value in found.items() if value is not None}


def settings(given: Mapping[str, object], command: str | None) -> Html:
    """The section with what it takes to repeat the training."""
    content: list[Content] = []
    if command is not None:
        content += [element("h3", "Command"), element("pre", element("code", command), tabindex="0")]
    if given:
        rows = {str(name).replace("_", " "): _shown(value) for name, value in given.items()}
        content += [element("h3", "Settings"), _list(rows, "settings")]
    content += [element("h3", "Versions and machine"), _list(_machine(), "versions")]
    return section("To repeat this training", *content)


def _machine() -> dict[str, str]:
    rows = {name: str(fact) for name, fact in facts().items() if name not in _FOLDERS}
    rows |= {"machine": f"{platform.machine()}, {_processor()}, {os.cpu_count()} processors", "system": _system()}
    return rows | {"written": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")}


def _system() -> str:
    return " ".join(filter(None, (platform.system(), platform.release()))) or "not known"


@functools.cache
def _processor() -> str:
    """The name of the processor, as Linux tells it; elsewhere what Python knows."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "processor not known"


def _list(rows: Mapping[str, str], name: str) -> Html:
    entries = [element("div", element("dt", key), element("dd", value)) for key, value in rows.items()]
    return element("dl", *entries, class_="facts", id=name)


def _shown(value: Any) -> str:
    """A setting as text: no addresses of functions, and no more than 2,000 characters."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, float):
        return short(value, 8)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return ", ".join(_shown(each) for each in value) or "none"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"the function {value.__qualname__.removesuffix('.<locals>.<lambda>')}"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
