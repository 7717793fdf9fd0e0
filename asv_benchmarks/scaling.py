"""How InfoNCE scales with the batch: the picture and the table of docs/performance.md.

    python asv_benchmarks/scaling.py [--machine NAME] [--largest BATCH] [--write]

Times loss and both gradients, in-batch, d = 128, float32, beside torch and beside the three matrix products that
they contain, all interleaved in this process with the same number of threads. The times are kept in ``measured/``, a
file for each machine, of which docs/scaling.png (of this machine) and the tables between the markers are made;
``--write`` measures nothing.
"""

import resource
from pathlib import Path

import numpy as np
import tables
from benchmarks.peers.common import equal_threads, median_seconds
from benchmarks.peers.losses import BOTH, TAU, torch_infonce

import rvtrain as rt

DIM = 128
DOCS = Path(__file__).parents[1] / "docs"
PEERS_UP_TO = 16_384  # beyond, the square of the scores alone takes gigabytes
MARKERS = ("<!-- scaling -->", "<!-- /scaling -->")


def measure(count):
    """Seconds of ours, the products and torch (None where they are not run), for one batch size."""
    anchors, positives = np.random.default_rng(0).normal(size=(2, count, DIM)).astype(np.float32)
    loss = rt.InfoNCELoss(TAU)

    def ours():
        loss.compute_with_gradients(anchors, positives, wrt=BOTH)

    if count > PEERS_UP_TO:
        return median_seconds(ours, budget=20, rounds=3)[0], None, None
    scores = np.empty((count, count), np.float32)

    def products():
        np.matmul(anchors, positives.T, out=scores)
        scores @ positives
        scores.T @ anchors

    return tuple(median_seconds(ours, products, torch_infonce(anchors, positives), budget=12, rounds=15))


def table(rows):
    """The measurements as Markdown, ratios only."""
    lines = ["| batch | ns a pair | GFLOP/s | over three sgemms | faster than torch |", "|---|---|---|---|---|"]
    for count, (ours, products, peer) in rows:
        ratio = "" if products is None else f"{ours / products:.2f}"
        faster = "" if peer is None else f"{peer / ours:.1f}×"
        lines.append(f"| {count:,} | {1e9 * ours / count**2:.2f} | {flops(count) / ours:.0f} | {ratio} | {faster} |")
    return "\n".join(lines)


def flops(count):
    return 6e-9 * count * count * DIM


def draw(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for place, name in enumerate(("rvtrain", "three sgemms (NumPy)", "torch, eager")):
        points = [(count, times[place]) for count, times in rows if times[place] is not None]
        counts = [count for count, _ in points]
        axes[0].plot(counts, [1e9 * t / count**2 for count, t in points], marker="o", label=name)
        axes[1].plot(counts, [flops(count) / t for count, t in points], marker="o", label=name)
    axes[0].set(title="Time over batch²", ylabel="ns", xlabel="batch", xscale="log", ylim=0)
    axes[0].set_ylim(0, 30)
    axes[1].set(title="Arithmetic", ylabel="GFLOP/s", xlabel="batch", xscale="log", ylim=0)
    axes[0].legend()  # the lines of both pictures
    figure.savefig(path, dpi=100)


def block(records):
    """A table for each machine, with its circumstances above it."""
    return tables.block(records, table)


def main():
    chosen = tables.arguments(__doc__)
    if not chosen.write:
        rows = []
        for count in (1024, 2048, 4096, 8192, 16_384, 32_768, 65_536):
            if count <= chosen.largest:
                rows.append((count, measure(count)))
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
                print(count, rows[-1][1], f"{peak} MiB", flush=True)
        draw(rows, DOCS / "scaling.png")
        tables.save("scaling", tables.circumstances(chosen.machine, equal_threads()) | {"times": rows})
    page = DOCS / "performance.md"
    page.write_text(tables.between(page.read_text("utf-8"), MARKERS, block(tables.saved("scaling"))), "utf-8")


if __name__ == "__main__":
    main()
