"""Parameters of losses that are learned with the model: their names, and their slopes by differences."""

import copy
import pickle

import numpy as np
import pytest

from rvtrain.losses import InfoNCELoss, SigmoidLoss

LOSSES = {
    "infonce": lambda **o: InfoNCELoss(0.2, learn_temperature=True, **o),
    "symmetric": lambda **o: InfoNCELoss(0.2, symmetric=True, learn_temperature=True, **o),
    "two directions": lambda **o: InfoNCELoss(
        0.2, directions=("query_to_document", "query_to_query"), learn_temperature=True, **o
    ),
    "margin, dot": lambda **o: InfoNCELoss(0.2, similarity="dot", margin=0.1, learn_temperature=True, **o),
    "euclidean, masked": lambda **o: InfoNCELoss(
        0.7, similarity="euclidean", false_negative_margin=0.2, learn_temperature=True, **o
    ),
    "sigmoid": lambda **o: SigmoidLoss(3.0, -1.5, learn=True, **o),
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_learnable__have_the_slopes_of_differences(name, pool, reduction, rng):
    loss = LOSSES[name](reduction=reduction)
    anchors, positives, negatives = rng.normal(size=(13, 5)), rng.normal(size=(13, 5)), rng.normal(size=(9, 5))
    args = (anchors, positives, negatives) if pool else (anchors, positives)
    weight = rng.uniform(0.5, 2, size=13)
    _, slopes = loss.compute_with_gradients(*args, wrt=loss.learnable, sample_weight=weight)
    for parameter, slope in zip(loss.learnable, slopes, strict=True):
        here, values, step = getattr(loss, parameter), [], 1e-6
        for sign in (1, -1):
            setattr(loss, parameter, here + sign * step)
            values.append(np.sum(loss.compute(*args, sample_weight=weight)))
        setattr(loss, parameter, here)
        assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_learnable__changes_no_call(name, dtype, rng):
    loss = LOSSES[name]()
    plain = copy.copy(loss)
    setattr(plain, "learn" if name == "sigmoid" else "learn_temperature", False)
    assert loss.learnable and plain.learnable == ()
    anchors, positives = rng.normal(size=(2, 13, 5)).astype(dtype)
    found = [one.compute_with_gradients(anchors, positives, wrt=("anchors", "positives")) for one in (loss, plain)]
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


AGAIN = {
    "copy": copy.deepcopy,
    "pickle": lambda loss: pickle.loads(pickle.dumps(loss)),
    "repr": lambda loss: eval(repr(loss), {"InfoNCELoss": InfoNCELoss, "SigmoidLoss": SigmoidLoss}),
}


@pytest.mark.parametrize("way", AGAIN)
@pytest.mark.parametrize("name", LOSSES)
def test_learnable__is_copied_pickled_and_shown(name, way):
    loss = LOSSES[name]()
    other = AGAIN[way](loss)
    assert vars(other) == vars(loss) and other.learnable == loss.learnable
    assert repr(other) == repr(loss)


def test_learnable__are_as_told():
    assert InfoNCELoss().learnable == () == SigmoidLoss().learnable
    assert InfoNCELoss(learn_temperature=True).learnable == ("temperature",)
    assert SigmoidLoss(learn=True).learnable == ("scale", "bias")
    assert "learn" not in repr(InfoNCELoss()) + repr(SigmoidLoss())
    with pytest.raises(TypeError, match="learn_temperature must be True or False"):
        InfoNCELoss(learn_temperature="yes")
    with pytest.raises(TypeError, match="learn must be True or False"):
        SigmoidLoss(learn=1)
