"""When a training mines, with which miner, and how any miner is called."""

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvtrain import _validation as check
from rvtrain.training._protocols import Miner


@dataclass(frozen=True)
class Mining:
    """Mining of hard negatives within a training: the miner, and when it is asked.

    Parameters
    ----------
    miner : Miner
        Such as ``HardNegativeMiner("hardest", relative_margin=0.05)``, whose filters are its own. Any object with
        ``mine(anchors, candidates, k)`` will do.
    k : int
        Number of negatives for each query. A curriculum's ``k_neighbors`` takes its place.
    start : int
        First epoch that mines, counted from 1: with 3, two epochs have in-batch negatives only.
    every : int
        Number of epochs from one mining to the next.

    References
    ----------
    Xiong et al. (2021), Approximate Nearest Neighbor Negative Contrastive Learning for Dense Text Retrieval, ICLR,
    for mining again while training.

    Examples
    --------
    >>> import rvtrain as rt
    >>> rt.Mining(rt.HardNegativeMiner.hardest(), k=8, start=3).start
    3
    """

    miner: Miner
    k: int = 4
    start: int = 1
    every: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.miner, type) or not callable(getattr(self.miner, "mine", None)):
            raise TypeError(f"miner must be an object with a method 'mine', got {self.miner!r}")
        try:
            inspect.signature(self.miner.mine).bind(None, None, 1)
        except TypeError:
            raise TypeError(f"miner must have mine(anchors, candidates, k), got {self.miner!r}") from None
        for name in ("k", "start", "every"):
            object.__setattr__(self, name, check.integer(name, getattr(self, name), low=1))

    def is_due(self, epoch: int) -> bool:
        """Whether this epoch, counted from 1, begins with a mining."""
        return epoch >= self.start and (epoch - self.start) % self.every == 0


class MiningCall:
    """A miner, called with what its signature accepts."""

    def __init__(self, miner: Any) -> None:
        self.miner = miner
        parameters = inspect.signature(miner.mine).parameters.values()
        self._takes_all = any(p.kind == p.VAR_KEYWORD for p in parameters)
        self._accepted = {p.name for p in parameters}

    def accepts(self, name: str) -> bool:
        """Whether `mine` has such a parameter."""
        return self._takes_all or name in self._accepted

    def prepared(self, candidates: NDArray[Any]) -> Any:
        """Candidates of many calls as the miner wants them, which its method `prepare` makes if it has one."""
        prepare = getattr(self.miner, "prepare", None)
        return prepare(candidates) if callable(prepare) else candidates

    def __call__(self, anchors: Any, candidates: Any, k: int, **options: Any) -> NDArray[np.int64]:
        """Indices of candidates, (B, k); none of those that are to be excluded."""
        found = self.miner.mine(anchors, candidates, k, **{n: v for n, v in options.items() if self.accepts(n)})
        indices = check.integer_array("the miner's result", found, (len(anchors), None))
        if not self.accepts("exclude"):
            own = (indices[:, :, np.newaxis] == options["exclude"][:, np.newaxis, :]).any(axis=2)
            indices = np.where(own, -1, indices)
        return indices
