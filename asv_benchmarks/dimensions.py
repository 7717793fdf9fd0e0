"""InfoNCE over the number of dimensions: the picture and the table of docs/performance.md.

    python asv_benchmarks/dimensions.py [--machine NAME] [--write]

Times loss and both gradients, in-batch, n = 4,096, float32, beside torch, eager and compiled, and beside the three
matrix products that they contain, all interleaved in this process with the same number of threads. Where the
processor has instructions for bfloat16, also beside torch with products of that type; elsewhere these take ten times
as long. The times are kept in ``measured/``, a file for each machine, of which docs/dimensions.svg (of this machine)
and the tables between the markers are made; ``--write`` measures nothing.
"""

import shutil
from pathlib import Path

import machine
import numpy as np
import tables
from benchmarks.peers.common import equal_threads, median_seconds
from benchmarks.peers.losses import BOTH, TAU, torch_infonce

import rvtrain as rt

COUNT = 4096
DIMS = (64, 128, 256, 384, 512, 768, 1024)
DOCS = Path(__file__).parents[1] / "docs"
MARKERS = ("<!-- dimensions -->", "<!-- /dimensions -->")
OURS, MEDIUM, PRODUCTS = "rvtrain", 'rvtrain, "medium"', "three sgemms"
TORCH = {
    "torch": {},
    "torch.compile": {"compiled": True},
    "torch, bfloat16": {"bfloat16": True},
    "torch.compile, bfloat16": {"compiled": True, "bfloat16": True},
}


def measure(dim):
    """Median seconds by name, for one number of dimensions; compiled only where there is a C++ compiler."""
    anchors, positives = np.random.default_rng(0).normal(size=(2, COUNT, dim)).astype(np.float32)
    loss, medium = (rt.InfoNCELoss(TAU, precision=precision) for precision in ("highest", "medium"))
    scores = np.empty((COUNT, COUNT), np.float32)

    def ours(loss=loss):
        loss.compute_with_gradients(anchors, positives, wrt=BOTH)

    def products():
        np.matmul(anchors, positives.T, out=scores)
        scores @ positives
        scores.T @ anchors

    missing = set() if shutil.which("g++") else {"compiled"}
    if machine.processor()[1].isdisjoint(("avx512_bf16", "amx_bf16")):
        missing.add("bfloat16")
    wanted = {name: options for name, options in TORCH.items() if missing.isdisjoint(options)}
    peers = {name: torch_infonce(anchors, positives, **options) for name, options in wanted.items()}
    calls = {OURS: ours, PRODUCTS: products} | peers
    if medium.precision_used == "medium":
        calls[MEDIUM] = lambda: ours(medium)
    return dict(zip(calls, median_seconds(*calls.values(), budget=20, rounds=11), strict=True))


def table(rows):
    """The measurements as Markdown, ratios only; those in "medium" beside torch's with products in bfloat16."""
    names = [name for name in TORCH if name in rows[0][1]]
    halved = [name for name in names if "bfloat16" in name] if MEDIUM in rows[0][1] else []
    columns = {
        "d": lambda dim, times: f"{dim:,}",
        "GFLOP/s": lambda dim, times: f"{flops(dim) / times[OURS]:.0f}",
        "over three sgemms": lambda dim, times: f"{times[OURS] / times[PRODUCTS]:.2f}",
    }
    columns |= {f"faster than {name}": faster(OURS, name) for name in names if name not in halved}
    if halved:
        columns['"medium": GFLOP/s'] = lambda dim, times: f"{flops(dim) / times[MEDIUM]:.0f}"
        columns["faster than in float32"] = faster(MEDIUM, OURS)
        columns |= {f"faster than {name}": faster(MEDIUM, name) for name in halved}
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[cell(dim, times) for cell in columns.values()] for dim, times in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def faster(mine, other):
    return lambda dim, times: f"{times[other] / times[mine]:.2f}×"


def flops(dim):
    return 6e-9 * COUNT * COUNT * dim


def draw(rows, path):
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "rvtrain"
    figure, axis = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
    for name in rows[0][1]:
        style = "-" if name in (OURS, MEDIUM, PRODUCTS) else "--"
        axis.plot([d for d, _ in rows], [1e3 * times[name] for _, times in rows], style, marker="o", label=name)
    axis.set(title=f"InfoNCE of {COUNT:,} pairs: loss and both gradients", xlabel="dimensions", ylabel="ms", ylim=0)
    axis.set_xticks([d for d, _ in rows])
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def block(records):
    """A table for each machine, with its circumstances above it."""
    return tables.block(records, table)


def main():
    chosen = tables.arguments(__doc__)
    if not chosen.write:
        rows = []
        for dim in DIMS:
            rows.append((dim, measure(dim)))
            print(dim, {name: f"{1e3 * t:.1f} ms" for name, t in rows[-1][1].items()}, flush=True)
        draw(rows, DOCS / "dimensions.svg")
        tables.save("dimensions", tables.circumstances(chosen.machine, equal_threads()) | {"times": rows})
    page = DOCS / "performance.md"
    page.write_text(tables.between(page.read_text("utf-8"), MARKERS, block(tables.saved("dimensions"))), "utf-8")


if __name__ == "__main__":
    main()
