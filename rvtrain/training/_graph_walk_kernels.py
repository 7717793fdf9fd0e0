"""Walks of node2vec, one after the other, each of which draws its own numbers."""

import numpy as np

from rvtrain._engine._random import row_key, uniform
from rvtrain._kernels import kernel
from rvtrain.training._graph_kernels import is_linked

_TRIES = 16
"""Rejected steps before the probabilities of all neighbours are summed."""


@kernel
def walk(start, stop, first, key, starts, others, sums, p, q, out):
    """out[w] = a walk from first[w]; each depends on key and w alone.

    Candidates are drawn by weight and accepted with probability α / max α; after some rejections the next node is
    drawn from the exact probabilities. Shapes: first (W,), starts (n + 1,), others (R,), sums (R,) running sums of
    the weights, or (0,) where all are 1; out (W, L + 1).
    """
    back, away = 1.0 / p, 1.0 / q
    most = max(back, 1.0, away)
    for w in range(start, stop):
        row, drawn = row_key(key, 1, w), 0
        out[w, 0] = first[w]
        for step in range(1, out.shape[1]):
            v = np.int64(out[w, step - 1])
            t = np.int64(out[w, step - 2]) if step > 1 else -1
            low, high = starts[v], starts[v + 1]
            chosen = np.int64(-1)
            for _ in range(_TRIES):
                u, accept = uniform(row, drawn), uniform(row, drawn + 1)
                drawn += 2
                if len(sums):
                    before = sums[low - 1] if low > 0 else 0.0
                    goal = before + u * (sums[high - 1] - before)
                    r = low + np.searchsorted(sums[low:high], goal, side="right")
                    r = min(r, high - 1)
                else:
                    r = min(low + int(u * (high - low)), high - 1)
                x = np.int64(others[r])
                if t < 0 or accept * most < (back if x == t else 1.0 if is_linked(starts, others, t, x) else away):
                    chosen = x
                    break
            if chosen < 0:
                total = 0.0
                for round_ in range(2):
                    goal = uniform(row, drawn) * total if round_ else np.inf
                    total = 0.0
                    for r in range(low, high):
                        x = np.int64(others[r])
                        weight = 1.0
                        if len(sums):
                            weight = sums[r] - (sums[r - 1] if r > 0 else 0.0)
                        total += weight * (back if x == t else 1.0 if is_linked(starts, others, t, x) else away)
                        if round_ and total > goal:
                            chosen = x
                            break
                        if round_ and r == high - 1:
                            chosen = x
                drawn += 1
            out[w, step] = chosen
