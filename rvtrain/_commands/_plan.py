"""What a batch would cost on a cluster, by the kernels of this machine and a model of its network."""

import argparse
import json

import numpy as np

from rvtrain import _validation as check
from rvtrain.distributed._plan import cost, measured_rates
from rvtrain.losses._softmax import Softmax, octaves


def run(options: argparse.Namespace) -> int:
    """The command."""
    for name in ("batch", "dim", "ranks"):
        check.integer(f"--{name}", getattr(options, name), low=1)
    for name in ("bandwidth", "latency"):
        check.number(f"--{name}", getattr(options, name), low=0.0, open_low=name == "bandwidth")
    if options.batch < options.ranks:
        raise ValueError(f"--batch must be at least --ranks, {options.ranks}, got {options.batch}")
    rate, copied = measured_rates(options.dim, Softmax(octaves(np.dtype(np.float32), 0.07), 0.07, 0.0))
    given = options.batch, options.dim, options.ranks, rate, copied, options.bandwidth, options.latency
    found = cost(*given)
    facts = {
        "scores per second of a rank": rate, "seconds scoring": found.scoring, "seconds exchanging": found.exchange,
        "seconds adding": found.adding, "seconds per step": found.seconds,
        "bytes per rank": found.memory, "efficiency": found.efficiency(options.ranks),
    }  # fmt: skip
    if options.json:
        print(json.dumps(facts))
        return 0
    for name, value in facts.items():
        print(f"{name:28} {value:.3g}")
    return 0
