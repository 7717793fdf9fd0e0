"""Breadth-first searches that offer what they find to a selection."""

import numpy as np

from rvtrain._engine._norms import cosine
from rvtrain._kernels import kernel, njit
from rvtrain.mining._selection_kernels import rise, sink, worse


@kernel
def mine_graph(start, stop, rows, nodes, starts, others, hops, marks, queues, best):
    """Offer to each of `nodes` the nodes at hops[0] … hops[1] edges from it, by cosine.

    rows Rows of (n, d); the neighbours of i are others[starts[i]: starts[i + 1]]; marks, −1 at first, and queues
    (lanes, n) are the lanes': lane l takes nodes l, l + lanes, …
    """
    for lane in range(start, stop):
        _mine_lane(lane, rows, nodes, starts, others, hops, marks, queues, best)


@njit
def _mine_lane(lane, rows, nodes, starts, others, hops, marks, queues, best):
    mark, queue = marks[lane], queues[lane]
    for i in range(lane, len(nodes), len(marks)):
        mark[nodes[i]], queue[0] = i, nodes[i]
        begin, end = 0, 1
        for hop in range(1, hops[1] + 1):
            last = end
            for at in range(begin, end):
                for e in range(starts[queue[at]], starts[queue[at] + 1]):
                    node = others[e]
                    if mark[node] != i:
                        mark[node], queue[last] = i, node
                        last += 1
                        if hop >= hops[0]:
                            _offer(i, nodes[i], node, rows, best)
            if last == end:  # no hop further finds more, and there may be 2³¹ of them
                break
            begin, end = end, last


@njit
def _offer(i, node, other, rows, best):
    x, inverse = rows
    score = x.dtype.type(cosine(x[node], inverse[node], x[other], inverse[other]))
    keys, columns, scores, size = best.keys[0, i], best.columns[0, i], best.scores[0, i], best.sizes[0, i]
    key = np.float64(score)
    if size < len(keys):
        rise(keys, columns, scores, size, key, other, score)
        best.sizes[0, i] += 1
    elif worse(keys[0], columns[0], key, other):
        sink(keys, columns, scores, size, key, other, score)
