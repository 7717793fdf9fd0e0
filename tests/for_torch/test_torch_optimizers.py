"""Optimizers for torch's parameters: beside those of torch, and in torch's idioms."""

import copy
import io

import pytest

torch = pytest.importorskip("torch")

import rvtrain.torch as rtt  # noqa: E402

STEPS = 200
PAIRS = {
    "SGD": (lambda p: rtt.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01)),
    "Adam": (lambda p: rtt.Adam(p, 0.02), lambda p: torch.optim.Adam(p, 0.02)),
    "Adam amsgrad": (lambda p: rtt.Adam(p, 0.02, amsgrad=True), lambda p: torch.optim.Adam(p, 0.02, amsgrad=True)),
    "AdamW": (lambda p: rtt.AdamW(p, 0.02, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 0.02, weight_decay=0.1)),
    "Adagrad": (lambda p: rtt.Adagrad(p, 0.05), lambda p: torch.optim.Adagrad(p, 0.05)),
}  # fmt: skip
ALL = {name: ours for name, (ours, _) in PAIRS.items()} | {
    "Lion": lambda p: rtt.Lion(p, 0.01),
    "ScheduleFreeAdamW": lambda p: rtt.ScheduleFreeAdamW(p, 0.02, warmup_steps=3),
    "AdamW bfloat16": lambda p: rtt.AdamW(p, 0.02, state_dtype="bfloat16"),
    "AdamW int8": lambda p: rtt.AdamW(p, 0.02, state_dtype="int8"),
    "Adagrad rowwise": lambda p: rtt.Adagrad(p, 0.05, rowwise=True),
}
every = pytest.mark.parametrize("name", ALL)


def network(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


def batch(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(9, width, generator=generator, dtype=torch.float64).to(dtype) for width in (4, 3)]


def train(model, optimizer, steps, scheduler=None):
    x, y = batch(next(model.parameters()).dtype)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return model


def assert_near(one, other, rtol, atol):
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", PAIRS)
def test_steps__are_those_of_torch(name):
    for dtype, bound in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
        trained = []
        for make in PAIRS[name]:
            model = network(dtype)
            trained.append(train(model, make(model.parameters()), STEPS))
        assert_near(*trained, rtol=bound, atol=bound)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 0.05, total_steps=40, cycle_momentum="Adagrad" not in type(o).__name__
        ),
    ],
    ids=["cosine", "lambda", "one cycle"],
)
def test_schedulers__set_rates_and_other_options(name, schedule):
    trained = []
    for make in PAIRS[name]:
        model = network()
        optimizer = make(model.parameters())
        trained.append(train(model, optimizer, 30, schedule(optimizer)))
    assert_near(*trained, rtol=1e-10, atol=1e-11)


@every
@pytest.mark.parametrize("way", ["state_dict", "saved", "deepcopy", "pickled with the model"])
def test_run_that_is_continued__is_the_same(name, way):
    dtype = torch.float32
    whole = network(dtype)
    train(whole, ALL[name](whole.parameters()), 12)
    model = network(dtype)
    optimizer = ALL[name](model.parameters())
    train(model, optimizer, 5)
    if way == "deepcopy":
        model, optimizer = copy.deepcopy((model, optimizer))
    elif way == "pickled with the model":
        file = io.BytesIO()
        torch.save((model, optimizer), file)
        file.seek(0)
        model, optimizer = torch.load(file, weights_only=False)
    else:
        state = optimizer.state_dict()
        if way == "saved":
            file = io.BytesIO()
            torch.save(state, file)
            file.seek(0)
            state = torch.load(file, weights_only=True)
        optimizer = ALL[name](model.parameters())
        optimizer.load_state_dict(state)
    train(model, optimizer, 7)
    assert_near(model, whole, rtol=0, atol=0)


SAME_RULES = {
    "SGD": {"lr": 0.05},
    "SGD momentum": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "dampening": 0.1},
    "SGD nesterov": {"lr": 0.05, "momentum": 0.9, "nesterov": True},
    "Adam": {"lr": 0.02, "weight_decay": 0.1},
    "Adam amsgrad": {"lr": 0.02, "amsgrad": True},
    "AdamW": {"lr": 0.02, "weight_decay": 0.1},
    "AdamW maximize": {"lr": 0.002, "amsgrad": True, "maximize": True},
    "Adagrad": {"lr": 0.05, "eps": 1e-8},
}


