"""The command line: parse, show progress, print. Nothing here that a user of the library would need."""

import argparse
import json
import sys
from collections.abc import Sequence

import rvtrain

_DEMO = """Train a retriever on real text: from the first sentence of a docstring of the Python standard library
to the name of what it documents. About 4,700 pairs, 600 of them held back; every held-back sentence is searched
among all names. Prints Recall@1, Recall@10 and NDCG@10 for untrained features, for two linear adapters trained
in-batch, and for the same with mined hard negatives. The first run compiles the kernels it needs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 if it worked, 1 if it failed, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="rvtrain", description="Train embeddings on CPUs with NumPy and Numba.")
    parser.add_argument("--version", action="version", version=f"rvtrain {rvtrain.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo", help="train a retriever on real text and show what it learnt", description=_DEMO
    )
    demo.add_argument("--plot", metavar="FILE", help="draw learning curves and recall before and after")
    demo.add_argument("--seed", type=int, default=0, help="of the split and the training (default: 0)")
    demo.set_defaults(run=_demo)
    info = commands.add_parser(
        "info",
        help="show what kernels are compiled for, how many threads run them, and where they are kept",
        description="Show versions, threading layer and threads, vector width and tile, and the cache folder.",
    )
    info.add_argument("--json", action="store_true", help="for machines")
    info.set_defaults(run=_info)
    warmup = commands.add_parser(
        "warmup",
        help="compile all kernels now, so that no later process waits for them",
        description="Compile every kernel for this machine into the cache folder: for images of containers, and for "
        "clusters that share a folder. Takes a few minutes, and nothing where it was done before.",
    )
    warmup.set_defaults(run=_warmup)
    options = parser.parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except (OSError, ValueError, ImportError) as error:
        print(f"rvtrain: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rvtrain: interrupted", file=sys.stderr)
        return 130


def _demo(options: argparse.Namespace) -> int:
    if options.plot:
        try:
            import matplotlib  # noqa: F401  (told now, not after the training)
        except ImportError:
            raise ImportError("--plot needs matplotlib: pip install 'rvtrain[plot]'") from None
    if options.seed < 0:
        raise ValueError(f"--seed must not be negative, got {options.seed}")
    from tqdm import tqdm

    from rvtrain.demo import _train

    with tqdm(total=_train.samples(options.seed), unit=" samples", unit_scale=True, mininterval=0.5) as bar:
        result = _train.run(options.seed, bar.update, bar.set_description)
    print(f"\n{'':38} Recall@1  Recall@10  NDCG@10  seconds")
    for row in result.rows:
        r1, r10, ndcg = row.quality
        print(f"{row.method:38} {r1:8.3f}  {r10:9.3f}  {ndcg:7.3f}  {row.seconds:7.1f}")
    if options.plot:
        from rvtrain.demo import _plot

        _plot.draw(result, options.plot)
        print(f"\nwritten: {options.plot}")
    return 0


def _info(options: argparse.Namespace) -> int:
    from rvtrain import _machine

    facts = _machine.facts()
    if options.json:
        print(json.dumps(facts))
    else:
        for name, value in facts.items():
            print(f"{name:16} {value}")
    return 0


def _warmup(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from rvtrain import _cache, _warmup

    with tqdm(desc="compiling", unit=" parts") as bar:
        for done, total in _warmup.compile_all():
            bar.total = total
            bar.update(done - bar.n)
    print(f"compiled kernels are in {_cache.folder()}")
    return 0
