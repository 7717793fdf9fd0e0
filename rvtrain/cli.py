"""The command line: parse, show progress, print. Nothing here that a user of the library would need."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import rvtrain

_STRATEGIES = ("hardest", "semi_hard", "distance_weighted", "random")
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
    _add_train(commands)
    _add_mine(commands)
    _add_evaluate(commands)
    _add_apply(commands)
    options = parser.parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except (OSError, ValueError, TypeError, ImportError) as error:
        print(f"rvtrain: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rvtrain: interrupted", file=sys.stderr)
        return 130


_INPUTS = """one .npz with the arrays queries (n, d) and documents (m, e), and optionally pairs (P, 2) of their rows
and validation pairs; or two .npy, queries and documents, which stay on disk. Without pairs, row i belongs to row i"""


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def _inputs(parser: argparse.ArgumentParser, model: bool) -> None:
    parser.add_argument("inputs", nargs="+", metavar="FILE", help=_INPUTS)
    parser.add_argument("--pairs", metavar="NPY", help="integer array (P, 2): rows of queries and documents")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="for embedded documents; beyond it "
                        "they pass in blocks")  # fmt: skip
    if model:
        parser.add_argument("--model", metavar="NPZ", help="embed with this model first (default: as they are)")


def _command(commands: Any, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description, formatter_class=_Defaults
    )
    parser.set_defaults(run=lambda options: getattr(_file_commands(), name)(options))
    return parser


def _file_commands() -> Any:
    from rvtrain import _commands

    return _commands


def _add_train(commands: Any) -> None:
    parser = _command(
        commands, "train", "train adapters that bring queries near their documents",
        "Train a linear map, or a small network, for each side on embeddings that you have, by InfoNCE with in-batch "
        "and mined negatives. The best epoch on the pairs held back is written. After every epoch the run is saved "
        "beside the output as .part; --resume goes on from there, to the very bits of a run never interrupted.",
    )  # fmt: skip
    _inputs(parser, model=False)
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="NPZ", help="the model, for apply, evaluate and mine")
    add("--kind", choices=("linear", "mlp"), default="linear", help="adapter of each side")
    add("--shared", action="store_true", help="one adapter for both sides")
    add("--dim", type=int, help="size of the new embeddings (default: that of the smaller side)")
    add("--rank", type=int, help="low rank, of linear")
    add("--hidden", type=int, help="width of the hidden layer, of mlp")
    add("--epochs", type=int, default=12, help="times that all pairs are seen")
    add("--batch-size", type=int, default=256, help="pairs per step, and so in-batch negatives")
    add("--lr", type=float, default=1e-3, help="peak learning rate: warm-up, then cosine")
    add("--weight-decay", type=float, default=0.01, help="of AdamW, towards the identity")
    add("--temperature", type=float, default=0.05, help="of InfoNCE")
    add("--negatives", type=int, default=4, help="mined per query; 0: in-batch only")
    add("--strategy", choices=_STRATEGIES, default="hardest", help="how they are chosen")
    add("--mine-from", type=int, default=4, help="the epoch, from 0, that mines first")
    add("--mine-every", type=int, default=2, help="epochs between refreshes")
    add("--hold-back", type=float, default=0.1, help="share of the queries to measure on, where there are no "
        "validation pairs; 0: none")  # fmt: skip
    add("--metric", default="recall@10", help="recall@k, precision@k, mrr@k, ndcg@k or map@r")
    add("--patience", type=int, help="stop after so many epochs without a better metric")
    add("--seed", type=int, default=0, help="of start, order and split")
    add("--resume", action="store_true", help="go on from a run that was interrupted")
    add("--plot", metavar="FILE", help="draw curves, recall before and after, and scores")
    add("--json", action="store_true", help="print the history for machines")


def _add_mine(commands: Any) -> None:
    parser = _command(
        commands, "mine", "find hard negatives, for this trainer or another",
        "Search all documents for each pair's query, exactly, and write those that are wrongly near: row numbers, "
        "or lines of JSON with anchor, positive and negative for trainers that read texts.",
    )  # fmt: skip
    _inputs(parser, model=True)
    add = parser.add_argument
    add("-o", "--output", required=True, help=".npy of shape (P, k), -1 where there are too few; or .jsonl")
    add("-k", type=int, default=4, help="negatives per pair")
    add("--strategy", choices=_STRATEGIES, default="hardest", help="how they are chosen")
    add("--relative-margin", type=float, help="leave out what is nearly as near as the positive, as 0.05")
    add("--texts", nargs=2, metavar=("QUERIES", "DOCUMENTS"), help="text files, a line per row: write triplets")
    add("--seed", type=int, default=0, help="of strategies that draw")


def _add_evaluate(commands: Any) -> None:
    parser = _command(
        commands, "evaluate", "measure retrieval, before or after training",
        "Rank all documents for each query of the pairs (or of the validation pairs, if the file has them), exactly.",
    )  # fmt: skip
    _inputs(parser, model=True)
    parser.add_argument(
        "--metrics", nargs="+", default=["recall@1", "recall@10", "mrr@10", "ndcg@10"], help="what to measure"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


def _add_apply(commands: Any) -> None:
    parser = _command(
        commands, "apply", "transform vectors of any number with a model",
        "Read a .npy block by block, transform it, and write another: neither need fit in memory.",
    )  # fmt: skip
    add = parser.add_argument
    add("model", metavar="NPZ")
    add("vectors", metavar="NPY", help="array (n, d)")
    add("-o", "--output", required=True, metavar="NPY")
    add("--side", choices=("query", "document"), default="document", help="whose adapter")


def _demo(options: argparse.Namespace) -> int:
    if options.plot:
        from rvtrain import _plots

        _plots.needed()
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
