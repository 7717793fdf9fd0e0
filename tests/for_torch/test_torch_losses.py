"""Losses as modules of torch: against finite differences, against the losses themselves, and in torch's idioms."""

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rvtrain as rt  # noqa: E402
import rvtrain.torch as rtt  # noqa: E402

COUNT, DIM = 7, 5
LABELS = [0, 1, 0, 1, 2, 2, 0]
EDGES = [[0, 1], [1, 2], [2, 3], [5, 6], [4, 0]]


def rows(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def pairs(dtype=torch.float64):
    return {"anchors": rows(COUNT, DIM, dtype=dtype), "positives": rows(COUNT, DIM, seed=1, dtype=dtype)}


def with_negatives(dtype=torch.float64):
    return pairs(dtype) | {"negatives": rows(4, DIM, seed=2, dtype=dtype)}


def taught(dtype=torch.float64):
    scores = rows(COUNT, 5, seed=3, dtype=dtype)
    return pairs(dtype) | {"negatives": rows(COUNT, 4, DIM, seed=2, dtype=dtype), "teacher_scores": scores}


def graded(dtype=torch.float64):
    a, b = pairs(dtype).values()
    return {"a": a, "b": b, "scores": torch.linspace(0, 1, COUNT, dtype=dtype)}


def labelled(dtype=torch.float64):
    return {"embeddings": rows(COUNT, DIM, dtype=dtype), "labels": torch.tensor(LABELS)}


CASES = {
    "InfoNCELoss": (lambda: rtt.InfoNCELoss(0.3), with_negatives),
    "InfoNCELoss in-batch, symmetric": (lambda: rtt.InfoNCELoss(0.3, symmetric=True), pairs),
    "InfoNCELoss own negatives": (
        lambda: rtt.InfoNCELoss(0.3),
        lambda d=torch.float64: taught(d) | {"teacher_scores": None},
    ),
    "InfoNCELoss sum": (lambda: rtt.InfoNCELoss(0.3, "sum", similarity="dot"), with_negatives),
    "DecoupledContrastiveLoss": (lambda: rtt.DecoupledContrastiveLoss(0.3), with_negatives),
    "HardNegativeContrastiveLoss": (lambda: rtt.HardNegativeContrastiveLoss(0.5), with_negatives),
    "SigmoidLoss": (lambda: rtt.SigmoidLoss(3.0, -1.0), with_negatives),
    "LocalContrastiveLoss": (lambda: rtt.LocalContrastiveLoss(2.0), with_negatives),
    "MatryoshkaLoss": (lambda: rtt.MatryoshkaLoss(rtt.InfoNCELoss(0.3), [2, 5]), with_negatives),
    "MarginMSELoss": (lambda: rtt.MarginMSELoss(), taught),
    "DistillKLLoss": (lambda: rtt.DistillKLLoss(0.5), taught),
    "ListNetLoss": (lambda: rtt.ListNetLoss(0.5), taught),
    "CoSENTLoss": (lambda: rtt.CoSENTLoss(3.0), graded),
    "CosineSimilarityLoss": (lambda: rtt.CosineSimilarityLoss(), graded),
    "SupConLoss": (lambda: rtt.SupConLoss(0.3), labelled),
    "MultiSimilarityLoss": (lambda: rtt.MultiSimilarityLoss(2.0, 5.0), labelled),
    "SpreadRegularization": (
        lambda: rtt.SpreadRegularization(),
        lambda d=torch.float64: {"embeddings": rows(COUNT, DIM, dtype=d)},
    ),
    "SpectralRegularization": (
        lambda: rtt.SpectralRegularization(0.5),
        lambda d=torch.float64: {"embeddings": rows(COUNT, DIM, dtype=d), "graph": torch.tensor(EDGES)},
    ),
}
DIFFERENTIABLE = ("anchors", "positives", "negatives", "embeddings", "references", "edge_weights", "a", "b")
every_loss = pytest.mark.parametrize("name", CASES)


def case(name, dtype=torch.float64):
    make, inputs = CASES[name]
    return make(), {key: x for key, x in inputs(dtype).items() if x is not None}


def split(inputs):
    return {n: x for n, x in inputs.items() if n in DIFFERENTIABLE}, {
        n: x for n, x in inputs.items() if n not in DIFFERENTIABLE
    }


def test_every_loss_has_a_module_and_a_case():
    assert {name for name in rt.losses.__all__} == {name.split()[0] for name in CASES}
    assert set(rtt.__all__) >= set(rt.losses.__all__)


@every_loss
def test_gradients__are_those_of_finite_differences(name):
    loss, inputs = case(name)
    by, rest = split(inputs)
    tensors = [x.requires_grad_() for x in by.values()]
    call = lambda *given: loss(**dict(zip(by, given, strict=True)), **rest)  # noqa: E731
    assert torch.autograd.gradcheck(call, tensors, eps=1e-6, atol=1e-7, rtol=1e-5)


FURTHER = {
    "references": lambda: (
        rtt.SupConLoss(0.3),
        labelled() | {"references": rows(4, DIM, seed=5), "reference_labels": [0, 1, 2, 0]},
    ),
    "edge weights": lambda: (
        rtt.SpectralRegularization(0.5),
        {"embeddings": rows(COUNT, DIM), "graph": EDGES, "edge_weights": rows(5, seed=6).abs() + 0.5},
    ),
    "indices": lambda: (
        rtt.InfoNCELoss(0.3),
        with_negatives() | {"negative_indices": torch.arange(2 * COUNT).reshape(-1, 2) % 4},
    ),
    "triplets": lambda: (rtt.LocalContrastiveLoss(2.0, form="triplet"), with_negatives()),
    "joint directions": lambda: (
        rtt.InfoNCELoss(2.0, directions=("query_to_document", "document_to_query"), similarity="euclidean"),
        pairs(),
    ),
    "sample weights": lambda: (rtt.InfoNCELoss(0.3), pairs() | {"sample_weight": torch.arange(1.0, COUNT + 1)}),
    "one anchor": lambda: (rtt.InfoNCELoss(0.3), {n: x[0] for n, x in pairs().items()} | {"negatives": rows(4, DIM)}),
}


@pytest.mark.parametrize("name", FURTHER)
def test_gradients__by_further_arguments_are_those_of_finite_differences(name):
    loss, inputs = FURTHER[name]()
    by, rest = split(inputs)
    tensors = [x.requires_grad_() for x in by.values()]
    call = lambda *given: loss(**dict(zip(by, given, strict=True)), **rest)  # noqa: E731
    assert torch.autograd.gradcheck(call, tensors, eps=1e-6, atol=1e-7, rtol=1e-5)


@every_loss
def test_value_and_gradients__are_those_of_the_loss_and_of_its_inputs_types(name):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        loss, inputs = case(name, dtype)
        by, rest = split(inputs)
        for x in by.values():
            x.requires_grad_()
        value = loss(**by, **rest)
        value.backward()
        plain = {n: x.detach().float().numpy() if x.is_floating_point() else x.numpy() for n, x in inputs.items()}
        expected, gradients = loss.loss.compute_with_gradients(**plain, wrt=tuple(by))
        assert value.dtype == torch.float32 and value.shape == ()
        assert value.item() == np.float32(expected)
        for x, gradient in zip(by.values(), gradients, strict=True):
            assert x.grad.dtype == dtype
            torch.testing.assert_close(x.grad, torch.from_numpy(gradient).to(dtype), rtol=0, atol=0)


@every_loss
def test_gradients__of_some_inputs_alone(name):
    loss, inputs = case(name)
    by, _ = split(inputs)
    for chosen in by:
        one = {n: x.clone().requires_grad_(n == chosen) for n, x in by.items()}
        loss(**inputs | one).backward()
        assert [n for n, x in one.items() if x.grad is not None] == [chosen]
        both = {n: x.clone().requires_grad_() for n, x in by.items()}
        loss(**inputs | both).backward()
        torch.testing.assert_close(one[chosen].grad, both[chosen].grad, rtol=1e-12, atol=1e-15)


def test_arrays__are_the_memory_of_the_tensors(monkeypatch):
    loss, seen = rtt.InfoNCELoss(), {}
    compute = loss.loss.compute
    monkeypatch.setattr(loss.loss, "compute", lambda **arrays: (seen.update(arrays), compute(**arrays))[1])
    inputs = pairs(torch.float32)
    loss(**inputs)
    assert all(seen[name].ctypes.data == x.data_ptr() for name, x in inputs.items())


def test_upstream__scales_the_gradients_and_the_graph_may_be_kept():
    loss, inputs = case("InfoNCELoss")
    x = inputs["anchors"].requires_grad_()
    value = loss(**inputs)
    value.backward(retain_graph=True)
    once = x.grad.clone()
    value.backward(torch.tensor(-3.0, dtype=torch.float64))
    torch.testing.assert_close(x.grad, once - 3 * once)
    layer = torch.nn.Linear(DIM, DIM).double()
    (2 * loss(layer(x.detach()), *list(inputs.values())[1:])).backward()
    assert layer.weight.grad is not None


def test_gradients_of_half_inputs__are_scaled_before_they_are_rounded():
    x, y = (rows(COUNT, DIM, seed=seed, dtype=torch.float16) * 100 for seed in (0, 1))
    tiny = [x.clone().requires_grad_(), x.float().requires_grad_()]
    for each in tiny:  # as a GradScaler does
        (rtt.InfoNCELoss(50.0)(each, y.to(each.dtype)) * 2.0**16).backward()
    torch.testing.assert_close(tiny[0].grad, tiny[1].grad.half(), rtol=0, atol=0)
    assert ((tiny[1].grad / 2**16).half() * 2**16 != tiny[0].grad).any()  # had they been rounded first


def test_strided_transposed_and_expanded_rows_are_taken():
    loss = rtt.InfoNCELoss(0.5)
    wide = rows(DIM, 2 * COUNT).requires_grad_()
    value = loss(wide.T[::2], rows(1, DIM, seed=4).expand(COUNT, DIM) + rows(COUNT, DIM, seed=5))
    value.backward()
    assert wide.grad[:, 1::2].abs().max() == 0 and wide.grad[:, ::2].abs().min() > 0


EACH = {
    "InfoNCELoss": (lambda: rtt.InfoNCELoss(0.3, "none"), with_negatives),
    "InfoNCELoss in-batch, symmetric": (lambda: rtt.InfoNCELoss(0.3, "none", True), pairs),
    "InfoNCELoss weighted": (
        lambda: rtt.InfoNCELoss(0.3, "none"),
        lambda: pairs() | {"sample_weight": torch.arange(1.0, COUNT + 1)},
    ),
    "DecoupledContrastiveLoss": (lambda: rtt.DecoupledContrastiveLoss(0.3, "none"), with_negatives),
    "HardNegativeContrastiveLoss": (lambda: rtt.HardNegativeContrastiveLoss(0.5, reduction="none"), with_negatives),
    "SigmoidLoss": (lambda: rtt.SigmoidLoss(3.0, -1.0, "none"), with_negatives),
    "MatryoshkaLoss": (lambda: rtt.MatryoshkaLoss(rtt.InfoNCELoss(0.3, "none"), [2, 5]), with_negatives),
    "MarginMSELoss": (lambda: rtt.MarginMSELoss("none"), taught),
    "DistillKLLoss": (lambda: rtt.DistillKLLoss(0.5, "none"), taught),
    "ListNetLoss": (lambda: rtt.ListNetLoss(0.5, "none"), taught),
}


@pytest.mark.parametrize("name", EACH)
def test_gradients_of_each_value__are_those_of_finite_differences(name):
    make, inputs = EACH[name]
    loss, (by, rest) = make(), split(inputs())
    tensors = [x.requires_grad_() for x in by.values()]
    call = lambda *given: loss(**dict(zip(by, given, strict=True)), **rest)  # noqa: E731
    assert call(*tensors).shape == (COUNT,)
    assert torch.autograd.gradcheck(call, tensors, eps=1e-6, atol=1e-7, rtol=1e-5)
    weights = torch.linspace(-1, 2, COUNT, dtype=torch.float64)  # of both signs, and zero
    weights[2] = 0.0
    together = torch.autograd.grad((call(*tensors) * weights).sum(), tensors)
    alone = [torch.autograd.grad(call(*tensors)[i], tensors) for i in range(COUNT)]
    for place, gradient in enumerate(together):
        expected = sum(weight * one[place] for weight, one in zip(weights, alone, strict=True))
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)


