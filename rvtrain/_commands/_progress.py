"""A progress bar on stderr that says what is being done: mining, evaluating, compiling."""

import contextlib
from collections.abc import Iterator
from typing import Any

from rvtrain import _compiling


class Progress:
    """A bar of phases; nothing is shown where stderr is no terminal."""

    def __init__(self, bar: Any) -> None:
        self._bar, self._phase = bar, ""

    def phase(self, name: str, total: int | None = None) -> None:
        """Begin something that takes so many steps, if that is known."""
        self._phase = name
        self._bar.reset(total)
        self._bar.set_description(name)

    def describe(self, name: str) -> None:
        """Go on under another name."""
        self._phase = name
        self._bar.set_description(name)

    def update(self, count: int) -> None:
        """So many steps more."""
        self._bar.update(count)

    def reached(self, done: int, total: int | None) -> None:
        """So many steps in all, as miners report."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def compiling(self, begins: bool) -> None:
        """Show compilation as a phase of its own."""
        self._bar.set_description(f"{self._phase} (compiling)" if begins else self._phase)


@contextlib.contextmanager
def progress(total: int | None = None, unit: str = " rows") -> Iterator[Progress]:
    """A bar, until the block ends."""
    from tqdm.auto import tqdm

    with tqdm(total=total, unit=unit, unit_scale=True, mininterval=0.2, leave=False, disable=None) as bar:
        shown = Progress(bar)
        # Without a bar nobody listens, so that the line about compilation is written.
        with contextlib.nullcontext() if bar.disable else _compiling.listening(shown.compiling):
            yield shown
