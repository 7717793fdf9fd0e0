"""All optimizers through one table: against their oracle, torch, threads, strides, dicts, rows, and saving."""

import copy
import pickle
import platform

import numba
import numpy as np
import pytest
import reference
from conftest import TOLERANCE, import_torch, relative_error

import rvtrain as rt
from rvtrain._kernels import FASTMATH

# (class, options): every option of every optimizer at least once.
CASES = {
    "sgd": ("SGD", {}),
    "sgd decay": ("SGD", {"weight_decay": 0.1, "maximize": True}),
    "sgd momentum": ("SGD", {"momentum": 0.9}),
    "sgd dampening": ("SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    "sgd nesterov": ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True}),
    "adam": ("Adam", {}),
    "adam decay": ("Adam", {"weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-4}),
    "adam amsgrad": ("Adam", {"amsgrad": True, "maximize": True}),
    "adamw": ("AdamW", {}),
    "adamw all": ("AdamW", {"weight_decay": 0.3, "amsgrad": True, "maximize": True, "betas": (0.8, 0.95)}),
    "lion": ("Lion", {}),
    "lion decay": ("Lion", {"weight_decay": 0.3, "betas": (0.8, 0.95)}),
    "adagrad": ("Adagrad", {}),
    "adagrad rowwise": ("Adagrad", {"rowwise": True, "eps": 1e-3}),
    "schedule-free": ("ScheduleFreeAdamW", {}),
    "schedule-free decay": (
        "ScheduleFreeAdamW",
        {"weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-4, "warmup_steps": 7},
    ),
}
IN_TORCH = [
    case for case, (kind, options) in CASES.items() if kind in "SGD Adam AdamW Adagrad" and "rowwise" not in options
]
LR = 0.02


def rate(step):
    """A learning rate that changes."""
    return LR * (1.5 + np.sin(step / 7))


def make(case, params, **more):
    kind, options = CASES[case]
    return getattr(rt, kind)(params, lr=LR, **options, **more)


def oracle_step(case, p, g, state, lr):
    kind, options = CASES[case]
    if kind == "SGD":
        names = ("momentum", "dampening", "weight_decay")
        numbers = {name: options.get(name, 0.0) for name in names}
        flags = {name: options.get(name, False) for name in ("nesterov", "maximize")}
        return reference.sgd_step(p, g, state, lr, **numbers, **flags)
    defaults = {
        "Lion": {"betas": (0.9, 0.99), "weight_decay": 0.0},
        "Adagrad": {"eps": 1e-10, "rowwise": False},
        "ScheduleFreeAdamW": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "warmup_steps": 0},
    }
    if kind in defaults:
        steps = {"Lion": reference.lion_step, "Adagrad": reference.adagrad_step}
        return steps.get(kind, reference.schedule_free_step)(p, g, state, lr, **(defaults[kind] | options))
    decay = options.get("weight_decay", 1e-2 if kind == "AdamW" else 0.0)
    l2, decoupled = (0.0, decay) if kind == "AdamW" else (decay, 0.0)
    betas, eps = options.get("betas", (0.9, 0.999)), options.get("eps", 1e-8)
    return reference.adam_step(
        p,
        g,
        state,
        lr,
        betas,
        eps,
        l2,
        decoupled,
        options.get("amsgrad", False),
        options.get("maximize", False),
    )


@pytest.fixture(params=CASES)
def case(request):
    return request.param


@pytest.mark.parametrize("shape", [(), (1,), (7, 13), (3, 5, 2)], ids=str)
def test_step__matches_the_oracle(case, shape, dtype, rng):
    p = np.array(rng.normal(size=shape), dtype)
    expected, state, optimizer = p.astype(np.float64), {}, make(case, p)
    for step in range(200):
        g = np.array(rng.normal(size=shape), dtype)
        optimizer.learning_rate = rate(step)
        optimizer.step(p, g)
        expected = oracle_step(case, expected, g.astype(np.float64), state, rate(step))
    assert relative_error(p, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("case", IN_TORCH)
def test_step__matches_torch_for_200_steps(case, dtype, rng):
    torch = import_torch()
    kind, options = CASES[case]
    p = rng.normal(size=(37, 11)).astype(dtype)
    tensor = torch.nn.Parameter(torch.tensor(p))
    peer = getattr(torch.optim, kind)([tensor], lr=LR, **options)
    optimizer = make(case, p)
    for step in range(200):
        g = rng.normal(size=p.shape).astype(dtype)
        tensor.grad = torch.tensor(g)
        optimizer.learning_rate = peer.param_groups[0]["lr"] = rate(step)
        peer.step()
        optimizer.step(p, g)
    assert relative_error(p, tensor.detach().numpy()) < TOLERANCE[dtype]


@pytest.mark.parametrize("case", ["lion", "lion decay", "schedule-free", "schedule-free decay"])
def test_step__matches_the_authors_package_for_200_steps(case, dtype, rng):
    torch = import_torch()
    kind, options = CASES[case]
    package, name = {
        "Lion": ("lion_pytorch", "Lion"),
        "ScheduleFreeAdamW": ("schedulefree", "AdamWScheduleFree"),
    }[kind]
    make_peer = getattr(pytest.importorskip(package), name)
    p = rng.normal(size=(37, 11)).astype(dtype)
    tensor = torch.nn.Parameter(torch.tensor(p))
    betas = {"betas": (0.9, 0.99)} if kind == "Lion" else {}
    peer, optimizer = make_peer([tensor], lr=LR, **betas | options), make(case, p)
    for _ in range(200):
        g = rng.normal(size=p.shape).astype(dtype)
        tensor.grad = torch.tensor(g)
        if kind == "ScheduleFreeAdamW":
            peer.train()
        peer.step()
        optimizer.step(p, g)
    assert relative_error(p, tensor.detach().numpy()) < TOLERANCE[dtype]


def test_step__same_bits_for_any_number_of_threads(case, dtype, rng):
    start, g = (rng.normal(size=100_001).astype(dtype) for _ in range(2))
    before, results = numba.get_num_threads(), []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            p = start.copy()
            optimizer = make(case, p)
            for _ in range(3):
                optimizer.step(p, g)
            results.append(p.tobytes())
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


def test_step__updates_strided_arrays_in_place(case, dtype, rng):
    whole = rng.normal(size=(8, 9)).astype(dtype)
    copy, view = whole[::2, 1::3].copy(), whole[::2, 1::3]
    g = rng.normal(size=(9, 8)).astype(dtype).T[::2, 1::3]
    one, other = make(case, copy), make(case, copy)
    for _ in range(3):
        one.step(copy, g)
        other.step(view, g)
    np.testing.assert_array_equal(view, copy)


def test_step__takes_dicts(case, rng):
    params = {"w": rng.normal(size=(4, 3)), "b": rng.normal(size=3).astype(np.float32)}
    alone = {name: p.copy() for name, p in params.items()}
    together, singles = make(case, {"w": (4, 3), "b": 3}), {name: make(case, p) for name, p in params.items()}
    for _ in range(3):
        grads = {name: rng.normal(size=p.shape).astype(p.dtype) for name, p in params.items()}
        together.step(params, grads)
        for name, single in singles.items():
            single.step(alone[name], grads[name])
    for name in params:
        np.testing.assert_array_equal(params[name], alone[name])


def test_step__updates_torch_tensors(rng):
    torch = import_torch()
    tensor, copy = torch.ones(5), np.ones(5, np.float32)
    rt.AdamW(5).step(tensor, torch.full((5,), 2.0))
    rt.AdamW(5).step(copy, np.full(5, 2, np.float32))
    np.testing.assert_array_equal(tensor.numpy(), copy)


# --- Rows ----------------------------------------------------------------------------------------------


def test_rows__match_torch_sparse_adam(dtype, rng):
    torch = import_torch()
    table = rng.normal(size=(30, 6)).astype(dtype)
    tensor = torch.nn.Parameter(torch.tensor(table))
    # SparseAdam adds ε before the bias correction, against Adam's definition: next to none, then.
    peer, optimizer = torch.optim.SparseAdam([tensor], lr=LR, eps=1e-20), rt.Adam(table, lr=LR, eps=1e-20)
    for _ in range(40):
        rows = rng.integers(0, 30, 12)
        g = rng.normal(size=(12, 6)).astype(dtype)
        tensor.grad = torch.sparse_coo_tensor(
            torch.tensor(rows)[None], torch.tensor(g), (30, 6), check_invariants=True
        )
        peer.step()
        optimizer.step(table, g, rows=rows)
    assert relative_error(table, tensor.detach().numpy()) < TOLERANCE[dtype]


def test_rows__idle_ones_are_left_alone(case, dtype, rng):
    table = rng.normal(size=(9, 4)).astype(dtype)
    before, optimizer = table.copy(), make(case, table)
    for _ in range(3):
        optimizer.step(table, rng.normal(size=(3, 4)).astype(dtype), rows=[1, 5, 1])
    idle = [0, 2, 3, 4, 6, 7, 8]
    np.testing.assert_array_equal(table[idle], before[idle])
    assert (table[[1, 5]] != before[[1, 5]]).all()


def test_rows__repeated_ones_are_summed_first(case, dtype, rng):
    tables = [np.ones((5, 3), dtype) for _ in range(2)]
    g = rng.normal(size=(3, 3)).astype(dtype)
    optimizers = [make(case, t) for t in tables]
    for _ in range(3):
        optimizers[0].step(tables[0], g, rows=[4, 2, 4])
        optimizers[1].step(tables[1], np.stack([g[0] + g[2], g[1]]), rows=[4, 2])
    np.testing.assert_array_equal(*tables)


def test_rows__exact_ends_where_dense_steps_do(case, dtype, rng):
    table = rng.normal(size=(8, 5)).astype(dtype)
    dense = table.copy()
    lazy, full = make(case, table, lazy="exact"), make(case, dense)
    for step in range(40):
        lazy.learning_rate = full.learning_rate = rate(step)
        if step in (0, 25):  # whole steps in between
            g = rng.normal(size=(8, 5)).astype(dtype)
            lazy.step(table, g)
            full.step(dense, g)
            assert relative_error(table, dense) < TOLERANCE[dtype]
            continue
        rows = rng.choice(7, size=2, replace=False)  # the last row is never named
        g = np.zeros((8, 5), dtype)
        g[rows] = rng.normal(size=(2, 5))
        lazy.step(table, g[rows], rows=rows)
        full.step(dense, g)
        assert relative_error(table[rows], dense[rows]) < TOLERANCE[dtype]
    lazy.catch_up(table)
    assert relative_error(table, dense) < TOLERANCE[dtype]


def test_rows__in_a_dict_go_beside_whole_steps(rng):
    params = {"table": np.ones((6, 2)), "bias": np.ones(2)}
    optimizer = rt.AdamW(params, LR)
    optimizer.step(params, {"table": np.ones((1, 2)), "bias": np.ones(2)}, rows={"table": [3]})
    assert (params["table"][[0, 1, 2, 4, 5]] == 1).all()
    assert (params["table"][3] < 1).all() and (params["bias"] < 1).all()


def test_catch_up__of_rows_is_what_dense_steps_do(case, dtype, rng):
    """Rows are brought up before they are read, as a loop over a graph does, and then stepped or left."""
    table = rng.normal(size=(9, 4)).astype(dtype)
    dense = table.copy()
    lazy, full = make(case, table, lazy="exact"), make(case, dense)
    for step in range(30):
        rows, more = rng.choice(8, size=(2, 2), replace=False)  # the last row is never named
        before = table.copy()
        lazy.catch_up(table, rows=[rows[1], more[0], rows[0], more[0]])
        named = [rows[0], rows[1], more[0]]
        assert relative_error(table[named], dense[named]) < TOLERANCE[dtype]
        others = np.setdiff1d(np.arange(9), named)
        np.testing.assert_array_equal(table[others], before[others])
        once = table.copy()
        lazy.catch_up(table, rows=named)
        np.testing.assert_array_equal(table, once)
        g = np.zeros((9, 4), dtype)
        g[rows] = rng.normal(size=(2, 4))
        lazy.learning_rate = full.learning_rate = rate(step)
        lazy.step(table, g[rows], rows=rows)
        full.step(dense, g)
    lazy.catch_up(table)
    assert relative_error(table, dense) < TOLERANCE[dtype]


def test_catch_up__does_nothing_where_nothing_is_owed(rng):
    start = rng.normal(size=(5, 2))
    for optimizer in (rt.AdamW((5, 2), lazy="exact"), rt.AdamW((5, 2))):
        table = start.copy()
        optimizer.catch_up(table, rows=[1, 4])  # before the first step
        optimizer.catch_up(table)
        np.testing.assert_array_equal(table, start)
    optimizer.step(table, np.ones((1, 2)), rows=[3])
    before = table.copy()
    optimizer.catch_up(table, rows=[0])
    optimizer.catch_up(table)
    np.testing.assert_array_equal(table, before)


def test_catch_up__takes_rows_by_name(rng):
    params = {"table": np.ones((4, 2)), "other": np.ones((3, 2))}
    optimizer = rt.AdamW(params, LR, lazy="exact")
    grads, rows = {"table": np.ones((1, 2)), "other": np.ones((1, 2))}, {"table": [0], "other": [2]}
    optimizer.step(params, grads, rows)
    optimizer.catch_up(params, rows={"table": [3]})  # decays; the array without rows is caught up as a whole
    assert (params["table"][3] < 1).all() and (params["table"][1:3] == 1).all()
    assert (params["other"] < 1).all()


@pytest.mark.parametrize(
    ("params", "rows", "message"),
    [
        (np.ones((3, 2)), [3], r"rows must lie in \[0, 2\], got 3"),
        (np.ones((3, 2)), [[0]], r"rows must have shape \(any\), got \(1, 1\)"),
        (np.ones((3, 3)), [0], r"params must have shape \(3, 2\), got \(3, 3\)"),
        (np.ones((3, 2), np.float32), [0], "params must keep the dtype of the first step, float64, got float32"),
    ],
)
def test_catch_up__refuses_what_does_not_fit_and_changes_nothing(params, rows, message):
    table, optimizer = np.ones((3, 2)), rt.AdamW((3, 2), lazy="exact")
    optimizer.step(table, np.ones((1, 2)), rows=[1])
    before = params.copy()
    with pytest.raises((TypeError, ValueError), match=message):
        optimizer.catch_up(params, rows=rows)
    np.testing.assert_array_equal(params, before)


# --- State ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", ["idle", "exact"])
def test_state_dict__a_resumed_run_is_the_same_to_the_bit(case, lazy, dtype, rng, tmp_path):
    gradients = rng.normal(size=(10, 4, 3)).astype(dtype)
    straight = np.ones((9, 3), dtype)
    broken = straight.copy()
    one, two = make(case, straight, lazy=lazy), make(case, broken, lazy=lazy)
    for step, g in enumerate(gradients):
        rows = (np.arange(4) * 2 + step) % 9
        one.step(straight, g, rows=rows)
        if step == 5:
            rt.save_checkpoint(tmp_path / "run.npz", optimizer=two)
            two = make(case, broken, lazy=lazy)
            two.learning_rate = 0.5
            two.load_state_dict(rt.load_checkpoint(tmp_path / "run.npz")["optimizer"])
        two.step(broken, g, rows=rows)
    np.testing.assert_array_equal(broken, straight)


@pytest.mark.parametrize("state_dtype", ["float32", "int8"])
def test_optimizer__pickled_or_copied_goes_on_to_the_bit(case, state_dtype, rng):
    compact = {} if CASES[case][0] in ("Adagrad", "ScheduleFreeAdamW") else {"state_dtype": state_dtype}
    shapes, groups = {"table": (9, 4), "bias": 4}, {"bias": {"lr": 0.1}}
    params = {"table": np.ones((9, 4), np.float32), "bias": np.ones(4, np.float32)}
    optimizer = make(case, shapes, lazy="exact", groups=groups, **compact)
    runs = [(optimizer, params)]
    for step in range(6):
        g = {"table": rng.normal(size=(2, 4)).astype(np.float32), "bias": rng.normal(size=4).astype(np.float32)}
        for one, p in runs:
            one.step(p, g, {"table": [step, (2 * step) % 9]})
        if step == 2:
            for twin in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
                runs.append((twin, copy.deepcopy(params)))
                assert repr(twin) == repr(optimizer)
    for one, p in runs:
        one.catch_up(p)
        for name in params:
            np.testing.assert_array_equal(p[name], params[name])


def test_state_dict__is_a_copy(rng):
    p = np.ones(3)
    optimizer = rt.Adam(3)
    optimizer.step(p, p * 2)
    state = optimizer.state_dict()
    optimizer.step(p, p.copy())
    assert state["state/params/step"] == 1
    assert not np.array_equal(state["state/params/exp_avg"], optimizer.state_dict()["state/params/exp_avg"])


def test_load_state_dict__refuses_what_does_not_fit():
    optimizer = rt.AdamW(4)
    optimizer.step(np.ones(4), np.ones(4) * 2)
    good = optimizer.state_dict()
    for bad in (rt.Adam(4).state_dict(), rt.SGD(4, 0.1).state_dict(), {}, {**good, "options/eps": -1.0}):
        with pytest.raises(ValueError, match=r"state|eps"):
            optimizer.load_state_dict(bad)
    with pytest.raises(ValueError, match="must have shape"):
        rt.AdamW(5).load_state_dict(good)
    assert optimizer.state_dict()["state/params/step"] == 1


def test_reset__starts_over(case, rng):
    g = rng.normal(size=6)
    first, again = np.ones(6), np.ones(6)
    optimizer = make(case, 6)
    for _ in range(2):
        optimizer.step(first, g)
    optimizer.reset()
    for _ in range(2):
        optimizer.step(again, g)
    np.testing.assert_array_equal(first, again)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="looks for x86 instructions")
def test_dense_step__stays_in_float32(case):
    # One Python float, or ** 0.5, and the compiler converts every element to float64 and back.
    optimizer, p = make(case, 5), np.ones(5, np.float32)
    compiled = numba.njit(optimizer._rule.dense_step._body.func, fastmath=FASTMATH, error_model="numpy")
    args = 0, 5, p, p, tuple(p for _ in optimizer._rule.names(optimizer)), tuple(optimizer._rule.kind), False
    compiled.compile(tuple(numba.typeof(arg) for arg in args))
    (assembly,) = compiled.inspect_asm().values()
    assert "ps\t" in assembly
    assert "cvtps2pd" not in assembly


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_max_norm__is_clipping_first(name, max_norm, dtype, rng):
    kind, options = CASES[name]
    shapes = {"table": (30, 5), "bias": (7,)}
    start = {key: rng.normal(size=shape).astype(dtype) for key, shape in shapes.items()}
    params, expected = ({key: value.copy() for key, value in start.items()} for _ in range(2))
    ours, peer = (getattr(rt, kind)(shapes, lr=0.1, **options) for _ in range(2))
    for _ in range(5):
        grads = {key: rng.normal(size=shape).astype(dtype) for key, shape in shapes.items()}
        clipped = {key: value.copy() for key, value in grads.items()}
        norm = rt.clip_grad_norm(clipped, max_norm)
        peer.step(expected, clipped)
        kept = {key: value.copy() for key, value in grads.items()}
        assert ours.step(params, grads, max_norm=max_norm) == pytest.approx(norm)
        for key in shapes:
            np.testing.assert_array_equal(grads[key], kept[key])
            assert relative_error(params[key], expected[key]) <= TOLERANCE[dtype]


def test_max_norm__sums_repeated_rows_first(dtype, rng):
    table, rows = rng.normal(size=(20, 4)).astype(dtype), np.array([3, 7, 3, 3])
    grads = rng.normal(size=(4, 4)).astype(dtype)
    summed = np.stack([grads[[0, 2, 3]].sum(axis=0), grads[1]])
    expected, norm = table.copy(), np.linalg.norm(summed)
    rt.AdamW(table).step(expected, (summed * min(1, 0.1 / (norm + 1e-6))).astype(dtype), rows=np.array([3, 7]))
    assert rt.AdamW(table).step(table, grads, rows=rows, max_norm=0.1, zero_grads=True) == pytest.approx(norm)
    assert relative_error(table, expected) <= TOLERANCE[dtype]
    assert not grads.any()


@pytest.mark.parametrize("name", CASES)
def test_zero_grads__leaves_zeros_and_makes_the_same_step(name, dtype, rng):
    kind, options = CASES[name]
    p, whole = rng.normal(size=(40, 30)).astype(dtype), rng.normal(size=(40, 60)).astype(dtype)
    for grads in (whole[:, :30].copy(), whole[:, ::2], whole[:, 30:].astype(np.float32)):
        expected, actual = p.copy(), p.copy()
        getattr(rt, kind)(p, lr=0.1, **options).step(expected, grads)
        assert getattr(rt, kind)(p, lr=0.1, **options).step(actual, grads, zero_grads=True) is None
        assert relative_error(actual, expected) < TOLERANCE[dtype] / 100  # another kernel may fuse otherwise
        assert not grads.any()


def test_step__takes_read_only_and_huge_gradients_and_refuses_to_zero_the_former():
    p, g = np.ones(3, np.float32), np.full(3, 1e30, np.float32)
    g.flags.writeable = False
    rt.SGD(p, lr=1e-30).step(p, g)
    np.testing.assert_allclose(p, 0, atol=1e-6)
    for options, message in (({"zero_grads": True}, "grads must be writeable"), ({"max_norm": 0.0}, "max_norm")):
        with pytest.raises(ValueError, match=message):
            rt.SGD(p, lr=1.0).step(p, g, **options)
    with pytest.raises(ValueError, match="grads must be finite"):
        rt.SGD(p, lr=1.0).step(p, np.array([1.0, np.inf, 0.0]), max_norm=1.0)
    np.testing.assert_allclose(p, 0, atol=1e-6)
