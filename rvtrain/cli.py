"""The command line: parses arguments, shows progress, prints results. The library does not use this module."""

import argparse
import importlib
import json
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import rvtrain

_METRICS = "recall@k, precision@k, accuracy@k, mrr@k, ndcg@k, map@k or map@r"
_STRATEGIES = ("hardest", "semi_hard", "distance_weighted", "random")
_DEMO = """Train a retriever on raw texts. Queries are first sentences of docstrings of the Python standard library,
documents are the names of the documented objects. Of about 4,700 pairs, 600 are held back to measure the retrieval of
names among all names. The output is Recall@1, Recall@10 and NDCG@10 of n-grams weighted by tf-idf, of an untrained
encoder of them, of the encoder trained with in-batch negatives, and of one trained with mined hard negatives too. The
first run compiles its kernels."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 if it worked, 1 if it failed, 2 for wrong usage.

    It is 141, as of a tool that the signal ends, if nobody reads the output any more, as behind ``| head``.
    """
    try:
        code = _run(arguments)
        print(end="", flush=True)  # what is still in the buffer would fail when Python exits, with a message
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    options.command_line = shlex.join(["rvtrain", *(sys.argv[1:] if arguments is None else arguments)])
    code = _code(options)
    if "mpi4py.MPI" in sys.modules:
        from rvtrain._commands import _ranks

        return _ranks.end(code)
    return code


def _code(options: argparse.Namespace) -> int:
    try:
        code: int = options.run(options)
        return code
    except BrokenPipeError as error:
        if error.filename is None:
            raise
        print(f"rvtrain: {_line(error)}", file=sys.stderr)
        return 1
    except (OSError, ValueError, TypeError, ImportError, MemoryError) as error:
        print(f"rvtrain: {_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(": ".join(filter(None, ("rvtrain: interrupted", str(error)))), file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rvtrain",
        description="Train embeddings on CPUs with NumPy and Numba.",
        epilog=_examples(
            "rvtrain train texts.jsonl -o retriever.npz",
            'rvtrain search retriever.npz "how to sort a list" --documents texts.jsonl',
            "rvtrain COMMAND --help",
        ),
        formatter_class=_Defaults,
    )
    parser.add_argument("--version", action="version", version=f"rvtrain {rvtrain.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = _command(
        commands, "demo", "train a retriever on real text and compare it with untrained features", _DEMO,
        "rvtrain demo --plot demo.png",
    )  # fmt: skip
    demo.add_argument("--plot", metavar="FILE", help="write a picture of the learning curves and of the recall "
                      "before and after training (.png, .svg or .pdf; needs matplotlib)")  # fmt: skip
    demo.add_argument("--seed", type=int, default=0, help="seed of the split and of the training")
    demo.set_defaults(run=_demo)
    info = _command(
        commands, "info", "show versions, threads, vector width and the folder of compiled kernels",
        "Show versions, threading layer, number of threads, vector width and tile, and the cache folder.",
        "rvtrain info --json",
    )  # fmt: skip
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(run=_info)
    warmup = _command(
        commands, "warmup", "compile all kernels now, so that no later process has to wait for them",
        "Compile every kernel for this machine into the cache folder, for container images and for clusters that "
        "share a folder. Takes a few minutes the first time, and seconds once the folder is filled.",
        "rvtrain warmup",
    )  # fmt: skip
    warmup.set_defaults(run=_warmup)
    _add_train(commands)
    _add_search(commands)
    _add_mine(commands)
    _add_evaluate(commands)
    _add_apply(commands)
    _add_export(commands)
    _add_plan(commands)
    return parser


