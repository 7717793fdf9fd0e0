"""The miner that the options of `train` and `mine` describe."""

import argparse

import rvtrain as rt
from rvtrain import _validation as check

FILTERS = (
    "range_min", "range_max", "min_score", "max_score", "absolute_margin", "relative_margin", "sampling",
)  # fmt: skip
"""The filters of `HardNegativeMiner`, each of which is an option."""


def miner(options: argparse.Namespace) -> rt.HardNegativeMiner:
    """A new miner; ValueError that names the option if a filter is not possible."""
    check.integer("--seed", options.seed, low=0)
    filters = {name: getattr(options, name) for name in FILTERS}
    low, high = options.min_score, options.max_score
    if low is not None and high is not None and low > high:
        raise ValueError(f"--min-score must be at most --max-score, {high}, got {low}")
    try:
        return rt.HardNegativeMiner(options.strategy, seed=options.seed, **filters)
    except ValueError as error:
        name, space, rest = str(error).partition(" ")
        if name not in FILTERS:
            raise
        raise ValueError(f"--{name.replace('_', '-')}{space}{rest}") from None
