"""Which share of the machine's arithmetic does each phase of the sweep reach? For tuning on a new processor.

    python asv_benchmarks/phases.py [--shapes 1024x128 4096x768 …] [--threads 1 2] [--dtype float32]

Prints, for InfoNCE of a slab of rows with n columns, the milliseconds of each phase and its share of the peak, the
speed of independent multiply-adds in registers. The three products have the same arithmetic: a phase with a lower
share than the others has the wrong block (docs/performance.md, "Blocks"). Exponentials and packing have no products;
their share is that of the whole time. Minima of several rounds; the machine has to be otherwise idle.
"""

import argparse
import time

import numba
import numpy as np
from benchmarks.common import all_threads
from benchmarks.peers.peak import flops_of_a_round, repeat_fmas

from rvtrain._engine._blocks import (
    CHUNK,
    GROUP,
    Rows,
    add_weighted_columns,
    pack_columns,
    pack_left,
    pack_strips,
    score_block,
)
from rvtrain._engine._layout import Layout
from rvtrain._engine._scratch import Scratch
from rvtrain._engine._sweep import Room, arrays, masked
from rvtrain._engine._sweep_kernels import NO_SHARES, launch_columns, visit_block
from rvtrain._kernels import driver, kernel
from rvtrain.losses._softmax import Softmax, octaves

SHAPES = ("1024x128", "4096x128", "1024x384", "4096x384", "1024x768", "2048x1024")
PHASES = ("packing", "scores", "exponentials", "sums to rows", "sums to columns")


@kernel
def scores(start, stop, rows, panels, work, block):
    """The scores of groups [start, stop) of a slab, block by block, each over the one before."""
    for g in range(start, stop):
        pack_left(rows, g * GROUP, work.left[g])
        top = g * len(work.left[g])
        for begin in range(0, len(panels), block):
            end = min(begin + block, len(panels))
            score_block(work.left[g], panels, begin, end, work.slab, top, begin, CHUNK)


@kernel
def exponentials(start, stop, work, treatment, mask, across, block):
    """The treatment of scores that are in cache, as they are after `score_block`: those of one block, repeatedly."""
    for g in range(start, stop):
        panels = len(work.left[g])
        for begin in range(0, across, block):
            visit_block(
                work.slab, g * panels, panels, begin, min(begin + block, across), begin, g * GROUP, work.shifts[g],
                treatment, mask, work.sums[g], work.flags[g],
            )  # fmt: skip


@kernel
def sums_to_rows(start, stop, work, strips, across, block):
    """The weighted sums of the columns; the slab holds weights."""
    for g in range(start, stop):
        panels = len(work.left[g])
        for begin in range(0, across, block):
            end = min(begin + block, across)
            to = work.to_rows[g * panels : (g + 1) * panels]
            add_weighted_columns(work.slab, g * panels, begin, end, 0, strips, to)


@kernel
def packed_rows(start, stop, rows, work):
    """The rows of groups [start, stop) as strips."""
    for g in range(start, stop):
        pack_strips(rows, NO_SHARES, 0, g * GROUP, (g + 1) * GROUP, work.strips)


@driver
def sums_to_columns(threads, work, across):
    """The weighted sums of the rows."""
    launch_columns(threads, across, work.slab, work.strips, work.to_columns, 0)


def unit_rows(rng, count, dim, dtype):
    """Random rows with the factors that normalise them."""
    x = rng.normal(size=(count, dim)).astype(dtype)
    return Rows(x, 1 / np.linalg.norm(x.astype(np.float64), axis=1))


def phases(count, dim, dtype, threads):
    """A call for each phase, of one slab of `count` rows and columns, and the rows of the slab."""
    rng, layout = np.random.default_rng(0), Layout(dim, dtype)
    rows, columns = unit_rows(rng, count, dim, dtype), unit_rows(rng, count, dim, dtype)
    across = layout.panels(count)
    height = min(layout.slab_rows(across, count, threads), count // GROUP * GROUP)
    memory = Scratch()
    packed, work = arrays(Room(height, count, dim, dtype, height, across, 1, True, True, layout.operand), memory)
    one_block = Room(height, count, dim, dtype, height, min(layout.block, across), 1, False, False, layout.operand)
    _, narrow = arrays(one_block, memory)
    treatment, mask = Softmax(octaves(dtype, 0.07), 0.07, 0.0), masked(height, count, dtype)
    groups = height // GROUP
    narrow.shifts[:] = 1
    narrow.sums[:] = 0
    work.slab[:] = rng.uniform(-1, 1, work.slab.shape)
    narrow.slab[:] = rng.uniform(-1, 1, narrow.slab.shape)

    def pack():
        pack_columns(across, columns, *packed)
        packed_rows(groups, rows, work)

    calls = {
        "packing": timed(pack),
        "scores": timed(lambda: scores(groups, rows, packed.panels, narrow, layout.block)),
        "exponentials": timed(lambda: exponentials(groups, narrow, treatment, mask, across, layout.block)),
        "sums to rows": timed(lambda: sums_to_rows(groups, work, packed.strips, across, layout.block)),
        "sums to columns": timed(lambda: sums_to_columns(work, across)),
    }
    return calls, height


def timed(call):
    """A function that returns the seconds of a call."""

    def seconds():
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin

    return seconds


def least(seconds, rounds=7):
    """The least of some rounds, after one that does not count."""
    seconds()
    return min(seconds() for _ in range(rounds))


def peak(threads, dtype):
    """Operations a second of independent multiply-adds of this type, all threads together."""
    rounds, out = 2_000_000, np.zeros((threads, 64), np.float32)
    seconds = least(timed(lambda: repeat_fmas(threads, rounds, out)))
    return threads * rounds * flops_of_a_round() / seconds * 4 / np.dtype(dtype).itemsize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="NxD", help="rows and length of vectors")
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, all_threads()}))
    parser.add_argument("--dtype", type=np.dtype, default=np.dtype(np.float32), help="float32 or float64")
    options = parser.parse_args()
    for threads in options.threads:
        numba.set_num_threads(threads)
        most = peak(threads, options.dtype)
        print(f"\n{threads} threads, peak {most / 1e9:.0f} GFLOP/s; ms and share of the peak, or *of the time")
        print("".join(f"{name:>18}" for name in ("shape", "slab, block", *PHASES)))
        for shape in options.shapes:
            count, dim = map(int, shape.split("x"))
            calls, height = phases(count, dim, options.dtype, threads)
            times = {name: least(call) for name, call in calls.items()}
            whole, flops = sum(times.values()), 2.0 * height * count * dim
            cells = [f"{shape}", f"{height}, {Layout(dim, options.dtype).block}"]
            for name in PHASES:
                products = name in ("scores", "sums to rows", "sums to columns")
                share = flops / times[name] / most if products else times[name] / whole
                cells.append(f"{1e3 * times[name]:.2f} {'' if products else '*'}{share:.0%}")
            print("".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
