"""Curricula: stages of a training run, counted in samples, and temperature schedules."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rvtrain import _validation as check

SCHEDULES = ("linear", "exponential", "cosine", "step")


@dataclass(frozen=True)
class CurriculumStage:
    """One stage of a curriculum.

    Parameters
    ----------
    name : str
    duration : int
        Number of samples, at least 1.
    temperature : float
        Temperature of the loss, > 0.
    k_neighbors : int
        Number of hard negatives to mine for each anchor, at least 1.
    difficulty : float
        Between 0 and 1. The package does not read it; your own code may.

    References
    ----------
    Bengio, Louradour, Collobert & Weston (2009), Curriculum Learning, ICML.

    Examples
    --------
    >>> import rvtrain as rt
    >>> rt.CurriculumStage("warm-up", duration=1000, temperature=0.5, k_neighbors=5)
    CurriculumStage(name='warm-up', duration=1000, temperature=0.5, k_neighbors=5, difficulty=0.0)
    """

    name: str
    duration: int
    temperature: float
    k_neighbors: int
    difficulty: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a string, got {self.name!r}")
        checked = {
            "duration": check.integer("duration", self.duration, low=1),
            "temperature": check.temperature(self.temperature),
            "k_neighbors": check.integer("k_neighbors", self.k_neighbors, low=1),
            "difficulty": check.number("difficulty", self.difficulty, low=0.0, high=1.0),
        }
        for field, value in checked.items():
            object.__setattr__(self, field, value)


class CurriculumScheduler:
    """A sequence of stages, each for its number of samples. The last stage stays current after its end.

    Parameters
    ----------
    stages : iterable of CurriculumStage

    References
    ----------
    Bengio, Louradour, Collobert & Weston (2009), Curriculum Learning, ICML.

    Examples
    --------
    >>> import rvtrain as rt
    >>> curriculum = rt.CurriculumScheduler.linear(3, 1000, 5, 20, 1.0, 0.1)
    >>> curriculum.step(2500)
    >>> stage = curriculum.current_params()
    >>> stage.name, stage.k_neighbors, stage.temperature
    ('stage 3', 20, 0.1)
    >>> curriculum.progress, curriculum.is_complete
    (0.8333333333333334, False)
    """

    def __init__(self, stages: Iterable[CurriculumStage]) -> None:
        if not isinstance(stages, Iterable):
            raise TypeError(f"stages must be an iterable of CurriculumStage, got {stages!r}")
        self.stages = tuple(stages)
        if not self.stages:
            raise ValueError("stages must not be empty")
        for i, stage in enumerate(self.stages):
            if not isinstance(stage, CurriculumStage):
                raise TypeError(f"stages[{i}] must be a CurriculumStage, got {stage!r}")
        self._samples = 0

    @classmethod
    def linear(
        cls,
        stages: int,
        samples_per_stage: int,
        k_start: int,
        k_end: int,
        temperature_start: float,
        temperature_end: float,
    ) -> "CurriculumScheduler":
        """Stages of equal length, over which k (rounded), temperature and difficulty change in equal steps.

        Parameters
        ----------
        stages : int
            Number of stages; a single one has the start values.
        samples_per_stage : int
            Duration of each stage.
        k_start, k_end : int
            k_neighbors of the first and of the last stage.
        temperature_start, temperature_end : float
            Temperature of the first and of the last stage. The difficulty goes from 0 to 1.

        Returns
        -------
        CurriculumScheduler
        """
        count = check.integer("stages", stages, low=1)
        k0, k1 = check.integer("k_start", k_start, low=1), check.integer("k_end", k_end, low=1)
        t0 = check.number("temperature_start", temperature_start, low=0.0, open_low=True)
        t1 = check.number("temperature_end", temperature_end, low=0.0, open_low=True)
        duration = check.integer("samples_per_stage", samples_per_stage, low=1)

        def stage(i: int) -> CurriculumStage:
            p = i / (count - 1) if count > 1 else 0.0
            k = math.floor(k0 + (k1 - k0) * p + 0.5)
            return CurriculumStage(f"stage {i + 1}", duration, t0 * (1.0 - p) + t1 * p, k, p)

        return cls(stage(i) for i in range(count))

    def __repr__(self) -> str:
        return f"CurriculumScheduler({len(self.stages)} stages, {self._samples} of {self._total} samples)"

    @property
    def _total(self) -> int:
        return sum(stage.duration for stage in self.stages)

    def current_params(self) -> CurriculumStage:
        """The stage of the next sample."""
        end = 0
        for stage in self.stages:
            end += stage.duration
            if self._samples < end:
                return stage
        return self.stages[-1]

    def step(self, n_samples: int) -> None:
        """Advance by `n_samples`, possibly over several stages."""
        self._samples += check.integer("n_samples", n_samples, low=0)

    @property
    def progress(self) -> float:
        """Samples seen as a fraction of the samples of all stages, 0 to 1."""
        return min(self._samples / self._total, 1.0)

    @property
    def is_complete(self) -> bool:
        """Whether the samples of all stages have been seen."""
        return self._samples >= self._total

    def reset(self) -> None:
        """Go back to the first sample."""
        self._samples = 0

    def state_dict(self) -> dict[str, int]:
        """The number of samples seen. It does not contain the stages, which the constructor takes."""
        return {"samples": self._samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`."""
        self._samples = _counter(state, "samples")


