"""What a trainer can learn from: pairs, labels, or a graph. This is the base of the three."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rvtrain._errors import NotFiniteError
from rvtrain.training._losses import Weighted
from rvtrain.training._mining import MiningCall
from rvtrain.training._models import Floats, Params

Rows = NDArray[np.int64]
BeforeReading = Callable[[dict[str, Rows] | None], None]
"""Called with rows of parameters that are about to be read; None: all."""


class Gradients(NamedTuple):
    """Results of one batch: the loss, the gradients for the optimizer, and those of the losses' own parameters."""

    value: float
    grads: Params
    learned: list[dict[str, float]]
    rows: dict[str, Rows] | None = None


class Task:
    """Base: `samples` of an epoch in random order; nothing is mined."""

    samples: int
    mined: Rows | None = None
    has_validation: bool = False
    micro: int | None = None

    @property
    def negatives(self) -> int:
        """Number of negatives of a sample that do not come from its batch."""
        return 0 if self.mined is None else self.mined.shape[1]

    def batches(self, rng: np.random.Generator, size: int) -> Iterator[Rows]:
        """The batches of one epoch, arrays of sample numbers."""
        order = rng.permutation(self.samples)
        for start in range(0, self.samples, size):
            yield order[start : start + size]

    def prepare(self) -> None:
        """Compute what stays as it is for the whole training."""

    def mine(self, miner: MiningCall, k: int) -> None:
        """Find k hard negatives for each sample, by the model as it is."""
        raise NotImplementedError

    def gradients(self, batch: Rows, losses: list[Weighted]) -> Gradients:
        """The losses of a batch, and their gradients."""
        raise NotImplementedError

    def step(self, batch: Rows, losses: list[Weighted], optimizer: Any) -> float | None:
        """The optimizer's step of a batch, and the losses' value; None, and no step, if it needs `gradients`."""
        return None

    def metrics(self, names: tuple[str, ...]) -> dict[str, float]:
        """The metrics on the validation data."""
        raise NotImplementedError

    def validation_loss(self, losses: list[Weighted], size: int) -> float:
        """The losses on the validation data, in batches of this size, averaged over samples."""
        raise NotImplementedError

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the arrays that are learnt from, by the names of their arguments."""
        raise NotImplementedError

    def check_finite(self) -> None:
        """Raise if the data are not finite, as far as that is not known yet."""


@contextmanager
def divergence(task: Task, run: Any, optimizer: Any) -> Iterator[None]:
    """Add step and learning rate to an error about values that are not finite, where the data are finite."""
    try:
        yield
    except NotFiniteError as error:
        task.check_finite()
        raise NotFiniteError(
            f"the loss diverged at step {run.step} with learning rate {optimizer.learning_rate:g}: {error}"
        ) from error


def plus(total: Any, weight: float, gradient: Floats) -> Floats:
    """total + weight · gradient, without a copy where the total is None and the weight 1."""
    part = gradient if weight == 1.0 else weight * gradient
    return part if total is None else np.add(total, part, out=total)