def _add_plan(commands: Any) -> None:
    plan = _command(
        commands, "plan", "estimate time and memory of a batch that many ranks share",
        "Estimate one call of InfoNCE with both gradients on a batch that the ranks of an MPI job share: from the "
        "time of the kernels here, with the threads of this process for each rank, and from a model of the network.",
        "rvtrain plan --batch 1_000_000 --dim 768 --ranks 64 --bandwidth 12.5e9",
    )  # fmt: skip
    plan.add_argument("--batch", type=int, required=True, help="rows of the global batch")
    plan.add_argument("--dim", type=int, required=True, help="columns of the vectors, float32")
    plan.add_argument("--ranks", type=int, required=True, help="number of processes")
    plan.add_argument("--bandwidth", type=float, default=12.5e9, help="bytes per second that a rank receives")
    plan.add_argument("--latency", type=float, default=2e-6, help="seconds of a message")
    plan.add_argument("--json", action="store_true", help="print JSON")
    plan.set_defaults(run=_plan)


_INPUTS = """texts: one .jsonl with the keys query, document and, optionally, score in each line, or one .csv or
.tsv with such columns; the score is the weight of the pair, 0: no pair. Or vectors: one .npz with the arrays queries
(n, d) and documents (m, e), and optionally pairs (P, 2) and validation (V, 2), row numbers that belong together; or
two .npy, queries and documents, which are read from disk block by block. Without pairs, query i belongs to document
i. Numbers may be floats of 16, 32 or 64 bits, or integers"""


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows default values, except None, False and lists, which the help text explains, and examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example"):
            return text
        return super()._fill_text(text, width, indent)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or isinstance(action.default, list):
            return action.help
        return super()._get_help_string(action)


def _inputs(parser: argparse.ArgumentParser, model: bool) -> None:
    add = parser.add_argument
    add("inputs", nargs="+", metavar="FILE", help=_INPUTS)
    add("--pairs", metavar="NPY", help="integer array (P, 2): row numbers of queries and documents that belong "
        "together")  # fmt: skip
    add("--memory", type=int, default=1024, metavar="MIB", help="memory for the embedded documents; if they need "
        "more, they are embedded and searched block by block")  # fmt: skip
    if model:
        add("--model", metavar="NPZ", help="model, written by train, that embeds the vectors (default: no model, the "
            "vectors are compared unchanged)")  # fmt: skip


def _miner(parser: argparse.ArgumentParser) -> None:
    """The options of a miner, which `_commands._mining` reads."""
    add = parser.add_argument
    add("--strategy", choices=_STRATEGIES, default="hardest", help="strategy of the miner")
    add("--relative-margin", type=float, metavar="M", help="leave out documents whose score is above s - M * |s|, "
        "where s is the positive's score, because they are often unlabelled positives: 0.05 with at most 10 "
        "negatives is a good start where many pairs are unlabelled (default: none)")  # fmt: skip
    add("--absolute-margin", type=float, metavar="M", help="leave out documents whose score is above s - M "
        "(default: none)")  # fmt: skip
    add("--min-score", type=float, metavar="S", help="leave out documents whose score is below S (default: none)")
    add("--max-score", type=float, metavar="S", help="leave out documents whose score is above S (default: none)")
    add("--range-min", type=int, default=0, metavar="N", help="leave out the N most similar documents")
    add("--range-max", type=int, metavar="N", help="leave out all but the N most similar documents (default: none)")
    add("--sampling", choices=("top", "random"), default="top", help="which of the documents that are left: the most "
        "similar, or a random choice")  # fmt: skip


def _command(commands: Any, name: str, summary: str, description: str, *examples: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description, formatter_class=_Defaults, epilog=_examples(*examples)
    )
    # The module is imported when the command runs, because numpy and numba take half a second, too long for --help.
    parser.set_defaults(run=lambda options: importlib.import_module(f"rvtrain._commands._{name}").run(options))
    return parser


def _examples(*lines: str) -> str:
    return "\n  ".join(["example:" if len(lines) == 1 else "examples:", *lines])


