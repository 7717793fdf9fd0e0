"""The threading layer, and what a call must leave as it found it."""

import importlib.metadata
import json
import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import processes
import pytest

import rvtrain as rt
from rvtrain._kernels import _tbb
from rvtrain._kernels._caches import cache_sizes


def has_tbb():
    try:
        return bool(importlib.metadata.version("tbb"))
    except importlib.metadata.PackageNotFoundError:
        return False


LIBRARY = "libtbb.so.12"
needs_tbb = pytest.mark.skipif(not has_tbb(), reason="TBB has no wheels for this platform")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux's libraries")

# A call that is large enough to wake the threads.
STEP = """
import os, warnings, numba, numpy as np, rvtrain as rt
warnings.simplefilter("ignore")  # of forks in a process with threads
def step():
    params = np.zeros(1_000_000)
    rt.SGD(1_000_000, 0.5).step(params, np.ones(1_000_000))
    return set(params.tolist())
"""


# As if TBB were installed in a tree of the test alone: the interpreter's prefix, with sites of packages in it.
ELSEWHERE = """
import importlib.metadata, sys
sys.prefix = sys.base_prefix = {prefix!r}
sys.path += {sites!r}
found = importlib.metadata.distributions
def distributions(**which):
    everywhere = found(**which)
    return [d for d in everywhere if which.get("name") != "tbb" or str(d.locate_file("")).startswith({prefix!r})]
importlib.metadata.distributions = distributions
"""
SHOW_LAYER = "from rvtrain._kernels import _tbb; print(step() == {-0.5}, numba.threading_layer(), _tbb.where())"
# A package's site, its library and how its record names that, by how it was installed.
LAYOUTS = {
    "prefix": ("lib/python3/site-packages", "lib", "../../"),  # also --user, and environments
    "target": (".", "lib", "../"),  # pip's record stays as it was before the package was moved
    "target, record rewritten": (".", "lib", "lib/"),
    "conda": (None, "lib", None),
}
# Peaks of memory under 1 and 16 threads: a search, a loss with gradients, products; and what the last one returns.
MEMORY = """
import sys, tracemalloc, numba, numpy as np, rvtrain as rt
x = np.ones((8192, 32), np.float32)
calls = [
    lambda: rt.top_k(x[:40], iter([x]), 3),
    lambda: rt.InfoNCELoss(0.5).compute_with_gradients(x[:, :8], x[:, :8], wrt=("anchors", "positives")),
    lambda: rt.cosine_similarity(x, x[:8]),
]
for call in calls:
    for threads in (1, 16):
        numba.set_num_threads(threads)
        call()
        rt.release_workspaces()
        tracemalloc.start()
        call()
        print(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
"""


def run(code, **environment):
    """What another process prints after `code`."""
    result = processes.run(STEP + code, env={**os.environ, **environment})
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def install(root, layout, text=None):
    """Install TBB in a tree, its library's text changed; returns the package's site and the library."""
    site, folder, record = LAYOUTS[layout]
    library = root / folder / LIBRARY
    library.parent.mkdir(parents=True)
    shutil.copy(_tbb.where(), library)
    if text is not None:
        library.write_bytes(library.read_bytes().replace(*text))
    if site is None:
        return None, library
    about = root / site / "tbb-2099.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tbb\nVersion: 2099.0\n")
    (about / "RECORD").write_text(f"{record}{LIBRARY},,\n")
    return about.parent, library


def elsewhere(prefix, *sites):
    return ELSEWHERE.format(prefix=str(prefix), sites=[str(site) for site in sites if site is not None])


@needs_tbb
def test_layer__is_tbb_where_it_is_installed():
    assert run("step(); print(numba.threading_layer())") == "tbb"


def test_layer__is_another_where_tbb_is_not_installed(tmp_path):
    right, layer, file = run(elsewhere(tmp_path) + SHOW_LAYER).split(maxsplit=2)
    assert (right, file) == ("True", "not found")
    assert layer in ("omp", "workqueue")


