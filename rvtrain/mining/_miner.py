"""Hard negatives for each anchor, from a pool of candidates."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain._primitives._engine import Rows
from rvtrain._primitives._norms import checked_inverse_norms
from rvtrain.mining._search import Allowed, Rule, Search, at, largest, paired_cosines
from rvtrain.mining._selection_kernels import BY_SCORE, EXPONENTIAL, UNIFORM, WU2017
from rvtrain.mining._strategy import MiningStrategy

DENSITIES = {"exponential": EXPONENTIAL, "wu2017": WU2017}


class HardNegativeMiner:
    r"""Mine negatives by cosine similarity s, exactly, without ever holding the matrix of all scores.

    Parameters
    ----------
    strategy : MiningStrategy, or its value as a string
        *hardest*: the k most similar. *semi_hard*: with positives, those with s⁺ − margin < s < s⁺, most similar
        first; without, those at most `margin` below the most similar candidate, which is itself left out.
        *distance_weighted*: k drawn without replacement, with probability ∝ exp(s / T), or by `density`.
        *random*: k drawn uniformly without replacement.
    margin : float
        Of semi_hard; > 0.
    temperature : float
        T of distance_weighted; > 0.
    seed : int
        In [0, 2⁶³). Each call of a drawing strategy draws afresh; a new miner with the same seed repeats the
        sequence, whatever the number of threads.
    density : {"exponential", "wu2017"}
        Of distance_weighted: "wu2017" weighs by 1 / q(d), where q is the density of the distance d between random
        points of the sphere in n dimensions, :math:`\log w = (2-n) \log d - \frac{n-3}{2} \log(1 - d^2/4)`, with
        d at least ½; candidates with d ≥ 1.4 are left out.
    fill : bool
        Of semi_hard: whether a row with fewer than k in the window goes on with the next most similar below it,
        or is left short.

    References
    ----------
    Schroff, Kalenichenko & Philbin (2015), FaceNet, arXiv:1503.03832.
    Wu, Manmatha, Smola & Krähenbühl (2017), Sampling Matters in Deep Embedding Learning, arXiv:1706.07567.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> candidates = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]])
    >>> rt.HardNegativeMiner.hardest().mine(np.array([1.0, 0.1]), candidates, k=2, exclude=[0])
    array([1, 2])
    """

    def __init__(
        self,
        strategy: MiningStrategy | str,
        margin: float = 0.1,
        temperature: float = 1.0,
        seed: int = 0,
        *,
        density: str = "exponential",
        fill: bool = True,
    ) -> None:
        if not isinstance(strategy, MiningStrategy):
            strategy = MiningStrategy(check.choice("strategy", strategy, [s.value for s in MiningStrategy]))
        self.strategy = strategy
        self.margin = check.number("margin", margin, low=0.0, open_low=True)
        self.temperature = check.number("temperature", temperature, low=0.0, open_low=True)
        self.seed = check.integer("seed", seed, low=0, high=2**63 - 1)
        self.density = check.choice("density", density, DENSITIES)
        self.fill = check.flag("fill", fill)
        self._draws = 0

    @classmethod
    def hardest(cls) -> "HardNegativeMiner":
        """The k most similar candidates."""
        return cls(MiningStrategy.HARDEST)

    @classmethod
    def semi_hard(cls, margin: float = 0.1, *, fill: bool = True) -> "HardNegativeMiner":
        """The most similar of those that are less similar than the positive."""
        return cls(MiningStrategy.SEMI_HARD, margin=margin, fill=fill)

    @classmethod
    def distance_weighted(
        cls, temperature: float = 1.0, *, seed: int = 0, density: str = "exponential"
    ) -> "HardNegativeMiner":
        """Drawn by weights that depend on the similarity."""
        return cls(MiningStrategy.DISTANCE_WEIGHTED, temperature=temperature, seed=seed, density=density)

    @classmethod
    def random(cls, *, seed: int = 0) -> "HardNegativeMiner":
        """Drawn uniformly."""
        return cls(MiningStrategy.RANDOM, seed=seed)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.strategy.value})"

    def mine(
        self,
        anchors: Any,
        candidates: Any,
        k: int,
        *,
        positives: Any = None,
        exclude: Any = None,
        anchor_ids: Any = None,
        candidate_ids: Any = None,
        return_scores: bool = False,
    ) -> Any:
        """Choose k candidates for each anchor.

        Parameters
        ----------
        anchors : array of shape (B, d), or (d,) for one anchor
            float32 or float64, like all arrays here; mixed types are promoted.
        candidates : array of shape (N, d)
        k : int
            At least 1; more than there are leaves −1.
        positives : array of anchors' shape, optional
            For semi_hard.
        exclude : integer array of shape (B, m), or (m,) for one anchor, optional
            Candidates never to be returned for that row; −1: none.
        anchor_ids, candidate_ids : integer arrays of shapes (B,) and (N,), optional, together
            Equal ids are never negatives of each other.
        return_scores : bool
            Return the cosines too.

        Returns
        -------
        indices : int64 array of shape (B, k), or (k,) for one anchor
            Most similar first, or in the order drawn; ties go to the lower index; −1 where a row has too few.
        scores : array of the same shape, if asked for
            Cosines; −inf where the index is −1.

        Raises
        ------
        TypeError
            If an array is not float32 or float64, or indices or ids are no integers.
        ValueError
            If shapes do not fit, something is empty or not finite, or an index is out of range.
        """
        a = check.float_array("anchors", anchors, (1, 2))
        c = check.float_array("candidates", candidates, 2)
        single = a.ndim == 1
        if a.shape[-1] != c.shape[1]:
            raise ValueError(f"candidates must have {a.shape[-1]} columns like anchors, got shape {c.shape}")
        k = check.integer("k", k, low=1)
        check.flag("return_scores", return_scores)
        p = None
        if positives is not None:
            p = check.float_array("positives", positives, a.ndim)
            check.same_shape("positives", p, "anchors", a.shape)
        allowed = _allowed(exclude, anchor_ids, candidate_ids, 1 if single else len(a), len(c), single)
        arrays = check.promoted(*(np.atleast_2d(x) for x in (a, c, p) if x is not None))

        ceilings = None
        if p is not None and self.strategy is MiningStrategy.SEMI_HARD:
            ceilings = paired_cosines(_rows("anchors", arrays[0]), _rows("positives", arrays[2])).astype(float)
        search = Search("anchors", arrays[0], arrays[1])
        count = len(arrays[0])
        indices, scores = np.empty((count, k), np.int64), np.empty((count, k), arrays[0].dtype)
        rule = self._rule(arrays[0].shape[1])
        for part, slab in search.slabs():
            ceiling = None if ceilings is None else ceilings[part]
            indices[part] = self._choose(slab, part.start, k, rule, allowed, ceiling)
            scores[part] = at(slab, indices[part])
        if self.strategy.draws:
            self._draws += 1
        if single:
            indices, scores = indices[0], scores[0]
        return (indices, scores) if return_scores else indices

    def _rule(self, dim: int) -> Rule:
        kind = {MiningStrategy.RANDOM: UNIFORM, MiningStrategy.DISTANCE_WEIGHTED: DENSITIES[self.density]}
        return kind.get(self.strategy, BY_SCORE), self.temperature, float(dim), self.seed, self._draws

    def _choose(
        self,
        scores: np.ndarray,
        first: int,
        k: int,
        rule: Rule,
        allowed: Allowed,
        ceilings: np.ndarray | None,
    ) -> np.ndarray:
        if self.strategy is not MiningStrategy.SEMI_HARD:
            return largest(scores, first, k, rule, allowed)
        if ceilings is None:
            # One more than asked for: the first is the hardest itself, which is left out.
            found = largest(scores, first, k + 1, rule, allowed)
            chosen, tops = found[:, 1:], at(scores, found[:, :1])
            if not self.fill:
                chosen = np.where(at(scores, chosen) >= tops - self.margin, chosen, -1)
            return chosen
        floors = None if self.fill else ceilings - self.margin
        return largest(scores, first, k, rule, allowed, floors, ceilings)

    def reset(self) -> None:
        """Begin the sequence of draws again."""
        self._draws = 0

    def state_dict(self) -> dict[str, Any]:
        """How many draws have been made; the rest is the constructor's."""
        return {"draws": self._draws}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        if not isinstance(state, Mapping) or set(state) != {"draws"}:
            raise ValueError(f"state must be a dict with the key 'draws', got {state!r}")
        self._draws = check.integer("state['draws']", state["draws"], low=0)


def _rows(name: str, x: np.ndarray) -> Rows:
    return Rows(x, checked_inverse_norms(name, x))


def _allowed(exclude: Any, anchor_ids: Any, candidate_ids: Any, rows: int, columns: int, single: bool) -> Allowed:
    excluded = np.empty((rows, 0), np.int64)
    if exclude is not None:
        shape = (None,) if single and np.ndim(exclude) == 1 else (rows, None)
        excluded = np.atleast_2d(check.indices("exclude", exclude, shape, columns, missing=True))
    if (anchor_ids is None) != (candidate_ids is None):
        raise ValueError("anchor_ids and candidate_ids must be given together, got only one of them")
    if anchor_ids is None:
        return excluded, np.empty((rows, 0), np.int64), np.empty((columns, 0), np.int64)
    if single and np.ndim(anchor_ids) == 0:
        anchor_ids = np.asarray(anchor_ids)[np.newaxis]
    row_ids = check.integer_array("anchor_ids", anchor_ids, (rows,))
    column_ids = check.integer_array("candidate_ids", candidate_ids, (columns,))
    return excluded, row_ids[:, np.newaxis], column_ids[:, np.newaxis]
