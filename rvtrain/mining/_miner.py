"""Hard negatives for each anchor, from a pool of candidates."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain.distributed._ranks import Communicator
from rvtrain.mining._asked import asked
from rvtrain.mining._candidates import Prepared, Progress
from rvtrain.mining._draws import Draws
from rvtrain.mining._filters import KEPT, Filters, Kept, above
from rvtrain.mining._pool import Pool
from rvtrain.mining._ranked import Ranked
from rvtrain.mining._report import Drops, MiningReport, Outcome
from rvtrain.mining._rescored import Rescore, rescored
from rvtrain.mining._search import Found, padded, reporting
from rvtrain.mining._selection_kernels import BY_SCORE, EXPONENTIAL, UNIFORM, WU2017, Rule
from rvtrain.mining._strategy import MiningStrategy

_M = TypeVar("_M", bound="HardNegativeMiner")

DENSITIES = {"exponential": EXPONENTIAL, "wu2017": WU2017}
_NONE = None, np.empty((0, 0), np.int64)


class HardNegativeMiner:
    r"""Mine negatives by cosine similarity s, exactly, without the matrix of all scores in memory.

    Parameters
    ----------
    strategy : MiningStrategy, or its value as a string
        *hardest*: the k most similar. *semi_hard*: with positives, those with s⁺ − margin < s < s⁺, most similar
        first, where s⁺ is the least cosine of an anchor with its positives; without, those at most `margin` below
        the most similar candidate, which itself is left out.
        *distance_weighted*: k drawn without replacement, with probability ∝ exp(s / T), or by `density`.
        *random*: k drawn uniformly without replacement.
    margin : float
        Of semi_hard; > 0.
    temperature : float
        T of distance_weighted; > 0.
    seed : int
        In [0, 2⁶³). Each call of a drawing strategy draws afresh, also where threads share the miner; a new miner
        with the same seed repeats the sequence, whatever the number of threads.
    density : {"exponential", "wu2017"}
        Of distance_weighted: "wu2017" weighs by 1 / q(d), where q is the density of the distance d between random
        points of the sphere in n dimensions, :math:`\log w = (2-n) \log d - \frac{n-3}{2} \log(1 - d^2/4)`, with
        d at least ½; candidates with d ≥ 1.4 are left out.
    fill : bool
        Of semi_hard: whether a row with fewer than k candidates in the window is filled with the next most similar
        ones below it, or is left short.
    range_min, range_max : int, optional
        Only candidates whose rank r by similarity, from 0 and among those not excluded, has
        range_min ≤ r < range_max. `range_max` is for hardest and semi_hard, and for calls with `rescore`.
    min_score, max_score : float, optional
        Only candidates with min_score ≤ s ≤ max_score.
    absolute_margin, relative_margin : float, optional
        Only candidates with s ≤ s⁺ − absolute_margin, or s ≤ s⁺ − relative_margin · abs(s⁺): a candidate nearly as
        similar as the least similar positive is often an unlabelled positive. `mine` then needs positives.
    sampling : {"top", "random"}
        "top": the strategy chooses among the candidates that pass these filters. "random": a uniform draw does.

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
        range_min: int = 0,
        range_max: int | None = None,
        min_score: float | None = None,
        max_score: float | None = None,
        absolute_margin: float | None = None,
        relative_margin: float | None = None,
        sampling: str = "top",
    ) -> None:
        if not isinstance(strategy, MiningStrategy):
            strategy = MiningStrategy(check.choice("strategy", strategy, [s.value for s in MiningStrategy]))
        self.strategy = strategy
        self.margin = check.margin(margin)
        self.temperature = check.temperature(temperature)
        self.seed = check.integer("seed", seed, low=0, high=2**63 - 1)
        self.density = check.choice("density", density, DENSITIES)
        self.fill = check.flag("fill", fill)
        self.filters = Filters().replaced(
            range_min=range_min,
            range_max=range_max,
            min_score=min_score,
            max_score=max_score,
            absolute_margin=absolute_margin,
            relative_margin=relative_margin,
            sampling=sampling,
        )
        self.filters.check_use(self.strategy, None)
        self._draws = Draws()
        self._last: MiningReport | Outcome | None = None
        self._chosen: tuple[int | None, NDArray[np.int64]] = _NONE

    @classmethod
    def hardest(
        cls: type[_M],
        *,
        range_min: int = 0,
        range_max: int | None = None,
        min_score: float | None = None,
        max_score: float | None = None,
        absolute_margin: float | None = None,
        relative_margin: float | None = None,
        sampling: str = "top",
    ) -> _M:
        """A miner of the k most similar candidates."""
        return cls(
            MiningStrategy.HARDEST,
            range_min=range_min,
            range_max=range_max,
            min_score=min_score,
            max_score=max_score,
            absolute_margin=absolute_margin,
            relative_margin=relative_margin,
            sampling=sampling,
        )

    @classmethod
    def semi_hard(
        cls: type[_M],
        margin: float = 0.1,
        *,
        fill: bool = True,
        range_min: int = 0,
        range_max: int | None = None,
        min_score: float | None = None,
        max_score: float | None = None,
        absolute_margin: float | None = None,
        relative_margin: float | None = None,
        sampling: str = "top",
    ) -> _M:
        """A miner of the most similar candidates that are less similar than the positive."""
        return cls(
            MiningStrategy.SEMI_HARD,
            margin=margin,
            fill=fill,
            range_min=range_min,
            range_max=range_max,
            min_score=min_score,
            max_score=max_score,
            absolute_margin=absolute_margin,
            relative_margin=relative_margin,
            sampling=sampling,
        )

    @classmethod
    def distance_weighted(
        cls: type[_M],
        temperature: float = 1.0,
        *,
        seed: int = 0,
        density: str = "exponential",
        range_min: int = 0,
        min_score: float | None = None,
        max_score: float | None = None,
        absolute_margin: float | None = None,
        relative_margin: float | None = None,
        sampling: str = "top",
    ) -> _M:
        """A miner that draws candidates by weights that depend on the similarity."""
        return cls(
            MiningStrategy.DISTANCE_WEIGHTED,
            temperature=temperature,
            seed=seed,
            density=density,
            range_min=range_min,
            min_score=min_score,
            max_score=max_score,
            absolute_margin=absolute_margin,
            relative_margin=relative_margin,
            sampling=sampling,
        )

    @classmethod
    def random(
        cls: type[_M],
        *,
        seed: int = 0,
        range_min: int = 0,
        min_score: float | None = None,
        max_score: float | None = None,
        absolute_margin: float | None = None,
        relative_margin: float | None = None,
        sampling: str = "top",
    ) -> _M:
        """A miner that draws candidates uniformly."""
        return cls(
            MiningStrategy.RANDOM,
            seed=seed,
            range_min=range_min,
            min_score=min_score,
            max_score=max_score,
            absolute_margin=absolute_margin,
            relative_margin=relative_margin,
            sampling=sampling,
        )

    def __repr__(self) -> str:
        defaults = Filters()._asdict()
        used = [f", {name}={x!r}" for name, x in self.filters._asdict().items() if x != defaults[name]]
        return f"{type(self).__name__}({self.strategy.value}{''.join(used)})"

    @staticmethod
    def prepare(candidates: ArrayLike | Prepared) -> Prepared:
        """Prepare candidates that are mined more than once.

        Their norms are computed and checked here, and their 8-bit codes are kept from the first search by bounds on
        (see ``method`` of `mine`). `Trainer` does this for the documents of a frozen side.

        Parameters
        ----------
        candidates : array of shape (N, d), in memory
            Must not change afterwards. Not copied, if of float32 or float64 and contiguous.

        Returns
        -------
        Prepared
            For the argument ``candidates`` of `mine`, of any miner, and of `top_k`.

        Raises
        ------
        TypeError, ValueError
            If `candidates` is not in memory, not of real numbers, not of shape (N, d), empty or not finite.

        Examples
        --------
        >>> import numpy as np
        >>> import rvtrain as rt
        >>> miner = rt.HardNegativeMiner.hardest()
        >>> documents = miner.prepare(np.eye(3))
        >>> miner.mine(np.array([0.1, 0.9, 0.2]), documents, k=2)
        array([1, 2])
        """
        return candidates if isinstance(candidates, Prepared) else Prepared("candidates", candidates)

    @overload
    def mine(
        self,
        anchors: ArrayLike,
        candidates: ArrayLike | Iterable[ArrayLike],
        k: int,
        *,
        positives: ArrayLike | None = ..., exclude: ArrayLike | None = ...,
        anchor_ids: ArrayLike | None = ..., candidate_ids: ArrayLike | None = ...,
        range_min: int | Kept = ..., range_max: int | Kept | None = ..., min_score: float | Kept | None = ...,
        max_score: float | Kept | None = ..., absolute_margin: float | Kept | None = ...,
        relative_margin: float | Kept | None = ..., sampling: str | Kept = ..., rescore: Rescore | None = ...,
        return_scores: Literal[False] = ...,
        progress: Progress | bool | None = ...,
        method: str = ..., comm: Communicator | None = ...,
    ) -> NDArray[np.int64]: ...  # fmt: skip

    @overload
    def mine(
        self,
        anchors: ArrayLike,
        candidates: ArrayLike | Iterable[ArrayLike],
        k: int,
        *,
        positives: ArrayLike | None = ..., exclude: ArrayLike | None = ...,
        anchor_ids: ArrayLike | None = ..., candidate_ids: ArrayLike | None = ...,
        range_min: int | Kept = ..., range_max: int | Kept | None = ..., min_score: float | Kept | None = ...,
        max_score: float | Kept | None = ..., absolute_margin: float | Kept | None = ...,
        relative_margin: float | Kept | None = ..., sampling: str | Kept = ..., rescore: Rescore | None = ...,
        return_scores: Literal[True],
        progress: Progress | bool | None = ...,
        method: str = ..., comm: Communicator | None = ...,
    ) -> Found: ...  # fmt: skip

    def mine(
        self,
        anchors: ArrayLike,
        candidates: ArrayLike | Iterable[ArrayLike],
        k: int,
        *,
        positives: ArrayLike | None = None,
        exclude: ArrayLike | None = None,
        anchor_ids: ArrayLike | None = None,
        candidate_ids: ArrayLike | None = None,
        range_min: int | Kept = KEPT,
        range_max: int | Kept | None = KEPT,
        min_score: float | Kept | None = KEPT,
        max_score: float | Kept | None = KEPT,
        absolute_margin: float | Kept | None = KEPT,
        relative_margin: float | Kept | None = KEPT,
        sampling: str | Kept = KEPT,
        rescore: Rescore | None = None,
        return_scores: bool = False,
        progress: Progress | bool | None = None,
        method: str = "auto",
        comm: Communicator | None = None,
    ) -> NDArray[np.int64] | Found:
        """Choose k candidates for each anchor.

        Parameters
        ----------
        anchors : array of shape (B, d), or (d,) for one anchor
            Like all arrays here float32 or float64, or float16, integers and other byte orders, which are converted
            to the float32 or float64 that holds them; mixed types are promoted.
        candidates : array of shape (N, d), or an iterable of such blocks
            An ``np.memmap``, or the blocks of an iterable, need not fit in memory: they are converted one at a time,
            and the next block is read while this one is scored. Blocks of an iterable are of the anchors' dtype, or
            narrower, and read once; each is copied before the next is asked for, so that a generator may reuse its
            buffer.
        k : int
            At least 1; where there are fewer candidates, −1 follows the last.
        positives : array of anchors' shape or (B, P, d), or integer array of shape (B,) or (B, P), optional
            One or several vectors for each anchor, or indices of candidates, with −1 for none. For one anchor (d,),
            (P, d), an integer or (P,). For semi_hard and the margins: s⁺ is the least cosine of an anchor with its
            positives. Candidates given as positives by index are never returned for that row; indices need
            candidates in one array or ``np.memmap``. Integers in the shape of integer anchors may be either, and are
            refused.
        exclude : integer array of shape (B, m), or (m,) for one anchor, optional
            Candidates never to be returned for that row; −1: none.
        anchor_ids, candidate_ids : integer arrays of shapes (B,) or (B, P), and (N,), optional, together
            A candidate with an id of the anchor's is never its negative. An anchor with fewer than P ids repeats one
            of them.
        range_min, range_max, min_score, max_score, absolute_margin, relative_margin, sampling : optional
            In place of this filter of the miner; None: no such filter.
        rescore : callable, optional
            A better judge of similarity than the cosine, as a cross-encoder: called with the numbers of anchors and
            the indices of candidates, both int64 arrays of shape (n,), it returns the scores of these pairs, (n,).
            The candidates of ranks range_min ≤ r < range_max by cosine are given to it; without `range_max`, ten of
            them for each of the k. Strategy, margins and bounds go by its scores, which `return_scores` returns. For
            s⁺ it is called with the positives, which must then be indices. Not for density "wu2017".
        return_scores : bool
            Return the cosines too.
        progress : callable, or True for a progress bar, optional
            Called with the number of candidates done, and that of all (None if unknown), after each block.
        method : {"auto", "float", "bounds"}
            How candidates are scored, as in `top_k`: the result is the same. Draws use floating point.
        comm : mpi4py.MPI.Comm, optional
            Each rank gives the same arguments, but its own rows of the candidates, an array or a list of blocks, with
            their ids. Indices count the candidates of all ranks, in the order of ranks, in `exclude`, `positives` and
            `rescore` too. Of the pairs to rescore, each rank is given a part. Result and report are those of one
            process.

        Returns
        -------
        indices : int64 array of shape (B, k), or (k,) for one anchor
            Most similar first, or in the order drawn; ties go to the lower index; −1 where a row has too few.
        scores : array of the same shape, with return_scores
            Cosines; −inf where the index is −1.

        Raises
        ------
        TypeError
            If an array is not of real numbers, or indices or ids are not integers.
        ValueError
            If shapes do not fit, something is empty or not finite, or an index or an option is out of range.
        """
        replaced = {
            "range_min": range_min, "range_max": range_max, "min_score": min_score, "max_score": max_score,
            "absolute_margin": absolute_margin, "relative_margin": relative_margin, "sampling": sampling,
        }  # fmt: skip
        given = anchors, candidates, positives, exclude, anchor_ids, candidate_ids
        call = asked(self, given, k, replaced, rescore, return_scores, method, comm)
        rows, pool, k, single, filters, of_rows, own, limits = call
        count, dim = rows.x.shape
        drops = Drops(count)
        with reporting(progress) as report, self._draws.counted(self._rule(filters.sampling, dim)) as rule:
            searched = Pool(rows, pool, limits, filters, report, method, drops, self._likely(count, pool.size))
            if rescore is None:
                found = self._choose(searched, k, own, rule)
            else:
                uses_own = bool(filters.relative) or self.strategy is MiningStrategy.SEMI_HARD
                ranked, own = rescored(rescore, searched, k, of_rows if uses_own else None)
                found = self._choose(ranked, k, own, rule)
                drops.above = ranked.between(None, self._ceiling(own)).dropped
        caps = filters.caps(own, count)
        if (ceiling := self._ceiling(own)) is not None:
            caps["semi_hard"] = ceiling
        self._last = Outcome(k, found[1], own, caps, drops, filters.range_min > 0)
        self._chosen = pool.size, found[0]
        indices = padded(found[0], k, -1)
        if not return_scores:
            return indices[0] if single else indices
        scores = padded(found[1].astype(pool.dtype, copy=False), k, -np.inf)
        return (indices[0], scores[0]) if single else (indices, scores)

    def _rule(self, sampling: str, dim: int) -> Rule:
        """By what a call chooses, without the number of its draw."""
        kinds = {MiningStrategy.RANDOM: UNIFORM, MiningStrategy.DISTANCE_WEIGHTED: DENSITIES[self.density]}
        kind = UNIFORM if sampling == "random" else kinds.get(self.strategy, BY_SCORE)
        return Rule(kind, self.temperature, float(dim), self.seed)

    def _ceiling(self, own: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """The scores below which the strategy chooses."""
        return own if self.strategy is MiningStrategy.SEMI_HARD else None

    def _choose(self, pool: Pool | Ranked, k: int, own: NDArray[np.float64] | None, rule: Rule) -> Found:
        """The choice of the strategy; `own` are the scores s⁺ (B,)."""
        if self.strategy is not MiningStrategy.SEMI_HARD:
            return pool.best(k, rule)
        if own is not None:
            return pool.between(None if self.fill else above(own - self.margin, pool.dtype), own).best(k, rule)
        # Without positives, the most similar candidate takes the place of the positive, and is left out.
        if rule.kind == BY_SCORE and pool.filters.range_max is None:
            columns, scores = pool.best(k + 1, rule)
            if not self.fill:
                outside = ~(scores > self._floor(scores[:, 0])[:, np.newaxis])
                columns, scores = np.where(outside, -1, columns), np.where(outside, -np.inf, scores)
            return columns[:, 1:], scores[:, 1:]
        first, hardest = pool.best(1, Rule(BY_SCORE))
        return pool.without(first).between(None if self.fill else self._floor(hardest[:, 0]), None).best(k, rule)

    def _floor(self, highest: NDArray[np.floating]) -> NDArray[np.floating]:
        """The lower end of the window below these scores."""
        return above(highest.astype(np.float64) - self.margin, highest.dtype)

    @property
    def needs_positives(self) -> bool:
        """Whether the miner's filters need the positives of each anchor; semi_hard can use them too."""
        return bool(self.filters.relative)

    @property
    def last_report(self) -> MiningReport | None:
        """What the last call of `mine` has found and dropped; None before the first."""
        last = self._last
        if isinstance(last, Outcome):
            last = self._last = last.report()
        return last

    def _likely(self, rows: int, candidates: int | None) -> NDArray[np.int64] | None:
        """The choice of the last call, if it was of as many rows and candidates: perhaps the same, trained since."""
        size, chosen = self._chosen
        return chosen if size == candidates and len(chosen) == rows else None

    def __getstate__(self) -> dict[str, Any]:
        last = {"_last": self.last_report, "_draws": Draws(self._draws.count), "_chosen": _NONE}
        return vars(self) | last

    def reset(self) -> None:
        """Begin the sequence of draws again."""
        self._draws.count = 0

    def state_dict(self) -> dict[str, Any]:
        """The number of draws made so far; everything else is given to the constructor."""
        return {"draws": self._draws.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        if not isinstance(state, Mapping) or set(state) != {"draws"}:
            raise ValueError(f"state must be a dict with the key 'draws', got {state!r}")
        self._draws.count = check.integer("state['draws']", state["draws"], low=0)
