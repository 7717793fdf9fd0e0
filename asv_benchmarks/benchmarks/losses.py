"""Losses with all their gradients."""

import rvtrain as rt

from .common import Benchmark, Headline

BOTH = ("anchors", "positives")


class InfoNCE(Headline):
    """A batch against itself."""

    params = ([(128, 128), (1024, 128), (1024, 768)], ["float32", "float64"], [1])
    param_names = ("shape", "dtype", "threads")

    def prepare(self, shape, dtype, threads):
        if dtype == "float64" and shape != (1024, 128):
            raise NotImplementedError("float64 is timed at one shape")
        self.arrays = self.normal(2, *shape, dtype=dtype)
        self.loss = rt.InfoNCELoss()
        self.time_gradients()

    def time_gradients(self, *parameters):
        self.loss.compute_with_gradients(*self.arrays, wrt=BOTH)

    time_gradients.pretty_name = "InfoNCE, loss and both gradients"


class InfoNCEThreads(InfoNCE):
    """The same by all threads."""

    rounds, repeat = Benchmark.rounds, Benchmark.repeat
    params = (InfoNCE.params[0], ["float32"], ["all"])


class InfoNCEValue(Benchmark):
    """The loss alone of 1024 × 128 against itself."""

    def prepare(self):
        self.arrays = self.normal(2, 1024, 128)
        self.loss = rt.InfoNCELoss()
        self.time_value()

    def time_value(self):
        self.loss.compute(*self.arrays)

    time_value.pretty_name = "InfoNCE, loss alone"


class InfoNCEOptions(Benchmark):
    """InfoNCE of 1024 × 128 with what changes its sweep, and of 256 anchors with negatives from elsewhere."""

    params = (["symmetric", "directions", "euclidean", "guide", "ids", "pool", "gathered", "medium"],)
    param_names = ("option",)

    def prepare(self, option):
        self.arrays = list(self.normal(2, 1024, 128))
        self.options = {"wrt": BOTH}
        directions = ("query_to_document", "query_to_query", "document_to_query", "document_to_document")
        self.loss = rt.InfoNCELoss(
            symmetric=option == "symmetric",
            similarity="euclidean" if option == "euclidean" else "cosine",
            precision="medium" if option == "medium" else None,
            **({"directions": directions} if option == "directions" else {}),
        )
        if option == "guide":
            self.options["guide"] = tuple(self.normal(4, 1024, 128)[2:])
        if option == "ids":
            self.options["anchor_ids"] = self.options["positive_ids"] = self.rng().integers(0, 500, 1024)
        if option in ("pool", "gathered"):
            self.arrays = [*self.normal(2, 256, 128), self.normal(8192, 128)]
            self.options["wrt"] = (*BOTH, "negatives")
        if option == "gathered":
            self.options["negative_indices"] = self.rng().integers(0, 8192, (256, 16))
        self.time_gradients()

    def time_gradients(self, *parameters):
        self.loss.compute_with_gradients(*self.arrays, **self.options)

    time_gradients.pretty_name = "InfoNCE with options, loss and all gradients"


class Pairs(Benchmark):
    """Other losses of 1024 × 128 against itself."""

    params = (["decoupled", "hard negative", "sigmoid", "matryoshka", "local pairwise", "local triplet"],)
    param_names = ("loss",)

    def prepare(self, loss):
        makers = {
            "decoupled": rt.DecoupledContrastiveLoss,
            "hard negative": rt.HardNegativeContrastiveLoss,
            "sigmoid": rt.SigmoidLoss,
            "matryoshka": lambda: rt.MatryoshkaLoss(rt.InfoNCELoss(), (128, 64, 32)),
            "local pairwise": lambda: rt.LocalContrastiveLoss(10.0),
            "local triplet": lambda: rt.LocalContrastiveLoss(10.0, form="triplet"),
        }
        self.arrays = self.normal(2, 256 if loss.startswith("local") else 1024, 128)
        self.loss = makers[loss]()
        self.time_gradients()

    def time_gradients(self, *parameters):
        self.loss.compute_with_gradients(*self.arrays, wrt=BOTH)

    time_gradients.pretty_name = "loss of pairs and both gradients"


class Labelled(Benchmark):
    """1024 × 128 embeddings of 128 classes."""

    params = (["supervised", "multi-similarity"],)
    param_names = ("loss",)

    def prepare(self, loss):
        self.embeddings = self.normal(1024, 128)
        self.labels = self.rng().integers(0, 128, 1024)
        self.loss = rt.SupConLoss() if loss == "supervised" else rt.MultiSimilarityLoss()
        self.time_gradients()

    def time_gradients(self, *parameters):
        self.loss.compute_with_gradients(self.embeddings, self.labels)

    time_gradients.pretty_name = "loss of labelled embeddings and gradient"


class Teachers(Benchmark):
    """1,024 lists of a positive and 8 negatives with a teacher's scores, and a pool of 1,024 for the divergence."""

    params = (["margin", "divergence", "listnet", "divergence of a pool"],)
    param_names = ("loss",)

    def prepare(self, loss):
        makers = {"margin": rt.MarginMSELoss, "listnet": rt.ListNetLoss}
        self.loss = makers.get(loss, rt.DistillKLLoss)()
        pool = loss.endswith("pool")
        negatives = self.normal(1024, 128) if pool else self.normal(1024, 8, 128)
        self.arrays = (*self.normal(2, 1024, 128), negatives, self.normal(1024, 1025 if pool else 9))
        self.time_gradients()

    def time_gradients(self, *parameters):
        self.loss.compute_with_gradients(*self.arrays, wrt=(*BOTH, "negatives"))

    time_gradients.pretty_name = "loss of a teacher's scores and all gradients"


class Graded(Benchmark):
    """10,000 graded pairs of 128 dimensions."""

    params = (["cosent", "cosine"],)
    param_names = ("loss",)

    def prepare(self, loss):
        self.loss = rt.CoSENTLoss() if loss == "cosent" else rt.CosineSimilarityLoss()
        self.arrays = (*self.normal(2, 10_000, 128), self.rng().random(10_000).astype("float32"))
        self.time_gradients()

    def time_gradients(self, *parameters):
        self.loss.compute_with_gradients(*self.arrays, wrt=("a", "b"))

    time_gradients.pretty_name = "loss of graded pairs and both gradients"


class Spread(Benchmark):
    """2048 × 128 embeddings in a cone."""

    def prepare(self):
        self.embeddings = self.normal(2048, 128) + 0.5
        self.loss = rt.SpreadRegularization()
        self.time_gradient()

    def time_gradient(self):
        self.loss.compute_with_gradients(self.embeddings)

    time_gradient.pretty_name = "spread regularization and gradient"
