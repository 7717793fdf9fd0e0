"""Loops over the edges of a graph, for losses that are functions of differences of rows.

# Design: row i stands for y_i = s_i z_i, and node i has the neighbours others[r], r from starts[i] to starts[i + 1].
# For each node, one pass over its neighbours computes the value's terms and the gradient. An edge is therefore seen
# from both of its nodes, which costs no more memory traffic than adding to the rows of both nodes would, and no row
# is written by two threads. A few vectors of sums stay in registers while the neighbours pass:
#
#     row i   ▓▓▓▓▓▓▓▓│        │        for 32 columns (float32, AVX2) at a time:
#     others  ▒▒▒▒▒▒▒▒│        │            sum += w_r (y_i − y_j)          for all neighbours j
#             ▒▒▒▒▒▒▒▒│        │            value += w_r (y_i − y_j)²       for neighbours j > i: each edge once
#
# The time is that of reading rows in random order, so each row is prefetched while others are summed.
#
# Differences are computed and summed in float64, because such losses make rows alike, so that the difference of two
# products s_i z_i has few digits in float32. Where all s_i = 1 (*plain*), the difference of two float32 rows has a
# relative error of at most 2⁻²⁴, and float32 is enough for it and for sums of at most `_CHUNK` neighbours.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._prefetch import prefetch_row
from rvtrain._engine._tile import vector_bytes
from rvtrain._kernels import Kernel, cpu_features, emitted, kernel

_CHUNK = 32
"""Number of neighbours whose differences are summed in float32."""

AHEAD = 12
"""Number of neighbours by which rows are prefetched. `others` has as many elements behind the last neighbour."""

_LINE = 64  # bytes of a cache line

_MOST_LINES = 16
"""Number of cache lines of a row that are prefetched; the hardware continues."""

_SOON = 1 << 16
"""Number of bytes behind a row that are fetched with it: where neighbours are near each other, theirs are there."""

VALUE, GRADIENT, ADDED = 0, 1, 2
"""What `laplacian` computes: the value alone, the gradient too, or the gradient, which is added to `out`."""


class Lists(NamedTuple):
    """Neighbours of node i: others[r], ascending, r from starts[i] to starts[i + 1]; j > i from r = middles[i] on.

    Shapes: bounds (blocks + 1,), blocks of nodes with about equal work; starts (n + 1,), middles (n,), others
    (R + padding,), weights (R,) float64.
    """

    bounds: np.ndarray
    starts: np.ndarray
    middles: np.ndarray
    others: np.ndarray
    weights: np.ndarray


@kernel
def squared_lengths(start, stop, z, scale, first, second, out):
    """out[e] = ‖y_i − y_j‖² with i = first[e], j = second[e].

    Shapes: z (n, d), scale (n,) float64, first, second and out (E,). The range is over edges.
    """
    for e in range(start, stop):
        if e + AHEAD < len(out):
            prefetch_row(z, first[e + AHEAD])
            prefetch_row(z, second[e + AHEAD])
        a, b = z[first[e]], z[second[e]]
        left, right = scale[first[e]], scale[second[e]]
        total = 0.0
        for k in range(len(a)):
            difference = left * np.float64(a[k]) - right * np.float64(b[k])
            total += difference * difference
        out[e] = total


def _made_node(plain):
    """A function of a node for `laplacian`."""

    def interpreted(z, scale, others, weights, begin, middle, end, i, work, factor, values, out):
        y = z.astype(np.float64) * scale[:, np.newaxis]
        differences = y[i] - y[others[begin:end]]
        w = weights[begin:end] if len(weights) > 1 else np.ones(end - begin)
        values[i] = (w[middle - begin :] @ differences[middle - begin :] ** 2).sum() + (z[i] * 0.0).sum()
        if work != VALUE:
            total = factor * scale[i] * (w @ differences)
            out[i] = total + out[i] if work == ADDED else total

    @emitted(interpreted)
    def node(emit, z, scale, others, weights, begin, middle, end, i, work, factor, values, out):
        dim, index = z.shape[1], np.dtype(np.intp)
        computed = z.dtype if plain else np.dtype(np.float64)
        in_line = _LINE // z.dtype.itemsize
        chunks = computed.itemsize == 4
        own = (scale + i).load()
        step = (weights.shape[0] > 1).choose(emit.constant(1), emit.constant(0))
        begin = (work > VALUE).choose(begin, middle)

        def prefetch_columns(at):
            """Begin to fetch the row whose first element is z's element `at`."""
            most = emit.constant(_MOST_LINES * in_line)

            def line(k):
                (z + (at + k)).prefetch(False)
                return []

            emit.loop(emit.constant(0), (dim < most).choose(dim, most), in_line, [], line)
            (z + (at + (dim - 1))).prefetch(False)  # rows need not begin with a cache line

        def prefetch(r):
            """Begin to fetch the row of neighbour r."""
            j = (others + r).load().astype(index)
            prefetch_columns(j * dim)
            if not plain:
                (scale + j).prefetch(False)

        def add_neighbour(row, c, lanes, with_value):
            """The body of a loop over neighbours r, which adds to sums for the gradient, and then for the value."""
            vectors = len(row)

            def body(r, *carried):
                sums = list(carried)
                emit.either(c < 1, lambda: prefetch(r + AHEAD), lambda: None)
                j = (others + r).load().astype(index)
                weight = (weights + r * step).load().astype(computed).broadcast(lanes)
                if not plain:
                    minus = (emit.constant(0.0, np.float64) - (scale + j).load()).broadcast(lanes)
                place = z + (j * dim + c)
                for v in range(vectors):
                    x = (place + v * lanes).load(lanes).astype(computed)
                    difference = row[v] - x if plain else emit.fma(minus, x, row[v])
                    if with_value:
                        weighted, at = weight * difference, vectors + v % (len(sums) - vectors)
                        sums[v] = sums[v] + weighted
                        sums[at] = emit.fma(weighted, difference, sums[at])
                    else:
                        sums[v] = emit.fma(weight, difference, sums[v])
                return sums

            return body

        def add_chunks(first, stop, sums, body):
            """A loop over neighbours whose sums are float64, and chunks of them in the type of the body."""
            zero = emit.constant(0.0, computed, sums[0].lanes)

            def chunk(r, *sums):
                last = r + _CHUNK
                parts = emit.loop(r, (last < stop).choose(last, stop), 1, [zero] * len(sums), body, empty=False)
                return [total + part.astype(np.float64) for total, part in zip(sums, parts, strict=True)]

            return emit.loop(first, stop, _CHUNK, sums, chunk)

        def columns_of(vectors, lanes):
            """The body of a loop over columns c, `vectors` vectors at a time; carries the sum of the value."""

            def columns(c, value):
                places = [z + (i * dim + c + v * lanes) for v in range(vectors)]
                row = [place.load(lanes).astype(computed) for place in places]
                kind = np.float64 if chunks else computed
                zero = emit.constant(0.0, kind, lanes)
                of_value = [zero] * min(vectors, 2)
                for v, x in enumerate(row):  # NaN unless the element is finite
                    at = v % len(of_value)
                    of_value[at] = emit.fma(x.astype(kind), zero, of_value[at])
                if not plain:
                    row = [x * own.broadcast(lanes) for x in row]
                loop = add_chunks if chunks else lambda first, stop, sums, body: emit.loop(first, stop, 1, sums, body)
                sums = loop(begin, middle, [zero] * vectors, add_neighbour(row, c, lanes, False))
                sums = loop(middle, end, [*sums, *of_value], add_neighbour(row, c, lanes, True))

                def write():
                    scaled = (own * factor.astype(np.float64)).astype(kind).broadcast(lanes)
                    results = [(total * scaled).astype(z.dtype) for total in sums[:vectors]]
                    targets = [out + (i * dim + c + v * lanes) for v in range(vectors)]

                    def store(adding):
                        for place, result in zip(targets, results, strict=True):
                            place.store(place.load(lanes) + result if adding else result)

                    emit.either(work > GRADIENT, lambda: store(True), lambda: store(False))

                emit.either(work > VALUE, write, lambda: None)
                for total in sums[vectors:]:
                    value = value + total.astype(np.float64)
                return [value]

            return columns

        prefetch_columns(i * dim + _SOON // z.dtype.itemsize)

        # All columns: several vectors at a time, then half as many, down to one, then parts of one, down to a column.
        lanes = vector_bytes() // computed.itemsize
        vectors = 8 if vector_bytes() == 64 or "neon" in cpu_features() else 4  # there are 32 registers, or 16
        c, value, total = emit.constant(0), emit.constant(0.0, np.float64, lanes), emit.constant(0.0, np.float64)
        while lanes:
            stop = dim - dim % (vectors * lanes)
            (value,) = emit.loop(c, stop, vectors * lanes, [value], columns_of(vectors, lanes))
            c = stop
            if vectors > 1:
                vectors //= 2
            else:
                total = total + emit.total(value)
                lanes //= 2
                value = emit.constant(0.0, np.float64, lanes or None)
        (values + i).store(total)

    return node


def _made_laplacian(plain):
    node = _made_node(plain)

    def laplacian(start, stop, z, scale, lists, work, factor, values, out):
        """The value's terms and the gradient of nodes, from their neighbours j = others[r].

        values[i] = Σ_r w_r ‖y_i − y_j‖² over j > i, and out[i] = factor s_i Σ_r w_r (y_i − y_j) over all j.
        `work` is VALUE, GRADIENT or ADDED. values[i] is NaN if row i of z is not finite. The sums are in the order of
        the neighbours, so that they do not depend on the threads.

        Shapes: z and out (n, d), scale and values (n,) float64; lists.weights (1,) stands for weights of 1. The range
        is over blocks of nodes.
        """
        bounds, starts, middles, others, weights = lists
        for block in range(start, stop):
            for i in range(bounds[block], bounds[block + 1]):
                begin, middle, end = starts[i], middles[i], starts[i + 1]
                node(z, scale, others, weights, begin, middle, end, i, work, factor, values, out)

    return Kernel(laplacian, name="laplacian_plain" if plain else "laplacian_scaled")


laplacian_plain = _made_laplacian(True)
"""Where all s_i = 1; float32 rows are subtracted in float32."""

laplacian_scaled = _made_laplacian(False)
"""Computes in float64."""
