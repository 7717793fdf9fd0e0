"""Strings to bags of hashed n-grams."""

import unicodedata
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rvtrain import _validation as check
from rvtrain.text import _ngrams_kernels as kernels
from rvtrain.text._bags import MOST_ROWS, Bags
from rvtrain.text._texts import Texts, blocks_of_codes, checked_texts

_BLOCK = 1 << 20
"""Characters whose n-grams are in memory at a time, unless one text is longer."""
_LONGEST = 64
_JOINERS = (0x200C, 0x200D)
"""Invisible characters within words of Persian and of Indic scripts, and within emoji."""


class HashedNgrams:
    r"""Bags of hashed n-grams of words and characters, weighted by tf-idf.

    .. math:: w_{tg} = \frac{(1 + \log f_{tg})\, \mathrm{idf}_g}{\|\cdot\|_2}, \qquad
        \mathrm{idf}_g = \log \frac{1 + n}{1 + n_g} + 1

    with :math:`f_{tg}` the count of row g in text t, and :math:`n_g` the number of the n fitted texts that have it.

    *Words* are the longest runs of letters, marks, digits and symbols such as emoji, of any alphabet; all else
    separates them. Where a script has no spaces, a run is a word, and its n-grams of characters do the work. N-grams
    of characters are those of the words joined by single spaces, with one before and after, so that they know where
    words begin and end. The hash is one of Unicode code points: the same on all machines and in all runs.

    Parameters
    ----------
    n_rows : int
        Rows that n-grams are hashed to. Two n-grams that meet in one share its embedding.
    words : (int, int) or None
        Least and greatest number of words of an n-gram: (1, 2) are words and pairs. None: no n-grams of words.
    characters : (int, int) or None
        The same for characters: (3, 4) are n-grams of three and of four.
    lowercase : bool
        Take each capital for its small letter.
    split_case : bool
        Let capitals begin words, as in ``camelCase`` and ``HTTPServer``: for names of code.
    use_idf : bool
        Weigh by the inverse document frequency, for which `fit` is needed.
    sublinear_tf : bool
        1 + log of the count in place of the count.
    norm : "l2" or None
        Divide the weights of a text by their Euclidean length.
    dtype : float32 or float64
        Of the weights.

    Attributes
    ----------
    idf_ : float64 array of shape (n_rows,), or None
        After `fit`.

    References
    ----------
    Weinberger et al. (2009), Feature Hashing for Large Scale Multitask Learning, arXiv:0902.2206.
    Bojanowski et al. (2017), Enriching Word Vectors with Subword Information, arXiv:1607.04606.
    Names and weights as in ``TfidfVectorizer`` of scikit-learn.

    Examples
    --------
    >>> import rvtrain as rt
    >>> ngrams = rt.HashedNgrams(2**12, words=(1, 1), characters=None)
    >>> ngrams.fit(["the cat", "the dog"]).transform(["a cat", "", "The the"])
    Bags of shape (3, 4096), 3 entries, float32
    """

    def __init__(
        self,
        n_rows: int = 2**16,
        *,
        words: tuple[int, int] | None = (1, 2),
        characters: tuple[int, int] | None = (3, 4),
        lowercase: bool = True,
        split_case: bool = False,
        use_idf: bool = True,
        sublinear_tf: bool = True,
        norm: str | None = "l2",
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.n_rows = check.integer("n_rows", n_rows, low=1, high=MOST_ROWS)
        self.words, self.characters = _lengths("words", words), _lengths("characters", characters)
        if self.words is None and self.characters is None:
            raise ValueError("words and characters must not both be None")
        self.lowercase, self.split_case = check.flag("lowercase", lowercase), check.flag("split_case", split_case)
        self.use_idf = check.flag("use_idf", use_idf)
        self.sublinear_tf = check.flag("sublinear_tf", sublinear_tf)
        self.norm = None if norm is None else check.choice("norm", norm, ("l2",))
        self.dtype = np.dtype(dtype)
        if self.dtype.type not in (np.float32, np.float64):
            raise TypeError(f"dtype must be float32 or float64, got {self.dtype}")
        self.idf_: NDArray[np.float64] | None = None

    def __repr__(self) -> str:
        return "HashedNgrams({}, {})".format(
            self.n_rows, ", ".join(f"{name}={value!r}" for name, value in self._options().items())
        )

    def _options(self) -> dict[str, Any]:
        names = ("words", "characters", "lowercase", "split_case", "use_idf", "sublinear_tf", "norm")
        return {name: getattr(self, name) for name in names}

    @property
    def is_fitted(self) -> bool:
        """Whether `transform` can be called: after `fit`, or without idf."""
        return not self.use_idf or self.idf_ is not None

    def fit(self, texts: Texts) -> "HashedNgrams":
        """Learn the inverse document frequencies.

        Parameters
        ----------
        texts : list, tuple, array or Series of strings

        Returns
        -------
        HashedNgrams
            Itself.

        Raises
        ------
        TypeError
            If texts are none.
        ValueError
            If there is no text.
        """
        self._fit(_some("texts", texts))
        return self

    def transform(self, texts: Texts) -> Bags:
        """The bags of these texts.

        Parameters
        ----------
        texts : list, tuple, array or Series of strings
            There may be none. A text without words is an empty bag.

        Returns
        -------
        Bags
            Of shape (len(texts), n_rows).

        Raises
        ------
        TypeError
            If texts are none.
        ValueError
            If `use_idf` needs a `fit` before.
        """
        given = checked_texts("texts", texts)
        if not self.is_fitted:
            raise ValueError("features must be fitted before, as by fit(texts), where use_idf is True")
        return self._weighed(*self._counted(given))

    def fit_transform(self, texts: Texts) -> Bags:
        """`fit`, and the bags of the same texts, whose n-grams are hashed once.

        Parameters
        ----------
        texts : list, tuple, array or Series of strings

        Returns
        -------
        Bags

        Raises
        ------
        TypeError, ValueError
            As `fit`.
        """
        return self._weighed(*self._fit(_some("texts", texts)))

    def state_dict(self) -> dict[str, Any]:
        """The options and what was fitted, which `save_checkpoint` saves."""
        return {"n_rows": self.n_rows, **self._options(), "dtype": self.dtype.name, "idf": self.idf_}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "HashedNgrams":
        """What `state_dict` was called on, made again."""
        made = cls(**{name: value for name, value in state.items() if name != "idf"})
        made.load_state_dict(state)
        return made

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what was fitted with the same options; ValueError if they are others."""
        mine = self.state_dict()
        other = [name for name in mine if name != "idf" and mine[name] != state[name]]
        if other:
            raise ValueError(f"state must be of the same {', '.join(other)}, got {[state[name] for name in other]}")
        self.idf_ = None if state["idf"] is None else np.array(state["idf"], np.float64)

    def _fit(self, texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        counted = self._counted(texts)
        if self.use_idf:
            having = np.bincount(counted[1], minlength=self.n_rows)
            self.idf_ = np.log((1 + len(texts)) / (1 + having)) + 1
        return counted

    def _weighed(self, offsets: NDArray[np.int64], indices: NDArray[np.int32], counts: NDArray[np.int32]) -> Bags:
        weights = np.empty(len(indices), self.dtype)
        idf = np.empty(0) if self.idf_ is None or not self.use_idf else self.idf_
        kernels.weigh.sized(30 * len(indices))(
            len(offsets) - 1, offsets, indices, counts, idf, self.sublinear_tf, self.norm is not None, weights
        )
        return Bags._made(offsets, indices, weights, self.n_rows)

    def _counted(self, texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """Of each text the distinct rows, ascending, and how often each comes: offsets (T + 1,), rows and counts."""
        parts = [self._counted_block(*block) for block in blocks_of_codes(texts, _BLOCK)]
        offsets = np.zeros(len(texts) + 1, np.int64)
        if not parts:
            return offsets, np.empty(0, np.int32), np.empty(0, np.int32)
        np.cumsum(np.concatenate([sizes for sizes, _, _ in parts]), out=offsets[1:])
        _, rows, counts = (np.concatenate(each) for each in zip(*parts, strict=True))
        return offsets, rows, counts

    def _counted_block(
        self, codes: NDArray[np.uint32], bounds: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        low, high = self.characters or (0, 0)
        least, most = self.words or (0, 0)
        longest = np.diff(bounds) * (2 if self.split_case else 1) + 2
        most_ngrams = longest * (high - low + bool(high)) + (longest // 2 + 1) * (most - least + bool(most))
        places = np.zeros((2, len(bounds)), np.int64)
        np.cumsum([longest, most_ngrams], axis=1, out=places[:, 1:])
        text = np.empty(places[0, -1], np.uint32)
        rows, counts = np.empty((2, places[1, -1]), np.int32)
        sizes = np.empty(len(bounds) - 1, np.int64)
        kernels.count_ngrams.sized(40 * len(rows))(
            len(sizes), codes, bounds, _tables(codes, self.lowercase),
            np.array([low, high, least, most, self.n_rows, self.split_case]), places, text, rows, counts, sizes,
        )  # fmt: skip
        ends = np.cumsum(sizes)
        used = np.arange(ends[-1]) + np.repeat(places[1, :-1] - (ends - sizes), sizes)
        return sizes, rows[used], counts[used]


def _tables(codes: NDArray[np.uint32], lowercase: bool) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """For each code point up to the largest: what it is taken for, and its class; filled in for those that come."""
    largest = int(codes.max(initial=0))
    comes = np.zeros(largest + 1, bool)
    comes[codes] = True
    folded, classes = np.zeros(largest + 1, np.uint32), np.zeros(largest + 1, np.uint8)
    for code in np.flatnonzero(comes).tolist():
        character = chr(code)
        category = unicodedata.category(character)
        if category[0] not in "LMN" and category != "So" and code not in _JOINERS:
            continue
        folded[code] = ord(character.lower()[0]) if lowercase else code
        cased = kernels.UPPER if category in ("Lu", "Lt") else kernels.LOWER if category == "Ll" else kernels.OTHER
        classes[code] = cased
    return folded, classes


def _lengths(name: str, value: Any) -> tuple[int, int] | None:
    """Least and greatest length of n-grams."""
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must be None or a tuple of the least and the greatest length, got {value!r}")
    low = check.integer(f"{name}[0]", value[0], low=1, high=_LONGEST)
    return low, check.integer(f"{name}[1]", value[1], low=low, high=_LONGEST)


def _some(name: str, texts: Any) -> list[str]:
    found = checked_texts(name, texts)
    if not found:
        raise ValueError(f"{name} must not be empty")
    return found
