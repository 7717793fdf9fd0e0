"""SupCon: all rows of the same label are positives."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._blocks import Rows
from rvtrain._engine._inputs import to_inputs, unscaled
from rvtrain._engine._precision import get_float32_precision
from rvtrain._engine._scratch import Scratch, scratch
from rvtrain._engine._sweep import Sums, masked, sweep
from rvtrain._engine._treatment import Own
from rvtrain.distributed._batch import GlobalBatch
from rvtrain.distributed._ranks import Communicator, OfRanks
from rvtrain.distributed._sweep import sweep_of_ranks
from rvtrain.losses._arguments import REDUCTIONS, like_wrt, parse_wrt
from rvtrain.losses._labelled import mean_weights, parse_labelled, total
from rvtrain.losses._shared import presence
from rvtrain.losses._softmax import Decoupled, in_range, octaves
from rvtrain.losses.base import Floats


class SupConLoss(OfRanks):
    r"""Supervised contrastive loss (L_out) on labelled embeddings, with analytic gradients.

    .. math:: \ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)} \Big(s_{ip} - \log \sum_{j \neq i} e^{s_{ij}}\Big),
        \qquad s = \cos / τ

    over the positives P(i), the other rows of the same label, and all other rows j. A row without a positive has
    value 0 and is not in the mean. (The authors' code counts it as 0, and multiplies the loss by τ over a base
    temperature.) With references, each row is compared with all references instead of the other rows.

    Parameters
    ----------
    temperature : float
        τ > 0. May be set between calls.
    reduction : {"mean", "sum", "none"}
        Over the rows; "none" gives one value each (and gradients of their sum).
    comm : mpi4py.MPI.Comm, optional
        Each rank gives its rows of one global batch, and of the references if there are any: see `InfoNCELoss`.

    References
    ----------
    Khosla et al. (2020), Supervised Contrastive Learning, arXiv:2004.11362.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> embeddings = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(rt.SupConLoss(temperature=1.0).compute(embeddings, [0, 0, 1]), 6)  # log(e + 1) - 1
    0.313262
    """

    def __init__(self, temperature: float = 0.1, reduction: str = "mean", comm: Communicator | None = None) -> None:
        self.temperature = temperature
        self.reduction = check.choice("reduction", reduction, REDUCTIONS)
        self.comm = comm

    @property
    def temperature(self) -> float:
        """τ, the divisor of the cosines."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = check.temperature(value)

    def __repr__(self) -> str:
        return f"SupConLoss(temperature={self.temperature:g}, reduction={self.reduction!r})"

    def compute(
        self,
        embeddings: ArrayLike,
        labels: ArrayLike,
        references: ArrayLike | None = None,
        reference_labels: ArrayLike | None = None,
    ) -> float | Floats:
        """The loss alone.

        Parameters
        ----------
        embeddings : array of shape (n, d), float32 or float64
        labels : integer array of shape (n,)
        references : array of shape (m, d), optional
            The rows to compare with. By default, each row is compared with the other embeddings.
        reference_labels : integer array of shape (m,), with references

        Returns
        -------
        float, or array of shape (n,) where the reduction is "none"

        Raises
        ------
        TypeError
            If an array is not float32 or float64, or labels are not integers.
        ValueError
            If shapes do not fit, something is empty or not finite, or one of references and their labels is missing.
        """
        return self._run(embeddings, labels, references, reference_labels, ())[0]

    def compute_with_gradients(
        self,
        embeddings: ArrayLike,
        labels: ArrayLike,
        references: ArrayLike | None = None,
        reference_labels: ArrayLike | None = None,
        *,
        wrt: str | tuple[str, ...] = "embeddings",
    ) -> tuple[float | Floats, Any]:
        """The loss and its gradients.

        Parameters
        ----------
        embeddings, labels, references, reference_labels
            As in `compute`.
        wrt : {"embeddings", "references"} or tuple of these
            A name returns one gradient, a tuple returns a tuple.

        Returns
        -------
        value : float, or array of shape (n,) where the reduction is "none"
        gradient : array of its input's shape, or a tuple of these

        Raises
        ------
        TypeError, ValueError
            As `compute`, and if `wrt` names references where there are none.
        """
        names = parse_wrt(wrt, ("embeddings", "references"))
        if "references" in names and references is None:
            raise ValueError("wrt names references, but references is None: ask for embeddings")
        value, gradients = self._run(embeddings, labels, references, reference_labels, names)
        return value, like_wrt(wrt, gradients)

    def _run(
        self, embeddings: Any, labels: Any, references: Any, reference_labels: Any, names: tuple[str, ...]
    ) -> tuple[Any, dict[str, np.ndarray]]:
        if (references is None) != (reference_labels is None):
            missing = "references" if references is None else "reference_labels"
            raise ValueError(f"references and reference_labels must be given together, got {missing}=None")
        batch = None
        if self._ranks is None:
            given = self._parsed(embeddings, labels, references, reference_labels)
        else:
            with self._ranks.together():
                given = self._parsed(embeddings, labels, references, reference_labels)
            rows, _, columns, _ = given
            facts = {
                "loss": self,
                "dtype of the arrays": rows.x.dtype,
                "float32 precision": get_float32_precision(),
                "number of columns": rows.x.shape[1],
                "references": presence(references),
                "wrt": names,
            }
            counts = self._ranks.agree(facts, (len(rows.x), len(columns.x)))
            batch = GlobalBatch(self._ranks, counts[:, 0].copy(), counts[:, 1].copy())
        with scratch() as memory:
            return self._evaluate(*given, references is None, names, memory, batch)

    def _parsed(
        self, embeddings: Any, labels: Any, references: Any, reference_labels: Any
    ) -> tuple[Rows, np.ndarray, Rows, np.ndarray]:
        rows, codes = parse_labelled("embeddings", embeddings, "labels", labels)
        if references is None:
            return rows, codes, rows, codes
        columns, others = parse_labelled("references", references, "reference_labels", reference_labels)
        if columns.x.shape[1] != rows.x.shape[1]:
            dim = rows.x.shape[1]
            raise ValueError(f"references must have {dim} columns like embeddings, got shape {columns.x.shape}")
        x, y = check.promoted(rows.x, columns.x)
        return rows._replace(x=x), codes, columns._replace(x=y), others

    def _evaluate(
        self,
        rows: Rows,
        labels: np.ndarray,
        columns: Rows,
        others: np.ndarray,
        alone: bool,
        names: tuple[str, ...],
        memory: Scratch,
        batch: GlobalBatch | None,
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """The value and gradients; of this rank's rows and columns if there is a batch of several ranks."""
        (n, _), dtype = rows.x.shape, rows.x.dtype
        all_columns, all_others, mine_of_columns = columns, others, slice(None)
        if batch is not None:
            of = "anchors" if alone else "negatives"  # as which the batch counts the columns
            all_columns, all_others = batch.whole_rows(columns, of), batch.whole(others, of)
            before = int(batch.counts(of)[: batch.ranks.rank].sum())
            mine_of_columns = slice(before, before + len(columns.x))
        mine_of_rows = slice(None) if batch is None else batch.mine
        if alone:  # rows and columns are the same
            of_columns = np.unique(all_others, return_inverse=True)[1]
            of_rows, classes = of_columns, _Classes(of_columns)
            classes_of_rows = classes
            unit_columns = _unit(all_columns)
            unit_rows = unit_columns[mine_of_rows]
        else:
            all_labels = labels if batch is None else batch.whole(labels)
            _, codes = np.unique(np.concatenate([all_labels, all_others]), return_inverse=True)
            of_rows, of_columns = codes[: len(all_labels)], codes[len(all_labels) :]
            classes_of_rows, classes = (_Classes(x, int(codes.max()) + 1) for x in (of_rows, of_columns))
            unit_rows, unit_columns = _unit(rows), _unit(all_columns)
        mine = of_rows[mine_of_rows]
        sums, counts = classes.sums(unit_columns), classes.counts
        positives = counts[mine] - alone
        means = (sums[mine] - (unit_rows if alone else 0.0)) / np.maximum(positives, 1)[:, np.newaxis]
        weights = mean_weights(counts[of_rows] - alone > 0, self.reduction)
        none = np.empty(0)
        own = Own(np.einsum("ij,ij->i", unit_rows, means), weights[mine_of_rows], none, none)
        offset = 0 if batch is None else batch.offset
        mask = masked(n, len(all_columns.x), dtype, diagonals=(offset,) if alone else ())
        treatment = Decoupled(octaves(dtype, self.temperature), self.temperature, 0.0)
        run: Callable[..., Sums] = sweep
        if batch is not None:
            run = functools.partial(sweep_of_ranks, batch, [batch.rows if alone else batch.pool])
        result = run(
            rows,
            all_columns,
            treatment,
            mask,
            own,
            memory,
            bounded=in_range(self.temperature),
            to_rows="embeddings" in names,
            to_columns=bool(names) and (alone or "references" in names),
        )
        losses = np.where(positives > 0, result.losses, 0.0)
        if batch is not None and self.reduction != "none":
            losses = batch.whole(losses)
        value = total(losses, weights, self.reduction, dtype)
        gradients: dict[str, np.ndarray] = {}
        if not names:
            return value, gradients
        # The slope of a row's mean goes to its positives in equal parts: to all of its class except the row itself.
        each = (result.slopes / np.maximum(positives, 1))[:, np.newaxis] * unit_rows
        all_each = each if batch is None else batch.whole(each)
        back = classes_of_rows.sums(all_each)
        to_columns: Any = None
        if result.to_columns is not None:
            to_columns = result.to_columns[: len(columns.x), : rows.x.shape[1]] + back[of_columns[mine_of_columns]]
        if "embeddings" in names:
            assert result.to_rows is not None
            to_rows = result.to_rows[:n, : rows.x.shape[1]] * result.shares[:, np.newaxis]
            if alone:
                to_rows += to_columns - each
            own_rows = unscaled(means.astype(dtype))
            gradients["embeddings"], _ = to_inputs(to_rows.astype(dtype), rows, result.slopes, own_rows)
        if "references" in names:
            assert to_columns is not None
            zeros = np.zeros(len(columns.x))
            gradients["references"], _ = to_inputs(to_columns.astype(dtype), columns, zeros, columns)
        return value, gradients


def _unit(rows: Rows) -> NDArray[np.float64]:
    return rows.x * rows.inverse[:, np.newaxis]


class _Classes:
    """The classes of rows, (n,) codes: `counts`, the number of rows of each."""

    def __init__(self, codes: np.ndarray, number: int = 0) -> None:
        self.counts = np.bincount(codes, minlength=number)
        self._order = np.argsort(codes, kind="stable")
        self._present = np.flatnonzero(self.counts)
        ends = np.cumsum(self.counts[self._present])
        self._starts = ends - self.counts[self._present]

    def sums(self, x: np.ndarray) -> np.ndarray:
        """Sum of the rows of each class, (classes, d)."""
        out = np.zeros((len(self.counts), x.shape[1]))
        out[self._present] = np.add.reduceat(x[self._order], self._starts, axis=0)
        return out
