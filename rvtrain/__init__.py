"""rvtrain: train embeddings at the speed of the hardware, on CPUs.

Importing this package compiles nothing and loads no numba: each public name is fetched from its
module when it is first used (PEP 562). Editors and type checkers read `__init__.pyi`, which names them too.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "losses": (
        "CoSENTLoss",
        "CosineSimilarityLoss",
        "DecoupledContrastiveLoss",
        "DistillKLLoss",
        "HardNegativeContrastiveLoss",
        "InfoNCELoss",
        "ListNetLoss",
        "LocalContrastiveLoss",
        "MarginMSELoss",
        "MatryoshkaLoss",
        "MultiSimilarityLoss",
        "SigmoidLoss",
        "SpectralRegularization",
        "SpreadRegularization",
        "SupConLoss",
    ),
    "optimizers": (
        "EMA",
        "SGD",
        "Adagrad",
        "Adam",
        "AdamW",
        "Lion",
        "ScheduleFreeAdamW",
        "clip_grad_norm",
        "constant",
        "exponential_decay",
        "step_decay",
        "warmup_cosine",
        "warmup_linear",
    ),
    "curriculum": ("CurriculumScheduler", "CurriculumStage", "TemperatureAnnealing"),
    "mining": (
        "GraphNegativeMiner",
        "HardNegativeMiner",
        "InBatchMiner",
        "MiningReport",
        "MiningStrategy",
        "top_k",
        "top_k_quantized",
        "weighted_sample",
    ),
    "graph": ("Graph",),
    "functional": ("cosine_similarity", "logsumexp", "quantize"),
    "checkpoint": ("load_checkpoint", "save_checkpoint"),
    "text": ("Bags", "HashedNgrams"),
    "training": (
        "BagEncoder",
        "Callback",
        "EMACallback",
        "EmbeddingModel",
        "EmbeddingTable",
        "GraphLoss",
        "LabelLoss",
        "LinearAdapter",
        "MLPAdapter",
        "MPerClass",
        "Miner",
        "Mining",
        "Model",
        "Optimizer",
        "PairLoss",
        "RandomWalks",
        "RowGradient",
        "Sequential",
        "Trainer",
        "TwoSidedModel",
        "TwoTower",
        "accuracy_at_k",
        "alignment",
        "evaluate_pairs",
        "evaluate_retrieval",
        "load_model",
        "map_at_k",
        "map_at_r",
        "mrr_at_k",
        "ndcg_at_k",
        "paired_test",
        "precision_at_k",
        "recall_at_k",
        "save_model",
        "spearman",
        "uniformity",
    ),
    "report": (),
    "export": (),
    "_engine._precision": ("get_float32_precision", "set_float32_precision"),
    "_engine._scratch": ("release_workspaces",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    elif name in _HOMES:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_HOMES})
