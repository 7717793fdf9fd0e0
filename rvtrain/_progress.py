"""Progress bars for terminals and notebooks, which also show when kernels are being compiled."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rvtrain._kernels import _compiling


def is_visible() -> bool:
    """Whether the user would see a bar: stderr is a terminal, or the process runs a notebook."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


class Bar:
    """A tqdm bar, or none. Its description is the current phase, or "compiling" while a kernel is being compiled."""

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar
        self._phase = ""
        self._shown: dict[str, str] = {}

    def phase(self, name: str) -> None:
        """Set the description."""
        self._phase = name
        self.compiling(False)

    def compiling(self, active: bool) -> None:
        """Show that a compilation has begun, or ended."""
        if self._bar is not None:
            self._bar.set_description_str("compiling" if active else self._phase or None)

    def update(self, count: int, **values: float) -> None:
        """Advance by `count` units and show `values`."""
        if self._bar is not None:
            self._shown |= {name: f"{value:.4g}" for name, value in values.items()}
            self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update(count)

    def reach(self, done: int, total: int | None) -> None:
        """Set the bar to `done` of `total` units; miners call their `progress` argument in this form."""
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)


@contextmanager
def shown(total: int | None, unit: str, initial: int = 0, visible: bool | None = None) -> Iterator[Bar]:
    """A bar, drawn if `visible`; None means `is_visible()`."""
    if not (is_visible() if visible is None else visible):
        yield Bar()
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, unit=f" {unit}", unit_scale=True, initial=initial, mininterval=0.5) as inner:
        bar = Bar(inner)
        with _compiling.listening(bar.compiling):
            yield bar