@pytest.mark.parametrize("name", SAME_RULES)
@pytest.mark.parametrize("before", [0, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_state_dicts__are_taken_over_from_torch_and_by_torch(name, before, dtype):
    kinds = [getattr(module, name.split()[0]) for module in (torch.optim, rtt)]
    options = SAME_RULES[name]
    whole = network(dtype)
    train(whole, kinds[0](whole.parameters(), **options), before + 14)
    for first, second in (kinds, kinds[::-1]):
        model = network(dtype)
        saved = first(model.parameters(), **options)
        train(model, saved, before)
        for kind in (second, first):  # there, and back
            file = io.BytesIO()
            torch.save(saved.state_dict(), file)
            file.seek(0)
            saved = kind(model.parameters(), lr=1.0)
            saved.load_state_dict(torch.load(file, weights_only=True))
            train(model, saved, 7)
        bound = {torch.float64: 1e-12, torch.float32: 2e-6}[dtype]
        assert_near(model, whole, rtol=bound, atol=bound)


@pytest.mark.parametrize(
    ("kind", "other", "options"),
    [
        ("Adagrad", "Adagrad", {"lr_decay": 0.1}),
        ("Adagrad", "Adagrad", {"weight_decay": 0.1}),
        ("Adagrad", "Adagrad", {"maximize": True}),
        ("Adam", "AdamW", {"weight_decay": 0.1}),
        ("AdamW", "Adam", {"weight_decay": 0.1}),
    ],
)
def test_state_dict_of_another_rule__is_refused_and_nothing_is_changed(kind, other, options):
    model = network()
    theirs = getattr(torch.optim, other)(model.parameters(), 0.3, **options)
    train(model, theirs, 2)
    ours = getattr(rtt, kind)(model.parameters(), 0.1)
    before = copy.deepcopy(ours.state_dict())
    with pytest.raises(ValueError, match=f"of the rule of {kind}, with"):
        ours.load_state_dict(theirs.state_dict())
    after = ours.state_dict()
    assert after["param_groups"] == before["param_groups"] and after["state"].keys() == before["state"].keys()


def test_state_dict_of_torch__may_have_buffers_that_are_none_and_steps_that_are_no_tensors():
    found = []
    for old in (False, True):
        model = network()
        theirs = torch.optim.SGD(model.parameters(), 0.05)
        train(model, theirs, 2)
        state = theirs.state_dict()
        if old:
            state["state"] = {key: {"momentum_buffer": None} for key in state["param_groups"][0]["params"]}
        ours = rtt.SGD(model.parameters(), 0.05)
        ours.load_state_dict(state)
        found.append(train(model, ours, 3))
    assert_near(*found, rtol=0, atol=0)
    found = []
    for old in (False, True):
        model = network()
        theirs = torch.optim.Adam(model.parameters(), 0.05)
        train(model, theirs, 2)
        state = theirs.state_dict()
        if old:
            state["state"] = {key: one | {"step": int(one["step"])} for key, one in state["state"].items()}
        ours = rtt.Adam(model.parameters(), 0.05)
        ours.load_state_dict(state)
        found.append(train(model, ours, 3))
    assert_near(*found, rtol=0, atol=0)


def test_state_dict_of_torch__becomes_bfloat16_and_is_refused_in_8_bits():
    whole, model = network(torch.float32), network(torch.float32)
    theirs = torch.optim.AdamW(model.parameters(), 0.02)
    train(model, theirs, 20)
    ours = rtt.AdamW(model.parameters(), state_dtype="bfloat16")
    ours.load_state_dict(theirs.state_dict())
    train(model, ours, 5)
    theirs.load_state_dict(ours.state_dict())
    train(model, theirs, 5)
    ours.load_state_dict(theirs.state_dict())
    train(model, ours, 5)
    assert ours.state_dict()["state"][0]["exp_avg"].dtype == torch.bfloat16
    train(whole, torch.optim.AdamW(whole.parameters(), 0.02), 35)
    assert_near(model, whole, rtol=0.02, atol=0.01)
    ours = rtt.AdamW(model.parameters(), 0.5, state_dtype="int8")
    with pytest.raises(ValueError, match=r"exp_avg\w* in 8 bits, since state_dtype is int8, got torch.float32"):
        ours.load_state_dict(theirs.state_dict() | {"param_groups": [{"params": [0, 1, 2, 3], "lr": 0.1}]})
    assert ours.param_groups[0]["lr"] == 0.5 and ours.state_dict()["state"] == {}


@pytest.mark.parametrize("lazy", ["idle", "exact"])
def test_sparse_gradients__step_rows(lazy):
    tables = []
    for sparse in (True, False):
        table = torch.nn.Embedding(20, 3, sparse=sparse, dtype=torch.float64)
        with torch.no_grad():
            table.weight.copy_(torch.arange(60.0).reshape(20, 3) / 60)
        optimizer = rtt.AdamW(table.parameters(), 0.1, lazy=lazy)
        for step in range(6):
            optimizer.zero_grad()
            read = torch.tensor([1, 4, 4, step + 5])
            optimizer.catch_up(table.weight, read)
            (table(read) ** 2).sum().backward()
            optimizer.step()
        if sparse:
            optimizer.catch_up()
        tables.append(table.weight.detach())
    near = torch.allclose(*tables, rtol=1e-10, atol=1e-12)
    assert near == (lazy == "exact")
    torch.testing.assert_close(tables[0][4], tables[1][4], rtol=1e-10, atol=1e-12)  # in every batch


def test_groups__have_options_of_their_own_also_those_added_later():
    trained = []
    for kind in (rtt.AdamW, torch.optim.AdamW):
        model = network()
        first, last = model[0], model[2]
        optimizer = kind([{"params": first.parameters(), "lr": 0.1, "weight_decay": 0.0}], lr=0.01, weight_decay=0.1)
        train(model, optimizer, 3)
        optimizer.add_param_group({"params": last.parameters()})
        train(model, optimizer, 5)
        trained.append(model)
    assert_near(*trained, rtol=1e-11, atol=1e-12)


def test_closure__is_called_and_its_value_returned():
    model = network()
    optimizer = rtt.SGD(model.parameters(), 0.1)
    x, y = batch()

    def closure():
        optimizer.zero_grad()
        value = torch.nn.functional.mse_loss(model(x), y)
        value.backward()
        return value

    first, second = optimizer.step(closure), optimizer.step(closure)
    assert second < first


def test_parameters_without_gradient_or_of_one_number_are_taken():
    scalar, unused = torch.nn.Parameter(torch.tensor(2.0)), torch.nn.Parameter(torch.ones(3))
    optimizer = rtt.SGD([scalar, unused], 0.5)
    (scalar**2).backward()
    optimizer.step()
    assert scalar.item() == 0.0 and unused.tolist() == [1, 1, 1]


@pytest.mark.parametrize("nonfinite", ["raise", "skip", "ignore"])
def test_nonfinite__is_known_before_anything_is_stepped(nonfinite):
    model = network()
    before = copy.deepcopy(model)
    optimizer = rtt.SGD(model.parameters(), 0.1, nonfinite=nonfinite)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    p.grad[0] = torch.nan
    if nonfinite == "raise":
        with pytest.raises(ValueError, match=r"shape \(3,\) must be finite"):
            optimizer.step()
    else:
        optimizer.step()
    if nonfinite == "ignore":
        assert p.isnan().sum() == 1
    else:
        assert_near(model, before, rtol=0, atol=0)


def test_averages__are_reached_by_eval_and_left_by_train():
    model = network()
    optimizer = rtt.ScheduleFreeAdamW(model.parameters(), 0.05)
    train(model, optimizer, 5)
    there = copy.deepcopy(model)
    optimizer.eval()
    assert any((p != q).any() for p, q in zip(model.parameters(), there.parameters(), strict=True))
    optimizer.train()
    assert_near(model, there, rtol=1e-12, atol=1e-12)


def test_refused__with_the_name_of_the_argument():
    p = torch.nn.Parameter(torch.ones(3, 4))
    with pytest.raises(ValueError, match="lr"):
        rtt.AdamW([p], lr=-1.0)
    with pytest.raises(TypeError, match="groups must be given in torch's way"):
        rtt.AdamW([p], groups={"x": {}})
    with pytest.raises(TypeError, match=r"params must be float32 or float64, got a tensor of torch\.bfloat16"):
        rtt.AdamW([p.detach().bfloat16().requires_grad_()])
    with pytest.raises(ValueError, match="params must be contiguous"):
        rtt.AdamW([torch.ones(3, 4).T.requires_grad_()])
    with pytest.raises(ValueError, match="params must be on the CPU"):
        rtt.AdamW([torch.ones(3, device="meta", requires_grad=True)])
    optimizer = rtt.AdamW([p])
    with pytest.raises(ValueError, match="weight_decay"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "weight_decay": -1.0})
    assert len(optimizer.param_groups) == 1


def test_step__is_known_to_graphs_that_were_made_before():
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = rtt.SGD([p], 0.1)
    value = (p * p).sum()
    value.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()
