"""The table of README.md as a picture: ``docs/speed.svg``, of the measurements in ``measured/``.

    python asv_benchmarks/plot_overview.py

Needs matplotlib. A bar for each benchmark and machine; on a logarithmic axis, where 1 is the time of the peer.
"""

from pathlib import Path

import matplotlib
import tables

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

PICTURE = Path(__file__).parents[1] / "docs" / "speed.svg"
COLORS = ("#2563eb", "#e07b16", "#16a34a", "#9333ea")


def picture(records: list[dict]) -> Figure:
    """Bars from 1, the peer, to how many times as fast each machine is."""
    longest_first = sorted(records, key=lambda record: -len(record["figures"]))
    names = list(dict.fromkeys(name for record in longest_first for name in record["figures"]))
    labels = ["{}\nbeside {}".format(*name.split(", beside ")) for name in names]
    height = 0.75 / len(records)
    figure, axes = plt.subplots(figsize=(8, 0.7 + 0.45 * len(names)), layout="constrained")
    for i, record in enumerate(records):
        rows = [row for row, name in enumerate(names) if name in record["figures"]]
        at = [row + (i - (len(records) - 1) / 2) * height for row in rows]
        values = [record["figures"][names[row]] for row in rows]
        bars = axes.barh(
            at, [value - 1 for value in values], height, left=1, color=COLORS[i % 4], label=record["machine"]
        )
        for bar, value in zip(bars, values, strict=True):
            text = (max(value, 1.0), bar.get_y() + height / 2)
            axes.annotate(f"{value:.1f}×", text, (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.axvline(1, color="#6b7280", linewidth=1)
    axes.set(xscale="log", yticks=range(len(names)), xlim=(0.5, 60), xlabel="times as fast, 1 is the peer (float32)")
    axes.set_yticklabels(labels, fontsize=8)
    axes.set_xticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(frameon=False, loc="upper right", fontsize=8)
    return figure


def main() -> None:
    with plt.rc_context():
        matplotlib.rcdefaults()  # the same picture to the byte, whatever matplotlibrc the folder has
        plt.rcParams["svg.hashsalt"] = "rvtrain"
        plt.rcParams["svg.fonttype"] = "path"
        picture(tables.saved("overview")).savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
