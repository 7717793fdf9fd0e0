"""Matrix products (`_matmul.py`) on tile registers."""

from rvtrain._engine._amx import begin_tiles, end_tiles
from rvtrain._engine._amx_packing import pack_left_tiles_of, pack_left_tiles_of_columns
from rvtrain._engine._amx_tile import panel_tiles
from rvtrain._engine._blocks import CHUNK
from rvtrain._engine._tile import mr, nr
from rvtrain._engine._word_packing import section_words
from rvtrain._kernels import kernel, njit


@kernel
def multiply_tasks_by_amx(start, stop, x, rows, transposed, panels, left, edges, adding, out):
    """As `_multiply_tasks`. Shapes: left (tasks, G, stretch, 4 MR) and edges (tasks, 4 MR, NR) are scratch."""
    tall = left.shape[3]
    count = (len(out) + tall - 1) // tall
    for task in range(start, stop):
        mine, end = left[task], count * (task + 1) // len(left)
        for p in range(count * task // len(left), end, len(mine)):
            _multiply_group(p * tall, x, rows, transposed, panels, mine[: end - p], edges[task], adding, out)


@njit
def _multiply_group(first, x, rows, transposed, panels, left, edge, adding, out):
    """Rows of out from `first` on. Shapes: left (G, stretch, 4 MR) and edge (4 MR, NR) are scratch."""
    height, width, (_, stretch, tall) = mr(left), nr(left), left.shape
    deep, (count, across), depth = 2 * height, out.shape, panels.shape[1]
    high = min(len(left), (count - first + tall - 1) // tall)
    section = section_words(panels, len(rows) if transposed else x.shape[1])
    begin_tiles()
    for start in range(0, depth, stretch):
        stop = min(start + stretch, depth)
        _pack_stretch(x, rows, transposed, first, start, stop, section, left[:high])
        for j in range(len(panels)):
            for k in range(start, stop, CHUNK):
                steps, b, add = min(CHUNK, stop - k) // deep, (j * depth + k) * width, adding or k > 0
                for p in range(high):
                    a, top = (p * stretch + k - start) * tall, first + p * tall
                    if top + tall <= count and (j + 1) * width <= across:
                        at, row = top * across + j * width, height * across
                        panel_tiles(
                            left, a, deep * deep, 2 * deep * deep, panels, b, steps, out, at, across, row, add
                        )
                    else:
                        panel_tiles(
                            left, a, deep * deep, 2 * deep * deep, panels, b, steps, edge, 0, width, height * width,
                            False,
                        )  # fmt: skip
                        _add_part(edge, out, top, j * width, add)
    end_tiles()


@njit
def _pack_stretch(x, rows, transposed, first, start, stop, section, left):
    """Pack words [start, stop) of the sections of rows of out from `first` on; left (G, stretch, 4 MR)."""
    at = start
    while at < stop:
        begin = at // section * section
        end, rest = min(stop, begin + section), begin == 2 * section
        if transposed:
            pack_left_tiles_of_columns(x, rows, first, at - begin, end - begin, at - start, rest, left)
        else:
            pack_left_tiles_of(x, rows, first, at - begin, end - begin, at - start, rest, left)
        at = end


@njit
def _add_part(edge, out, top, first, add):
    """out[top + r, first + c] (+)= edge[r, c] where out has such an element."""
    for r in range(min(len(edge), len(out) - top)):
        for c in range(min(edge.shape[1], out.shape[1] - first)):
            out[top + r, first + c] = out[top + r, first + c] + edge[r, c] if add else edge[r, c]
