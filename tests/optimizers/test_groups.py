"""Options of groups of arrays: by pattern, with schedules, shown, logged, saved and loaded."""

import numpy as np
import pytest

import rvtrain as rt

SHAPES = {"a.weight": (3, 2), "a.bias": (2,), "b.weight": (2, 2), "b.bias": (2,)}


def ones(value=1.0):
    return {name: np.full(shape, value) for name, shape in SHAPES.items()}


def test_groups__patterns_and_later_ones_win():
    params = ones()
    groups = {"*.bias": {"weight_decay": 0.0, "lr": 0.5}, "b.*": {"lr": 0.25}}
    optimizer = rt.SGD(params, lr=1.0, weight_decay=0.5, groups=groups)
    optimizer.step(params, ones(0.5))
    assert {name: p.flat[0] for name, p in params.items()} == {
        "a.weight": 1 - (0.5 + 0.5),
        "a.bias": 1 - 0.5 * 0.5,
        "b.weight": 1 - 0.25 * (0.5 + 0.5),
        "b.bias": 1 - 0.25 * 0.5,
    }


def test_groups__a_name_with_a_pattern_s_characters_matches_itself():
    optimizer = rt.SGD({"w[0]": 2, "w0": 2}, lr=1.0, groups={"w[0]": {"lr": 0.5}})
    assert optimizer.param_groups[0]["params"] == ("w[0]", "w0")
    optimizer = rt.SGD({"w[0]": 2, "v": 2}, lr=1.0, groups={"w[0]": {"lr": 0.5}})
    assert [group["params"] for group in optimizer.param_groups] == [("w[0]",), ("v",)]


def test_groups__schedules_count_the_steps_of_their_arrays():
    params, seen = ones(), []

    def schedule(step):
        seen.append(step)
        return 0.5**step

    optimizer = rt.SGD(params, lr=0.0, groups={"a.bias": {"lr": schedule}})
    for _ in range(3):
        optimizer.step(params, ones())
    assert seen == [0, 1, 2]
    np.testing.assert_array_equal(params["a.bias"], 1 - (1 + 0.5 + 0.25))
    np.testing.assert_array_equal(params["a.weight"], 1)


@pytest.mark.parametrize("kind", ["Adam", "Lion", "ScheduleFreeAdamW"])
def test_groups__schedules_of_rows_that_owe_steps(kind, rng):
    shapes, schedule = {"table": (6, 3), "other": 2}, rt.exponential_decay(0.1, 0.8)
    dense = {"table": rng.normal(size=(6, 3)), "other": np.ones(2)}
    table = {name: p.copy() for name, p in dense.items()}
    lazy, full = (getattr(rt, kind)(shapes, lazy=z, groups={"t*": {"lr": schedule}}) for z in ("exact", "idle"))
    for step in range(12):
        g, row = np.zeros((6, 3)), [step % 5]
        g[row] = rng.normal(size=3)
        lazy.step(table, {"table": g[row], "other": np.ones(2)}, {"table": row})
        full.step(dense, {"table": g, "other": np.ones(2)})
    lazy.catch_up(table)
    np.testing.assert_allclose(table["table"], dense["table"], rtol=1e-11)


def test_param_groups__say_what_is_used_and_cannot_be_changed():
    groups = {"*.bias": {"weight_decay": 0.0}, "b.bias": {"lr": rt.constant(0.5)}}
    optimizer = rt.AdamW(SHAPES, lr=0.1, groups=groups)
    weights, bias, last = optimizer.param_groups
    assert weights["params"] == ("a.weight", "b.weight") and bias["params"] == ("a.bias",)
    assert last["params"] == ("b.bias",) and last["lr"] == 0.5 and last["weight_decay"] == 0.0
    assert (weights["lr"], weights["weight_decay"], weights["betas"]) == (0.1, 1e-2, (0.9, 0.999))
    assert set(weights) == {
        "params",
        "lr",
        "betas",
        "eps",
        "weight_decay",
        "amsgrad",
        "maximize",
        "lazy",
        "state_dtype",
    }
    with pytest.raises(TypeError):
        weights["lr"] = 1.0
    optimizer.learning_rate = 0.2
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2, 0.5]
    assert rt.SGD(3, 0.1).param_groups[0]["params"] == ("params",)


def test_repr__lists_all_options_and_schedules():
    optimizer = rt.SGD({"w": 2}, 0.1, groups={"*": {"lr": rt.constant(0.5), "momentum": 0.9}})
    assert repr(optimizer) == (
        "SGD(lr=0.1, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False, lazy='idle', "
        "state_dtype='float32', nonfinite='raise', groups={'*': {'lr': constant(lr=0.5), 'momentum': 0.9}})"
    )


def test_state_dict__a_schedule_has_to_be_the_loading_optimizer_s_own(tmp_path):
    groups = {"*.bias": {"lr": rt.exponential_decay(0.1, 0.5)}, "a/*": {"weight_decay": 0.5}}
    shapes = SHAPES | {"a/b": 2}
    params = {name: np.ones(shape) for name, shape in shapes.items()}
    one = rt.AdamW(shapes, lr=0.1, groups=groups)
    one.step(params, params | {name: p * 2 for name, p in params.items()})
    np.savez(tmp_path / "state.npz", **one.state_dict())
    two = rt.AdamW(shapes, groups={"*.bias": groups["*.bias"]})
    with np.load(tmp_path / "state.npz", allow_pickle=False) as state:
        two.load_state_dict(state)
    assert two.groups == one.groups and two.param_groups == one.param_groups
    for other in (None, {"*.bias": {"lr": rt.constant(0.1)}}, {"*.bias": {"lr": lambda step: 0.1}}):
        three = rt.AdamW(shapes, groups=other)
        before = repr(three), three.state_dict().keys()
        with pytest.raises(
            ValueError, match=r"state needs an optimizer with groups\['\*.bias'\]\['lr'\] = exponential"
        ):
            three.load_state_dict(one.state_dict())
        assert (repr(three), three.state_dict().keys()) == before


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ({"*.scale": {"lr": 0.1}}, ValueError, r"got '\*.scale', which matches none"),
        ({"*": {"lr": -0.1}}, ValueError, r"groups\['\*'\]\['lr'\] must be"),
        ({"*": {"betas": 0.9}}, TypeError, r"groups\['\*'\]\['betas'\] must be a tuple"),
        ({"*": {"nonfinite": "skip"}}, ValueError, r"groups\['\*'\] may set .* got \['nonfinite'\]"),
        ({"*": 0.1}, ValueError, r"groups\['\*'\] may set .* got 0.1"),
        ([("*", {})], TypeError, "groups must be a dict of dicts"),
    ],
)
def test_groups__are_refused_by_name(groups, error, message):
    with pytest.raises(error, match=message):
        rt.Adam(SHAPES, groups=groups)


def test_groups__options_that_contradict_each_other():
    with pytest.raises(ValueError, match="nesterov needs momentum"):
        rt.SGD(SHAPES, 0.1, groups={"*.bias": {"nesterov": True}})


def test_groups__a_schedule_that_returns_no_rate_changes_nothing():
    params = ones()
    optimizer = rt.SGD(params, 0.1, groups={"b.bias": {"lr": lambda step: -1.0}})
    with pytest.raises(ValueError, match="the lr of a group must be"):
        optimizer.step(params, ones())
    for p in params.values():
        np.testing.assert_array_equal(p, 1)
