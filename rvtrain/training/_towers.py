"""Models of two sides, and of none: two towers, and a table of free embeddings."""

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar, cast, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from rvtrain import _validation as check
from rvtrain.text._texts import Texts
from rvtrain.training._adapters import model_dtype
from rvtrain.training._embedding import as_array
from rvtrain.training._models import (
    Floats,
    Model,
    Params,
    as_table,
    checked_model,
    differ,
    dtype_of,
    features_of,
    outputs,
    readable_rows,
)
from rvtrain.training._row_gradient import RowGradient
from rvtrain.training._sparse import SparseRows

Query = TypeVar("Query", bound=Model)
Document = TypeVar("Document", bound=Model)


class TwoTower(Generic[Query, Document]):
    """A model for queries and one for documents, one that both share, or one for queries beside frozen documents.

    Parameters
    ----------
    query : Model
        A `LinearAdapter`, an `MLPAdapter`, a `Sequential`, or a model of your own (see `Model`).
    document : Model, "shared" or "frozen"
        "shared": `query` serves both sides. "frozen": documents are taken as they are; only their dtype is converted,
        and only `query` is trained, so that vectors in an index need not be computed again. The outputs of both sides
        have one size and dtype.

    Attributes
    ----------
    query, document : models
        With "frozen", `document` is a model without parameters, whose outputs are its inputs.
    params : dict of arrays
        Of two models, their own arrays, as ``query/…`` and ``document/…``. With "shared" and "frozen" they are
        those of `query`, by their own names, so that an optimizer made for the query model alone fits.

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
    >>> model = rt.TwoTower(rt.LinearAdapter(6, 4), "frozen")
    >>> sorted(model.params), model.document.params
    (['weight'], {})
    """

    @overload
    def __init__(self: "TwoTower[Query, Query]", query: Query, document: Literal["shared"] = "shared") -> None: ...

    @overload
    def __init__(self: "TwoTower[Query, Frozen]", query: Query, document: Literal["frozen"]) -> None: ...

    @overload
    def __init__(self, query: Query, document: Document) -> None: ...

    def __init__(self, query: Query, document: Model | Literal["shared", "frozen"] = "shared") -> None:
        checked_model("query", query)
        self.query = query
        self.document: Document
        if isinstance(document, str) and document == "shared":
            self.document = cast(Document, query)
            return
        if isinstance(document, str) and document == "frozen":
            self.document = cast(Document, Frozen(features_of(query, "out"), dtype_of(query)))
            return
        checked_model("document", document, "a model, 'shared' or 'frozen'")
        self.document = cast(Document, document)
        widths = features_of(query, "out"), features_of(document, "out")
        dtypes = dtype_of(query), dtype_of(document)
        if differ(*widths) or differ(*dtypes):
            raise ValueError(
                f"query and document must have outputs of one size and dtype, got {query} and {document}"
            )
        if not self.is_shared and {id(a) for a in query.params.values()} & {id(a) for a in document.params.values()}:
            raise ValueError("query and document must not share some of their parameters; 'shared' shares all")

    @property
    def params(self) -> Params:
        """The arrays of both models by name, which an optimizer changes in place."""
        if self.is_shared or isinstance(self.document, Frozen):
            return dict(self.query.params)
        return _by_side(self.query.params, self.document.params)

    @property
    def is_shared(self) -> bool:
        """Whether one model serves both sides."""
        return self.document is self.query

    @property
    def is_frozen(self) -> bool:
        """Whether the document side has no parameters, so that its outputs never change."""
        return not self.document.params

    def __repr__(self) -> str:
        if self.is_shared:
            return f"TwoTower({self.query!r})"
        return f"TwoTower({self.query!r}, {self.document!r})"

    def encode_query(self, x: ArrayLike | SparseRows | Texts) -> Floats:
        """Queries of shape (n, d), or n strings, as `query` transforms them, a block of rows at a time."""
        embeddings: Floats = outputs(self.query, x)
        return embeddings

    def encode_document(self, x: ArrayLike | SparseRows | Texts) -> Floats:
        """Documents of shape (n, d), or n strings, as `document` transforms them, a block of rows at a time."""
        embeddings: Floats = outputs(self.document, x)
        return embeddings