def test_values_of_each_anchor__with_learned_temperature_zero_and_infinite_gradients():
    loss = rtt.InfoNCELoss(0.3, "none", learn_temperature=True)
    inputs = pairs(torch.float32)
    x = inputs["anchors"].requires_grad_()
    value = loss(**inputs)
    with torch.no_grad():
        loss.logit_scale += 1.0  # the call that was made keeps its temperature
    value[:3].sum().backward()
    kept = rtt.InfoNCELoss(0.3, "none")(**inputs)
    torch.testing.assert_close(x.grad, torch.autograd.grad(kept[:3].sum(), x)[0])
    assert loss.logit_scale.grad.item() != 0
    zero = torch.autograd.grad((loss(**inputs) * 0.0).sum(), x)[0]
    assert zero.dtype == torch.float32 and not zero.any()
    assert torch.autograd.grad((loss(**inputs) * torch.inf).sum(), x)[0].isnan().all()
    one = {name: y[0] for name, y in inputs.items()} | {"negatives": rows(4, DIM, dtype=torch.float32)}
    torch.autograd.grad(3 * loss(**one), x)


def test_values_of_each_anchor__notice_inputs_that_have_changed():
    x, y = pairs().values()
    x.requires_grad_()
    value = rtt.InfoNCELoss(0.3, "none")(x, y)
    y += 1
    with pytest.raises(RuntimeError, match="positives was changed by an inplace operation"):
        value.sum().backward()


