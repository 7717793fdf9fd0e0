"""What the Trainer takes from elsewhere: models, losses, miners and optimizers without a class of the package."""

import numpy as np
import pytest

import rvtrain as rt


class Rotation:
    """A model of the three members that a model must have, in plain NumPy."""

    def __init__(self, dim):
        self.params = {"turn": np.eye(dim, dtype=np.float32)}

    def forward(self, x):
        return x @ self.params["turn"], x

    def backward(self, saved, grad, to_input=False):
        grads = {"turn": saved.T @ grad}
        return (grads, grad @ self.params["turn"].T) if to_input else grads


class Sides:
    """A model of two sides; its parameters have names of its own."""

    def __init__(self, query, document):
        self.query, self.document = query, document
        self.params = {"first": query.params["turn"]} | {f"second {k}": v for k, v in document.params.items()}


class Nothing:
    """A model without parameters."""

    def __init__(self):
        self.params, self.calls = {}, 0

    def forward(self, x):
        self.calls += 1
        return x, None

    def backward(self, saved, grad, to_input=False):
        raise AssertionError("a frozen side has no gradients")


class Softmax:
    """InfoNCE in plain NumPy, in-batch; names of its own for the sides, and neither ids nor negatives."""

    def compute(self, left, right):
        return self.compute_with_gradients(left, right, wrt=())[0]

    def compute_with_gradients(self, left, right, *, wrt):
        scores = left @ right.T / 10
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        value = -np.log(np.diag(p)).mean()
        g = (p - np.eye(len(p), dtype=p.dtype)) / len(p) / 10
        found = {"left": g @ right, "right": g.T @ left}
        return value, tuple(found[name] for name in wrt)


class Nearest:
    """A miner that knows nothing but vectors; it returns the query's own document first."""

    def __init__(self):
        self.last_report = None

    def mine(self, anchors, candidates, k):
        self.last_report = f"{len(anchors)} anchors"
        return np.argsort(-(anchors @ np.asarray(candidates).T), axis=1)[:, :k]


class Descent:
    """An optimizer."""

    learning_rate = 1.0

    def step(self, params, grads):
        for name, g in grads.items():
            params[name] -= self.learning_rate * g


@pytest.fixture
def data(rng):
    """Documents, and queries that are these, turned and with noise; pairs to train on and to hold back."""
    documents = rng.normal(size=(80, 8)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
    queries = documents @ turn + rng.normal(size=(80, 8)).astype(np.float32) / 4
    pairs = np.stack([np.arange(80)] * 2, axis=1)
    return queries, documents, pairs[:60], pairs[60:]


@pytest.mark.parametrize("sides", ["one", "two", "frozen"])
def test_everything_of_ones_own__trains(data, sides):
    model = {
        "one": lambda: Rotation(8),
        "two": lambda: Sides(Rotation(8), Rotation(8)),
        "frozen": lambda: Sides(Rotation(8), Nothing()),
    }[sides]()
    trainer = rt.Trainer(model, Softmax(), Descent(), epochs=30, batch_size=20, metrics=["recall@1", "mrr@5"])
    history = trainer.fit(*data).history
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert history["loss"][-1] < 0.9 * history["loss"][1]
    if sides != "one":
        assert history["recall@1"][0] < 0.4 < 0.8 < history["recall@1"].max()
        assert history["mrr@5"].max() > 0.85


def test_model_of_ones_own__is_trained_as_the_adapter_that_it_copies(data):
    own, ours = Rotation(8), rt.LinearAdapter(8, residual=False)
    ours.params["weight"][...] = own.params["turn"]
    for model in (own, ours):
        rt.Trainer(model, rt.InfoNCELoss(0.1), Descent(), epochs=3, batch_size=20).fit(*data[:3])
    np.testing.assert_allclose(own.params["turn"], ours.params["weight"], atol=1e-5)


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_frozen_side__is_embedded_once_in_a_fit(data, limit):
    document = Nothing()
    model = Sides(Rotation(8), document)
    trainer = rt.Trainer(model, optimizer=Descent(), epochs=5, batch_size=20, memory_limit=limit)
    trainer.fit(*data)
    assert document.calls == 2 if limit else document.calls > 5  # one of a row, for its shape


def test_miner_of_ones_own__never_brings_a_document_of_the_query(data):
    queries, documents, _, _ = data
    pairs = np.array([[i, j] for i in range(60) for j in (i, (i + 1) % 60)])
    seen = []

    class Spying(rt.InfoNCELoss):
        def compute_with_gradients(self, anchors, positives, negatives=None, **options):
            seen.append(len(negatives))
            return super().compute_with_gradients(anchors, positives, negatives, **options)

    miner = Nearest()
    trainer = rt.Trainer(
        Sides(Rotation(8), Rotation(8)), Spying(), Descent(), mining=rt.Mining(miner, k=6, start=2, every=2),
        epochs=4, batch_size=10,
    )  # fmt: skip
    trainer.fit(queries, documents, pairs)
    assert trainer.history["negatives"].tolist() == [0, 0, 6, 6, 6]
    assert trainer.mining_reports == {2: "60 anchors", 4: "60 anchors"}
    assert np.mean(seen[:12]) + 5 < np.mean(seen[12:])
    assert (trainer._run.mined[:, :1] != pairs[:, 1:]).all()


def test_loss_without_negatives__can_not_be_mined_for(data):
    trainer = rt.Trainer(Rotation(8), Softmax(), Descent(), mining=rt.Mining(Nearest()))
    with pytest.raises(ValueError, match="mining needs a loss that takes negatives and negative_ids"):
        trainer.fit(*data)
    with pytest.raises(ValueError, match="negatives needs a loss that takes"):
        rt.Trainer(Rotation(8), Softmax(), Descent()).fit(*data, negatives=np.zeros((60, 2), int))


def test_optimizer_of_ones_own__needs_a_state_for_a_checkpoint_alone(data, tmp_path):
    trainer = rt.Trainer(Rotation(8), Softmax(), Descent(), epochs=1, checkpoint=tmp_path / "run.npz")
    with pytest.raises(TypeError, match="optimizer must have a state_dict where there is a checkpoint"):
        trainer.fit(*data)


def test_optimizer_with_two_sets_of_parameters__is_evaluated_in_its_own(data):
    class Averaging(Descent):
        """Keeps the running mean of the parameters, which `eval` puts in their place."""

        def __init__(self):
            self.count, self.mean, self.kept, self.modes = 0, {}, None, []

        def step(self, params, grads):
            super().step(params, grads)
            self.count += 1
            for name, value in params.items():
                mean = self.mean.setdefault(name, np.zeros_like(value))
                mean += (value - mean) / self.count

        def eval(self, params):
            if self.kept is None and self.mean:
                self.kept = {name: value.copy() for name, value in params.items()}
                for name, value in self.mean.items():
                    params[name][...] = value

        def train(self, params):
            if self.kept is not None:
                for name, value in self.kept.items():
                    params[name][...] = value
                self.kept = None

    plain, averaged = Rotation(8), Rotation(8)
    rt.Trainer(plain, Softmax(), Descent(), epochs=4, batch_size=20).fit(*data[:3])
    optimizer = Averaging()
    rt.Trainer(averaged, Softmax(), optimizer, epochs=4, batch_size=20).fit(*data[:3])
    np.testing.assert_array_equal(optimizer.kept["turn"], plain.params["turn"])
    np.testing.assert_array_equal(optimizer.mean["turn"], averaged.params["turn"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: np.eye(3), "model must be a model"),
        (lambda: rt.LinearAdapter, "got the class LinearAdapter"),
        (lambda: Nothing(), "model must have parameters to train"),
        (lambda: None, "model must be a model, got None"),
    ],
)
def test_what_is_no_model__is_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        rt.Trainer(make())


