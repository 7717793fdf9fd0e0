"""InfoNCE as an object, and what it refuses of its options."""

import copy
import pickle

import numpy as np
import pytest
from reference_losses import DIRECTIONS

import rvtrain as rt


@pytest.mark.parametrize(
    "loss",
    [
        rt.InfoNCELoss(0.1),
        rt.InfoNCELoss(0.1, "sum", symmetric=True, similarity="dot", margin=0.25, hardness=2.0),
        rt.InfoNCELoss(0.1, "none", directions=DIRECTIONS[::-1], false_negative_margin=-0.5),
    ],
    ids=str,
)
def test_object__survives_pickle_deepcopy_and_its_own_text(loss, rng):
    a, p = rng.normal(size=(2, 5, 4))
    for same in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss), eval(repr(loss), vars(rt))):
        assert repr(same) == repr(loss)
        np.testing.assert_array_equal(same.compute(a, p), loss.compute(a, p))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"similarity": "manhattan"}, ValueError, "similarity must be 'cosine', 'dot' or 'euclidean'"),
        ({"directions": ()}, ValueError, "directions must be"),
        ({"directions": ("query_to_answer",)}, ValueError, "directions must be"),
        ({"directions": DIRECTIONS, "symmetric": True}, ValueError, "directions must be left out where symmetric"),
        ({"margin": np.nan}, ValueError, "margin"),
        ({"margin": "1"}, TypeError, "margin"),
        ({"hardness": -1.0}, ValueError, "hardness"),
        ({"hardness": np.inf}, ValueError, "hardness"),
        ({"false_negative_margin": np.nan}, ValueError, "false_negative_margin"),
        ({"false_negative_margin": True}, TypeError, "false_negative_margin"),
    ],
)
def test_constructor__refuses_bad_options_by_name(options, error, message):
    with pytest.raises(error, match=message):
        rt.InfoNCELoss(0.1, **options)


A = np.ones((3, 4))
OWN = np.ones((3, 2, 4))


@pytest.mark.parametrize(
    ("options", "arguments", "keywords", "error", "message"),
    [
        ({"symmetric": True}, (A, A, OWN), {}, ValueError, "symmetric needs in-batch negatives"),
        ({"symmetric": True}, (A, A, A), {"negative_indices": [[0]] * 3}, ValueError, "symmetric needs in-batch"),
        ({"directions": DIRECTIONS}, (A, A, OWN), {}, ValueError, "directions needs in-batch negatives"),
        ({}, (A, A), {"log_q": [0.0, 0.0]}, ValueError, "log_q must have the shape of positives"),
        ({}, (A, A, A[:2]), {"log_q": [0.0, 0.0, 0.0]}, ValueError, "log_q must have the shape of negatives"),
        ({}, (A, A), {"log_q": [0.0, np.nan, 0.0]}, ValueError, "log_q must be finite"),
        ({}, (A, A), {"log_q": [0.0, -np.inf, 0.0]}, ValueError, "log_q must be finite"),
        ({}, (A, A), {"log_q": [0, 1, 2]}, TypeError, "log_q must be float32 or float64"),
        ({}, (A, A), {"guide": A}, ValueError, "guide must be a tuple"),
        ({}, (A, A), {"guide": (A,)}, ValueError, "guide must be a tuple"),
        ({}, (A, A), {"guide": (A, A, A)}, ValueError, "guide must be a tuple"),
        ({}, (A, A, A), {"guide": (A, A)}, ValueError, "guide must be a tuple"),
        ({}, (A, A), {"guide": (A, A[:2])}, ValueError, "guide positives must have shape"),
        ({}, (A, A), {"guide": (A, A[:, :2])}, ValueError, "guide positives must have shape"),
        ({}, (A, A, OWN), {"guide": (A, A, OWN[:, :1])}, ValueError, "guide negatives must have shape"),
        ({}, (A, A), {"guide": (A.astype(int), A)}, TypeError, "guide anchors must be float32 or float64"),
        ({}, (A, A), {"guide": (A, A * np.nan)}, ValueError, "guide positives must be finite"),
        ({"similarity": "euclidean"}, (A * 1e200, A), {}, ValueError, "anchors must be finite with a squared norm"),
        ({"similarity": "dot"}, (A * np.nan, A), {}, ValueError, "anchors must be finite"),
        ({"similarity": "dot"}, (A, A, OWN * np.inf), {}, ValueError, "negatives must be finite"),
        ({"similarity": "euclidean"}, (A, A, OWN * np.inf), {}, ValueError, "negatives must be finite"),
    ],
)
def test_calls__refuse_bad_arguments_by_name(options, arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        rt.InfoNCELoss(0.1, **options).compute(*arguments, **keywords)
