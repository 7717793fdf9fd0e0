"""Hard-negative mining, and the exact selection it is made of.

Each name is fetched from its module when it is first used, because a search does not need the miners.
"""

from typing import TYPE_CHECKING

from rvtrain._lazy import fetcher

if TYPE_CHECKING:
    from rvtrain.mining._graph_miner import GraphNegativeMiner
    from rvtrain.mining._in_batch import InBatchMiner
    from rvtrain.mining._miner import HardNegativeMiner
    from rvtrain.mining._neighbours import Neighbours as Neighbours  # for the metrics, not for users
    from rvtrain.mining._quantized import top_k_quantized
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
    "top_k_quantized",
    "weighted_sample",
]

__getattr__ = fetcher(
    __name__,
    {
        "_graph_miner": ("GraphNegativeMiner",),
        "_in_batch": ("InBatchMiner",),
        "_miner": ("HardNegativeMiner",),
        "_neighbours": ("Neighbours",),
        "_quantized": ("top_k_quantized",),
        "_report": ("MiningReport",),
        "_strategy": ("MiningStrategy",),
        "_top_k": ("top_k", "weighted_sample"),
    },
)
