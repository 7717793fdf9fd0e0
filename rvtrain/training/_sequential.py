"""Models one after the other."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain.text._ngrams import HashedNgrams
from rvtrain.text._texts import Texts
from rvtrain.training._featurizing import featurized
from rvtrain.training._models import (
    Floats,
    Model,
    Params,
    by_blocks,
    checked_model,
    differ,
    dtype_of,
    features_of,
    forward_rows,
    outputs,
    readable_rows,
    takes_sparse,
)
from rvtrain.training._sparse import SparseRows


class Sequential:
    r"""Models that are applied one after the other: f(x) = f_k(… f_2(f_1(x))).

    Parameters
    ----------
    *models : Model
        One or more: adapters, other Sequentials, or models of your own. The outputs of each are the inputs of the
        next. No two may share an array of parameters.

    Attributes
    ----------
    models : tuple
        Also ``len(model)``, ``model[0]``, ``model[1:]`` and iteration, as of ``torch.nn.Sequential``.
    params : dict of arrays
        The models' own arrays, by the model's place and their name: ``0/weight``, ``1/weight``.
    in_features, out_features : int or None
        Of the first and the last model; None where these do not tell.
    dtype : float32 or float64, or None

    References
    ----------
    Rumelhart, Hinton & Williams (1986), Learning representations by back-propagating errors, Nature 323.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> model = rt.Sequential(rt.MLPAdapter(4, 6, seed=1), rt.LinearAdapter(6, 2))
    >>> sorted(model.params)[-2:]
    ['0/weight2', '1/weight']
    >>> y, saved = model.forward(np.ones((3, 4), np.float32))
    >>> grads, to_x = model.backward(saved, np.ones_like(y), to_input=True)
    >>> y.shape, to_x.shape, grads["1/weight"].shape
    ((3, 2), (3, 4), (6, 2))
    """

    def __init__(self, *models: Model) -> None:
        if not models:
            raise ValueError("Sequential needs at least one model, got none")
        for place, model in enumerate(models):
            checked_model(f"model {place}", model)
        for place, (model, after) in enumerate(pairwise(models)):
            given, taken = features_of(model, "out"), features_of(after, "in")
            if differ(given, taken):
                raise ValueError(f"model {place + 1} must take the {given} features of model {place}, got {taken}")
            given_dtype, taken_dtype = dtype_of(model), dtype_of(after)
            if differ(given_dtype, taken_dtype):
                raise ValueError(
                    f"models must have one dtype, got {given_dtype} of model {place} and {taken_dtype} of the next"
                )
        self.models = models
        params = self.params
        if len({id(array) for array in params.values()}) < len(params):
            raise ValueError("models must not share parameters, got one array under several names")
        self._first_trained = next((place for place, model in enumerate(models) if model.params), len(models))

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.models))})"

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models)

    @overload
    def __getitem__(self, place: int) -> Model: ...

    @overload
    def __getitem__(self, place: slice) -> "Sequential": ...

    def __getitem__(self, place: int | slice) -> Any:
        """One model, or a Sequential of some, which shares their parameters."""
        return Sequential(*self.models[place]) if isinstance(place, slice) else self.models[place]

    @property
    def params(self) -> Params:
        """The arrays of all models by name, which an optimizer changes in place."""
        return {
            f"{place}/{name}": array for place, one in enumerate(self.models) for name, array in one.params.items()
        }

    @property
    def in_features(self) -> int | None:
        """Columns of the inputs; None where the first model does not tell."""
        return features_of(self.models[0], "in")

    @property
    def out_features(self) -> int | None:
        """Columns of the outputs; None where the last model does not tell."""
        return features_of(self.models[-1], "out")

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Of the outputs; None where no model tells."""
        return next((found for found in map(dtype_of, reversed(self.models)) if found is not None), None)

    @property
    def accepts_sparse(self) -> bool:
        """Whether the first model takes sparse rows."""
        return takes_sparse(self.models[0])

    @property
    def features(self) -> HashedNgrams | None:
        """What makes rows of strings in the first model; None where it has none."""
        found: HashedNgrams | None = getattr(self.models[0], "features", None)
        return found

    def featurize(self, x: ArrayLike | SparseRows | Texts, name: str = "x") -> ArrayLike | SparseRows:
        """Rows in the form that the first model reads."""
        rows: ArrayLike | SparseRows = featurized(self.models[0], name, x)
        return rows

    def rows_read(
        self, table: ArrayLike | SparseRows, rows: NDArray[np.integer]
    ) -> dict[str, NDArray[np.int64]] | None:
        """The rows of parameters that the first model reads for these rows; None if it does not tell."""
        tell = getattr(self.models[0], "rows_read", None)
        found = None if tell is None else tell(table, rows)
        return None if found is None else {f"0/{name}": read for name, read in found.items()}

    def forward(self, x: ArrayLike | SparseRows | Texts) -> tuple[Floats, list[object]]:
        """The outputs of the last model for all rows of x, and what `backward` needs.

        Parameters
        ----------
        x : array of shape (n, in_features)
            As the first model takes it.

        Returns
        -------
        outputs : array of shape (n, out_features)
        saved : an object for `backward`
        """
        return self._on(*self.models[0].forward(readable_rows(self.models[0], self.featurize(x, "x"))))

    def forward_rows(
        self, table: ArrayLike | SparseRows | Texts, rows: NDArray[np.integer]
    ) -> tuple[Floats, list[object]]:
        """The same for table[rows]; the first model reads them where they stand, if it can."""
        return self._on(*forward_rows(self.models[0], self.featurize(table, "table"), rows))

    def _on(self, out: Any, first: Any) -> tuple[Floats, list[object]]:
        """The rest of the forward pass, from the outputs of the first model."""
        saved = [first]
        for model in self.models[1:]:
            out, more = model.forward(readable_rows(model, out))
            saved.append(more)
        return out, saved

    @overload
    def backward(self, saved: list[object], grad: ArrayLike, to_input: Literal[False] = False) -> Params: ...

    @overload
    def backward(self, saved: list[object], grad: ArrayLike, to_input: Literal[True]) -> tuple[Params, Floats]: ...

    @overload
    def backward(
        self, saved: list[object], grad: ArrayLike, to_input: bool = ...
    ) -> Params | tuple[Params, Floats]: ...

    def backward(
        self, saved: list[object], grad: ArrayLike, to_input: bool = False
    ) -> Params | tuple[Params, Floats]:
        """Gradients to the parameters of all models, from the gradient to the outputs.

        Parameters
        ----------
        saved
            As `forward` or `forward_rows` returned it.
        grad : array of shape (n, out_features)
        to_input : bool
            Also return the gradient to the inputs.

        Returns
        -------
        grads : dict of arrays, with the keys and shapes of `params`
        to_input : array of shape (n, in_features), where asked for
        """
        lowest = 0 if to_input else self._first_trained
        by_place: dict[int, Params] = {}
        back: Any = grad
        for place in range(len(self.models) - 1, lowest - 1, -1):
            if place > lowest or to_input:
                by_place[place], back = self.models[place].backward(saved[place], back, to_input=True)
            else:
                by_place[place] = self.models[place].backward(saved[place], back)
        grads = {f"{place}/{name}": by_place[place][name] for place in sorted(by_place) for name in by_place[place]}
        return (grads, back) if to_input else grads

    def transform(self, x: ArrayLike | SparseRows | Texts) -> Floats:
        """The outputs for all rows of x, a block of rows at a time, as each model transforms them."""
        out: Floats = by_blocks(self._transformed, self.featurize(x, "x"))
        return out

    def _transformed(self, block: Any) -> Any:
        for model in self.models:
            block = outputs(model, block)
        return block

    def encode(self, x: ArrayLike | SparseRows | Texts) -> Floats:
        """The same as `transform`."""
        return self.transform(x)
