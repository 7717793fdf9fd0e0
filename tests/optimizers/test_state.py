"""Compact state, options by group, steps that are skipped, and state dicts that np.savez saves."""

import numba
import numpy as np
import pytest
from conftest import TOLERANCE, from_python, import_torch, relative_error

import rvtrain as rt
from rvtrain.optimizers import _codes

COMPACT = ("bfloat16", "int8")
CASES = {
    "sgd": ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.01}),
    "adam": ("Adam", {"lr": 0.01}),
    "adamw amsgrad": ("AdamW", {"lr": 0.01, "amsgrad": True}),
    "lion": ("Lion", {"lr": 0.01, "weight_decay": 0.01}),
}


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def make(case, params, **more):
    kind, options = CASES[case]
    return getattr(rt, kind)(params, **options, **more)


def bytes_of(optimizer):
    return sum(v.nbytes for k, v in optimizer.state_dict().items() if k.startswith("state/") and np.ndim(v))


@pytest.mark.parametrize(("state_dtype", "most"), [("float32", 8), ("bfloat16", 4), ("int8", 2.1)])
@pytest.mark.parametrize("shape", [(10_000,), (50, 128), (6, 7, 300)], ids=str)
def test_state_dtype__bytes_per_parameter(state_dtype, most, shape, rng):
    p = rng.normal(size=shape).astype(np.float32)
    optimizer = rt.AdamW(p, state_dtype=state_dtype)
    optimizer.step(p, p * 0.5)
    assert bytes_of(optimizer) <= most * p.size


@pytest.mark.parametrize("state_dtype", COMPACT)
@pytest.mark.parametrize("shape", [(1,), (1000,), (13, 300), (40, 8), (3, 5, 70)], ids=str)
def test_state_dtype__updates_are_near_those_of_full_state(case, state_dtype, shape, dtype, rng):
    """Relative error of the updates, as the tests of bitsandbytes bound it for Adam."""
    exact, near = (np.zeros(shape, dtype) for _ in range(2))
    full, compact = make(case, exact), make(case, near, state_dtype=state_dtype)
    scale = np.exp(rng.normal(size=shape))
    errors = []
    for _ in range(60):
        before = exact.copy()
        near[...] = exact
        g = (scale * rng.normal(size=shape)).astype(dtype)
        full.step(exact, g)
        compact.step(near, g)
        errors.append(np.abs(near - exact).mean() / np.abs(exact - before).mean())
    few = 0.05 if state_dtype == "int8" else 0.02  # of Lion, the share of other signs, each twice as far off
    assert np.mean(errors) <= (2 * few if case == "lion" else few)


@pytest.mark.parametrize("state_dtype", COMPACT)
def test_state_dtype__same_bits_for_any_number_of_threads(case, state_dtype, rng):
    start, g = rng.normal(size=(2, 150_001)).astype(np.float32)
    before, results = numba.get_num_threads(), []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            p = start.copy()
            optimizer = make(case, p, state_dtype=state_dtype)
            for _ in range(3):
                optimizer.step(p, g)
            results.append(p.tobytes())
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize("state_dtype", COMPACT)
def test_state_dtype__rows_get_what_whole_steps_give_them(case, state_dtype, dtype, rng):
    """A block never spans two rows, so a row's codes do not depend on who is updated beside it."""
    table = rng.normal(size=(9, 300)).astype(dtype)
    whole, idle = table.copy(), make(case, table, state_dtype=state_dtype)
    dense = make(case, table, state_dtype=state_dtype)
    for _ in range(4):
        g = rng.normal(size=table.shape).astype(dtype)
        dense.step(whole, g)
        idle.step(table, g[[7, 2, 7]] * [[0.5], [1.0], [0.5]], rows=[7, 2, 7])
    assert relative_error(table[[2, 7]], whole[[2, 7]]) < TOLERANCE[dtype]


@pytest.mark.parametrize("state_dtype", COMPACT)
def test_state_dtype__exact_rows_end_near_dense_steps(case, state_dtype, rng):
    table = rng.normal(size=(6, 64)).astype(np.float32)
    start, dense = table.copy(), table.copy()
    lazy, full = make(case, table, lazy="exact", state_dtype=state_dtype), make(case, dense)
    for _ in range(30):
        rows = rng.choice(6, size=2, replace=False)
        g = np.zeros_like(dense)
        g[rows] = rng.normal(size=(2, 64))
        lazy.step(table, g[rows], rows=rows)
        full.step(dense, g)
    lazy.catch_up(table)
    few = 0.2 if case == "lion" else 0.05
    assert np.abs(table - dense).mean() < few * np.abs(dense - start).mean()


