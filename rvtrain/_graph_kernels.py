"""Loops that make the neighbour lists of an undirected graph from a list of edges.

Two counting sorts take the place of a comparison sort. The first writes each edge to the lists of both of its nodes,
in the order of the edges. The second reads these lists node by node and writes each entry to the list of the *other*
node, so that every list ascends by neighbour, and by edge among equal neighbours.

Both run in lanes, each of which writes its entries behind those of the lanes before it. The lists therefore do not
depend on the number of lanes. An entry is one number, neighbour · 2³² + edge.
"""

from rvtrain._kernels import inlined, kernel


@inlined
def _part(count, lane, lanes):
    """The begin of a lane's part of a range."""
    return count * lane // lanes


@kernel
def count_ends(start, stop, edges, counts):
    """counts[lane, i] = number of ends at node i among the lane's edges; loops from a node to itself have none.

    Shapes: edges (E, 2), counts (lanes, n), zero at first. The range is over lanes.
    """
    for lane in range(start, stop):
        of_lane = counts[lane]
        for e in range(_part(len(edges), lane, len(counts)), _part(len(edges), lane + 1, len(counts))):
            i, j = edges[e, 0], edges[e, 1]
            if i != j:
                of_lane[i] += 1
                of_lane[j] += 1


@kernel
def list_ends(start, stop, edges, places, entries):
    """Write entry (j, e) to node i's list, and entry (i, e) to node j's, for each edge e = (i, j) of a lane.

    Shapes: places (lanes, n), the position of the lane's next entry of each node; entries (R,). The range is over
    lanes.
    """
    for lane in range(start, stop):
        place = places[lane]
        for e in range(_part(len(edges), lane, len(places)), _part(len(edges), lane + 1, len(places))):
            i, j = edges[e, 0], edges[e, 1]
            if i != j:
                entries[place[i]] = j << 32 | e
                place[i] += 1
                entries[place[j]] = i << 32 | e
                place[j] += 1


@kernel
def count_neighbours(start, stop, bounds, starts, entries, counts):
    """counts[lane, j] = number of entries with neighbour j in the lists of the lane's nodes.

    Shapes: bounds (lanes + 1,), where lane l has the nodes from bounds[l] to bounds[l + 1]; starts (n + 1,), entries
    (R,), counts (lanes, n), zero at first. The range is over lanes.
    """
    for lane in range(start, stop):
        of_lane = counts[lane]
        for r in range(starts[bounds[lane]], starts[bounds[lane + 1]]):
            of_lane[entries[r] >> 32] += 1


@kernel
def list_neighbours(start, stop, bounds, starts, entries, places, out):
    """Write each entry (j, e) of node i's list as (i, e) to node j's list in `out`.

    Shapes: as `count_neighbours`, and places (lanes, n), out (R,) as in `list_ends`.
    """
    for lane in range(start, stop):
        place = places[lane]
        for i in range(bounds[lane], bounds[lane + 1]):
            for r in range(starts[i], starts[i + 1]):
                j = entries[r] >> 32
                out[place[j]] = i << 32 | (entries[r] & 0xFFFFFFFF)
                place[j] += 1


@kernel
def count_distinct(start, stop, bounds, starts, entries, distinct, lower):
    """distinct[i] = number of different neighbours of node i; lower[i] = number of these that are less than i.

    Shapes: bounds (blocks + 1,), where block b has the nodes from bounds[b] to bounds[b + 1]; starts (n + 1,),
    entries (R,), distinct and lower (n,). The range is over blocks.
    """
    for block in range(start, stop):
        for i in range(bounds[block], bounds[block + 1]):
            found, less, last = 0, 0, -1
            for r in range(starts[i], starts[i + 1]):
                j = entries[r] >> 32
                found += j != last
                less += (j != last) & (j < i)
                last = j
            distinct[i], lower[i] = found, less


@kernel
def merge(start, stop, bounds, starts, entries, merged, others, firsts):
    """The different neighbours of each node: others[m] ascending, and their first entries, firsts[m].

    Shapes: as `count_distinct`, and merged (n + 1,), where node i has m from merged[i] to merged[i + 1]; others and
    firsts (at least M,); firsts[M] is written by the caller.
    """
    for block in range(start, stop):
        for i in range(bounds[block], bounds[block + 1]):
            m, last = merged[i], -1
            for r in range(starts[i], starts[i + 1]):
                j = entries[r] >> 32
                if j != last:
                    others[m], firsts[m], last = j, r, j
                    m += 1


@kernel
def sum_listed(start, stop, bounds, merged, firsts, entries, listed, mean, weights, degrees):
    """weights[m] = Σ or mean of listed[e] over the entries of m, and degrees[i] = Σ weights[m] over those of node i.

    Shapes: as `merge`, and firsts (M + 1,), listed (E,), weights (M,) and degrees (n,) float64. The range is over
    blocks.
    """
    for block in range(start, stop):
        for i in range(bounds[block], bounds[block + 1]):
            degree = 0.0
            for m in range(merged[i], merged[i + 1]):
                total = 0.0
                for r in range(firsts[m], firsts[m + 1]):
                    total += listed[entries[r] & 0xFFFFFFFF]
                if mean:
                    total /= firsts[m + 1] - firsts[m]
                weights[m] = total
                degree += total
            degrees[i] = degree
