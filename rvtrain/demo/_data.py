"""The data set of the demo, and its split."""

import gzip
from importlib.resources import files
from typing import NamedTuple

import numpy as np

HELD_BACK = 600
"""Number of pairs that are not trained on; about one in eight."""


class Pairs(NamedTuple):
    """Sentences, the name that each describes, and a mask of the rows for training."""

    sentences: list[str]
    names: list[str]
    train: np.ndarray
    held_back: np.ndarray


def load(seed: int) -> Pairs:
    """Load the data set and split it at random."""
    text = gzip.decompress(files("rvtrain.demo").joinpath("data/docstrings.tsv.gz").read_bytes()).decode()
    names, sentences = zip(*(line.split("\t") for line in text.splitlines()), strict=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return Pairs(list(sentences), list(names), np.sort(order[HELD_BACK:]), np.sort(order[:HELD_BACK]))
