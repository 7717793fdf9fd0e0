"""A model of the cost of a loss whose batch many ranks share: time of a step, memory of a rank, efficiency."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rvtrain._engine._blocks import Rows
from rvtrain._engine._layout import slab_bytes
from rvtrain._engine._scratch import scratch
from rvtrain._engine._sweep import masked, sweep
from rvtrain._engine._treatment import Own
from rvtrain.distributed._batch import SEGMENTS


class Cost(NamedTuple):
    """The cost of one call with gradients to both inputs, on each rank; seconds and bytes."""

    scoring: float
    exchange: float
    adding: float
    memory: float
    alone: float
    """Scoring by one rank of the same kind."""

    @property
    def seconds(self) -> float:
        """Time of a step."""
        return self.scoring + self.exchange + self.adding

    def efficiency(self, ranks: int) -> float:
        """Part of the ideal speed: 1 if so many ranks took 1/ranks of the time of one."""
        return self.alone / (ranks * self.seconds)


def cost(
    batch: int, dim: int, ranks: int, pairs_per_second: float, copied: float, bandwidth: float, latency: float,
    itemsize: int = 4,
) -> Cost:  # fmt: skip
    """The cost of an in-batch loss of one direction.

    With B rows, d columns and P ranks: each rank scores B²/P pairs. It receives (P − 1)/P of the columns, B d numbers
    and a norm each, and of as many sums, in 2 (P − 1) messages besides short exchanges of 2 log₂ P. It adds the
    sums of its segments and those that it receives. Packing is part of the scores per second. Exchange and scoring
    do not overlap.

    Parameters
    ----------
    pairs_per_second : float
        Scores of one rank, with the sums to rows and columns.
    copied : float
        Bytes that one rank reads, adds and writes in a second.
    bandwidth, latency : float
        Of one rank: bytes received in a second, and seconds of a message.
    """
    columns, others = batch * dim * itemsize, (ranks - 1) / ranks
    segments = max(1, SEGMENTS // ranks)
    received = others * (2 * columns + 8 * batch)
    messages = 2 * (ranks - 1) + 2 * np.ceil(np.log2(ranks)) if ranks > 1 else 0
    kept = int(np.ceil(np.log2(segments))) + 1
    memory = columns * (4 + kept + 1) + 8 * batch + 5 * columns / ranks + slab_bytes()
    scoring = batch * batch / ranks / pairs_per_second
    return Cost(
        scoring,
        received / bandwidth + messages * latency,
        (segments + 1) * columns / copied,
        memory,
        batch * batch / pairs_per_second,
    )


def measured_rates(dim: int, treatment: Any, batch: int = 4096) -> tuple[float, float]:
    """`pairs_per_second` and `copied` of this process, from a sweep of a quarter of a batch and sums in memory."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, dim), np.float32)
    rows = Rows(x, 1.0 / np.linalg.norm(x, axis=1).astype(np.float64))
    few = Rows(x[: batch // 4], rows.inverse[: batch // 4])
    none, count = np.empty(0), batch // 4
    own = Own(np.ones(count), np.full(count, 1.0 / count), none, none)
    mask = masked(count, batch, x.dtype, diagonals=(0,))

    def step() -> None:
        with scratch() as memory:
            sweep(few, rows, treatment, mask, own, memory, to_rows=True, to_columns=True)

    total = np.zeros_like(x)
    return count * batch / _seconds(step), x.nbytes / _seconds(lambda: np.add(total, x, out=total))


def _seconds(function: Callable[[], object], least: float = 0.5) -> float:
    """The median time of a call; the first calls are not counted."""
    function()
    found: list[float] = []
    begin = time.perf_counter()
    while len(found) < 3 or time.perf_counter() - begin < least:
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return float(np.median(found))