@pytest.mark.parametrize("by_row", [False, True], ids=["whole", "rows"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize("state_dtype", COMPACT)
def test_state_dtype__one_huge_gradient_leaves_its_neighbours_alone(case, state_dtype, first, by_row, rng):
    """Gradients that are often 0 divide by √v what m remembers: a v that was rounded to 0 shows."""
    gradients = (1 + rng.normal(size=(150, 1, 256))) * (rng.random((150, 1, 256)) < 0.5)
    huge = [1e4, 1e10, 1e19, 1e22, 1e30, 1e38]
    gradients = np.repeat(gradients, len(huge), axis=1).astype(np.float32)
    gradients[0 if first else 5, :, 7] = huge
    exact, near = np.zeros((2, len(huge), 256), np.float32)
    full, compact = make(case, exact), make(case, near, state_dtype=state_dtype)
    rows = np.arange(len(huge)) if by_row else None
    for g in gradients:
        full.step(exact, g, rows=rows)
        compact.step(near, g, rows=rows)
    neighbours = np.arange(256) != 7
    distance = np.abs(near - exact)
    if case == "lion":  # no step is longer than lr
        assert np.abs(near).max() <= 0.01 * 150 * 1.01
    elif case == "sgd":  # their momentum is below the least code until the huge one has decayed
        assert np.isfinite(near).all() and (np.abs(near) <= 1.1 * np.abs(exact).max(axis=1, keepdims=True)).all()
        assert np.abs(near[:, neighbours]).max() <= 1.1 * np.abs(exact[:, neighbours]).max()
        np.testing.assert_allclose(near[:, 7], exact[:, 7], rtol=0.02)
    else:
        assert distance[:, neighbours].mean() <= 0.1 * np.abs(exact[:, neighbours]).mean()
        assert distance[:, neighbours].max() <= 0.5 * np.abs(exact[:, neighbours]).mean()
        assert distance[:, 7].max() <= 0.2 * np.abs(exact[:, neighbours]).mean()


@pytest.mark.parametrize("state_dtype", COMPACT)
def test_state_dtype__nothing_but_huge_gradients(case, state_dtype):
    """As with full state: Adam's elements stand still from there on; SGD's are lost, but not with their block."""
    p, g = np.zeros((2, 256), np.float32), np.ones((2, 256), np.float32)
    optimizer = make(case, p, state_dtype=state_dtype)
    g[0], g[1, 7] = 1e30, 3e38
    for _ in range(3):
        optimizer.step(p, g)
    for _ in range(5):
        optimizer.step(p, np.ones((2, 256), np.float32))
    assert np.isfinite(np.delete(p[1], 7)).all() and np.abs(np.delete(p[1], 7)).max() < 1
    if case.startswith("adam"):
        assert np.abs(p[0]).max() <= 0.01


def test_bfloat16__rounding_is_right_in_the_mean():
    """A fixed gradient after a far larger one: to the nearest, the average of squares would never come down."""
    p, optimizer = np.zeros(4096, np.float32), rt.Adam(4096, betas=(0.0, 0.999), state_dtype="bfloat16")
    optimizer.step(p, np.full(4096, 10, np.float32))
    for _ in range(700):
        optimizer.step(p, np.ones(4096, np.float32))
    codes = optimizer.state_dict()["state/params/exp_avg_sq"].astype(np.uint32) << 16
    expected = 100 * 0.001 * 0.999**700 + 1 - 0.999**700
    assert codes.view(np.float32).mean() == pytest.approx(expected, rel=2e-3)


def test_codes__each_comes_back_as_itself():
    for codes, read, write in (
        (np.arange(-127, 128), _codes.decoded, _codes.code),
        (np.arange(256), _codes.decoded_positive, _codes.code_positive),
    ):
        read, write = from_python(read), from_python(write)
        for scale in np.float32([1.0, 3e-20, 7e30]):
            values = [read(int(c), scale) for c in codes]
            assert [int(write(v, np.float32(1) / scale)) for v in values] == list(codes)
            assert values[-1] == scale and (np.diff(values) > 0).all()


# --- Idle rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"eps": 0.1}, {"eps": 1e-30}, {"betas": (0.9, 0.95)}, {"amsgrad": True}])
@pytest.mark.parametrize("gap", [1, 30, 700, 5000])
def test_exact__long_gaps_by_table_and_by_loop(options, gap, dtype, rng):
    """Rows with ordinary, tiny and no gradients: the series serves the first, the loop the second."""
    table = np.ones((4, 5), dtype)
    g = (rng.normal(size=(3, 5)) * [[1.0], [1e-7], [0.0]]).astype(dtype)
    dense = table.copy()
    lazy, full = (rt.AdamW(table, lr=0.01, lazy=lazy, **options) for lazy in ("exact", "idle"))
    lazy.step(table, g, rows=[0, 1, 2])
    full.step(dense, np.concatenate([g, np.zeros((1, 5), dtype)]))
    other = np.zeros((4, 5), dtype)
    other[3] = 1.0
    for step in range(gap):
        lazy.learning_rate = full.learning_rate = 0.01 / (1 + step)
        lazy.step(table, other[3:], rows=[3])
        full.step(dense, other)
    lazy.catch_up(table)
    # The dense rule rounds at each of its steps, to the nearest: the errors add like a walk.
    assert relative_error(table, dense) < TOLERANCE[dtype] * (1 + gap**0.5 / 10)


# --- Groups ---------------------------------------------------------------------------------------------


def test_groups__an_array_steps_as_if_alone_with_its_options(rng):
    params = {"weight": rng.normal(size=(3, 4)), "bias": rng.normal(size=4), "table": rng.normal(size=(5, 2))}
    groups = {"bias": {"weight_decay": 0.0, "lr": 0.02}, "table": {"betas": (0.5, 0.9), "amsgrad": True}}
    alone = {name: p.copy() for name, p in params.items()}
    together = rt.AdamW(params, lr=0.1, weight_decay=0.3, groups=groups)
    singles = {
        name: rt.AdamW(p, **{"lr": 0.1, "weight_decay": 0.3, **groups.get(name, {})}) for name, p in params.items()
    }
    for step in range(4):
        grads = {name: rng.normal(size=p.shape) for name, p in params.items()}
        together.learning_rate = 0.1 / (step + 1)
        together.step(params, grads)
        for name, single in singles.items():
            single.learning_rate = (0.02 if name == "bias" else 0.1) / (step + 1)
            single.step(alone[name], grads[name])
    for name in params:
        np.testing.assert_allclose(params[name], alone[name], rtol=1e-14)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"other": {}}, "groups must have patterns of the keys of params, got 'other'"),
        ({"w": {"speed": 1}}, r"groups\['w'\] may set .* got \['speed'\]"),
        ({"w": {"eps": -1.0}}, r"groups\['w'\]\['eps'\] must be"),
    ],
)
def test_groups__refuses_what_it_does_not_know(groups, message):
    with pytest.raises(ValueError, match=message):
        rt.AdamW({"w": 3}, groups=groups)


