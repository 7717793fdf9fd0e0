"""Does asv find a slowdown? Plants one of 1.3× in each of six kernels, and none in a seventh commit.

    python asv_benchmarks/planted.py [--runs 10] [--kernels InfoNCE,top_k,…] [--factor 1.15] [--home FOLDER]

A clone of the committed state gets a commit for each kernel, whose public call takes 1.3 times its processor time,
and one that changes nothing but a comment. ``asv continuous`` compares each with the commit before, by the benchmark
of that kernel, and has to end with 1 and its name, or with 0. The exit code is 1 unless all do, in every run.
"""

import argparse
import os
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
        r"mining\.Sampling\.time_weighted_sample\(64, 1\)",
    ),
    "AdamW": (
        "rvtrain/optimizers/_adam.py",
        "AdamW.step",
        r"optimizers\.StepsInCache\.time_steps\('AdamW'\)",
    ),
    "clip_grad_norm": (
        "rvtrain/optimizers/_clip.py",
        "clip_grad_norm",
        r"optimizers\.Clip\.time_norm\('200 × 50,000', 1\)",
    ),
    "spectral": (
        "rvtrain/losses/_spectral.py",
        "SpectralRegularization.compute_with_gradients",
        r"graphs\.Spectral\.time_gradients\(\(1000, 64\), 'float32', 1\)",
    ),
}
SLOWED = """

def _slowed(call):
    import functools
    import time

    owed = 0.0

    @functools.wraps(call)
    def slowed(*args, **kwargs):
        nonlocal owed
        if {short}:  # reading a clock would take as long: some calls are made twice
            owed += {slowdown} - 1
            if owed >= 1:
                owed -= 1
                call(*args, **kwargs)
            return call(*args, **kwargs)
        begin = time.process_time()
        result = call(*args, **kwargs)
        end = begin + {slowdown} * (time.process_time() - begin)
        while time.process_time() < end:
            pass
        return result

    return slowed


{name} = _slowed({name})
"""
SHORT = ("AdamW", "clip_grad_norm")
"""Kernels that take microseconds in their benchmark, which calls them 50 or 200 times."""


def git(tree: Path, *words: str) -> str:
    identity = ["-c", "user.name=planted", "-c", "user.email=planted@localhost"]
    return subprocess.run(["git", *identity, *words], cwd=tree, check=True, capture_output=True, text=True).stdout


def plant(tree: Path, base: str, name: str, slowdown: float) -> str:
    """The commit after `base` in which a kernel is slower; without a kernel, one that changes nothing."""
    git(tree, "checkout", "-q", base)
    if name == "unchanged":
        path, text = tree / "rvtrain" / "__init__.py", "\n# A comment.\n"
    else:
        file, call, _ = KERNELS[name]
        path, text = tree / file, SLOWED.format(name=call, slowdown=slowdown, short=name in SHORT)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
    git(tree, "commit", "-q", "-a", "-m", name)
    return git(tree, "rev-parse", "HEAD").strip()


def reported(tree: Path, base: str, head: str, benchmarks: list[str], options: list[str], home: Path) -> bool:
    """Does `asv continuous` call the second commit slower?"""
    command = [sys.executable, "-m", "asv", "continuous", *options, base, head]
    for benchmark in benchmarks:
        command += ["--bench", f"^{benchmark}$"]
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
    if done.returncode != ("DECREASED" in verdict) or not any(word in verdict for word in ("CHANGED", "CREASED")):
        sys.exit(done.stdout[-4000:])  # it did not come to a verdict
    print("\n".join(line for line in done.stdout.splitlines() if line.startswith(("|", "+"))))
    return done.returncode == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--kernels", default=",".join(KERNELS), help="comma-separated")
    parser.add_argument("--slowdown", type=float, default=1.3)
    parser.add_argument("--factor", default="1.15", help="of asv continuous")
    parser.add_argument("--cpu-affinity", default="", help="of asv continuous, such as 0")
    parser.add_argument(
        "--home", type=Path, help="folder for the clone, environments and kernels, kept for next time"
    )
    arguments = parser.parse_args()
    names = arguments.kernels.split(",")
    options = ["--interleave-rounds", "--factor", arguments.factor]
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
        failures = 0
        commits = {name: plant(tree, base, name, arguments.slowdown) for name in [*names, "unchanged"]}
        git(tree, "checkout", "-q", base)
        for run in range(arguments.runs):
            for name, head in commits.items():
                begin = time.monotonic()
                planted = name != "unchanged"
                benchmarks = [KERNELS[kernel][2] for kernel in ([name] if planted else names)]
                found = reported(tree, base, head, benchmarks, options, home)
                failures += found != planted
                report = ("reported" if found else "no report") + (", right" if found == planted else ", WRONG")
                print(f"run {run + 1}, {name}: {report}, {time.monotonic() - begin:.0f} s", flush=True)
    print(f"{failures} wrong of {arguments.runs * len(commits)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
