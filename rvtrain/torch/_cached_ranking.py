"""The ranking loss of large batches: embeddings are computed in mini-batches, and again in the backward pass."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from rvtrain import _validation as check
from rvtrain.torch._ranking import MultipleNegativesRankingLoss

Features = Mapping[str, Any]


class CachedMultipleNegativesRankingLoss(MultipleNegativesRankingLoss):
    """`MultipleNegativesRankingLoss` with the activations of one mini-batch in memory at a time (GradCache).

    The forward pass embeds mini-batches without activations, and computes the loss and its gradients to all
    embeddings. The backward pass embeds each mini-batch again, with the same random numbers, and continues through
    the model. Values and gradients are those of the loss without mini-batches, but for dropout. The parameters get
    their gradients by ``backward()``, not by ``torch.autograd.grad``.

    Parameters
    ----------
    mini_batch_size : int
        Number of texts that are embedded at once.
    mini_batch_num_tokens, show_progress_bar
        Arguments of sentence-transformers; only None and False.
    model, scale, similarity_fct, gather_across_devices, directions, partition_mode, hardness_mode, hardness_strength
        As of `MultipleNegativesRankingLoss`.

    Raises
    ------
    TypeError, ValueError
        As `MultipleNegativesRankingLoss`; and if a tensor of the features does not have a row for each text.

    References
    ----------
    Gao, Zhang, Han & Callan (2021), Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup,
    arXiv:2101.06983.

    Examples
    --------
    >>> import torch
    >>> from rvtrain.torch import CachedMultipleNegativesRankingLoss
    >>> class Model(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = torch.nn.Linear(3, 2)
    ...     def forward(self, features):
    ...         return {"sentence_embedding": self.layer(features["x"])}
    >>> model = Model()
    >>> loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=4)
    >>> loss([{"x": torch.rand(10, 3)}, {"x": torch.rand(10, 3)}]).backward()
    >>> model.layer.weight.grad.shape
    torch.Size([2, 3])
    """

    uses_gradient_cache = True
    """Tells MatryoshkaLoss of sentence-transformers to shorten embeddings in `calculate_loss`."""

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: str | Callable[..., Any] = "cosine",
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        directions: Iterable[str] = ("query_to_doc",),
        partition_mode: str = "joint",
        show_progress_bar: bool = False,
        hardness_mode: str | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        super().__init__(
            model,
            scale,
            similarity_fct,
            gather_across_devices,
            directions,
            partition_mode,
            hardness_mode,
            hardness_strength,
        )
        self.mini_batch_size = check.integer("mini_batch_size", mini_batch_size, low=1)
        if mini_batch_num_tokens is not None:
            raise ValueError(f"mini_batch_num_tokens must be None, got {mini_batch_num_tokens}: give mini_batch_size")
        if show_progress_bar:
            raise ValueError("show_progress_bar must be False: the loss is computed in one call")

    def get_config_dict(self) -> dict[str, Any]:
        """The arguments, as sentence-transformers writes them to the card of a model."""
        return super().get_config_dict() | {"mini_batch_size": self.mini_batch_size}

    def forward(self, sentence_features: Iterable[Features], labels: Any = None) -> torch.Tensor:
        """The loss of the columns (anchors, positives, hard negatives …); `labels` are not used."""
        columns = [list(_parts(features, self.mini_batch_size)) for features in sentence_features]
        states: list[list[torch.Tensor]] = []
        embedded: list[list[torch.Tensor]] = []
        with torch.no_grad():
            for parts in columns:
                states.append([])
                embedded.append([])
                for part in parts:
                    states[-1].append(torch.get_rng_state())
                    embedded[-1].append(self._embedding(part).detach())
        if not torch.is_grad_enabled():
            return self.calculate_loss(embedded, labels)
        leaves = [[x.requires_grad_() for x in parts] for parts in embedded]
        value = self.calculate_loss(leaves, labels, with_backward=True).detach().requires_grad_()
        low, low_dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

        def embed_again(upstream: torch.Tensor) -> None:
            for parts, starts, known in zip(columns, states, leaves, strict=True):
                for part, start, leaf in zip(parts, starts, known, strict=True):
                    with torch.random.fork_rng(devices=[]), torch.enable_grad():
                        torch.set_rng_state(start)
                        with torch.autocast("cpu", low_dtype, enabled=low):
                            again = self._embedding(part)
                        if again.requires_grad and leaf.grad is not None:
                            torch.autograd.backward(again, leaf.grad * upstream.to(leaf.dtype))

        value.register_hook(embed_again)
        return value

    def _embedding(self, part: dict[str, Any]) -> torch.Tensor:
        """The embeddings of a mini-batch; the model may change the copies that it gets, as its modules do."""
        copies = {name: x.clone() if isinstance(x, torch.Tensor) else x for name, x in part.items()}
        found: torch.Tensor = self.model(copies)["sentence_embedding"]
        return found

    def calculate_loss(
        self, reps: list[list[torch.Tensor]], labels: Any = None, *, with_backward: bool = False
    ) -> torch.Tensor:
        """The loss of the embeddings of each column's mini-batches, and its gradients with `with_backward`."""
        value = self.compute_loss_from_embeddings([torch.cat(parts) for parts in reps])
        if with_backward:
            value.backward()
            value = value.detach()
        return value


def _parts(features: Features, size: int) -> Iterator[dict[str, Any]]:
    """The features in mini-batches of at most `size` texts."""
    tensors = {name: x for name, x in features.items() if isinstance(x, torch.Tensor) and x.ndim}
    if not tensors:
        raise ValueError(f"features must have a tensor with a row for each text, got {sorted(features)}")
    name = next((name for name in ("input_ids", "attention_mask") if name in tensors), next(iter(tensors)))
    count = len(tensors[name])
    kept = {other for other, x in tensors.items() if other == "prompt_length" or len(x) != count}
    if unlike := sorted(kept - {"prompt_length"} | tensors.keys() & {"offsets", "cu_seq_lens_q"}):
        raise ValueError(
            f"features must have a row for each of the {count} texts to be embedded in mini-batches, got {unlike[0]} "
            f"of shape {tuple(tensors[unlike[0]].shape)}: give MultipleNegativesRankingLoss"
        )
    for start in range(0, count, size):
        rows = {other: x[start : start + size] for other, x in tensors.items() if other not in kept}
        yield dict(features) | rows
