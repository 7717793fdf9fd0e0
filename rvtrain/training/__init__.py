"""From arrays to trained embeddings: models, metrics, and the loop that joins the parts."""

from rvtrain.training._adapters import LinearAdapter, MLPAdapter
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
from rvtrain.training._graded import evaluate_pairs, spearman
from rvtrain.training._metrics import evaluate_retrieval
from rvtrain.training._saving import load_model, save_model
from rvtrain.training._significance import paired_test
from rvtrain.training._towers import EmbeddingTable, TwoTower
from rvtrain.training._trainer import Trainer

__all__ = [
    "EmbeddingTable",
    "LinearAdapter",
    "MLPAdapter",
    "Trainer",
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