def _add_train(commands: Any) -> None:
    parser = _command(
        commands, "train", "train a retriever of texts, or adapters of vectors",
        "Bring queries near their documents. From texts: an encoder, the mean of a table's rows for hashed words, "
        "pairs of words and n-grams of characters. From embeddings that you have: a linear map or a small network "
        "for queries and another for documents. Both by symmetric InfoNCE with in-batch and mined negatives. The "
        "output holds the parameters of the epoch that is best on held-back pairs. After every epoch the run is "
        "saved beside the output as OUTPUT.part. --resume continues from there, with results bit-identical to a run "
        "without interruption.",
        "rvtrain train texts.jsonl -o retriever.npz",
        "rvtrain train pairs.npz -o adapters.npz --metrics mrr@10",
    )  # fmt: skip
    _inputs(parser, model=False)
    add = parser.add_argument
    add(
        "-o",
        "--output",
        required=True,
        metavar="NPZ",
        help="file for the model, which search, apply, evaluate and mine read",
    )
    add("--kind", choices=("linear", "mlp"), help="vectors: kind of adapter (default: linear)")
    add("--shared", action="store_true", help="vectors: one adapter for both sides; texts always share an encoder")
    add("--frozen-documents", action="store_true", help="vectors: train an adapter for queries alone, and leave the "
        "documents as they are, so that an index of them stays valid")  # fmt: skip
    add("--dim", type=int, help="dimension of the new embeddings (default: the smaller of both input "
        "dimensions; texts: 256)")  # fmt: skip
    add("--rows", type=int, help="texts: rows of the table that n-grams are hashed to (default: 65536)")
    add("--split-case", action="store_true", help="texts: let capitals begin words, as in camelCase, for code")
    add("--rank", type=int, help="vectors: rank of the linear map (default: full)")
    add("--hidden", type=int, help="vectors: width of the hidden layer of the mlp (default: the width of its "
        "input)")  # fmt: skip
    add("--epochs", type=int, help="number of epochs (default: 12; texts: 6)")
    add("--batch-size", type=int, default=256, help="number of pairs per step; each is a negative for the others")
    add("--lr", type=float, help="peak learning rate; it rises linearly, then decays as a cosine (default: 0.001; "
        "texts, whose optimizer is Adagrad: 0.05)")  # fmt: skip
    add("--weight-decay", type=float, help="vectors: weight decay of AdamW, towards the identity map (default: 0.01)")
    add("--temperature", type=float, help="temperature of InfoNCE (default: 0.05; texts: 0.1)")
    add("--negatives", type=int, help="number of mined negatives per query; 0: in-batch negatives only (default: 4; "
        "texts: 0)")  # fmt: skip
    _miner(parser)
    add("--mine-from", type=int, default=5, help="first epoch that mines, counted from 1")
    add("--mine-every", type=int, default=2, help="number of epochs from one mining to the next")
    add("--hold-back", type=float, help="share of the queries to hold back if the file has no validation pairs. One "
        "half selects the best epoch; the other half is measured only at the end, by train and by evaluate (default: "
        "0.1; 0: none)")  # fmt: skip
    add("--metric", default="recall@10", help=f"metric that selects the epoch: {_METRICS}")
    add("--metrics", nargs="+", default=[], metavar="METRIC", help="other metrics to measure after each epoch and at "
        "the end")  # fmt: skip
    add(
        "--patience",
        type=int,
        help="number of epochs without improvement after which training stops (default: never)",
    )
    add("--seed", type=int, default=0, help="seed of the initial parameters, the order of pairs, and the split")
    add("--log", metavar="FILE", help="write loss and metrics of each epoch to this .csv or .jsonl file, as "
        "soon as they are known")  # fmt: skip
    add("--resume", action="store_true", help="continue from OUTPUT.part; settings and data must be the same")
    add("--plot", metavar="FILE", help="write a picture of loss and metric by epoch, of metrics before and after "
        "training, and of scores (.png, .svg or .pdf; needs matplotlib)")  # fmt: skip
    add("--report", metavar="HTML", help="write one page about the training, complete in itself: learning curves, "
        "metrics before and after with confidence intervals, scores, moves of ranks, the worst mistakes, mining, "
        "settings and versions")  # fmt: skip
    add("--json", action="store_true", help="print the results and the history as JSON")


