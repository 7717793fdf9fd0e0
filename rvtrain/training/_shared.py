"""What the ranks of one training share: parts of a batch, sums of gradients, and checks that all do the same."""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from rvtrain.distributed._batch import SEGMENTS, shares_of
from rvtrain.distributed._ranks import Ranks
from rvtrain.distributed._sweep import total_of_ranks
from rvtrain.distributed._threads import warn_if_crowded
from rvtrain.training._embedding import Rows, embed
from rvtrain.training._losses import LossCall, Weighted
from rvtrain.training._models import Floats, Params, forward_rows
from rvtrain.training._row_gradient import RowGradient, by_rows
from rvtrain.training._run import fingerprint
from rvtrain.training._task import plus


def check_shared(calls: list[LossCall]) -> None:
    """Raise unless the losses can be shared by ranks."""
    for call in calls:
        if not hasattr(call.owner, "comm") or (call.kind == "pairs" and not call.takes_pool):
            raise TypeError(f"loss must have a parameter comm where the trainer has one, got {call.loss!r}")


def is_enough(count: int, ranks: Ranks) -> bool:
    """Whether each segment of so many rows has one; batches with fewer are computed by every rank."""
    return count >= max(SEGMENTS, ranks.size)


def of_all_ranks(ranks: Ranks, count: int, function: Callable[[slice], np.ndarray]) -> np.ndarray:
    """What a function returns for this rank's part of so many rows, and what the other ranks have for theirs."""
    bounds = shares_of(count, ranks)
    with ranks.together():
        mine = function(slice(int(bounds[0]), int(bounds[-1])))
    facts = {"shape of a result": mine.shape[1:], "dtype of a result": mine.dtype}
    counts = ranks.agree(facts, (len(mine),))[:, 0].copy()
    return ranks.gathered(mine, counts)


class Part:
    """This rank's rows of a table, embedded in segments, and the gradient to them.

    `fixed` embeds the rows of a side that is not trained; None: its model does.
    """

    def __init__(
        self, ranks: Ranks, model: Any, table: Any, rows: Rows, trains: bool, micro: int | None,
        fixed: Callable[[Any, Rows], Floats] | None = None,
    ) -> None:  # fmt: skip
        bounds = shares_of(len(rows), ranks)
        self.rows = slice(int(bounds[0]), int(bounds[-1]))
        self.segments = len(bounds) - 1
        self.trains = trains
        self._bounds = bounds - bounds[0]
        self._back: list[Callable[[Floats], Params]] = []
        self._gradient: Floats | None = None
        if not trains:
            mine = rows[self.rows]
            self.x = forward_rows(model, table, mine)[0] if fixed is None else fixed(table, mine)
            return
        found = []
        for start, stop in itertools.pairwise(bounds):
            out, back = embed(model, table, rows[start:stop], micro)
            found.append(out)
            self._back.append(back)
        self.x = np.concatenate(found)

    def add(self, weight: float, gradient: Floats) -> None:
        """Add weight · gradient of the embeddings."""
        self._gradient = plus(self._gradient, weight, gradient)

    def gradients(self) -> list[Params]:
        """The gradients of the parameters, of each segment; empty without a gradient."""
        if self._gradient is None or not self.trains:
            return [{}] * self.segments
        parts = zip(self._back, self._bounds[:-1], self._bounds[1:], strict=True)
        return [back(np.ascontiguousarray(self._gradient[start:stop])) for back, start, stop in parts]


def added(parts: list[Params]) -> Params:
    """The sum of gradients by name, of which some may not be there."""
    total: Params = {}
    for each in parts:
        for name, g in each.items():
            total[name] = total[name] + g if name in total else g
    return total


def summed(ranks: Ranks, segments: list[Params]) -> tuple[Params, dict[str, Rows] | None]:
    """The gradients of the parameters over the segments of all ranks, as an optimizer takes them."""
    found: dict[str, Any] = {}
    for name, g in segments[0].items():
        if isinstance(g, RowGradient):
            rows, values = zip(*((each[name].rows, each[name].values) for each in segments), strict=True)
            found[name] = rows_of_all(ranks, g.shape, np.concatenate(rows), np.concatenate(values))
    return by_rows(_total(ranks, segments, set(found)) | found)


def _total(ranks: Ranks, segments: list[Params], without: set[str]) -> dict[str, Any]:
    """The gradients but for these names, added in the order of a tree."""
    shapes = {name: (g.shape, g.size) for name, g in segments[0].items() if name not in without}
    if not shapes:
        return {}
    flat = [np.concatenate([grads[name].ravel() for name in shapes]) for grads in segments]
    total, start, found = total_of_ranks(ranks, flat), 0, {}
    for name, (shape, size) in shapes.items():
        found[name] = total[start : start + size].reshape(shape)
        start += size
    return found


def rows_of_all(ranks: Ranks, shape: tuple[int, int], rows: Rows, values: Floats) -> RowGradient:
    """The gradient of a table, of which each rank has that of some rows, in the order of its segments."""
    counts = ranks.agree({}, (len(rows),))[:, 0].copy()
    return RowGradient(shape, ranks.gathered(rows, counts), ranks.gathered(values, counts))


def agree_on_parameters(ranks: Ranks, params: Params) -> None:
    """Raise on every rank, unless all have the same bits in their parameters, as far as fingerprints tell."""
    ranks.agree(
        {f"parameter {name}": f"{x.dtype} {x.shape} {fingerprint(x)}" for name, x in params.items()}, room=1 << 16
    )


def agree(ranks: Ranks, settings: dict[str, Any], params: Params, resumes: bool) -> None:
    """Raise on every rank, unless all have the same settings and parameters; before the first step."""
    warn_if_crowded(ranks)
    facts = {name: _short(value) for name, value in settings.items()}
    ranks.agree({**facts, "file to resume from": resumes}, room=1 << 16)
    agree_on_parameters(ranks, params)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:100]}… {hashlib.sha256(text.encode()).hexdigest()[:16]}"


@contextmanager
def shared_by(ranks: Ranks, losses: list[Weighted]) -> Iterator[None]:
    """Losses whose batch is that of all ranks."""
    owners = [call.owner for call, _ in losses]
    before = [owner.comm for owner in owners]
    try:
        for owner in owners:
            owner.comm = ranks.comm
        yield
    finally:
        for owner, comm in zip(owners, before, strict=True):
            owner.comm = comm


def agree_on_data(ranks: Ranks, arrays: dict[str, Any], fingerprints: dict[str, str]) -> None:
    """Raise on every rank, unless the arrays are the same on all; before the first step."""
    kinds = {f"shape and dtype of {name}": f"{x.shape} {x.dtype}" for name, x in arrays.items()}
    ranks.agree(kinds | {f"elements of {name}": value for name, value in fingerprints.items()}, room=1 << 14)
