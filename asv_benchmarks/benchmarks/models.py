"""Models: forward and backward passes, closed forms, and files."""

import tempfile
from pathlib import Path

import numpy as np

import rvtrain as rt

from .common import Benchmark


class Passes(Benchmark):
    """1,024 rows of 384, read from a table of 10,000."""

    params = (["linear", "low rank", "mlp", "sequential"],)
    param_names = ("model",)

    def prepare(self, model):
        makers = {
            "linear": lambda: rt.LinearAdapter(384),
            "low rank": lambda: rt.LinearAdapter(384, rank=32),
            "mlp": lambda: rt.MLPAdapter(384),
            "sequential": lambda: rt.Sequential(rt.LinearAdapter(384), rt.MLPAdapter(384, 128)),
        }
        self.model = makers[model]()
        self.table, self.rows = self.normal(10_000, 384), self.rng().integers(0, 10_000, 1024)
        out, self.saved = self.model.forward_rows(self.table, self.rows)
        self.grad = np.ones_like(out)

    def time_forward(self, *parameters):
        self.model.forward_rows(self.table, self.rows)

    time_forward.pretty_name = "forward pass"

    def time_backward(self, *parameters):
        self.model.backward(self.saved, self.grad)

    time_backward.pretty_name = "backward pass"

    def time_transform(self, *parameters):
        self.model.transform(self.table)

    time_transform.pretty_name = "transform of 10,000 rows"


class Towers(Benchmark):
    """Two towers and a table of embeddings."""

    def prepare(self):
        self.towers = rt.TwoTower(rt.LinearAdapter(384), rt.LinearAdapter(384))
        self.table = rt.EmbeddingTable(100_000, 128)
        self.x, self.rows = self.normal(4096, 384), self.rng().integers(0, 100_000, 8192)

    def time_encode(self):
        self.towers.encode_query(self.x)
        self.towers.encode_document(self.x)

    time_encode.pretty_name = "encoding 4,096 rows by each of two towers"

    def time_table(self):
        self.table.forward(self.rows)

    time_table.pretty_name = "8,192 rows of a table"


class Texts(Benchmark):
    """5,000 texts of 60 words of a vocabulary of 20,000, their bags, and a table of 65,536 × 256."""

    def prepare(self):
        rng = self.rng()
        words = np.array(["".join(map(chr, rng.integers(97, 123, length))) for length in rng.integers(3, 11, 20_000)])
        self.texts = [" ".join(words[(20_000 * rng.random(60) ** 3).astype(int)]) for _ in range(5000)]
        self.features = rt.HashedNgrams(2**16)
        self.bags = self.features.fit_transform(self.texts)
        self.model = rt.BagEncoder(2**16, 256, features=self.features)
        self.optimizer = rt.Adam(self.model.params, 1e-3)
        self.rows = rng.permutation(5000)[:512]
        self.time_step()

    def time_featurize(self):
        self.features.fit_transform(self.texts)

    time_featurize.pretty_name = "hashed n-grams of 5,000 texts, fitted and weighted"

    def time_transform(self):
        self.model.transform(self.bags)

    time_transform.pretty_name = "embeddings of 5,000 bags"

    def time_bags(self):
        rt.Bags(self.bags.indices, self.bags.offsets, self.bags.weights, n_rows=2**16)[self.rows]

    time_bags.pretty_name = "bags checked, and 512 of them selected"

    def time_step(self):
        out, saved = self.model.forward_rows(self.bags, self.rows)
        g = self.model.backward(saved, out)["table"]
        self.optimizer.step(self.model.params, {"table": g.values}, rows={"table": g.rows})

    time_step.pretty_name = "forward and backward pass of 512 bags, and the step of the rows read"

    def time_row_gradient(self):
        rows = self.bags.indices[: len(self.rows)]
        rt.RowGradient((2**16, 256), rows, self.model.params["table"][: len(rows)]).values  # noqa: B018

    time_row_gradient.pretty_name = "gradients of 512 rows summed by row"


class ClosedForms(Benchmark):
    """Adapters that are solved for, from 4,096 rows of 128."""

    params = (["procrustes", "ridge", "pca", "whiten"],)
    param_names = ("form",)

    def prepare(self, form):
        x, y = self.normal(2, 4096, 128)
        self.solve, self.tables = getattr(rt.LinearAdapter, form), (x, y) if form in ("procrustes", "ridge") else (x,)
        self.time_solve()

    def time_solve(self, *parameters):
        self.solve(*self.tables)

    time_solve.pretty_name = "adapter in closed form"


class Files(Benchmark):
    """A model of 768 × 768, and a checkpoint with its optimizer, written and read."""

    def prepare(self):
        self.folder = tempfile.TemporaryDirectory()
        self.model = rt.LinearAdapter(768)
        self.optimizer = rt.AdamW(self.model.params)
        self.path = Path(self.folder.name)

    def time_model(self):
        rt.save_model(self.path / "model.npz", self.model)
        rt.load_model(self.path / "model.npz")

    time_model.pretty_name = "a model saved and loaded"

    def time_checkpoint(self):
        rt.save_checkpoint(self.path / "run.npz", optimizer=self.optimizer)
        rt.load_checkpoint(self.path / "run.npz")

    time_checkpoint.pretty_name = "a checkpoint saved and loaded"
