"""How much faster than its peers, in one table: that of README.md.

    python asv_benchmarks/overview.py

Each line is a benchmark of this folder, measured here and now, ours and the peer in turns in one process. Needs the
extra `peers`, and a machine that nobody else uses.
"""

import re
from pathlib import Path

from benchmarks.peers import losses, mining, optimizers, reductions, training

from rvtrain import _machine

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
        optimizers.Steps, ("AdamW", "float32"), "track_time_over_torch_fused"),
    ("clip, AdamW step and zero of the same", "torch, fused",
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


def table(figures):
    """The figures of `ROWS` as Markdown."""
    lines = ["| float32, in one process | beside | times as fast |", "|---|---|---|"]
    lines += [f"| {work} | {peer} | {x:.1f} |" for (work, peer, *_), x in zip(ROWS, figures, strict=True)]
    return "\n".join(lines)


def replaced(text, figures, where):
    """The README with this table between its markers."""
    begin, end = MARKERS
    block = f"{begin}\n{table(figures)}\n\n{where}\n{end}"
    return re.sub(f"{begin}.*{end}", lambda match: block, text, flags=re.DOTALL)


def main():
    figures = []
    for row in ROWS:
        figures.append(measured(*row[2:]))
        print(f"{row[0]}, beside {row[1]}: {figures[-1]:.2f}", flush=True)
    facts = _machine.facts()
    where = (
        f"Made by `python asv_benchmarks/overview.py`: {facts['threads']} threads, vectors of {facts['vector bits']} "
        "bits. A figure below 1 is a race that is lost; `docs/performance.md` says why."
    )
    README.write_text(replaced(README.read_text("utf-8"), figures, where), "utf-8")


if __name__ == "__main__":
    main()
