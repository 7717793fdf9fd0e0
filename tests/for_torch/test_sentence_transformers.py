"""Ranking losses and mining beside sentence-transformers, with a tiny random transformer that is made here."""

import itertools
import random

import pytest
from conftest import import_torch

torch = import_torch()
pytest.importorskip("sentence_transformers")
pytest.importorskip("accelerate")

from datasets import Dataset  # noqa: E402
from sentence_transformers import (  # noqa: E402
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    util,
)
from sentence_transformers.sentence_transformer import losses  # noqa: E402
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer  # noqa: E402
from transformers import BertConfig, BertModel, BertTokenizerFast  # noqa: E402

import rvtrain.torch as rtt  # noqa: E402

WORDS = [f"w{i}" for i in range(60)]
DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny BERT with a vocabulary of its own, saved."""
    path = tmp_path_factory.mktemp("tiny")
    (path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=5 + len(WORDS), **sizes, **no_dropout)
    BertModel(config).save_pretrained(path)
    BertTokenizerFast(str(path / "vocab.txt")).save_pretrained(path)
    return path


@pytest.fixture
def model(folder):
    torch.manual_seed(0)
    transformer = Transformer(str(folder))
    return SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu")


def text(rng):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 7)))


def dataset(rows, columns=("anchor", "positive"), seed=0):
    rng = random.Random(seed)
    return Dataset.from_dict({name: [text(rng) for _ in range(rows)] for name in columns})


@pytest.mark.parametrize("hard", [0, 1, 3])
@pytest.mark.parametrize("mode", [None, "in_batch_negatives", "hard_negatives", "all_negatives"])
def test_ranking__of_all_directions_is_theirs(hard, mode):
    torch.manual_seed(0)
    for rows, size in itertools.product((1, 6), range(4)):
        columns = [torch.randn(rows, 7, dtype=torch.float64) for _ in range(2 + hard)]
        for extra, partition in itertools.product(
            itertools.combinations(DIRECTIONS[1:], size), ("joint", "per_direction")
        ):
            if partition == "per_direction" and {*extra} & {"query_to_query", "doc_to_doc"}:
                continue
            for similarity, scale in ((util.cos_sim, 20.0), (util.dot_score, 1.0)):
                options = {"directions": DIRECTIONS[:1] + extra, "partition_mode": partition}
                options |= {"hardness_mode": mode, "hardness_strength": 0.0 if mode is None else 2.0}
                found = []
                for kind in (losses.MultipleNegativesRankingLoss, rtt.MultipleNegativesRankingLoss):
                    leaves = [x.clone().requires_grad_() for x in columns]
                    loss = kind(torch.nn.Identity(), scale, similarity, **options)
                    value = loss.compute_loss_from_embeddings(leaves, None)
                    found.append([value, *torch.autograd.grad(value, leaves)])
                torch.testing.assert_close(*found, rtol=1e-8, atol=1e-11)
                assert {**loss.get_config_dict()} == kind(
                    torch.nn.Identity(), scale, similarity, **options
                ).get_config_dict()


def trained(folder, make, data, tmp_path, **arguments):
    torch.manual_seed(0)
    transformer = Transformer(str(folder))
    model = SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu")
    options = SentenceTransformerTrainingArguments(
        str(tmp_path),
        num_train_epochs=2,
        per_device_train_batch_size=10,
        learning_rate=1e-3,
        seed=1,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=1,
        **arguments,
    )
    trainer = SentenceTransformerTrainer(model, options, train_dataset=data, eval_dataset=data, loss=make(model))
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return logged, trainer.evaluate()["eval_loss"], model.encode(WORDS)


MAKERS = {
    "pairs": (2, "MultipleNegativesRankingLoss", {}),
    "triplets": (3, "MultipleNegativesRankingLoss", {}),
    "all directions": (4, "MultipleNegativesRankingLoss", {"directions": DIRECTIONS}),
    "cached": (3, "CachedMultipleNegativesRankingLoss", {"mini_batch_size": 3}),
}


@pytest.mark.parametrize("around", ["alone", "matryoshka"])
@pytest.mark.parametrize("name", MAKERS)
def test_trainer__trains_the_same_model(name, around, folder, tmp_path):
    columns, kind, options = MAKERS[name]
    data = dataset(30, ("anchor", "positive", "negative_1", "negative_2")[:columns])
    found = []
    for module in (losses, rtt):

        def make(model, module=module):
            loss = getattr(module, kind)(model, **options)
            return losses.MatryoshkaLoss(model, loss, [16, 8]) if around == "matryoshka" else loss

        found.append(trained(folder, make, data, tmp_path))
    assert found[0][0] == pytest.approx(found[1][0], rel=2e-3)
    assert found[0][1] == pytest.approx(found[1][1], rel=2e-3)
    torch.testing.assert_close(*(torch.tensor(x[2]) for x in found), rtol=1e-2, atol=2e-3)
    assert found[1][0][-1] < found[1][0][0]


def test_mining__of_a_model_is_theirs_and_trains_it(folder, model, tmp_path, capsys):
    data, found = dataset(40), []
    for function in (rtt.mine_hard_negatives, util.mine_hard_negatives):
        mined = function(data, model, relative_margin=0.0, num_negatives=2, output_scores=True)
        texts = mined.remove_columns("scores").to_dict()
        found.append((texts, capsys.readouterr().out.splitlines()[0], torch.tensor(mined["scores"][:])))
    assert found[0][:2] == found[1][:2] and mined.num_rows > 20
    torch.testing.assert_close(found[0][2], found[1][2])
    data = rtt.mine_hard_negatives(data, model, num_negatives=1, verbose=False)
    logged, _, _ = trained(folder, rtt.MultipleNegativesRankingLoss, data, tmp_path)
    assert logged[-1] < logged[0]
