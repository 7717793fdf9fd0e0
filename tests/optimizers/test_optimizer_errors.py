"""Wrong arguments of optimizers: named, and nothing is changed."""

import numpy as np
import pytest

import rvtrain as rt


def frozen():
    array = np.ones((3, 2))
    array.flags.writeable = False
    return array


P = np.ones((3, 2))


@pytest.mark.parametrize(
    ("params", "grads", "rows", "error", "message"),
    [
        (P, np.ones((2, 2)), None, ValueError, r"grads must have shape \(3, 2\), got \(2, 2\)"),
        (np.ones(3), P, None, ValueError, r"params must have shape \(3, 2\), got \(3,\)"),
        (P.tolist(), P, None, TypeError, "params must be an array"),
        (frozen(), P * 2, None, ValueError, "params must be writeable"),
        (P.astype(int), P, None, TypeError, r"params must be float32 or float64, .* params.astype\(np.float32\)"),
        (P, P.astype(np.float16), None, TypeError, r"grads must be float32 .* as grads.astype\(np.float32\)"),
        (P, P * np.nan, None, ValueError, r"grads must be finite, got nan at \[0, 0\]"),
        (P, P * np.inf, None, ValueError, "grads must be finite"),
        (P, P[::-1], None, ValueError, "grads must not share memory with params"),
        (P, np.ones((1, 2)), [3], ValueError, r"rows must lie in \[0, 2\], got 3"),
        (P, np.ones((1, 2)), [0.5], TypeError, "rows must be integers"),
        (P, np.ones((1, 2)), [0, 1], ValueError, r"grads must have shape \(2, 2\)"),
    ],
)
def test_step__refuses_bad_arguments_and_changes_nothing(params, grads, rows, error, message):
    optimizer = rt.AdamW((3, 2))
    before = np.array(params)
    with pytest.raises(error, match=message):
        optimizer.step(params, grads, rows=rows)
    np.testing.assert_array_equal(params, before)
    assert not any(key.startswith("state/") for key in optimizer.state_dict())


def test_step__checks_all_of_a_dict_before_any_is_changed():
    params = {"a": np.ones(2), "b": np.ones(3)}
    optimizer = rt.SGD(params, 0.1)
    with pytest.raises(ValueError, match=r"grads\['b'\] must be finite"):
        optimizer.step(params, {"a": np.ones(2), "b": np.array([1, np.nan, 1])})
    with pytest.raises(ValueError, match=r"grads must be a dict with the keys \['a', 'b'\], got \['a'\]"):
        optimizer.step(params, {"a": np.ones(2)})
    assert (params["a"] == 1).all()


@pytest.mark.parametrize(
    ("make_one", "error", "message"),
    [
        (lambda: rt.SGD(3, -0.1), ValueError, "lr must be"),
        (lambda: rt.SGD(3, "fast"), TypeError, "lr must be a number"),
        (lambda: rt.SGD(3, 0.1, nesterov=True), ValueError, "nesterov needs momentum"),
        (lambda: rt.Adam(3, betas=(0.9, 1.0)), ValueError, r"betas\[1\]"),
        (lambda: rt.Adam(3, betas=0.9), TypeError, "betas must be a tuple"),
        (lambda: rt.Lion(3, betas=(1.0, 0.9)), ValueError, r"betas\[0\]"),
        (lambda: rt.Lion(3, weight_decay=-1.0), ValueError, "weight_decay must be"),
        (lambda: rt.Adagrad(3, eps=-1.0), ValueError, "eps must be"),
        (lambda: rt.Adagrad(3, rowwise=1), TypeError, "rowwise must be True or False"),
        (lambda: rt.ScheduleFreeAdamW(3, betas=(0.0, 0.9)), ValueError, r"betas\[0\]"),
        (lambda: rt.ScheduleFreeAdamW(3, warmup_steps=-1), ValueError, "warmup_steps must be"),
        (lambda: rt.Adam(0), ValueError, "params must be at least 1"),
        (lambda: rt.Adam({}), ValueError, "params must not be an empty dict"),
        (lambda: rt.AdamW("all"), TypeError, "params must be a length"),
        (lambda: rt.AdamW({"a": 3, 0: 3}), TypeError, "params must have strings for keys, got 0"),
        (lambda: rt.AdamW(np.ones(3, np.float16)), TypeError, r"got dtype float16: .* params.astype\(np.float32\)"),
        (lambda: rt.AdamW(3, lazy="eager"), ValueError, "lazy must be 'idle' or 'exact'"),
    ],
)
def test_constructor__refuses_bad_options_by_name(make_one, error, message):
    with pytest.raises(error, match=message):
        make_one()
