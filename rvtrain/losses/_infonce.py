"""InfoNCE: cross-entropy of a softmax over the scores of the positive and the negatives."""

import dataclasses
from collections.abc import Collection
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain._engine._precision import PRECISIONS, get_float32_precision, precision_used
from rvtrain._engine._scratch import Scratch
from rvtrain.distributed._ranks import Communicator
from rvtrain.losses._arguments import Pairs, like_wrt, parse_wrt
from rvtrain.losses._contrast import Contrast, Outcome
from rvtrain.losses._euclidean import augmented, back_from_augmented
from rvtrain.losses._infonce_directions import DIRECTIONS, joint, symmetric
from rvtrain.losses._infonce_masks import Masks, parse_guide, parse_log_q
from rvtrain.losses._shared import together
from rvtrain.losses._softmax import Softmax, in_range, octaves
from rvtrain.losses.base import ContrastiveLoss, Floats

SIMILARITIES = ("cosine", "dot", "euclidean")


class InfoNCELoss(ContrastiveLoss):
    r"""InfoNCE (NT-Xent) loss with analytic gradients.

    For an anchor a with positive p and negatives n₁ … n_N,

    .. math:: \ell = \log\Big(e^{s^+} + \sum_j e^{s_j}\Big) - s^+,
        \qquad s = \cos(\cdot, \cdot) / \tau,
        \qquad \cos(a, b) = \frac{a \cdot b}{\max(\|a\|, ε)\,\max(\|b\|, ε)}

    with ε = 1e-8. The positive is in the denominator. The loss is computed as softplus(log-sum-exp of the negatives −
    score of the positive), which is exact to rounding for very small and very large losses.

    Parameters
    ----------
    temperature : float
        τ > 0, typically 0.07 to 0.5. May be set between calls.
    reduction : {"mean", "sum", "none"}
        Over the anchors; "none" gives one value each (and gradients of their sum).
    symmetric : bool
        Whether to take the mean of the losses from anchors to positives and from positives to anchors, each with its
        own softmax. Negatives, if given, must be a pool (N, d); they join the softmax of the anchors alone.
    similarity : {"cosine", "dot", "euclidean"}
        s = similarity / τ; "euclidean" is −‖a − b‖² / 2.
    directions : tuple of {"query_to_document", "document_to_query", "query_to_query", "document_to_document"}
        The in-batch scores that share the softmax of row i (anchors are queries, positives documents): s(q_i, d_j),
        s(d_i, q_j), s(q_i, q_j), s(d_i, d_j), j ≠ i (Li 2023). The default is the first alone; then negatives, if
        given, replace the in-batch negatives. With other directions, a pool (N, d) is added to the in-batch ones. The
        own positive stands in the softmax once, where sentence-transformers counts it in both directions.
    margin : float
        m, subtracted from the positive's similarity: s⁺ = (similarity⁺ − m) / τ.
    hardness : float
        α ≥ 0: a negative's logit is s + α · similarity, where the second term is a constant for the gradient
        (Lan 2025). It applies to all directions; ``hardness_strength`` of sentence-transformers to the first alone.
    false_negative_margin : float, optional
        A negative whose similarity exceeds the positive's by more than this is not counted (Qwen3-Embedding: 0.1).
        If a call has a `guide`, a negative is not counted if its cosine under the guide exceeds the positive's cosine
        under the guide minus this margin, by default 0 (GISTEmbed). The mask is a constant for the gradient.
    learn_temperature : bool
        Whether the `Trainer` learns τ with the model, by the logarithm of its inverse. Calls do not depend on it.
    precision : {"highest", "high", "medium"}, optional
        Of products of float32 arrays, of all in-batch scores and of those of a pool, and of their gradients. "medium"
        is up to twice as fast, with gradients right to about 1e-3 of the largest, and "high" is right to 1e-5, where
        the processor has instructions for it: see `set_float32_precision`, whose choice None takes. With similarity
        "euclidean", always as "highest".
    comm : mpi4py.MPI.Comm, optional
        Each rank gives its rows of one global batch, as `docs/guide/cluster.md` explains: in-batch negatives and a
        pool (N, d) are those of all ranks. The value is that of the global batch, on each rank; with the reduction
        "none", of the rank's rows. The gradients are those of the global loss to the rank's own arrays. All ranks
        have to make the same calls. `negative_indices` is not available.

    Attributes
    ----------
    precision_used : {"highest", "high", "medium"}
        The precision that products of float32 have on this processor.
    learnable : tuple of str
        ("temperature",) with `learn_temperature`, else (): what `wrt` takes the gradient to, and `Trainer` learns.

    References
    ----------
    van den Oord, Li & Vinyals (2018), Representation Learning with Contrastive Predictive Coding,
    arXiv:1807.03748. The symmetric form is that of Radford et al. (2021), arXiv:2103.00020; joint directions are
    those of Li et al. (2023), arXiv:2308.03281; the guide that of Solatorio (2024), arXiv:2402.16829.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> loss = rt.InfoNCELoss(temperature=1.0)
    >>> anchors = np.eye(2)
    >>> round(loss.compute(anchors, anchors), 6)  # log(1 + exp(0 - 1))
    0.313262
    >>> value, gradient = loss.compute_with_gradients(anchors, anchors, wrt="positives")
    >>> gradient.round(4)
    array([[0.    , 0.1345],
           [0.1345, 0.    ]])
    """

    WRT = ("anchors", "positives", "negatives", "temperature")

    def __init__(
        self,
        temperature: float = 0.07,
        reduction: str = "mean",
        symmetric: bool = False,
        *,
        similarity: str = "cosine",
        directions: Collection[str] = DIRECTIONS[:1],
        margin: float = 0.0,
        hardness: float = 0.0,
        false_negative_margin: float | None = None,
        learn_temperature: bool = False,
        precision: str | None = None,
        comm: Communicator | None = None,
    ) -> None:
        super().__init__(reduction, comm)
        self.temperature = temperature
        self.symmetric = check.flag("symmetric", symmetric)
        self.similarity = check.choice("similarity", similarity, SIMILARITIES)
        self.directions = check.choices("directions", directions, DIRECTIONS)
        if self.symmetric and self.directions != DIRECTIONS[:1]:
            raise ValueError(f"directions must be left out where symmetric=True, got {self.directions}")
        self.margin = check.number("margin", margin, low=-1e15, high=1e15)
        self.hardness = check.number("hardness", hardness, low=0.0, high=1e15)
        if false_negative_margin is not None:
            false_negative_margin = check.number("false_negative_margin", false_negative_margin)
        self.false_negative_margin = false_negative_margin
        self.learn_temperature = check.flag("learn_temperature", learn_temperature)
        self._precision = None if precision is None else check.choice("precision", precision, PRECISIONS)

    @property
    def precision(self) -> str:
        """The wanted precision of products of float32."""
        return self._precision or get_float32_precision()

    @property
    def precision_used(self) -> str:
        """The precision that products of float32 have on this processor."""
        return precision_used(self._of_products)

    @property
    def _of_products(self) -> str | None:
        """Distances are differences of large products, and need their digits."""
        return "highest" if self.similarity == "euclidean" else self._precision

    @property
    def temperature(self) -> float:
        """τ, the divisor of similarities."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = check.temperature(value)

    @property
    def learnable(self) -> tuple[str, ...]:
        """Names of the loss's own parameters that are learned with the model."""
        return ("temperature",) if self.learn_temperature else ()

    def __repr__(self) -> str:
        changed = {
            name: value
            for name, value, usual in (
                ("similarity", self.similarity, "cosine"),
                ("directions", self.directions, DIRECTIONS[:1]),
                ("margin", self.margin, 0.0),
                ("hardness", self.hardness, 0.0),
                ("false_negative_margin", self.false_negative_margin, None),
                ("learn_temperature", self.learn_temperature, False),
                ("precision", self._precision, None),
            )
            if value != usual
        }
        more = "".join(f", {name}={value!r}" for name, value in changed.items())
        return (
            f"InfoNCELoss(temperature={self.temperature:g}, reduction={self.reduction!r}, "
            f"symmetric={self.symmetric}{more})"
        )

    def compute(
        self,
        anchors: ArrayLike,
        positives: ArrayLike,
        negatives: ArrayLike | None = None,
        *,
        negative_indices: ArrayLike | None = None,
        anchor_ids: ArrayLike | None = None,
        positive_ids: ArrayLike | None = None,
        negative_ids: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        log_q: ArrayLike | None = None,
        guide: tuple[ArrayLike, ...] | None = None,
    ) -> float | Floats:
        """The loss alone.

        Parameters
        ----------
        anchors, positives, negatives, negative_indices, anchor_ids, positive_ids, negative_ids, sample_weight
            As in `ContrastiveLoss.compute`.
        log_q : array of shape (B,) in-batch, else of shape (N,), (B, N) or (M,) as `negatives`, optional
            Log-probability of sampling each negative, subtracted from its logit (sampled softmax). In-batch, the
            log-probability of each positive; a row's own positive is corrected like the other columns.
        guide : tuple (anchors, positives) or (anchors, positives, negatives) of arrays, optional
            Vectors of the same rows from another model, with any number of columns: see `false_negative_margin`.

        Returns
        -------
        float, or array of shape (B,) where the reduction is "none"

        Raises
        ------
        TypeError
            If an array is not float32 or float64, or ids or indices are not integers.
        ValueError
            If shapes do not fit, something is empty or not finite, an index is out of range, or the directions are
            not available for rows with their own negatives.
        """
        given = anchors, positives, negatives, negative_indices, anchor_ids, positive_ids, negative_ids
        pairs = self._parsed(given, (), sample_weight, log_q=log_q, guide=guide)
        return self._run(pairs, (), sample_weight, log_q=log_q, guide=guide)[0]

    @overload
    def compute_with_gradients(
        self,
        anchors: ArrayLike,
        positives: ArrayLike,
        negatives: ArrayLike | None = None,
        *,
        wrt: str = "anchors",
        negative_indices: ArrayLike | None = None,
        anchor_ids: ArrayLike | None = None,
        positive_ids: ArrayLike | None = None,
        negative_ids: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        log_q: ArrayLike | None = None,
        guide: tuple[ArrayLike, ...] | None = None,
    ) -> tuple[float | Floats, Floats]: ...

    @overload
    def compute_with_gradients(
        self,
        anchors: ArrayLike,
        positives: ArrayLike,
        negatives: ArrayLike | None = None,
        *,
        wrt: tuple[str, ...],
        negative_indices: ArrayLike | None = None,
        anchor_ids: ArrayLike | None = None,
        positive_ids: ArrayLike | None = None,
        negative_ids: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        log_q: ArrayLike | None = None,
        guide: tuple[ArrayLike, ...] | None = None,
    ) -> tuple[float | Floats, tuple[Floats, ...]]: ...

    def compute_with_gradients(
        self,
        anchors: ArrayLike,
        positives: ArrayLike,
        negatives: ArrayLike | None = None,
        *,
        wrt: str | tuple[str, ...] = "anchors",
        negative_indices: ArrayLike | None = None,
        anchor_ids: ArrayLike | None = None,
        positive_ids: ArrayLike | None = None,
        negative_ids: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        log_q: ArrayLike | None = None,
        guide: tuple[ArrayLike, ...] | None = None,
    ) -> tuple[Any, Any]:
        """The loss and its gradients.

        Parameters
        ----------
        wrt : {"anchors", "positives", "negatives", "temperature"} or tuple of these
            The gradients to return: a name gives one, a tuple gives a tuple. Others are not computed.
        anchors, positives, negatives, negative_indices, anchor_ids, positive_ids, negative_ids, sample_weight
            As in `compute`, like log_q and guide.

        Returns
        -------
        value : float, or array of shape (B,) where the reduction is "none"
        gradient : array of its input's shape, a float for the temperature, or a tuple of these

        Raises
        ------
        TypeError, ValueError
            As `compute`, and if `wrt` names something unknown, or negatives where there are none.
        """
        names = parse_wrt(wrt, self.WRT)
        given = anchors, positives, negatives, negative_indices, anchor_ids, positive_ids, negative_ids
        pairs = self._parsed(given, names, sample_weight, log_q=log_q, guide=guide)
        value, gradients = self._run(pairs, names, sample_weight, log_q=log_q, guide=guide)
        return value, like_wrt(wrt, gradients)

    def _run(
        self, pairs: Pairs, names: tuple[str, ...], sample_weight: Any, **options: Any
    ) -> tuple[Any, dict[str, Any]]:
        if pairs.negatives is not None and (self.symmetric or self.directions != DIRECTIONS[:1]):
            own = pairs.negatives.ndim == 3
            if own and pairs.single:  # the negatives of a single anchor form a pool
                pairs = dataclasses.replace(pairs, negatives=pairs.negatives[0], column_ids=pairs.column_ids[0])
            elif own or pairs.indices is not None:
                what = "symmetric" if self.symmetric else "directions"
                raise ValueError(f"{what} needs in-batch negatives (negatives=None) or a pool of shape (N, d)")
        if self.similarity != "euclidean":
            return super()._run(pairs, names, sample_weight, **options)
        with together(pairs):
            longer = augmented(pairs)
        value, gradients = super()._run(longer, names, sample_weight, **options)
        return value, back_from_augmented(pairs, gradients)

    def _measured(
        self,
        pairs: Pairs,
        weights: np.ndarray,
        names: tuple[str, ...],
        memory: Scratch,
        log_q: Any = None,
        guide: Any = None,
    ) -> "_Measured":
        guided, log_q = parse_guide(guide, pairs), parse_log_q(log_q, pairs)
        contrast = _Measured(pairs, weights, names, memory, self.similarity, self._of_products)
        spread = 0.0 if log_q is None else self.temperature * float(np.abs(log_q).max())
        contrast.bounded = self.similarity == "cosine" and in_range(self.temperature, self.hardness, spread)
        if log_q is not None and pairs.batch is not None:
            contrast.bounded = False  # the spread of other ranks is not known here
        contrast.masks = Masks(
            contrast,
            self.temperature,
            self.hardness,
            self.margin,
            self.false_negative_margin,
            guided,
            log_q,
            contrast.bounded,
        )
        return contrast

    def evaluate(self, contrast: Contrast) -> Outcome:
        """Losses of the rows, and the sums from which gradients are computed."""
        assert isinstance(contrast, _Measured)
        masks, bounded = contrast.masks, contrast.bounded
        treatment = Softmax(octaves(contrast.dtype, self.temperature, self.hardness), self.temperature, self.hardness)
        if self.symmetric:
            return symmetric(contrast, treatment, bounded, masks)
        if self.directions != DIRECTIONS[:1]:
            return joint(contrast, treatment, bounded, self.directions, masks)
        columns = "positives" if contrast.pairs.negatives is None else "negatives"
        return contrast.evaluate(treatment, bounded, own=masks.own(True), **masks.of("anchors", (columns,)))

    def parameter_gradients(self, outcome: Outcome, along: float) -> dict[str, float]:
        """dL/dτ = −(Σ score · dL/dscore) / τ over all scores, where own scores are minus the margin."""
        return {"temperature": -(along - self.margin * float(outcome.slopes.sum())) / self.temperature}


class _Measured(Contrast):
    masks: Masks
    bounded: bool
    """Whether exponents relative to cosine 1 stay in range."""
