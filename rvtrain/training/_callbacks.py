"""Callbacks of a training, and the average of the parameters as one of them."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rvtrain.optimizers import EMA
from rvtrain.training._models import Params

if TYPE_CHECKING:
    from rvtrain.training._trainer import Trainer

HOOKS = ("on_fit_start", "on_step_end", "on_epoch_end", "on_fit_end")
Record = dict[str, float]
"""A line of `Trainer.history`, or the numbers of one step."""


class Callback:
    """Base of callbacks, for editors; any object with one of these methods is a callback.

    A plain function is an `on_epoch_end`. A callback may also have ``state_dict`` and ``load_state_dict``, which go
    into checkpoints, and ``evaluated_params()``, which returns parameters to evaluate and to keep in the place of
    those that are trained, as `EMACallback` does.

    References
    ----------
    Chollet et al. (2015), Keras, https://keras.io/api/callbacks, for the idea.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> class Printed(rt.Callback):
    ...     def on_epoch_end(self, trainer, record):
    ...         print(f"epoch {record['epoch']:.0f} of {trainer.epochs}")
    >>> x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    >>> trainer = rt.Trainer(rt.LinearAdapter(4), epochs=2, callbacks=[Printed()]).fit(x, x)
    epoch 1 of 2
    epoch 2 of 2
    """

    def on_fit_start(self, trainer: "Trainer", record: Record) -> None:
        """Called once, after the untrained model was evaluated, with the last record of the history."""

    def on_step_end(self, trainer: "Trainer", record: Record) -> None:
        """Called after each step, with its step, loss, temperature and learning_rate."""

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        """Called after each epoch and after its checkpoint was written, with its record."""

    def on_fit_end(self, trainer: "Trainer", record: Record) -> None:
        """Called when the best parameters are in place, also after an interruption or an error."""


class EMACallback(Callback):
    r"""Evaluate and keep an exponential moving average of the parameters, and not the parameters themselves.

    .. math:: a \leftarrow a + (1 - β) (p - a)

    after each step. The training goes on with the parameters p. When it ends, the model has the average a of the best
    epoch, or of the last step where there is no validation.

    Parameters
    ----------
    decay : float
        β in [0, 1). The average is over about 1 / (1 − β) steps.

    References
    ----------
    Izmailov et al. (2018), Averaging Weights Leads to Wider Optima and Better Generalization, UAI.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    >>> trainer = rt.Trainer(rt.LinearAdapter(4), epochs=2, callbacks=[rt.EMACallback(0.9)]).fit(x, x)
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = decay
        self._average: EMA[Params] | None = None
        self._loaded: Mapping[str, Any] | None = None
        EMA({}, decay)  # checks the decay

    def on_fit_start(self, trainer: "Trainer", record: Record) -> None:
        """Begin with a copy of the parameters, or with the average of the run that goes on."""
        self._average = EMA(trainer.params, self.decay)
        if self._loaded is not None:
            self._average.load_state_dict(self._loaded)
            self._loaded = None

    def on_step_end(self, trainer: "Trainer", record: Record) -> None:
        """Move the average."""
        assert self._average is not None
        self._average.update(trainer.params)

    def on_fit_end(self, trainer: "Trainer", record: Record) -> None:
        """End this run's average."""
        self._average = None

    def evaluated_params(self) -> Params | None:
        """The average."""
        return None if self._average is None else self._average.average

    def state_dict(self) -> dict[str, Any]:
        """The average, for checkpoints."""
        return {} if self._average is None else self._average.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over an average when the next run starts."""
        self._loaded = dict(state) or None


def check_callbacks(callbacks: Any) -> tuple[Any, ...]:
    """The callbacks, all of which have a hook or can be called; one alone may stand for a sequence of it."""
    found = tuple(callbacks) if isinstance(callbacks, Iterable) else (callbacks,)
    for callback in found:
        if isinstance(callback, type):
            raise TypeError(f"callbacks must be objects, got the class {callback.__name__}, not an object of it")
        if not callable(callback) and not any(callable(getattr(callback, hook, None)) for hook in HOOKS):
            raise TypeError(f"callbacks must be callable, or have one of {', '.join(HOOKS)}, got {callback!r}")
    return found


class Hooks:
    """The callbacks of a run, by what they are called for."""

    def __init__(self, trainer: "Trainer", callbacks: tuple[Any, ...]) -> None:
        self._trainer = trainer
        self._methods: dict[str, list[Callable[..., Any]]] = {hook: [] for hook in HOOKS}
        for callback in callbacks:
            hooks = [hook for hook in HOOKS if callable(getattr(callback, hook, None))]
            for hook in hooks:
                self._methods[hook].append(getattr(callback, hook))
            if not hooks:
                self._methods["on_epoch_end"].append(callback)
        self.averages = [c.evaluated_params for c in callbacks if hasattr(c, "evaluated_params")]
        self.stateful = [c for c in callbacks if hasattr(c, "state_dict") and hasattr(c, "load_state_dict")]

    def hears(self, hook: str) -> bool:
        """Whether a callback is called for this."""
        return bool(self._methods[hook])

    def call(self, hook: str, record: Record) -> None:
        """Call all callbacks for this, in their order."""
        for method in self._methods[hook]:
            method(self._trainer, dict(record))
