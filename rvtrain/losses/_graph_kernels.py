"""Loops over the edges of a graph, for every loss that is a function of differences of rows.

A row i enters as y_i = s_i z_i. Differences are taken and summed in float64: rows that have become alike, the
very aim of such losses, would leave little of a float32 difference, and a hub sums thousands of them.
"""

import numpy as np

from rvtrain._kernels import kernel


@kernel
def squared_lengths(start, stop, z, scale, first, second, out):
    """out[e] = ‖y_i − y_j‖² with i = first[e], j = second[e]; z (n, d), scale (n,), the others (E,)."""
    for e in range(start, stop):
        a, b = z[first[e]], z[second[e]]
        left, right = scale[first[e]], scale[second[e]]
        total = 0.0
        for k in range(len(a)):
            difference = left * np.float64(a[k]) - right * np.float64(b[k])
            total += difference * difference
        out[e] = total


@kernel
def sum_differences(start, stop, z, scale, starts, others, weights, scratch, out):
    """out[i] = s_i Σ_r weights[r] (y_i − y_j), j = others[r], over r from starts[i] to starts[i + 1].

    z and out (n, d), scale (n,), starts (n + 1,), others and weights (R,). scratch (lanes, d) float64: lane l
    takes rows l, l + lanes, …; each row is summed by one lane in the order of r, whoever runs the lane.
    """
    for lane in range(start, stop):
        total = scratch[lane]
        for i in range(lane, len(out), len(scratch)):
            total[:] = 0.0
            a = z[i]
            for r in range(starts[i], starts[i + 1]):
                b, left, right = z[others[r]], weights[r] * scale[i], weights[r] * scale[others[r]]
                for k in range(len(total)):
                    total[k] += left * np.float64(a[k]) - right * np.float64(b[k])
            for k in range(len(total)):
                out[i, k] = scale[i] * total[k]