def test_groups__need_a_dict_of_arrays():
    with pytest.raises(ValueError, match="groups"):
        rt.AdamW(3, groups={"params": {"eps": 1.0}})


# --- Saving ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state_dtype", ["float32", *COMPACT])
@pytest.mark.parametrize("lazy", ["idle", "exact"])
def test_state_dict__savez_without_pickle_and_go_on_to_the_bit(case, state_dtype, lazy, rng, tmp_path):
    shapes = {"a/b": (7, 20), "c": (30,)}
    straight = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    broken = {name: p.copy() for name, p in straight.items()}
    groups = {"c": {"lr": 0.3, "weight_decay": 0.1}}

    def fresh():
        return make(case, shapes, state_dtype=state_dtype, lazy=lazy, groups=groups)

    one, two = fresh(), fresh()
    for step in range(8):
        rows = {"a/b": rng.integers(0, 7, 3)}
        grads = {"a/b": rng.normal(size=(3, 20)).astype(np.float32), "c": rng.normal(size=30).astype(np.float32)}
        one.step(straight, grads, rows)
        if step == 4:
            np.savez(tmp_path / "state.npz", **two.state_dict())
            two = make(case, shapes)
            with np.load(tmp_path / "state.npz", allow_pickle=False) as archive:
                two.load_state_dict(archive)
            assert two.groups == groups and two.lazy == lazy and two.state_dtype == state_dtype
        two.step(broken, grads, rows)
    for name in shapes:
        np.testing.assert_array_equal(broken[name], straight[name])


