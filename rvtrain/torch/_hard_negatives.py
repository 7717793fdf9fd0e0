"""Mining of hard negatives for datasets of texts, with the arguments and results of sentence-transformers."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvtrain import _validation as check
from rvtrain.mining import HardNegativeMiner
from rvtrain.torch._negatives_of_pairs import FORMATS, Options, chosen, output, statistics
from rvtrain.torch._text_pairs import Embedder, Processes, TextPairs, cosines_of, judged, text_pairs

PER_NEGATIVE = 10
"""Candidates for each negative where filters may drop some."""


def mine_hard_negatives(
    dataset: Any,
    model: Any,
    anchor_column_name: str | None = None,
    positive_column_name: str | None = None,
    corpus: Sequence[Any] | None = None,
    cross_encoder: Any = None,
    range_min: int = 0,
    range_max: int | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    num_negatives: int = 3,
    sampling_strategy: str = "top",
    query_prompt_name: str | None = None,
    query_prompt: str | None = None,
    corpus_prompt_name: str | None = None,
    corpus_prompt: str | None = None,
    include_positives: bool = False,
    output_format: str = "triplet",
    output_scores: bool = False,
    batch_size: int = 32,
    faiss_batch_size: int = 16384,
    use_faiss: bool = False,
    use_multi_process: Processes = False,
    verbose: bool = True,
    cache_folder: str | os.PathLike[str] | None = None,
    as_triplets: bool | None = None,
    margin: float | None = None,
) -> Any:
    r"""Add hard negatives to a dataset of texts: the function of this name of sentence-transformers 6.2.

    The arguments have their names, order and defaults, and the results are equal. The search is the exact one of
    `HardNegativeMiner`, without a matrix of all scores. The documents are those of `corpus` and all positives; a
    document that is a positive of a query, in any row, is never its negative. A candidate of score s is kept if

    .. math:: s_{\min} \le s \le s_{\max}, \qquad s + m_a \le s^+, \qquad s \le s^+ - m_r\,|s^+|,

    where s⁺ is the least score of the query with its positives, and m are the margins. Then the first `range_min` of
    those kept are left out.

    Parameters
    ----------
    dataset : datasets.Dataset
        In each row a query and a document that answers it. Equal queries are one query with several positives.
    model : SentenceTransformer
        Or any object with its methods ``encode_query`` and ``encode_document``. Scores are cosines.
    anchor_column_name, positive_column_name : str, optional
        The columns of queries and of documents; the first and the second if not given.
    corpus : list of str, optional
        Documents to be mined besides the positives of the dataset.
    cross_encoder : CrossEncoder, optional
        Scores the candidates again, and the pairs, where there is any filter of scores.
    range_min, range_max : int
        Ranks, from 0. The candidates are the `range_max` most similar documents, and as many more as the query with
        most rows has of them. None: num_negatives + range_min, with ten for each negative where filters of scores may
        drop some.
    max_score, min_score, absolute_margin, relative_margin : float, optional
        Filters of scores, as above.
    num_negatives : int
        For each query, at least 1.
    sampling_strategy : {"top", "random"}
        The first candidates, or any of them, drawn by the module `random` of Python.
    query_prompt_name, query_prompt, corpus_prompt_name, corpus_prompt : str, optional
        Given to the model as ``prompt_name`` and ``prompt``.
    include_positives : bool
        Whether positives are candidates too. The format is then "n-tuple".
    output_format : {"triplet", "n-tuple", "labeled-pair", "labeled-list"}
        The columns of a row: anchor, positive and a negative; these with all negatives, left out where there are too
        few; anchor, a document and its label, 1 or 0; anchor, a list of documents and one of their labels.
    output_scores : bool
        Triplets and tuples get the column "scores" with a list for the positive and the negatives; the others have
        "score" or "scores" in place of labels.
    batch_size : int
        Of the model.
    faiss_batch_size, use_faiss : int, bool
        Not used: the search is exact with either.
    use_multi_process : bool or list of str
        Whether the model works in several processes, or on which devices.
    verbose : bool
        Print statistics: scores of positives, negatives and their differences, what each filter has dropped, and how
        many rows are missing.
    cache_folder : str or path, optional
        Embeddings are kept here, in the files of sentence-transformers.
    as_triplets, margin
        Deprecated: ``output_format="triplet"`` or "n-tuple", and `absolute_margin`.

    Returns
    -------
    datasets.Dataset
        Queries in the order of their first rows.

    Raises
    ------
    ImportError
        If datasets is not installed.
    TypeError, ValueError
        If the dataset is empty or lacks a column, an argument is not one of those above, `range_min`, `range_max` and
        `num_negatives` leave no room, the similarity of the model is not cosine or dot, or an embedding or a score is
        not finite.

    Notes
    -----
    Different from theirs: a column that is not there is refused, and "Skipped … due to the min_score" counts only
    candidates that no other filter had dropped. Similarities other than cosine and dot, which are the same for
    normalised embeddings, are refused.

    References
    ----------
    Moreira et al. (2024), NV-Retriever: Improving text embedding models with effective hard-negative mining,
    arXiv:2407.15831.

    Examples
    --------
    >>> from datasets import Dataset  # doctest: +SKIP
    >>> from rvtrain.torch import mine_hard_negatives
    >>> from sentence_transformers import SentenceTransformer  # doctest: +SKIP
    >>> model = SentenceTransformer("all-MiniLM-L6-v2", device="cpu")  # doctest: +SKIP
    >>> pairs = Dataset.from_dict({"query": questions, "answer": answers})  # doctest: +SKIP
    >>> mine_hard_negatives(pairs, model, relative_margin=0.05, num_negatives=5).column_names  # doctest: +SKIP
    ['query', 'answer', 'negative']
    """
    try:
        from datasets import Dataset
    except ImportError as error:
        raise ImportError("mine_hard_negatives needs datasets: pip install datasets") from error
    if as_triplets is not None:
        output_format = "triplet" if check.flag("as_triplets", as_triplets) else "n-tuple"
        _deprecated("as_triplets", f"output_format={output_format!r}")
    if output_format == "n-tuple-scores":
        output_format, output_scores = "n-tuple", True
        _deprecated("output_format='n-tuple-scores'", "output_format='n-tuple' with output_scores=True")
    if margin is not None:
        absolute_margin = margin
        _deprecated("margin", "absolute_margin")
    check.choice("output_format", output_format, FORMATS)
    flags = {"include_positives": include_positives, "output_scores": output_scores, "use_faiss": use_faiss}
    for name, flag in (flags | {"verbose": verbose}).items():
        check.flag(name, flag)
    for name, size in {"batch_size": batch_size, "faiss_batch_size": faiss_batch_size}.items():
        check.integer(name, size, low=1)
    if getattr(model, "similarity_fn_name", "cosine") not in ("cosine", "dot"):
        raise ValueError(f"model must have similarity 'cosine' or 'dot', got {model.similarity_fn_name!r}")
    if not len(dataset):
        raise ValueError("dataset must not be empty, got no rows")
    names = (
        _column(dataset, "anchor_column_name", anchor_column_name, 0),
        _column(dataset, "positive_column_name", positive_column_name, 1),
    )
    pairs = text_pairs(list(dataset[names[0]]), list(dataset[names[1]]), corpus)
    options = Options(
        check.integer("range_min", range_min, low=0),
        0,
        _bound("max_score", max_score),
        _bound("min_score", min_score),
        _bound("absolute_margin", absolute_margin),
        _bound("relative_margin", relative_margin),
        check.integer("num_negatives", num_negatives, low=1),
        check.choice("sampling_strategy", sampling_strategy, ("top", "random")),
    )
    say: Callable[[str], object] = print if verbose else _nothing
    options = options._replace(range_max=_last_rank(options, range_max, pairs.most, cross_encoder is not None, say))
    if include_positives:
        if options.filters or range_min or range_max is not None or sampling_strategy != "top":
            warnings.warn("include_positives: ranges, filters and draws may leave positives out", stacklevel=2)
        output_format = "n-tuple"
    if len(pairs.queries) != len(dataset):
        say(f"Found {len(pairs.queries)} unique queries out of {len(dataset)} total queries.")
    if pairs.most > 1:
        say(f"Found an average of {len(dataset) / len(pairs.queries):.3f} positives per query.")

    embedder = Embedder(model, batch_size, use_multi_process, cache_folder, say)
    queries, documents = embedder.embed(pairs, (query_prompt, query_prompt_name), (corpus_prompt, corpus_prompt_name))
    count = min(options.range_max + pairs.most, len(pairs.documents))
    columns, scores = HardNegativeMiner.hardest().mine(
        queries, documents, count, return_scores=True, progress=verbose
    )
    own = cosines_of(pairs, queries, documents)
    if cross_encoder is not None and options.filters:
        scores, own = judged(cross_encoder, pairs, columns, batch_size, use_multi_process)
    if not include_positives:
        scores[_are_positives(pairs, columns)] = -np.inf
    found = chosen(options, pairs, columns, scores, own)
    say("Negative candidates mined, preparing dataset...")
    made = output(output_format, output_scores, names, len(dataset), pairs, found, own)
    if verbose:
        print(statistics(made, found, own, options))
    return Dataset.from_dict(made.data)


def _deprecated(name: str, instead: str) -> None:
    warnings.warn(f"{name} is deprecated: give {instead}", DeprecationWarning, stacklevel=3)


def _nothing(line: str) -> None:
    """Print nothing."""


def _bound(name: str, value: float | None) -> float | None:
    return None if value is None else check.number(name, value)


def _column(dataset: Any, argument: str, name: str | None, place: int) -> str:
    """The name of a column that there is."""
    columns = list(dataset.column_names)
    if name is None and place < len(columns):
        return columns[place]
    if name is None or name not in columns:
        raise ValueError(f"{argument} must be one of the columns of the dataset, {columns}, got {name!r}")
    return name


def _last_rank(options: Options, range_max: int | None, most: int, again: bool, say: Callable[[str], object]) -> int:
    """`range_max`, checked, or what it is where it is not given."""
    first, number = options.range_min, options.num_negatives
    if range_max is None:
        drops = options.filters.keys() - (set() if again else {"min_score"})
        range_max = first + number * (PER_NEGATIVE if drops else 1) + most
        say(f"Setting range_max to {range_max} based on the provided parameters.")
    last = check.integer("range_max", range_max, low=first + 1)
    if number > last - first:
        raise ValueError(
            f"num_negatives must be at most range_max − range_min = {last} − {first} = {last - first}, got {number}"
        )
    return last


def _are_positives(pairs: TextPairs, columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the candidates (Q, K) are positives of their query."""
    count = len(pairs.documents)
    numbers = np.arange(len(columns))[:, np.newaxis] * count + columns
    return np.isin(numbers, pairs.rows * count + pairs.columns)