class Frozen:
    """A model without parameters: its outputs are its inputs, in its dtype, uncopied where they have it already."""

    def __init__(self, features: int | None, dtype: np.dtype[Any] | None) -> None:
        self.in_features = self.out_features = features
        self.dtype = dtype
        self.params: Params = {}

    def __repr__(self) -> str:
        return "'frozen'"

    def forward(self, x: Any) -> tuple[Any, None]:
        """The rows of x."""
        return self._checked(readable_rows(self, x)), None

    def forward_rows(self, table: Any, rows: NDArray[np.integer]) -> tuple[Any, None]:
        """The rows table[rows]; only these are read."""
        return self._checked(readable_rows(self, as_table(table)[rows])), None

    @overload
    def backward(self, saved: None, grad: Any, to_input: Literal[False] = False) -> Params: ...

    @overload
    def backward(self, saved: None, grad: Any, to_input: Literal[True]) -> tuple[Params, Any]: ...

    @overload
    def backward(self, saved: None, grad: Any, to_input: bool = ...) -> Params | tuple[Params, Any]: ...

    def backward(self, saved: None, grad: Any, to_input: bool = False) -> Any:
        """No gradients; that to the inputs is that to the outputs."""
        return ({}, grad) if to_input else {}

    def transform(self, x: Any) -> Any:
        """All rows of x; a copy only where the dtype is another."""
        return self.forward(x)[0]

    def _checked(self, x: Any) -> Any:
        if isinstance(x, np.ndarray) and (x.ndim != 2 or self.in_features not in (None, x.shape[1])):
            raise ValueError(f"x must have shape (n, {self.in_features or 'any'}), got {x.shape}")
        return x


def _by_side(query: Mapping[str, Floats], document: Mapping[str, Floats]) -> Params:
    return {f"query/{k}": v for k, v in query.items()} | {f"document/{k}": v for k, v in document.items()}


class EmbeddingTable:
    """Free embeddings, a row for each of n things, by its number, its *id*; trained row by row.

    Alone it is a model of a graph's nodes, for `Trainer.fit_graph`. As a tower of a `TwoTower`, for `Trainer.fit`,
    its inputs are ids, such as those of users or items.

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
    in_features, out_features : int
        1, an id, and `dim`.

    References
    ----------
    Mikolov et al. (2013), Distributed Representations of Words and Phrases, arXiv:1310.4546.
    Yi et al. (2019), Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations, RecSys.

    Examples
    --------
    >>> import rvtrain as rt
    >>> table = rt.EmbeddingTable(100, 16)
    >>> table.transform([3, 5]).shape
    (2, 16)
    >>> model = rt.TwoTower(rt.EmbeddingTable(50, 8), rt.EmbeddingTable(20, 8, seed=1))
    >>> users, items = [0, 0, 7, 49], [3, 5, 19, 3]
    >>> trainer = rt.Trainer(model, rt.InfoNCELoss(0.1), epochs=2, batch_size=2).fit(users, items)
    """

    accepts_ids = True
    """Inputs are ids."""
    in_features = 1

    def __init__(
        self, n: int, dim: int, *, scale: float | None = None, seed: int = 0, dtype: DTypeLike = np.float32
    ) -> None:
        n, dim = check.integer("n", n, low=1), check.integer("dim", dim, low=1)
        deviation = dim**-0.5 if scale is None else check.number("scale", scale, low=0.0)
        made = model_dtype(dtype)
        rng = np.random.default_rng(check.integer("seed", seed, low=0))
        self.params: Params = {"weight": (rng.normal(size=(n, dim)) * deviation).astype(made)}

    def __repr__(self) -> str:
        return "EmbeddingTable({}, {})".format(*self.params["weight"].shape)

    @property
    def weight(self) -> Floats:
        """The table."""
        return self.params["weight"]

    @property
    def out_features(self) -> int:
        """Columns of the table."""
        return int(self.weight.shape[1])

    def featurize(self, ids: ArrayLike, name: str = "ids") -> NDArray[np.int64]:
        """Ids (m,) as a column (m, 1), checked; `name` is that of the argument, for errors."""
        array = as_array(name, ids)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim == 1 and not array.size:
            array = array.astype(np.int64)
        return check.indices(name, array, (None,), len(self.weight))[:, np.newaxis]

    def forward(self, ids: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
        """The embeddings of these ids, integers of shape (m,) or (m, 1); and the ids, for `backward`."""
        rows = self.featurize(ids)[:, 0]
        return self.weight[rows], rows

    def forward_rows(self, ids: ArrayLike, rows: NDArray[np.integer]) -> tuple[Floats, NDArray[np.int64]]:
        """`forward` of ids[rows]."""
        return self.forward(np.asarray(ids)[rows])

    def backward(self, saved: NDArray[np.int64], grad: Floats, to_input: bool = False) -> dict[str, RowGradient]:
        """The gradient of the table, in the rows that were read. There is none to ids."""
        if to_input:
            raise ValueError("to_input must be False: there is no gradient to ids")
        shape: tuple[int, int] = self.weight.shape[0], self.weight.shape[1]
        return {"weight": RowGradient(shape, saved, grad)}

    def rows_read(self, ids: ArrayLike, rows: NDArray[np.integer]) -> dict[str, NDArray[np.int64]]:
        """The rows of the table that `forward_rows` reads."""
        return {"weight": np.unique(np.asarray(ids)[rows]).astype(np.int64)}

    def transform(self, ids: ArrayLike) -> Floats:
        """The embeddings of these ids, integers of shape (m,); a copy."""
        return self.forward(ids)[0]
