"""Numbers of the calls that draw, by which a call draws afresh and a new miner repeats the sequence."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rvtrain.mining._selection_kernels import BY_SCORE, Rule

_counting = threading.Lock()
"""Held for a few instructions while a draw is counted. All miners share it, because a miner with a lock of its own
could not be pickled."""


class Draws:
    """The number of draws made so far, counted also where threads share the miner."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    @contextmanager
    def counted(self, rule: Rule) -> Iterator[Rule]:
        """The rule with the number of this draw. The last call gives its number back if it fails."""
        drawn = int(rule.kind != BY_SCORE)
        with _counting:
            self.count += drawn
            last = self.count
        try:
            yield rule._replace(draw=last - drawn)
        except BaseException:
            with _counting:
                if self.count == last:
                    self.count -= drawn
            raise
