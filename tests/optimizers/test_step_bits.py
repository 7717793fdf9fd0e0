"""The bits of the steps of SGD, Adam and AdamW are those of commit 69434a3, whose rules were written by hand.

`python test_step_bits.py` prints the hashes of the package that it imports. They hold for every processor: a rule is
compiled in order and without fastmath, so that a step is a fixed sequence of IEEE operations; the gradients are
multiples of 2⁻²⁰, and the powers of these betas are exact, whatever the C library computes.
"""

import hashlib
import json

import numpy as np
import pytest

import rvtrain as rt

CASES = {
    "SGD": ("SGD", {}),
    "SGD with decay": ("SGD", {"weight_decay": 0.01, "maximize": True}),
    "SGD with momentum": ("SGD", {"momentum": 0.9, "dampening": 0.1}),
    "SGD with Nesterov momentum": ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "Adam": ("Adam", {"betas": (0.5, 0.75)}),
    "Adam with decay": ("Adam", {"betas": (0.5, 0.75), "weight_decay": 0.01, "maximize": True}),
    "AMSGrad": ("Adam", {"betas": (0.5, 0.75), "amsgrad": True}),
    "AdamW": ("AdamW", {"betas": (0.5, 0.75), "weight_decay": 0.01}),
    "AdamW with AMSGrad": ("AdamW", {"betas": (0.5, 0.75), "amsgrad": True}),
}
BITS = {
    "SGD, float32": "60af944da8208e89",
    "SGD, float64": "85c6ec87578ba3cb",
    "SGD with decay, float32": "3c9420b8a38fefab",
    "SGD with decay, float64": "b129e06e694c857f",
    "SGD with momentum, float32": "2f1c943a88d5c9fa",
    "SGD with momentum, float64": "89ae6ce935b8f1be",
    "SGD with Nesterov momentum, float32": "7def4942351e4ee8",
    "SGD with Nesterov momentum, float64": "5cfd2cc1afc3d738",
    "Adam, float32": "ee5b1335d2ab824f",
    "Adam, float64": "15e1e5700f099635",
    "Adam with decay, float32": "a4e078091956080b",
    "Adam with decay, float64": "3d5ab289922529bf",
    "AMSGrad, float32": "ac95900fd9b1d269",
    "AMSGrad, float64": "4454905a127953cb",
    "AdamW, float32": "33732175080b65d0",
    "AdamW, float64": "b3ca7ff05d0064ce",
    "AdamW with AMSGrad, float32": "8d9cd5efc828a846",
    "AdamW with AMSGrad, float64": "566af75e37585510",
}


def hashed(name, dtype):
    """A hash of the parameters and the state after dense steps of two arrays and steps of rows of one."""
    kind, options = CASES[name]
    rng = np.random.default_rng(0)

    def numbers(*shape):
        return (rng.integers(-(1 << 20), 1 << 20, shape) / (1 << 20)).astype(dtype)

    params = {"table": numbers(40, 17), "vector": numbers(1003)}
    optimizer = getattr(rt, kind)(params, lr=0.01, **options)
    for _ in range(4):
        optimizer.step(params, {key: numbers(*x.shape) for key, x in params.items()})
        rows = np.array([3, 39, 7, 3])
        grads = {"table": numbers(4, 17), "vector": numbers(1003)}
        optimizer.step(params, grads, rows={"table": rows})
    digest = hashlib.sha256()
    state = optimizer.state_dict()
    for x in (*params.values(), *(value for key, value in sorted(state.items()) if np.ndim(value))):
        digest.update(x.tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_steps__keep_their_bits(name, dtype):
    assert hashed(name, dtype) == BITS[f"{name}, {dtype}"]


if __name__ == "__main__":
    found = {f"{name}, {dtype}": hashed(name, dtype) for name in CASES for dtype in ("float32", "float64")}
    print(json.dumps(found, indent=4, ensure_ascii=False))