def test_load_state_dict__refuses_damaged_states():
    optimizer = rt.Adam((3, 2), lazy="exact", state_dtype="int8")
    optimizer.step(np.ones((3, 2)), np.ones((1, 2)) * 2, rows=[1])
    good = optimizer.state_dict()
    for key, value in (
        ("state/params/exp_avg", np.zeros((3, 2))),
        ("state/params/exp_avg_scale", np.zeros((1, 1), np.float32)),
        ("state/params/touched", np.array([0, 9, 0])),
        ("state/params/history", np.zeros((0, 8))),
        ("state/params/step", -1),
        ("state/other/step", 1),
    ):
        with pytest.raises(ValueError, match="state"):
            rt.Adam((3, 2)).load_state_dict({**good, key: value})
    rt.Adam((3, 2)).load_state_dict(good)


# --- Gradients that are not finite -----------------------------------------------------------------------


@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite__skip_changes_nothing_and_counts(case, max_norm, bad, dtype):
    p, g = np.ones(5, dtype), np.ones(5, dtype)
    optimizer = make(case, 5, nonfinite="skip")
    optimizer.step(p, g, max_norm=max_norm)
    before, state = p.copy(), optimizer.state_dict()
    g[3] = bad
    norm = optimizer.step(p, g, max_norm=max_norm, zero_grads=True)
    assert norm is None if max_norm is None else not np.isfinite(norm)
    assert optimizer.skipped == 1 and not g.any()
    np.testing.assert_array_equal(p, before)
    after = optimizer.state_dict()
    assert after.pop("skipped") == 1 and state.pop("skipped") == 0
    for key, value in state.items():
        np.testing.assert_array_equal(after[key], value)


def test_nonfinite__raise_is_the_default_and_sums_of_rows_count_too(dtype):
    table, huge = np.ones((4, 2), dtype), np.full((2, 2), np.finfo(dtype).max, dtype)
    with pytest.raises(ValueError, match="grads"):
        rt.AdamW(table).step(table, huge, rows=[1, 1])
    with pytest.raises(ValueError, match="nonfinite must be 'raise', 'skip' or 'ignore'"):
        rt.AdamW(table, nonfinite="warn")
    assert (table == 1).all()


@pytest.mark.parametrize("max_norm", [None, 1.0, 1e9])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("case", [case for case in CASES if case != "lion"])
def test_nonfinite__ignore_steps_as_torch_does(case, max_norm, bad, dtype):
    torch = import_torch()
    kind, options = CASES[case]
    p, g = np.ones(5, dtype), np.arange(1, 6).astype(dtype)
    tensor, optimizer = torch.nn.Parameter(torch.tensor(p)), make(case, 5, nonfinite="ignore")
    peer = getattr(torch.optim, kind)([tensor], **options)
    for step in range(3):
        g[3] = bad if step == 1 else 0.5
        tensor.grad = torch.tensor(g)
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_([tensor], max_norm)
        peer.step()
        norm = optimizer.step(p, g, max_norm=max_norm)
        assert norm is None or np.isfinite(norm) == (step != 1)
    expected = tensor.detach().numpy()
    assert np.isnan(expected).any() and optimizer.skipped == 0
    np.testing.assert_allclose(p, expected, rtol=TOLERANCE[dtype])


def test_nonfinite__ignore_is_the_same_step_where_all_is_finite(case, dtype, rng):
    checked, unchecked = np.ones((2, 7, 3), dtype)
    one, other = (make(case, p, nonfinite=n) for p, n in ((checked, "raise"), (unchecked, "ignore")))
    for max_norm in (None, 0.1):
        g = rng.normal(size=(7, 3)).astype(dtype)
        one.step(checked, g, max_norm=max_norm)
        other.step(unchecked, g, max_norm=max_norm)
        one.step(checked, g[:3], rows=[1, 5, 1], max_norm=max_norm)
        other.step(unchecked, g[:3], rows=[1, 5, 1], max_norm=max_norm)
    np.testing.assert_array_equal(checked, unchecked)
