"""Hard-negative mining, and the exact selection it is made of.

Each name is fetched from its module when it is first used, because a search does not need the miners.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rvtrain.mining._graph_miner import GraphNegativeMiner
    from rvtrain.mining._in_batch import InBatchMiner
    from rvtrain.mining._miner import HardNegativeMiner
    from rvtrain.mining._neighbours import Neighbours as Neighbours  # for the metrics, not for users
    from rvtrain.mining._report import MiningReport
    from rvtrain.mining._strategy import MiningStrategy
    from rvtrain.mining._top_k import top_k, weighted_sample

__all__ = [
    "GraphNegativeMiner",
    "HardNegativeMiner",
    "InBatchMiner",
    "MiningReport",
    "MiningStrategy",
    "top_k",
    "weighted_sample",
]

_HOMES = {
    "GraphNegativeMiner": "_graph_miner",
    "HardNegativeMiner": "_miner",
    "InBatchMiner": "_in_batch",
    "MiningReport": "_report",
    "MiningStrategy": "_strategy",
    "Neighbours": "_neighbours",
    "top_k": "_top_k",
    "weighted_sample": "_top_k",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found
