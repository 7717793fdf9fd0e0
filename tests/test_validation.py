"""Each check accepts what it should and names what it refuses."""

import numba
import numpy as np
import pytest

import rvtrain as rt
from rvtrain import _validation as check
from rvtrain._kernels import _compiling


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check.float_array("x", np.ones(3, int), 1), TypeError, "x must be float32 .* got dtype int64"),
        (lambda: check.float_array("x", np.ones(3), (2, 3)), ValueError, r"x must have 2 or 3 dimension\(s\)"),
        (lambda: check.float_array("x", np.ones((0, 3)), 2), ValueError, r"x must not be empty, got shape \(0, 3\)"),
        (lambda: check.float_array("x", np.ones(3, ">f8"), 1), TypeError, "x must be float32 or float64"),
        (lambda: check.finite("x", np.array([[1, np.nan]])), ValueError, r"x must be finite, got nan at \[0, 1\]"),
        (lambda: check.integer_array("i", [1.0], (None,)), TypeError, "i must be integers, got dtype float64"),
        (lambda: check.integer_array("i", [[1]], (None,)), ValueError, r"i must have shape \(any\), got \(1, 1\)"),
        (lambda: check.integer_array("i", [True], (1,)), TypeError, "i must be integers, got dtype bool"),
        (lambda: check.indices("i", [3], (1,), 3), ValueError, r"i must lie in \[0, 2\], got 3"),
        (lambda: check.indices("i", [-2], (1,), 3, missing=True), ValueError, r"i must lie in \[-1, 2\], got -2"),
        (lambda: check.number("a", True), TypeError, "a must be a number, got True"),
        (lambda: check.number("a", "1"), TypeError, "a must be a number, got '1'"),
        (lambda: check.number("a", np.inf), ValueError, "a must be a finite number"),
        (lambda: check.number("a", 0, low=0, open_low=True), ValueError, r"in \(0, inf\), got 0"),
        (lambda: check.number("a", 1, low=0, high=1, open_high=True), ValueError, r"in \[0, 1\), got 1"),
        (lambda: check.integer("n", 1.5), TypeError, "n must be an integer, got 1.5"),
        (lambda: check.integer("n", 0, low=1), ValueError, "n must be at least 1, got 0"),
        (lambda: check.integer("n", 9, low=1, high=5), ValueError, r"n must be in \[1, 5\], got 9"),
        (lambda: check.choice("c", "z", ("a", "b")), ValueError, "c must be 'a' or 'b', got 'z'"),
        (lambda: check.flag("f", 1), TypeError, "f must be True or False, got 1"),
        (lambda: check.writeable_array("w", [1.0]), TypeError, "w must be an array that can be updated in place"),
        (lambda: check.same_shape("p", np.ones(2), "q", (3,)), ValueError, r"p must have the shape of q, \(3,\)"),
    ],
)  # fmt: skip
def test_check__refuses_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_promoted__copies_only_what_it_must():
    x = np.ones((3, 4), np.float32)
    same, wide, packed = check.promoted(x, x, x[:, ::2])
    assert same is x and wide is x and packed.flags.c_contiguous
    assert all(a.dtype == np.float64 for a in check.promoted(x, x.astype(np.float64)))


def test_numbers__of_numpy_are_numbers():
    assert check.number("a", np.float32(0.5), low=0) == 0.5
    assert check.integer("n", np.int32(3), low=1) == 3
    assert check.flag("f", np.bool_(True)) is True


@pytest.mark.parametrize("shape", [(4, 3), (5,), (0, 3)])
def test_readable__is_of_one_type_whether_read_only_or_not(shape):
    x = np.ones(shape, np.float32)
    locked = x.copy()
    locked.flags.writeable = False
    found = check.readable(locked)
    assert numba.typeof(found) == numba.typeof(check.readable(x))
    assert found.ctypes.data == locked.ctypes.data
    assert not locked.flags.writeable
    del locked
    np.testing.assert_array_equal(found, x)  # the memory lives as long as its view


def test_loss__of_read_only_arrays_compiles_nothing_again(rng):
    anchors, positives = rng.normal(size=(2, 9, 5)).astype(np.float32)
    loss, wrt = rt.InfoNCELoss(), ("anchors", "positives")
    value, gradients = loss.compute_with_gradients(anchors, positives, wrt=wrt)
    anchors.flags.writeable, compilations = False, []
    with _compiling.listening(compilations.append):
        again, gradients_again = loss.compute_with_gradients(anchors, positives, wrt=wrt)
    assert again == value and (gradients_again[0] == gradients[0]).all()
    assert compilations == []


@pytest.mark.parametrize(
    ("stored", "computed"),
    [("f2", "f4"), (">f4", "f4"), ("i1", "f4"), ("u1", "f4"), ("i4", "f8"), (">f8", "f8"), ("i8", "f8")],
)
def test_stored_array__says_what_its_numbers_are_computed_in(stored, computed):
    array = np.ones((2, 3), stored)
    assert check.stored_array("x", array, 2) is array
    assert check.computed_dtype("x", array) == np.dtype(computed)
    assert check.readable(array, check.computed_dtype("x", array)).dtype.isnative


@pytest.mark.parametrize("value", [np.ones(3, bool), np.ones(3, complex), np.ones(3, np.longdouble), ["a"], [None]])
def test_stored_array__takes_numbers_alone(value):
    with pytest.raises(TypeError, match="x must be an array of real numbers of at most 64 bits, got dtype"):
        check.stored_array("x", value, 1)


def test_refused_dtypes__come_with_the_remedy():
    with pytest.raises(
        TypeError, match=r"anchors must be float32 or float64, got dtype float16: .*astype\(np.float32\)"
    ):
        rt.InfoNCELoss().compute(np.ones((2, 3), np.float16), np.ones((2, 3), np.float16))