def test_values_of_a_loss_without_weights__pass_equal_gradients_alone():
    inputs = labelled()
    x = inputs["embeddings"].requires_grad_()
    loss = rtt.SupConLoss(0.3, "none")
    summed = torch.autograd.grad(loss(**inputs).sum(), x)[0]
    torch.testing.assert_close(summed, torch.autograd.grad(rtt.SupConLoss(0.3, "sum")(**inputs), x)[0])
    with pytest.raises(RuntimeError, match="no argument sample_weight"):
        (loss(**inputs) * torch.arange(COUNT)).sum().backward()


def test_second_derivative__is_refused():
    loss, inputs = case("InfoNCELoss")
    x = inputs["anchors"].requires_grad_()
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(loss(**inputs), x, create_graph=True)


def test_other_ways_to_differentiate__are_refused():
    loss, inputs = case("InfoNCELoss")
    x, y = inputs["anchors"], inputs["positives"]
    with pytest.raises(RuntimeError, match="must be a tensor with memory of its own"):
        torch.func.grad(lambda other: loss(x, other))(y)
    with pytest.raises(RuntimeError, match="anchors must be a tensor with memory of its own"):
        torch.func.vmap(lambda other: loss(other, y))(torch.stack([x, y]))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, y)
        with pytest.raises(RuntimeError, match="anchors must not be a dual tensor"):
            loss(dual, y)


