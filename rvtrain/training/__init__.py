"""From arrays to trained embeddings: models, metrics, and the loop that joins the parts."""

from rvtrain.training._alignment import alignment, uniformity
from rvtrain.training._at_k import (
    accuracy_at_k,
    map_at_k,
    map_at_r,
    mrr_at_k,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
)
from rvtrain.training._bag_encoder import BagEncoder
from rvtrain.training._callbacks import Callback, EMACallback
from rvtrain.training._graded import evaluate_pairs, spearman
from rvtrain.training._graph_walks import RandomWalks
from rvtrain.training._linear import LinearAdapter
from rvtrain.training._metrics import evaluate_retrieval
from rvtrain.training._mining import Mining
from rvtrain.training._mlp import MLPAdapter
from rvtrain.training._protocols import (
    EmbeddingModel,
    GraphLoss,
    LabelLoss,
    Miner,
    Model,
    Optimizer,
    PairLoss,
    TwoSidedModel,
)
from rvtrain.training._row_gradient import RowGradient
from rvtrain.training._sampling import MPerClass
from rvtrain.training._saving import load_model, save_model
from rvtrain.training._sequential import Sequential
from rvtrain.training._significance import paired_test
from rvtrain.training._towers import EmbeddingTable, TwoTower
from rvtrain.training._trainer import Trainer

__all__ = [
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
]