@needs_tbb
@linux
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layer__is_tbb_wherever_it_was_installed(tmp_path, layout):
    site, library = install(tmp_path, layout)
    assert run(elsewhere(tmp_path, site) + SHOW_LAYER) == f"True tbb {library}"


@needs_tbb
@linux
def test_layer__is_tbb_of_a_second_package_where_the_first_lost_its_library(tmp_path):
    """pip install --target moves a package and leaves out the folder lib, with the library in it."""
    first, lost = install(tmp_path / "first", "target")
    lost.unlink()
    second, library = install(tmp_path / "second", "prefix")
    assert run(elsewhere(tmp_path, first, second) + SHOW_LAYER) == f"True tbb {library}"
    told = run(elsewhere(tmp_path, first) + SHOW_LAYER)
    assert f"not found: the package in {first} came without it" in told


@needs_tbb
@linux
def test_library__that_numba_finds_too_old_is_passed_over(tmp_path):
    content = Path(_tbb.where()).read_bytes()
    told = re.search(rb"TBB: INTERFACE VERSION\s+\d+", content).group()
    old, _ = install(tmp_path / "old", "prefix", (told, told[:-5] + b"12050"))
    new, library = install(tmp_path / "new", "prefix")
    assert run(elsewhere(tmp_path, old, new) + SHOW_LAYER) == f"True tbb {library}"


@needs_tbb
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_forked_child__computes_after_its_parent_has():
    fork = "step()\nif os.fork():\n    print(os.wait()[1])\nelse:\n    os._exit(step() != {-0.5})"
    assert run(fork) == "0"


def test_calls__leave_the_users_thread_count(rng):
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        rt.InfoNCELoss().compute(rng.normal(size=(300, 64)), rng.normal(size=(300, 64)))
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)


def test_calls__from_several_threads_at_once_are_right(rng):
    batches = [rng.normal(size=(2, n, 32)).astype(np.float32) for n in (70, 90, 200, 300)] * 5
    loss, names = rt.InfoNCELoss(), ("anchors", "positives")

    def work(batch):
        value, (ga, gp) = loss.compute_with_gradients(*batch, wrt=names)
        return value, ga.tobytes(), gp.tobytes()

    alone = [work(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, batches)) == alone


@needs_tbb
def test_info__tells_what_is_used(capsys):
    from rvtrain import cli

    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["threading layer"] in ("tbb", "omp", "workqueue")
    assert facts["threads"] == numba.get_num_threads() and facts["vector bits"] in (128, 256, 512)
    assert facts["numba"] == numba.__version__ and facts["tbb"] == importlib.metadata.version("tbb")
    assert Path(facts["tbb file"]).is_file()
    assert cli.main(["info"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(facts)


def test_memory__grows_with_threads_as_documented():
    """Under "Memory" in docs/performance.md."""
    peaks = [int(x) for x in run(MEMORY, NUMBA_NUM_THREADS="16").split()]
    search, search_16, loss, loss_16, _, products = peaks
    rows, dim, size = 8192, 32, 4
    # All but the scores: what 64 rows take when packed, and heaps of the best 3.
    assert search_16 - search <= 15 * (cache_sizes().second // 4 + 64 * dim * size + 40 * 3 * 20 + 2**10)
    assert loss_16 - loss <= 16 * 64 * rows * size
    assert products < rows * (8 * size + 2 * 8) + 64 * 2 * 2**13  # no copy of the rows


def test_alternating_with_blas__changes_nothing(rng):
    """What it costs is measured by a benchmark."""
    before = numba.get_num_threads(), numba.config.THREADING_LAYER, dict(os.environ)
    a = rng.normal(size=(128, 128)).astype(np.float32)
    product, norm = a @ a, None
    for _ in range(100):
        assert np.array_equal(a @ a, product)
        now = rt.clip_grad_norm(np.ones(200_000, np.float32), 1e9)
        assert norm in (None, now)
        norm = now
    assert before == (numba.get_num_threads(), numba.config.THREADING_LAYER, dict(os.environ))