def test_no_grad__computes_the_value_alone(monkeypatch):
    loss, inputs = case("InfoNCELoss")
    inputs["anchors"].requires_grad_()
    expected = loss(**inputs)
    monkeypatch.setattr(loss.loss, "compute_with_gradients", None)
    with torch.no_grad():
        value = loss(**inputs)
    assert not value.requires_grad
    torch.testing.assert_close(value, expected.detach(), rtol=1e-14, atol=0)


def test_refused__other_devices_layouts_and_gradients_that_there_are_none_of():
    loss, inputs = rtt.InfoNCELoss(), pairs()
    with pytest.raises(ValueError, match="anchors must be a tensor on the CPU, got one on meta"):
        loss(inputs["anchors"].to("meta"), inputs["positives"])
    with pytest.raises(TypeError, match="positives must be a dense tensor"):
        loss(inputs["anchors"], inputs["positives"].to_sparse())
    with pytest.raises(TypeError, match="teacher_scores must not require a gradient, since MarginMSELoss"):
        given = taught()
        given["teacher_scores"].requires_grad_()
        rtt.MarginMSELoss()(**given)
    with pytest.raises(TypeError, match="missing a required argument: 'positives'"):
        loss(inputs["anchors"])
    with pytest.raises(ValueError, match="temperature"):
        rtt.InfoNCELoss(temperature=-1.0)