def _add_mine(commands: Any) -> None:
    parser = _command(
        commands, "mine", "find hard negatives, for train or for another trainer",
        "Search all documents exactly for the query of each pair, and write similar documents that do not belong to "
        "the query: as row numbers, or as lines of JSON with anchor, positive and negative for trainers that read "
        "texts.",
        "rvtrain mine pairs.npz --model adapters.npz -o negatives.npy -k 8 --relative-margin 0.05",
    )  # fmt: skip
    _inputs(parser, model=True)
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="FILE", help=".npy for row numbers (P, k), filled up with -1 if "
        "there are too few; .jsonl for texts: those of a file of texts, or of --texts")  # fmt: skip
    add("-k", type=int, help="number of negatives per pair (default: 4)")
    _miner(parser)
    add("--texts", nargs=2, metavar=("QUERIES", "DOCUMENTS"), help="text files with one line per row, from which the "
        "texts are taken")  # fmt: skip
    add("--seed", type=int, default=0, help="seed of strategies that draw at random")


def _add_evaluate(commands: Any) -> None:
    parser = _command(
        commands, "evaluate", "measure retrieval, before or after training",
        "Rank all documents exactly for each query, and print metrics. With a model that was trained on these files, "
        "the queries are the ones that its training held back. Otherwise they are the queries of the validation "
        "pairs or, without validation pairs, of all pairs. The first line of the output says which.",
        "rvtrain evaluate texts.jsonl --model retriever.npz",
        "rvtrain evaluate pairs.npz --metrics recall@5 ndcg@10",
    )  # fmt: skip
    _inputs(parser, model=True)
    add = parser.add_argument
    add("--all", action="store_true", help="evaluate the queries of all pairs, including training pairs")
    add("--metrics", nargs="+", default=["recall@1", "recall@10", "mrr@10", "ndcg@10"], metavar="METRIC",
        help=f"metrics to print: {_METRICS} (default: recall@1 recall@10 mrr@10 ndcg@10)")  # fmt: skip
    add("--truncate-dim", type=int, metavar="D", help="use the first D dimensions of all vectors, as for embeddings "
        "that were trained by MatryoshkaLoss (default: all)")  # fmt: skip
    add(
        "--precision",
        choices=("float32", "float16", "int8", "binary"),
        default="float32",
        help="precision of the "
        "documents: ranked as they are in a file that apply writes at this precision, by queries in floating point",
    )
    add(
        "--rescore",
        type=int,
        metavar="M",
        help="binary: rank the M * k documents whose bits are nearest by the "
        "query in floating point; 0: by bits alone (default: 4)",
    )
    add("--json", action="store_true", help="print JSON")


def _add_search(commands: Any) -> None:
    parser = _command(
        commands, "search", "find the texts that are most similar to a query",
        "Embed a query and all documents with a model that train has made of texts, and print the most similar "
        "documents: rank, cosine and text. Of a document that comes several times, one is searched.",
        'rvtrain search retriever.npz "how to sort a list" -k 3 --documents texts.jsonl',
    )  # fmt: skip
    add = parser.add_argument
    add("model", metavar="NPZ", help="model of texts, written by train")
    add("query", metavar="QUERY", help="the query, in quotes")
    add("--documents", required=True, metavar="FILE", help="texts to search: the lines of a .txt, or the column "
        "document, positive or text of a .jsonl, .csv or .tsv")  # fmt: skip
    add("-k", type=int, default=10, help="number of documents to print")
    add("--json", action="store_true", help="print lines of JSON with rank, score and text")


