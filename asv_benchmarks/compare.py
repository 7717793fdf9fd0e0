"""Is this tree slower than that commit? The ten most telling benchmarks, side by side in two minutes.

    python asv_benchmarks/compare.py BASE [HEAD] [--threshold 1.1] [--seconds 100] [--bench PATTERN]

BASE and HEAD are commits; without HEAD, the working tree as it stands is compared. Each side is a process of its own
with a work tree and a folder of compiled kernels of its own, both kept under ``env/compare`` by the commit. The
benchmarks are those of this folder for both sides, with one thread and its processor time as clock (`Benchmark`).

The processes take turns of 20 ms, in the order A B, B A, A B, …, and a pair of turns gives one ratio of times, HEAD
over BASE. The time of a turn is the least of its calls, and while neighbours disturb, a turn is prolonged by up to
0.2 s; drift hits both halves of a pair alike. The figure is the median of the ratios. Its
confidence interval is that of the sign test, which takes the ratios for independent and nothing else: the median of n
ratios lies between the k-th least and the k-th largest with probability 1 − 2 P(Bin(n, ½) < k). A benchmark is slower
where the whole interval, of 99.9 %, is above the threshold; the exit code is 1 if any is. Two processes of the same
code differ by up to 7 % in some kernels, by where their memory lies: the interval does not know, the threshold does.
"""

import argparse
import functools
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
KEPT = FOLDER / "env" / "compare"
CONFIDENCE = 0.999
# Module, class, parameters, method: what most users wait for.
TELLING = (
    ("losses", "InfoNCE", ((1024, 128), "float32", 1), "time_gradients"),
    ("losses", "InfoNCE", ((1024, 768), "float32", 1), "time_gradients"),
    ("losses", "Labelled", ("supervised",), "time_gradients"),
    ("graphs", "Spectral", ((500, 64), "float32", 1), "time_gradients"),
    ("mining", "Search", ((256, 20_000, 128), "auto", 1), "time_top_k"),
    ("mining", "Sampling", (4, 1), "time_weighted_sample"),
    ("optimizers", "StepsInCache", ("AdamW",), "time_step"),
    ("optimizers", "Clip", (50_000, 1), "time_norm"),
    ("models", "Passes", ("linear",), "time_backward"),
    ("training", "Pairs", ("plain", 1), "time_epoch"),
)


def name_of(benchmark: tuple) -> str:
    module, cls, parameters, method = benchmark
    return f"{module}.{cls}.{method}{parameters}"


def serve() -> None:
    """One side: prepares a benchmark by its place in `TELLING`, or samples it, as the lines of stdin say."""
    import importlib

    sys.path.insert(0, str(FOLDER))
    out, sys.stdout = sys.stdout, sys.stderr
    current = call = None
    for line in sys.stdin:
        word, place = line.split()
        if word == "prepare":
            module, cls, parameters, method = TELLING[int(place)]
            current = getattr(importlib.import_module(f"benchmarks.{module}"), cls)()
            current.window, current.patience = 0.02, 0.2
            current.setup(*parameters)
            call = functools.partial(getattr(current, method), *parameters)
        begin = current.timer()
        call()
        print(current.timer() - begin, file=out, flush=True)


class Side:
    """A process that imports rvtrain from `tree`, and keeps its kernels in `kernels`."""

    def __init__(self, tree: Path, kernels: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(tree), "RVTRAIN_CACHE_DIR": str(kernels)}
        environment.pop("RVTRAIN_BENCHMARKS_ONCE", None)
        kernels.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            env=environment,
            cwd=kernels,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, word: str, place: int) -> float:
        """Seconds of a call."""
        self.process.stdin.write(f"{word} {place}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process ended with {self.process.wait()}: run the benchmark by asv to see why")
        return float(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def ratios(base: Side, head: Side, seconds: float) -> Iterator[float]:
    """Ratios of pairs of turns for about so long."""
    end, first = time.monotonic() + seconds, False
    done = 0
    while time.monotonic() < end or done < 15:
        sides = (head, base) if first else (base, head)
        times = {side: side.ask("time", 0) for side in sides}
        first, done = not first, done + 1
        yield times[head] / times[base]


def median_interval(values: list[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Median of the values, and its confidence interval by the sign test; (−inf, inf) of too few values."""
    values, n = sorted(values), len(values)
    tail, below = 0.0, 0
    while below <= n // 2:
        tail += math.comb(n, below) / 2**n
        if 2 * tail > 1 - confidence:
            break
        below += 1
    middle = statistics.median(values)
    return (middle, values[below - 1], values[n - below]) if below else (middle, -math.inf, math.inf)


def tree_of(commit: str | None) -> tuple[Path, Path]:
    """A work tree of a commit (None: this one), and its folder of kernels."""
    if commit is None:
        return FOLDER.parent, KEPT / "working-tree"
    git = ["git", "-C", str(FOLDER)]
    sha = subprocess.run([*git, "rev-parse", f"{commit}^{{commit}}"], check=True, capture_output=True, text=True)
    sha = sha.stdout.strip()[:16]
    tree = KEPT / f"{sha}-tree"
    if not tree.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        git[2] = str(FOLDER.parent)
        archive = subprocess.run([*git, "archive", sha, "rvtrain"], check=True, capture_output=True)
        partial = KEPT / f"{sha}-{os.getpid()}"
        partial.mkdir()
        subprocess.run(["tar", "x", "-C", str(partial)], input=archive.stdout, check=True)
        partial.rename(tree)
    return tree, KEPT / f"{sha}-kernels"


def compare(base: str, head: str | None, threshold: float, seconds: float, pattern: str) -> list[str]:
    """Names of the benchmarks that are slower; prints a line for each."""
    sides = [Side(*tree_of(commit)) for commit in (base, head)]
    places = [place for place, benchmark in enumerate(TELLING) if pattern in name_of(benchmark)]
    slower = []
    try:
        print(f"{'time of ' + (head or 'the working tree') + ' over ' + base:60} ratio   {CONFIDENCE:.1%} interval")
        for place in places:
            for side in sides:
                side.ask("prepare", place)
            middle, low, high = median_interval(list(ratios(*sides, seconds / len(places))))
            verdict = "slower" if low > threshold else "faster" if high < 1 / threshold else ""
            if verdict == "slower":
                slower.append(name_of(TELLING[place]))
            print(f"{name_of(TELLING[place]):60} {middle:5.3f}   {low:5.3f} … {high:5.3f}  {verdict}", flush=True)
    finally:
        for side in sides:
            side.close()
    return slower


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="HEAD~1", help="commit to compare with")
    parser.add_argument("head", nargs="?", help="commit to compare; default: the working tree")
    parser.add_argument("--threshold", type=float, default=1.1, help="ratio that counts as slower")
    parser.add_argument("--seconds", type=float, default=100, help="for all benchmarks, compilation not included")
    parser.add_argument("--bench", default="", help="only benchmarks whose name contains this")
    parser.add_argument("--forget", action="store_true", help="remove the work trees and kernels that were kept")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return 0
    if arguments.forget:
        shutil.rmtree(KEPT, ignore_errors=True)
        return 0
    chosen = (arguments.base, arguments.head, arguments.threshold, arguments.seconds, arguments.bench)
    return 1 if compare(*chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
