"""Breadth-first searches in a graph, and the selection of the nodes that they find."""

import numpy as np

from rvtrain._engine._norms import cosine
from rvtrain._kernels import kernel, njit
from rvtrain.mining._heap import push


@kernel
def mine_graph(start, stop, rows, nodes, starts, others, hops, marks, queues, best):
    """Push the nodes at hops[0] … hops[1] edges from nodes[i] on heap i, by cosine.

    Shapes: rows Rows of (n, d), nodes (B,), starts (n + 1,), where the neighbours of node v are
    others[starts[v]: starts[v + 1]]. Count is the number of lanes: lane l searches from nodes l, l + lanes, …, with a
    line of marks and queues (lanes, n) of its own. marks[l, v] = i where the search from nodes[i] has reached v, and
    −1 at first.
    """
    for lane in range(start, stop):
        mark, queue = marks[lane], queues[lane]
        for i in range(lane, len(nodes), len(marks)):
            _search_from(i, rows, nodes[i], starts, others, hops, mark, queue, best)


@njit
def _search_from(i, rows, source, starts, others, hops, mark, queue, best):
    x, inverse = rows
    keys, columns, scores = best.keys[0, i], best.columns[0, i], best.scores[0, i]
    mark[source], queue[0] = i, source
    begin, end, size = 0, 1, best.sizes[0, i]
    for hop in range(1, hops[1] + 1):
        last = end
        for at in range(begin, end):
            for e in range(starts[queue[at]], starts[queue[at] + 1]):
                node = others[e]
                if mark[node] != i:
                    mark[node], queue[last] = i, node
                    last += 1
                    if hop >= hops[0]:
                        s = x.dtype.type(cosine(x[source], inverse[source], x[node], inverse[node]))
                        size = push(keys, columns, scores, size, np.float64(s), node, s)
        if last == end:  # more hops find nothing, and max_hops may be as large as 2³¹ − 1
            break
        begin, end = end, last
    best.sizes[0, i] = size
