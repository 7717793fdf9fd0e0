"""Models of two sides, and of none: two adapters, and a table of free embeddings."""

from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.training._adapters import Adapter


class TwoTower:
    """An adapter for queries and one for documents, or one that both share.

    Parameters
    ----------
    query : LinearAdapter or MLPAdapter
    document : LinearAdapter, MLPAdapter or "shared"
        "shared": `query` serves both sides. Both must have as many outputs, and one dtype.

    Attributes
    ----------
    query, document : adapters
    params : dict of arrays
        The adapters' own arrays, as ``query/…`` and ``document/…``; those of a shared one by their own names.

    References
    ----------
    Huang et al. (2013), Learning Deep Structured Semantic Models for Web Search using Clickthrough Data, CIKM.

    Examples
    --------
    >>> import rvtrain as rt
    >>> sorted(rt.TwoTower(rt.LinearAdapter(4), rt.LinearAdapter(6, 4)).params)
    ['document/weight', 'query/weight']
    >>> sorted(rt.TwoTower(rt.LinearAdapter(4)).params)
    ['weight']
    """

    def __init__(self, query: Adapter, document: Adapter | str = "shared") -> None:
        if not isinstance(query, Adapter):
            raise TypeError(f"query must be a LinearAdapter or MLPAdapter, got {query!r}")
        if isinstance(document, str) and document == "shared":
            document = query
        if not isinstance(document, Adapter):
            raise TypeError(f"document must be a LinearAdapter, an MLPAdapter or 'shared', got {document!r}")
        self.query, self.document = query, document
        if self.query.out_features != self.document.out_features or self.query.dtype != self.document.dtype:
            raise ValueError(
                f"query and document must have outputs of one size and dtype, got {query} and {document}"
            )
        self.params = query.params if self.is_shared else _by_side(self.query.params, self.document.params)

    @property
    def is_shared(self) -> bool:
        """Whether one adapter serves both sides."""
        return self.document is self.query

    def __repr__(self) -> str:
        return f"TwoTower({self.query!r})" if self.is_shared else f"TwoTower({self.query!r}, {self.document!r})"

    def collect(self, query: dict[str, np.ndarray], document: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Gradients of both sides under the keys of `params`; summed where the sides share."""
        if self.is_shared:
            return {name: query[name] + document[name] for name in query}
        return _by_side(query, document)


def _by_side(query: dict[str, np.ndarray], document: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"query/{k}": v for k, v in query.items()} | {f"document/{k}": v for k, v in document.items()}


class EmbeddingTable:
    """Free embeddings, a row for each of n things; trained row by row.

    Parameters
    ----------
    n : int
        Rows.
    dim : int
    scale : float, optional
        Standard deviation of the random start. None: 1/√dim, rows of about length one.
    seed : int
    dtype : float32 or float64

    Attributes
    ----------
    params : dict of arrays
        ``weight``, of shape (n, dim).

    References
    ----------
    Mikolov et al. (2013), Distributed Representations of Words and Phrases, arXiv:1310.4546.

    Examples
    --------
    >>> import rvtrain as rt
    >>> table = rt.EmbeddingTable(100, 16)
    >>> table.forward([3, 5]).shape
    (2, 16)
    """

    def __init__(
        self, n: int, dim: int, *, scale: float | None = None, seed: int = 0, dtype: Any = np.float32
    ) -> None:
        n, dim = check.integer("n", n, low=1), check.integer("dim", dim, low=1)
        deviation = dim**-0.5 if scale is None else check.number("scale", scale, low=0.0)
        if np.dtype(dtype).type not in (np.float32, np.float64):
            raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
        rng = np.random.default_rng(check.integer("seed", seed, low=0))
        self.params = {"weight": (rng.normal(size=(n, dim)) * deviation).astype(dtype)}

    def __repr__(self) -> str:
        return "EmbeddingTable({}, {})".format(*self.params["weight"].shape)

    @property
    def weight(self) -> np.ndarray:
        """The table."""
        return self.params["weight"]

    def forward(self, rows: Any) -> np.ndarray:
        """The embeddings of these rows, an integer array of shape (m,); a copy."""
        return self.weight[check.indices("rows", rows, (None,), len(self.weight))]
