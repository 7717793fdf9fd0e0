"""Loops over the edges of a graph, for losses that are functions of differences of rows.

Row i stands for y_i = s_i z_i. Differences are computed and summed in float64 for two reasons: such losses make rows
alike, so that their difference in float32 has few digits, and a hub sums thousands of differences.
"""

import numpy as np

from rvtrain._kernels import kernel


@kernel
def squared_lengths(start, stop, z, scale, first, second, out):
    """out[e] = ‖y_i − y_j‖² with i = first[e], j = second[e].

    Shapes: z (n, d), scale (n,) float64, first, second and out (E,). The range is over edges.
    """
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

    Shapes: z and out (n, d), scale (n,), starts (n + 1,), others and weights (R,), scratch (lanes, d) float64. The
    range is over lanes. Lane l sums the rows l, l + lanes, …, each in the order of r, so that the sums do not depend
    on the threads.
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
