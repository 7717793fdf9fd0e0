"""Does asv find a slowdown? Plants one of 1.3× in each of six kernels, and none in another commit.

    python asv_benchmarks/planted.py [--together] [--runs 10] [--kernels InfoNCE,top_k,…] [--home FOLDER]

A clone of the committed state gets a commit for each kernel, whose public call takes 1.3 times its processor time,
and one that changes nothing but a comment. ``asv continuous`` compares each with the commit before, by the benchmark
of that kernel. It must end with 1 and report that benchmark as slower, or end with 0 and report none.

With ``--together`` one commit slows all six, and one ``asv continuous`` with the six benchmarks must report each of
them. A run then takes two calls of asv in place of seven, and most of the time of a call is spent in installations.

The exit code is 1 unless every run is right. The last lines count the right runs of each kernel.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Kernel: file, public call, benchmark with its parameters.
KERNELS = {
    "InfoNCE": (
        "rvtrain/losses/_infonce.py",
        "InfoNCELoss.compute_with_gradients",
        r"losses\.InfoNCE\.time_gradients\(\(1024, 128\), 'float32', 1\)",
    ),
    "top_k": (
        "rvtrain/mining/_top_k.py",
        "top_k",
        r"mining\.Search\.time_top_k\(\(256, 20000, 128\), 'auto', 1\)",
    ),
    "weighted_sample": (
        "rvtrain/mining/_top_k.py",
        "weighted_sample",
        r"mining\.Sampling\.time_weighted_sample\(4, 1\)",
    ),
    "AdamW": (
        "rvtrain/optimizers/_adam.py",
        "AdamW.step",
        r"optimizers\.StepsInCache\.time_step\('AdamW'\)",
    ),
    "clip_grad_norm": (
        "rvtrain/optimizers/_clip.py",
        "clip_grad_norm",
        r"optimizers\.Clip\.time_norm\(50000, 1\)",
    ),
    "spectral": (
        "rvtrain/losses/_spectral.py",
        "SpectralRegularization.compute_with_gradients",
        r"graphs\.Spectral\.time_gradients\(\(500, 64\), 'float32', 1\)",
    ),
}
SLOWED = """

def _slowed(call):
    import functools
    from time import {clock} as clock

    @functools.wraps(call)
    def slowed(*args, **kwargs):
        begin = clock()
        result = call(*args, **kwargs)
        end = begin + {slowdown} * (clock() - begin)
        while clock() < end:
            pass
        return result

    return slowed


{name} = _slowed({name})
"""
SHORT = ("AdamW", "clip_grad_norm")
"""Kernels that take microseconds in their benchmark: reading the processor time would add a tenth."""


def git(tree: Path, *words: str) -> str:
    identity = ["-c", "user.name=planted", "-c", "user.email=planted@localhost"]
    return subprocess.run(["git", *identity, *words], cwd=tree, check=True, capture_output=True, text=True).stdout


def plant(tree: Path, base: str, title: str, names: list[str], slowdown: float) -> str:
    """The commit after `base` in which these kernels are slower; without kernels, one that changes nothing."""
    git(tree, "checkout", "-q", base)
    changes = [("rvtrain/__init__.py", "\n# A comment.\n")]
    if names:
        clocks = {name: "perf_counter" if name in SHORT else "process_time" for name in names}
        slowed = [(KERNELS[name][0], {"name": KERNELS[name][1], "clock": clocks[name]}) for name in names]
        changes = [(path, SLOWED.format(**call, slowdown=slowdown)) for path, call in slowed]
    for path, text in changes:
        with (tree / path).open("a", encoding="utf-8") as file:
            file.write(text)
    git(tree, "commit", "-q", "-a", "-m", title)
    return git(tree, "rev-parse", "HEAD").strip()


def slower(output: str, names: list[str]) -> set[str]:
    """The kernels whose benchmarks the table of `asv continuous` marks with a plus."""
    lines = [line for line in output.splitlines() if re.match(r"\| \+ ", line)]
    return {name for name in names if any(re.search(KERNELS[name][2], line) for line in lines)}


def reported(tree: Path, base: str, head: str, names: list[str], options: list[str], home: Path) -> set[str]:
    """The kernels that `asv continuous` calls slower in the second commit."""
    command = [sys.executable, "-m", "asv", "continuous", *options, base, head]
    for name in names:
        command += ["--bench", f"^{KERNELS[name][2]}$"]
    environment = {**os.environ, "HOME": str(home)}
    done = subprocess.run(
        command,
        cwd=tree / "asv_benchmarks",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    verdict = done.stdout.rstrip().splitlines()[-1]
    found = slower(done.stdout, names)
    decided = "CHANGED" in verdict or "CREASED" in verdict
    if not decided or done.returncode != bool(found):
        sys.exit(done.stdout[-4000:])  # it did not come to a verdict
    print("\n".join(line for line in done.stdout.splitlines() if line.startswith("|") and "n/a" not in line))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--kernels", default=",".join(KERNELS), help="comma-separated")
    parser.add_argument("--together", action="store_true", help="one commit slows all of the kernels")
    parser.add_argument("--slowdown", type=float, default=1.3)
    parser.add_argument("--factor", default="1.15", help="of asv continuous")
    parser.add_argument("--cpu-affinity", default="", help="of asv continuous, such as 0")
    parser.add_argument(
        "--home", type=Path, help="folder for the clone, environments and kernels, kept for next time"
    )
    arguments = parser.parse_args()
    names = arguments.kernels.split(",")
    options = ["--interleave-rounds", "--no-only-changed", "--factor", arguments.factor]
    if arguments.cpu_affinity:
        options += ["--cpu-affinity", arguments.cpu_affinity]
    with tempfile.TemporaryDirectory() as temporary:
        home = (arguments.home or Path(temporary)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        tree = home / "rvtrain"
        if not tree.exists():
            git(ROOT, "clone", "-q", "--no-hardlinks", str(ROOT), str(tree))
            subprocess.run([sys.executable, "-m", "asv", "machine", "--yes"], cwd=tree / "asv_benchmarks", check=True,
                           env={**os.environ, "HOME": str(home)}, stdout=subprocess.DEVNULL)  # fmt: skip
        base = git(ROOT, "rev-parse", "HEAD").strip()
        git(tree, "fetch", "-q", "origin", base)
        plans = [("all", names)] if arguments.together else [(name, [name]) for name in names]
        plans = [(title, planted, planted) for title, planted in plans] + [("unchanged", [], names)]
        commits = {title: plant(tree, base, title, planted, arguments.slowdown) for title, planted, _ in plans}
        git(tree, "checkout", "-q", base)
        right = {(title, name): 0 for title, _, measured in plans for name in measured}
        for run in range(1, arguments.runs + 1):
            for title, planted, measured in plans:
                begin = time.monotonic()
                found = reported(tree, base, commits[title], measured, options, home)
                wrong = [name for name in measured if (name in found) != (name in planted)]
                for name in measured:
                    right[title, name] += name not in wrong
                report = f"WRONG of {', '.join(wrong)}" if wrong else "right"
                print(f"run {run}, {title}: {report}, {time.monotonic() - begin:.0f} s", flush=True)
    for (title, name), count in right.items():
        says = "no report" if title == "unchanged" else "reported"
        print(f"{name}, {says}: {count} of {arguments.runs}")
    return 0 if all(count == arguments.runs for count in right.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