class TemperatureAnnealing:
    r"""A temperature that changes from one value to another over T steps.

    With :math:`p = \min(t / T, 1)` after t steps:

    ============ ==============================================================
    schedule     temperature
    ============ ==============================================================
    linear       :math:`T_0 + (T_1 - T_0) p`
    exponential  :math:`T_0 (T_1 / T_0)^p`
    cosine       :math:`T_1 + (T_0 - T_1)(1 + \cos π p) / 2`
    step         :math:`\max(T_0 γ^{⌊t / s⌋}, T_1)`
    ============ ==============================================================

    Parameters
    ----------
    start, end : float
        T₀ and T₁, both > 0; typically 1.0 and 0.05 to 0.1.
    steps : int
        T ≥ 1.
    schedule : {"linear", "exponential", "cosine", "step"}
    step_size : int, optional
        s of the step schedule; by default a tenth of the steps.
    gamma : float
        γ of the step schedule, in (0, 1].

    References
    ----------
    Kukleva et al. (2023), Temperature Schedules for Self-Supervised Contrastive Methods on Long-Tail Data,
    arXiv:2303.13664.

    Examples
    --------
    >>> import rvtrain as rt
    >>> annealing = rt.TemperatureAnnealing(1.0, 0.1, steps=100)
    >>> annealing.step(50)
    0.55
    >>> annealing.step(50), annealing.step()
    (0.1, 0.1)
    """

    def __init__(
        self,
        start: float = 1.0,
        end: float = 0.05,
        steps: int = 1000,
        schedule: str = "cosine",
        *,
        step_size: int | None = None,
        gamma: float = 0.5,
    ) -> None:
        self.start = check.number("start", start, low=0.0, open_low=True)
        self.end = check.number("end", end, low=0.0, open_low=True)
        self.steps = check.integer("steps", steps, low=1)
        self.schedule = check.choice("schedule", schedule, SCHEDULES)
        default = max(self.steps // 10, 1)
        self.step_size = check.integer("step_size", default if step_size is None else step_size, low=1)
        self.gamma = check.number("gamma", gamma, low=0.0, high=1.0, open_low=True)
        if schedule == "step" and self.end > self.start:
            raise ValueError(f"end must be at most start, {start}, for the step schedule, got {end}")
        self._step = 0

    def __repr__(self) -> str:
        step = f"{self._step} of {self.steps}"
        return f"TemperatureAnnealing({self.start:g} → {self.end:g}, {self.schedule}, {step})"

    @property
    def temperature(self) -> float:
        """The temperature at this step."""
        if self.schedule == "step":
            return max(self.start * float(self.gamma ** (self._step // self.step_size)), self.end)
        p = min(self._step / self.steps, 1.0)
        if self.schedule == "exponential":
            value = math.pow(self.start, 1.0 - p) * math.pow(self.end, p)
        else:
            done = p if self.schedule == "linear" else (1.0 - math.cos(math.pi * p)) / 2.0
            value = self.start * (1.0 - done) + self.end * done  # this form is exact at both ends
        low, high = sorted((self.start, self.end))
        return min(max(value, low), high)  # because rounding may lead outside of [low, high]

    def step(self, n: int = 1) -> float:
        """Advance by n steps and return the new temperature."""
        self._step += check.integer("n", n, low=0)
        return self.temperature

    def reset(self) -> None:
        """Go back to step 0."""
        self._step = 0

    def state_dict(self) -> dict[str, int]:
        """The number of steps made. It does not contain the schedule, which the constructor takes."""
        return {"step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict`."""
        self._step = _counter(state, "step")


def _counter(state: Mapping[str, Any], name: str) -> int:
    if not isinstance(state, Mapping) or set(state) != {name}:
        raise ValueError(f"state must be a dict with the key {name!r}, got {state!r}")
    return check.integer(f"state[{name!r}]", state[name], low=0)
