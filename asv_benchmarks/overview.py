"""How much faster than its peers, in one table: that of README.md.

    python asv_benchmarks/overview.py [--machine NAME] [--write]

Each line is a benchmark of this folder, measured here and now, ours and the peer in turns in one process, with the
same number of threads. The figures are kept in ``measured/``, a file for each machine, of which the table is made;
``--write`` measures nothing. Needs the extra `peers`, and a machine that nobody else uses.
"""

from pathlib import Path

import tables
from benchmarks.peers import losses, mining, optimizers, reductions, training
from benchmarks.peers.common import equal_threads

README = Path(__file__).parents[1] / "README.md"
MARKERS = ("<!-- overview -->", "<!-- /overview -->")
# What is done, beside whom, and the benchmark that tells: class, parameters, method.
ROWS = (
    ("InfoNCE and both gradients, 1024 × 128", "torch, eager",
        losses.InBatch, ((1024, 128),), "track_time_over_torch"),
    ("InfoNCE and both gradients, 8192 × 128", "torch, eager",
        losses.InBatch, ((8192, 128),), "track_time_over_torch"),
    ("InfoNCE and both gradients, 4096 × 128", "torch.compile",
        losses.BesideTorchCompile, (), "track_time_over_torch_compile"),
    ("exact top 10 of 20,000 × 128, 1,024 queries", "faiss IndexFlatIP",
        mining.Search, ((20_000, 128, 10),), "track_time_over_faiss"),
    ("exact top 32 of 100,000 × 128, 1,024 queries", "faiss IndexFlatIP",
        mining.Search, ((100_000, 128, 32),), "track_time_over_faiss"),
    ("16 of 20,000 drawn by weight, 1,024 rows", "torch.multinomial",
        mining.Sampling, (), "track_time_over_torch_multinomial"),
    ("log-sum-exp of 4096 × 8192", "scipy", reductions.LogSumExp, (), "track_time_over_scipy"),
    ("AdamW step of 20 million parameters", "torch, fused",
        optimizers.StepsBesideTorch, ("AdamW, full",), "track_time_over_torch_fused"),
    ("the same, unchecked", "torch, fused",
        optimizers.StepsBesideTorch, ("AdamW, full unchecked",), "track_time_over_torch_fused"),
    ("AdamW step of 2 million, state in 8 bits", "bitsandbytes",
        optimizers.StepsIn8Bits, ("AdamW",), "track_time_over_bitsandbytes"),
    ("clip, AdamW step and zero of 20 million", "torch, fused",
        optimizers.ClipStepZero, (), "track_time_over_torch"),
    ("8,192 rows of a 500,000 × 128 table by Adam", "torch SparseAdam",
        optimizers.Rows, ("idle",), "track_time_over_torch_sparse_adam"),
    ("two adapters on 5,400 pairs, mining included", "the same loop in torch",
        training.Training, (), "track_time_over_torch"),
)  # fmt: skip


def measured(benchmark, parameters, method):
    """How many times faster than the peer one benchmark is, set up afresh; it tells our time over the peer's."""
    instance = benchmark()
    instance.setup(*parameters)
    return 1 / getattr(instance, method)(*parameters)


def key_of(row):
    """Name of a row in the files."""
    return f"{row[0]}, beside {row[1]}"


def table(records):
    """The measurements of some machines as Markdown, a column each."""
    head = " | ".join(record["machine"] for record in records)
    lines = [f"| times as fast, float32, in one process | beside | {head} |", "|---" * (2 + len(records)) + "|"]
    for row in ROWS:
        figures = [record["figures"].get(key_of(row)) for record in records]
        cells = " | ".join("" if figure is None else f"{figure:.1f}" for figure in figures)
        lines.append(f"| {row[0]} | {row[1]} | {cells} |")
    return "\n".join(lines)


def replaced(text, records):
    """The README with this table between its markers, and the machines below it."""
    notes = [
        "Made by `python asv_benchmarks/overview.py`. Below 1: slower than the peer; `docs/performance.md` says why."
    ]
    notes += [tables.sentence(record) for record in records]
    return tables.between(text, MARKERS, table(records) + "\n\n" + "\n\n".join(notes))


def main():
    chosen = tables.arguments(__doc__)
    if not chosen.write:
        figures = {}
        for row in ROWS:
            figures[key_of(row)] = measured(*row[2:])
            print(f"{key_of(row)}: {figures[key_of(row)]:.2f}", flush=True)
        tables.save("overview", tables.circumstances(chosen.machine, equal_threads()) | {"figures": figures})
    README.write_text(replaced(README.read_text("utf-8"), tables.saved("overview")), "utf-8")


if __name__ == "__main__":
    main()
