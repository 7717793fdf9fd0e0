"""Pairs of texts, the embeddings of distinct texts, and their scores: what negatives are mined from."""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rvtrain import _validation as check
from rvtrain._atomic import replacing
from rvtrain._engine._blocks import CHUNK, Rows
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain._engine._pairs import paired_cosines

Floats = NDArray[np.floating]
Processes = Sequence[str] | bool
"""Whether a model works in several processes, or on which devices these are."""


class TextPairs(NamedTuple):
    """Distinct queries, distinct documents, and the pairs of a query and a document that answers it."""

    queries: list[Any]
    documents: list[Any]
    """The corpus, then the positives that are not in it."""
    rows: NDArray[np.int64]
    """(P,) numbers of queries, ascending"""
    columns: NDArray[np.int64]
    """(P,) numbers of documents"""
    most: int
    """The largest number of rows that one query had, repeated ones included."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """(Q,) the first pair of each query."""
        return np.searchsorted(self.rows, np.arange(len(self.queries)))


def text_pairs(queries: Sequence[Any], positives: Sequence[Any], corpus: Sequence[Any] | None) -> TextPairs:
    """The pairs of rows, each once; in the order of their queries' first rows."""
    documents = list(dict.fromkeys([*(() if corpus is None else corpus), *positives]))
    number = {text: i for i, text in enumerate(documents)}
    own: dict[Any, dict[int, None]] = {}
    for query, positive in zip(queries, positives, strict=True):
        own.setdefault(query, {})[number[positive]] = None
    rows = np.repeat(np.arange(len(own)), [len(found) for found in own.values()])
    columns = np.array([column for found in own.values() for column in found], np.int64)
    return TextPairs(list(own), documents, rows, columns, max(Counter(queries).values()))


@contextlib.contextmanager
def in_processes(model: Any, asked: Processes) -> Iterator[Any]:
    """The model's pool of processes, or None if none is asked for."""
    if not asked:
        yield None
        return
    pool = model.start_multi_process_pool(target_devices=None if isinstance(asked, bool) else list(asked))
    try:
        yield pool
    finally:
        model.stop_multi_process_pool(pool)


class Embedder(NamedTuple):
    """A model of sentence-transformers, how it is called, and where its embeddings are kept."""

    model: Any
    batch_size: int
    processes: Processes
    folder: str | os.PathLike[str] | None
    say: Callable[[str], object]

    def embed(
        self,
        pairs: TextPairs,
        query_prompt: tuple[str | None, str | None],
        corpus_prompt: tuple[str | None, str | None],
    ) -> tuple[Floats, Floats]:
        """Embeddings of the queries and of the documents; a prompt is (its text, its name)."""
        sides = {
            "query": (pairs.queries, query_prompt, "encode_query"),
            "corpus": (pairs.documents, corpus_prompt, "encode_document"),
        }
        files = {side: self._file(side, *prompt, texts) for side, (texts, prompt, _) in sides.items()}
        found = {side: self._load(side, file) for side, file in files.items() if file and os.path.exists(file)}
        if len(found) < len(sides):
            with in_processes(self.model, self.processes) as pool:
                for side, (texts, prompt, method) in sides.items():
                    if side not in found:
                        found[side] = self._encoded(method, texts, prompt, pool)
                        self._save(side, files[side], found[side])
        for side, (texts, _, _) in sides.items():
            if found[side].ndim != 2 or len(found[side]) != len(texts):
                raise ValueError(
                    f"model must give a row for each of {len(texts)} texts ({side}), got shape {found[side].shape}"
                )
        return found["query"], found["corpus"]

    def _encoded(self, method: str, texts: list[Any], prompt: tuple[str | None, str | None], pool: Any) -> Floats:
        rows = getattr(self.model, method)(
            texts,
            pool=pool,
            batch_size=self.batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=True,
            prompt_name=prompt[1],
            prompt=prompt[0],
        )
        return check.stored_array("embeddings", rows, 2)

    def _file(self, side: str, prompt: str | None, prompt_name: str | None, texts: list[Any]) -> str | None:
        """The file of these embeddings, of the name that sentence-transformers gives it."""
        if self.folder is None:
            return None
        name = self.model.model_card_data.base_model or ""
        key = hashlib.sha256(repr((name, prompt, prompt_name, texts)).encode(), usedforsecurity=False).hexdigest()
        return os.path.join(self.folder, f"{side}_embeddings_{key}.npy")

    def _load(self, side: str, file: str) -> Floats:
        rows = check.stored_array(file, np.load(file), 2)
        self.say(f"[Cache] Loaded {side} embeddings from {file} (shape={rows.shape})")
        return rows

    def _save(self, side: str, file: str | None, rows: Floats) -> None:
        if file is None:
            return
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with replacing(file) as opened:
            np.save(opened, rows)
        self.say(f"[Cache] Saved {side} embeddings to {file}")


def cosines_of(pairs: TextPairs, queries: Floats, documents: Floats) -> Floats:
    """The cosine of each pair, (P,), to the bit the score that a search gives it."""
    dtype = np.promote_types(*(check.computed_dtype("embeddings", x) for x in (queries, documents)))
    sides = [check.readable(x[at], dtype) for x, at in ((queries, pairs.rows), (documents, pairs.columns))]
    a, b = (Rows(x, checked_inverse_norms("embeddings", x)) for x in sides)
    found = np.empty(len(pairs.rows), dtype)
    paired_cosines.sized(2 * a.x.size)(len(found), a, b, CHUNK, found)
    return found


def judged(
    judge: Any, pairs: TextPairs, candidates: NDArray[np.int64], batch_size: int, processes: Processes
) -> tuple[Floats, Floats]:
    """Scores by a cross-encoder: of the candidates (Q, K) of each query, −1 for none, and of the pairs (P,)."""
    scores = np.full(candidates.shape, -np.inf, np.float32)
    with in_processes(judge, processes) as pool:

        def scored(texts: list[tuple[Any, Any]]) -> NDArray[np.float32]:
            found = torch.as_tensor(judge.predict(texts, batch_size=batch_size, convert_to_tensor=True, pool=pool))
            if found.shape != (len(texts),) or not bool(found.isfinite().all()):
                raise ValueError(
                    f"cross_encoder must give a finite score for each of {len(texts)} pairs, got {tuple(found.shape)}"
                )
            return found.detach().float().cpu().numpy()

        for i, (query, columns) in enumerate(zip(pairs.queries, candidates, strict=True)):
            there = columns >= 0
            if there.any():
                scores[i, there] = scored([(query, pairs.documents[column]) for column in columns[there]])
        own = scored([(pairs.queries[i], pairs.documents[j]) for i, j in zip(pairs.rows, pairs.columns, strict=True)])
    return scores, own
