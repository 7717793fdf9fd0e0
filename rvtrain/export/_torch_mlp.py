"""The MLPAdapter of rvtrain as a module of sentence-transformers.

rvtrain copies this file into the folders that it writes, and needs not be installed where they are read.
"""

from typing import Any

from torch import Tensor, nn

try:
    from sentence_transformers.base.modules.module import Module
except ImportError:  # before version 6
    from sentence_transformers.models import Module


class MLPAdapter(Module):  # type: ignore[misc]
    """[x +] GELU(LayerNorm(x) W1 + b1) W2 + b2, with GELU in its tanh form."""

    config_keys = ["in_features", "out_features", "hidden_features", "use_residual"]  # noqa: RUF012

    def __init__(self, in_features: int, out_features: int, hidden_features: int, use_residual: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.hidden_features, self.use_residual = hidden_features, use_residual
        self.norm = nn.LayerNorm(in_features, eps=1e-5)
        self.hidden = nn.Linear(in_features, hidden_features)
        self.activation = nn.GELU(approximate="tanh")
        self.linear = nn.Linear(hidden_features, out_features)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Replace the sentence embeddings."""
        x = features["sentence_embedding"]
        y = self.linear(self.activation(self.hidden(self.norm(x))))
        features["sentence_embedding"] = x + y if self.use_residual else y
        return features

    def get_embedding_dimension(self) -> int:
        """The number of columns of the outputs."""
        return self.out_features

    get_sentence_embedding_dimension = get_embedding_dimension

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write the configuration and the weights to a folder."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> "MLPAdapter":
        """Read what `save` has written."""
        where = {
            "subfolder": subfolder, "token": token, "cache_folder": cache_folder, "revision": revision,
            "local_files_only": local_files_only,
        }  # fmt: skip
        model = cls(**cls.load_config(model_name_or_path, **where))
        loaded: MLPAdapter = cls.load_torch_weights(model_name_or_path, model=model, **where)
        return loaded
