"""Optimizers with the semantics of torch.optim, gradient clipping, and learning-rate schedules."""

from rvtrain.optimizers._adagrad import Adagrad
from rvtrain.optimizers._adam import Adam, AdamW
from rvtrain.optimizers._clip import clip_grad_norm
from rvtrain.optimizers._ema import EMA
from rvtrain.optimizers._lion import Lion
from rvtrain.optimizers._schedule_free import ScheduleFreeAdamW
from rvtrain.optimizers._schedules import (
    constant,
    exponential_decay,
    step_decay,
    warmup_cosine,
    warmup_linear,
)
from rvtrain.optimizers._sgd import SGD

__all__ = [
    "EMA",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Lion",
    "ScheduleFreeAdamW",
    "clip_grad_norm",
    "constant",
    "exponential_decay",
    "step_decay",
    "warmup_cosine",
    "warmup_linear",
]
