"""Ranking losses of sentence-transformers: beside its formula in torch, with a model of the same interface.

`test_sentence_transformers.py` compares with sentence-transformers itself.
"""

import itertools
import tracemalloc

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import rvtrain as rt  # noqa: E402
import rvtrain.torch as rtt  # noqa: E402

DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
MODES = (None, "in_batch_negatives", "hard_negatives", "all_negatives")
DIM = 5


class Model(torch.nn.Module):
    """Texts as rows of numbers; the modules of sentence-transformers change the features that they are given."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.dropout = torch.nn.Linear(4, DIM).double(), torch.nn.Dropout(dropout)

    def forward(self, features):
        features["attention_mask"] *= 0
        features["sentence_embedding"] = self.dropout(self.layer(features["input_ids"]))
        return features


def columns(number, rows=6):
    generator = torch.Generator().manual_seed(3)
    inputs = [torch.randn(rows, 4, dtype=torch.float64, generator=generator) for _ in range(number)]
    return [{"input_ids": x, "attention_mask": torch.ones(rows), "prompt_length": 2} for x in inputs]


def ranking(embeddings, scale, similarity, directions, partition_mode, hardness_mode, hardness_strength):
    """The formula, with all scores."""
    if similarity == "cosine":
        embeddings = [torch.nn.functional.normalize(x) for x in embeddings]
    queries, positives, *hard = embeddings
    documents, own = torch.cat([positives, *hard]), torch.eye(len(queries), dtype=torch.bool)
    owned = own.repeat(1, 1 + len(hard))
    first = own.new_zeros(owned.shape)
    first[:, : len(queries)] = True
    scores = queries @ documents.T
    counted = {
        None: owned & ~owned,
        "in_batch_negatives": ~owned,
        "hard_negatives": owned & ~first,
        "all_negatives": ~(owned & first),
    }[hardness_mode]
    logits = {
        "query_to_doc": scale * scores + hardness_strength * (scores * counted).detach(),
        "query_to_query": (scale * queries @ queries.T).masked_fill(own, -torch.inf),
        "doc_to_query": scale * positives @ queries.T,
        "doc_to_doc": (scale * positives @ documents.T).masked_fill(owned, -torch.inf),
    }
    parts = [logits[name] for name in directions]
    parts = [torch.cat(parts, 1)] if partition_mode == "joint" else parts
    total = sum(part.logsumexp(1) for part in parts) / len(parts)
    return (total - logits["query_to_doc"].diagonal()).mean()


@pytest.mark.parametrize("hard", [0, 2])
@pytest.mark.parametrize("mode", MODES)
def test_ranking__is_its_formula_in_all_directions(hard, mode):
    inputs = [x["input_ids"] for x in columns(2 + hard)]
    for size in range(4):
        for extra in itertools.combinations(DIRECTIONS[1:], size):
            for partition in (
                ("joint",) if {*extra} & {"query_to_query", "doc_to_doc"} else ("joint", "per_direction")
            ):
                for similarity, scale in (("cosine", 20.0), ("dot", 0.7)):
                    options = (DIRECTIONS[:1] + extra, partition, mode, 0.0 if mode is None else 2.0)
                    found = []
                    for compute in (
                        lambda x, scale=scale, similarity=similarity, options=options: ranking(
                            x, scale, similarity, *options
                        ),
                        lambda x, scale=scale, similarity=similarity, options=options: (
                            rtt.MultipleNegativesRankingLoss(
                                torch.nn.Identity(), scale, similarity, False, *options
                            ).compute_loss_from_embeddings(x)
                        ),
                    ):
                        leaves = [x.clone().requires_grad_() for x in inputs]
                        value = compute(leaves)
                        found.append([value, *torch.autograd.grad(value, leaves)])
                    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


def test_ranking__of_one_pair_large_logits_and_half_precision():
    one = [torch.randn(1, DIM).requires_grad_() for _ in range(2)]
    loss = rtt.MultipleNegativesRankingLoss(torch.nn.Identity(), directions=DIRECTIONS)
    value = loss.compute_loss_from_embeddings(one)
    assert value.item() == pytest.approx(torch.tensor(2.0).log().item())  # the positive, in both directions
    loss = rtt.MultipleNegativesRankingLoss(torch.nn.Identity(), 1.0, "dot", directions=DIRECTIONS)
    far = [(100 * torch.randn(4, DIM)).requires_grad_() for _ in range(3)]
    value = loss.compute_loss_from_embeddings(far)
    expected = ranking([x.double() for x in far], 1.0, "dot", DIRECTIONS, "joint", None, 0.0)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, far))
    half = [torch.randn(4, DIM).bfloat16().requires_grad_() for _ in range(2)]
    value = rtt.MultipleNegativesRankingLoss(torch.nn.Identity()).compute_loss_from_embeddings(half)
    value.backward()
    assert value.dtype == torch.float32 and half[0].grad.dtype == torch.bfloat16


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that torch makes."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.found = max(self.found, out.numel())
        return out


@pytest.mark.parametrize("options", [{}, {"directions": DIRECTIONS}, {"hardness_mode": "hard_negatives"}], ids=str)
def test_ranking__takes_memory_linear_in_the_batch(options):
    loss, peaks = rtt.MultipleNegativesRankingLoss(torch.nn.Identity(), hardness_strength=1.0, **options), []
    for count in (1500, 3000):
        leaves = [torch.randn(count, DIM, dtype=torch.float64, requires_grad=True) for _ in range(4)]
        rt.release_workspaces()
        tracemalloc.start()
        with Largest() as largest:
            loss.compute_loss_from_embeddings(leaves).backward()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert largest.found < 10 * count * DIM
    assert peaks[1] < 2.5 * peaks[0], "four times, if it held a matrix of scores"


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("size", [1, 4, 6, 100])
def test_cached_ranking__has_the_gradients_of_one_batch(size, dropout):
    if dropout and size < 6:
        size = 6  # other mini-batches draw other numbers
    found = []
    for kind, options in (("Multiple", {}), ("CachedMultiple", {"mini_batch_size": size})):
        model = Model(dropout)
        loss = getattr(rtt, f"{kind}NegativesRankingLoss")(model, **options)
        torch.manual_seed(1)
        value = loss(columns(3), labels=None)
        drawn = torch.rand(1)
        (3 * value).backward()
        assert torch.rand(1) != drawn
        found.append([value.detach(), model.layer.weight.grad, model.layer.bias.grad])
        with torch.no_grad():
            torch.manual_seed(1)
            torch.testing.assert_close(loss(columns(3)), found[-1][0])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_cached_ranking__computes_again_as_it_has_computed():
    model, seen = Model(), []
    model.layer.register_forward_hook(lambda module, given, out: seen.append((out.dtype, *given[0].shape)))
    model.float()
    inputs = [{"input_ids": x["input_ids"].float(), "attention_mask": x["attention_mask"]} for x in columns(2)]
    with torch.autocast("cpu", torch.bfloat16):
        value = rtt.CachedMultipleNegativesRankingLoss(model, mini_batch_size=4)(inputs)
    value.backward()
    assert seen == [(torch.bfloat16, 4, 4), (torch.bfloat16, 2, 4)] * 4
    assert (inputs[0]["attention_mask"] == 1).all() and "sentence_embedding" not in inputs[0]


def test_models_parameters_are_those_of_the_loss():
    model = Model()
    loss = rtt.MultipleNegativesRankingLoss(model)
    assert dict(loss.named_parameters()).keys() == {"model.layer.weight", "model.layer.bias"}
    optimizer = rtt.AdamW(loss.parameters(), 0.05)
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        value = loss(columns(3))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] / 2
    loss.scale = 5.0
    assert loss.temperature == 0.2 and loss.get_config_dict()["scale"] == 5.0
    assert loss(columns(3)).item() != pytest.approx(value.item())


def test_refused__by_the_name_of_the_argument():
    model = Model()
    for kind in (rtt.MultipleNegativesRankingLoss, rtt.CachedMultipleNegativesRankingLoss):
        for match, options in (
            ("scale must be", {"scale": 0.0}),
            ("similarity_fct must be 'cosine', 'dot'", {"similarity_fct": torch.cdist}),
            ("similarity_fct must be", {"similarity_fct": "euclidean"}),
            ("gather_across_devices must be False", {"gather_across_devices": True}),
            ("directions must be some of", {"directions": ("document_to_query",)}),
            ("directions must contain 'query_to_doc'", {"directions": ("doc_to_query",)}),
            ("partition_mode", {"partition_mode": "both"}),
            ("'per_direction' is for", {"directions": DIRECTIONS, "partition_mode": "per_direction"}),
            ("hardness_mode must be", {"hardness_mode": "all"}),
            ("hardness_strength must be", {"hardness_strength": -1.0}),
        ):
            with pytest.raises(ValueError, match=match):
                kind(model, **options)
        with pytest.raises(ValueError, match="anchors, positives and any number of negatives, got 1"):
            kind(model)(columns(1))
        with pytest.raises(ValueError, match=r"shape \(B, d\) of the first column, got \(5, 5\)"):
            kind(model)([*columns(1), *columns(1, rows=5)])
    cached = rtt.CachedMultipleNegativesRankingLoss
    for match, options in (
        ("mini_batch_num_tokens", {"mini_batch_num_tokens": 5}),
        ("show_progress_bar", {"show_progress_bar": True}),
        ("mini_batch_size", {"mini_batch_size": 0}),
    ):
        with pytest.raises(ValueError, match=match):
            cached(model, **options)
    flat = {"input_ids": torch.arange(9), "offsets": torch.tensor([0, 3])}
    with pytest.raises(ValueError, match=r"must have a row for each of the 9 texts.*offsets of shape"):
        cached(model)([flat, flat])
    with pytest.raises(ValueError, match="tensor with a row for each text"):
        cached(model)([{"text": "a"}])