def test_parameters_of_neither_side__are_named(data):
    model = Sides(Rotation(8), Rotation(8))
    model.params["third"] = np.ones(3, np.float32)
    with pytest.raises(ValueError, match=r"model.params\['third'\] must be an array of its query or document side"):
        rt.Trainer(model).fit(*data)


def test_wrong_shapes_from_a_model__are_not_silent(data):
    class Short(Rotation):
        def backward(self, saved, grad, to_input=False):
            return {"turn": np.ones(3, np.float32)}

    with pytest.raises(ValueError, match="turn"):
        rt.Trainer(Short(8), rt.InfoNCELoss(0.1), epochs=1).fit(*data)


def returning(result):
    """A loss whose `compute_with_gradients` returns this, or the result of this for (anchors, positives)."""

    class Returning:
        def compute(self, anchors, positives):
            return 1.0

        def compute_with_gradients(self, anchors, positives, *, wrt):
            return result(anchors, positives)

    return Returning()


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (lambda a, p: 1.0, TypeError, r"compute_with_gradients of Returning must return a tuple \(loss, gradients\)"),
        (lambda a, p: (1.0, a), TypeError, r"compute_with_gradients of Returning must return a tuple of 2 gradients"),
        (lambda a, p: (1.0, (a,)), TypeError, "compute_with_gradients of Returning must return .* got 1"),
        (
            lambda a, p: (1.0, (a, p[:3])),
            ValueError,
            r"the gradient of Returning to positives must have shape \(20, 8\)",
        ),
    ],
)
def test_losses_of_ones_own__that_return_something_else_are_named(data, result, error, message):
    with pytest.raises(error, match=f"^{message}"):
        rt.Trainer(Rotation(8), returning(result), batch_size=20).fit(*data[:3])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"forward": lambda x: x}, TypeError, r"forward of Rotation must return a tuple \(outputs, saved\)"),
        ({"forward": lambda x: (x[:3], x)}, ValueError, "forward of Rotation must return outputs of 20 rows"),
        (
            {"backward": lambda saved, grad, to_input=False: {"other": grad}},
            ValueError,
            r"backward must return a gradient for params\['turn'\], got those of \['other'\]",
        ),
    ],
)
def test_models_of_ones_own__that_return_something_else_are_named(data, change, error, message):
    model = Rotation(8)
    for name, method in change.items():
        setattr(model, name, method)
    with pytest.raises(error, match=f"^{message}"):
        rt.Trainer(model, batch_size=20).fit(*data[:3])


@pytest.mark.parametrize("found", [80, -2])
def test_miners_of_ones_own__that_name_no_document_are_named(data, found):
    class Elsewhere:
        def mine(self, anchors, candidates, k):
            return np.full((len(anchors), k), found)

    with pytest.raises(ValueError, match=rf"^the miner's result must lie in \[-1, 79\], got {found}"):
        rt.Trainer(Rotation(8), mining=Elsewhere(), batch_size=20).fit(*data[:3])


def test_optimizers_of_ones_own__that_do_not_clip_are_refused_with_a_norm():
    with pytest.raises(TypeError, match=r"^max_grad_norm needs an optimizer whose step takes max_norm"):
        rt.Trainer(Rotation(8), optimizer=Descent(), max_grad_norm=1.0)