@pytest.mark.parametrize("make", [lambda: rtt.InfoNCELoss(0.3, learn_temperature=True),
                                  lambda: rtt.MatryoshkaLoss(rt.InfoNCELoss(0.3, learn_temperature=True), [2, 5]),
                                  lambda: rtt.SigmoidLoss(3.0, -1.0, learn=True)])  # fmt: skip
def test_learned_numbers__are_parameters(make):
    loss, inputs = make(), pairs()
    parameters = dict(loss.named_parameters())
    assert parameters and set(parameters) <= {"logit_scale", "logit_bias"}
    loss(**inputs).backward()
    for parameter in parameters.values():
        analytic, values = parameter.grad.item(), []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter += step
                values.append(loss(**inputs).item())
                parameter -= step
        assert analytic == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6)
    other = make()
    with torch.no_grad():
        parameter += 0.5
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(other(**inputs), loss(**inputs))


def test_learned_temperature__is_bounded_as_in_clip_and_steps_down_the_loss():
    loss, inputs = rtt.InfoNCELoss(0.9, learn_temperature=True), pairs()
    optimizer = torch.optim.Adam(loss.parameters(), 0.5)
    first = loss(inputs["anchors"], inputs["anchors"]).item()
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(inputs["anchors"], inputs["anchors"])
        value.backward()
        optimizer.step()
    loss(**inputs)
    assert value.item() < first
    assert loss.logit_scale.item() == pytest.approx(np.log(100.0))


def test_loss_module__is_compiled_around_copied_pickled_and_shown():
    loss, inputs = case("InfoNCELoss")
    layer = torch.nn.Linear(DIM, DIM).double()

    def step(x, y):
        return 2 * loss(torch.tanh(layer(x)), y)

    graphs = []
    compiled = torch.compile(step, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    x, y = inputs["anchors"], inputs["positives"]
    torch.testing.assert_close(compiled(x, y), step(x, y))
    assert len(graphs) == 2, "before and after the loss"
    found, expected = (torch.autograd.grad(function(x, y), layer.weight) for function in (compiled, step))
    torch.testing.assert_close(found, expected)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        torch.testing.assert_close(other(x, y), loss(x, y))
    assert "0.3" in repr(loss)
    assert len(list(loss.parameters())) == 0


def test_autocast__computes_in_the_inputs_types():
    loss = rtt.InfoNCELoss()
    layer = torch.nn.Linear(DIM, DIM)
    x = rows(COUNT, DIM, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
        value = loss(out, out.flip(0))
    assert out.dtype == torch.bfloat16 and value.dtype == torch.float32
    value.backward()
    assert layer.weight.grad.dtype == torch.float32