def _add_apply(commands: Any) -> None:
    parser = _command(
        commands, "apply", "transform any number of vectors or texts with a model",
        "Read a .npy block by block, transform its rows, and write another .npy. Neither file has to fit in memory. "
        "Or embed the texts of a file: row i of the output is the embedding of text i.",
        "rvtrain apply adapters.npz documents.npy --side document -o better.npy",
        "rvtrain apply adapters.npz documents.npy --side document --precision int8 --ranges ranges.npy -o codes.npy",
        "rvtrain apply retriever.npz documents.txt -o documents.npy",
    )  # fmt: skip
    add = parser.add_argument
    add("model", metavar="NPZ", help="model written by train")
    add("source", metavar="FILE", help="array (n, d) of queries or of documents, as .npy; or texts: the lines of a "
        ".txt, or the column of that side of a .jsonl, .csv or .tsv")  # fmt: skip
    add("-o", "--output", required=True, metavar="NPY", help="file for the transformed vectors")
    add("--side", choices=("query", "document"), help="adapter to use; required if the model has one for each side. "
        "Of files of pairs, the side to read (default: document)")  # fmt: skip
    add("--precision", choices=("float32", "float16", "int8", "binary"), help="type of the numbers in the output: "
        "floats of 32 or 16 bits, codes of 8 bits, or a bit per dimension, eight to a byte (default: that of the "
        "model)")  # fmt: skip
    add("--ranges", metavar="NPY", help="int8: array (2, d) of the least and greatest value of each dimension, by "
        "which the codes are read. If the file exists it is used; if not, the ranges of up to 10,000 evenly spaced "
        "rows are, and are written to it")  # fmt: skip


def _add_export(commands: Any) -> None:
    parser = _command(
        commands, "export", "write a model in the form of another library",
        "Write a model as a .safetensors file, as a folder of modules that SentenceTransformer loads, as a transform "
        "of a faiss index, or as one matrix and one vector for NumPy. safetensors takes every model, "
        "sentence-transformers takes adapters, with two of them as a Router, and faiss and numpy take linear "
        "adapters.",
        "rvtrain export adapters.npz --format sentence-transformers --encoder my-encoder -o my-retriever",
        "rvtrain export adapters.npz --format faiss --side query -o query.transform",
    )  # fmt: skip
    add = parser.add_argument
    add("model", metavar="MODEL", help="model written by train or by save_model")
    add("--format", required=True, choices=("safetensors", "sentence-transformers", "faiss", "numpy"),
        help="form of the output")  # fmt: skip
    add("-o", "--output", required=True, metavar="OUT", help="a file; a new folder for sentence-transformers; "
        ".npz for numpy, with the arrays weight and bias, for each side if there are two, such that x @ weight + "
        "bias is the output of the model")  # fmt: skip
    add("--side", choices=("query", "document"), help="adapter to write; required for faiss if the model has one "
        "for each side (default: both)")  # fmt: skip
    add("--encoder", metavar="FOLDER", help="sentence-transformers: folder of the model whose embeddings the "
        "adapters take; the output is the whole model (default: the output is the adapters alone)")  # fmt: skip


def _demo(options: argparse.Namespace) -> int:
    from rvtrain import _progress
    from rvtrain._commands import _outputs

    _outputs.check({"--plot": options.plot}, ())
    if options.plot:
        from rvtrain import _plots

        _plots.needed(options.plot)
    if options.seed < 0:
        raise ValueError(f"--seed must not be negative, got {options.seed}")
    from rvtrain.demo import _train

    with _progress.shown(_train.samples(options.seed), "samples") as bar:
        result = _train.run(options.seed, bar.update, bar.phase)
    print(f"\n{'':38} Recall@1  Recall@10  NDCG@10  seconds")
    for row in result.rows:
        r1, r10, ndcg = row.quality
        print(f"{row.method:38} {r1:8.3f}  {r10:9.3f}  {ndcg:7.3f}  {row.seconds:7.1f}")
    if options.plot:
        from rvtrain.demo import _plot

        _plots.save(options.plot, _plot.drawn(result))
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


def _plan(options: argparse.Namespace) -> int:
    from rvtrain._commands import _plan as command

    return command.run(options)


def _warmup(options: argparse.Namespace) -> int:
    from rvtrain import _progress, _warmup
    from rvtrain._kernels import _cache

    with _progress.shown(None, "parts") as bar:
        bar.phase("compiling")
        for done, total in _warmup.compile_all():
            bar.reach(done, total)
    print(f"compiled kernels are in {_cache.folder()}")
    return 0


def _line(error: BaseException) -> str:
    """The message in one line; for errors of the system in the usual form "file: reason"."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
