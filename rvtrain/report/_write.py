"""The arguments of a report, and its file."""

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain.report._curves import History
from rvtrain.report._page import Contents, page
from rvtrain.report._ranking import Ranking
from rvtrain.report._settings import settings_of
from rvtrain.report._texts import Names
from rvtrain.training import Trainer


def write_report(
    path: str | os.PathLike[str],
    training: Trainer | Mapping[str, ArrayLike],
    before: Ranking | None = None,
    after: Ranking | None = None,
    *,
    query_texts: Sequence[object] | None = None,
    document_texts: Sequence[object] | None = None,
    title: str = "Training report",
    settings: Mapping[str, object] | None = None,
    command: str | None = None,
    mistakes: int = 10,
    seed: int = 0,
) -> None:
    r"""Write one page of HTML about a training: complete in itself, without scripts, for screens of any size.

    It shows the learning curves, metrics before and after training, histograms of scores, where ranks moved, the
    worst mistakes, what mining found, and settings and versions. Parts without data say so, or are left out.

    The interval of a metric's mean is that of the percentile bootstrap over queries: with 2,000 samples of Q queries
    with replacement,

    .. math:: [\hat q_{0.025}, \hat q_{0.975}] \text{ of } \tfrac 1Q \textstyle\sum_i w_i m_i,
        \quad w \sim \mathrm{Multinomial}(Q, \tfrac 1Q)

    The p value is that of `paired_test`. From 5,000 queries on, where both are normal distributions for all purposes,
    intervals are mean ± 1.96 standard errors, and with :math:`d_i` the differences of the queries

    .. math:: p = \mathrm{erfc}\Big(\Big|\sum_i d_i\Big| \Big/ \sqrt{2 \textstyle\sum_i d_i^2}\Big).

    Parameters
    ----------
    path : str or path
        An existing file is replaced when the page is complete, and stays as it is if anything fails.
    training : Trainer, or dict of arrays
        A trainer after its `fit`; or the history of another loop, with "epoch" and a column for each number.
    before, after : Ranking, optional
        Results of `rank_queries` for the same queries and documents, before and after `fit`.
    query_texts, document_texts : sequences of str, optional
        A text for each row of queries and documents. Without them the page names rows by number.
    title : str
    settings : dict, optional
        Shown with those of the trainer; of two with one name, these.
    command : str, optional
        The command line that started the training.
    mistakes : int
        Number of mistakes that are shown.
    seed : int
        Of the bootstrap and of the paired test.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; no file is written.
    OSError
        If the file cannot be written.

    References
    ----------
    Efron (1979), Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics 7(1).
    Fisher (1935), The Design of Experiments, for the paired test.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> from rvtrain.report import rank_queries, write_report
    >>> documents = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    >>> queries, pairs = documents[:, ::-1].copy(), np.stack([np.arange(60)] * 2, axis=1)
    >>> model = rt.LinearAdapter(8)
    >>> before = rank_queries(model, queries, documents, pairs[40:])
    >>> trainer = rt.Trainer(model, epochs=2, batch_size=20)
    >>> trainer = trainer.fit(queries, documents, pairs[:40], validation=pairs[40:])
    >>> after = rank_queries(model, queries, documents, pairs[40:])
    >>> path = os.path.join(tempfile.mkdtemp(), "report.html")
    >>> write_report(path, trainer, before, after)
    """
    history = _history(training)
    _check_rankings(before, after)
    shown = after if after is not None else before
    sizes = (None, None) if shown is None else shown.sizes
    names = (
        Names("query_texts", "query", query_texts, sizes[0]),
        Names("document_texts", "document", document_texts, sizes[1]),
    )
    most = check.integer("mistakes", mistakes, low=0)
    seed = check.integer("seed", seed, low=0)
    facts = dict(settings or {})
    best, reports = None, None
    if isinstance(training, Trainer):
        facts = settings_of(training) | facts
        is_chosen = "val_loss" in history and len(history["epoch"]) > 0
        best, reports = training.best_epoch if is_chosen else None, training.mining_reports
    contents = Contents(history, best, reports, before, after, *names, most, facts, command, seed)
    _replace(path, page(str(title), contents))


def _history(training: Trainer | Mapping[str, ArrayLike]) -> History:
    """The history as float64 arrays of one length."""
    given = training.history if isinstance(training, Trainer) else training
    if not isinstance(given, Mapping):
        raise TypeError(f"training must be a Trainer or a dict of arrays, got {type(given).__name__}")
    if "epoch" not in given:
        raise ValueError(f"training must have a column 'epoch', got {sorted(map(str, given))}")
    history = {}
    for name, column in given.items():
        try:
            history[str(name)] = values = np.asarray(column, np.float64)
        except (TypeError, ValueError) as error:
            raise type(error)(f"training[{name!r}] must be numbers: {error}") from None
        if values.shape != (np.size(given["epoch"]),):
            raise ValueError(f"training[{name!r}] must have a number for each epoch, got shape {values.shape}")
    return history


def _check_rankings(before: Ranking | None, after: Ranking | None) -> None:
    for name, value in (("before", before), ("after", after)):
        if value is not None and not isinstance(value, Ranking):
            raise TypeError(f"{name} must be a Ranking, as rank_queries returns, got {type(value).__name__}")
    if before is None or after is None:
        return
    if before.sizes != after.sizes or not np.array_equal(before.query_rows, after.query_rows):
        raise ValueError("before and after must be rankings of the same queries and documents, got others")


def _replace(path: str | os.PathLike[str], page: str) -> None:
    """Write the page beside the file, and put it in its place when it is complete."""
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8", newline="\n") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            os.chmod(temporary, target.stat().st_mode & 0o777)
        os.replace(temporary, target)
    except OSError as error:  # it names the temporary file, or none
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
