"""Products on tile registers (AMX): their arithmetic, their operands, and the instructions themselves.

Most processors have no AMX. There the kernels compute the bits of its instructions with vectors, and tests make every
product in "medium" run in this form too (`test_bfloat16.py`). `amx.c` emulates the instructions, so that the machine
code for such a processor can run here, in a process of its own, if there is a C compiler.
"""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import processes
import pytest
from conftest import relative_error

import rvtrain as rt
from rvtrain._engine import _amx as amx
from rvtrain._engine import _amx_bytes as amx_bytes
from rvtrain._engine import _amx_tile as amx_tile
from rvtrain._engine import _bfloat16 as bfloat16
from rvtrain._engine import _precision as precision
from rvtrain._engine import _tile as tile
from rvtrain._engine._byte_tile import byte_tile
from rvtrain._kernels import cpu_features, tiles_permitted

# Defines `products`: of packed rows, of weights, which are narrowed in the place of scores, and of bytes.
PRODUCTS = """
import numba
import numpy as np
from rvtrain._engine import _amx as amx
from rvtrain._engine import _amx_bytes as amx_bytes
from rvtrain._engine import _amx_packing as packing
from rvtrain._engine import _amx_tile as amx_tile
from rvtrain._kernels import emitted

panel_tiles, row_tiles, column_tiles = (
    amx_tile._microkernel(*each) for each in ((True,), (False,), (False, True))
)

@emitted(None)
def bytes_of(emit, left, right, out):
    amx_bytes.multiply_bytes(emit, left, right, right.shape[0], out)

@numba.njit
def products(left, blocks, right, scores, to_rows, to_columns, codes, other_codes, sums, second, add):
    tall, height, width = len(to_rows), blocks.shape[2], blocks.shape[3]
    size, across, steps, words = height * width, blocks.shape[1], len(left), blocks.view(np.uint32)
    amx.begin_tiles()
    bytes_of(codes, other_codes, sums)
    panel_tiles(left, 0, second, left.shape[1], right, 0, steps, scores, 0, width, height * width, add)
    for j in range(across):
        packing.narrow_tiles(blocks, j * size, across * size, False, words, j * size, across * size)
    apart, row = across * size, height * width
    row_tiles(words, 0, apart, size, right, 0, across, to_rows, 0, width, row, add)
    column_tiles(words, 2 * apart, apart, size, right, 0, across, to_columns, 0, width, row, add)
    amx.end_tiles()
"""
# Saves what `products` gives for arrays in a file, and matrix products.
CHILD = (
    PRODUCTS
    + """
import sys
import rvtrain as rt
from rvtrain._engine import _matmul as matmul

given = np.load(sys.argv[1])
arrays = {name: given[name] for name in given.files}
x, rows, w = (arrays.pop(name) for name in ("x", "rows", "w"))
found = {}
for precision in ("medium", "high"):
    rt.set_float32_precision(precision)
    found[f"product_{precision}"] = matmul.product(x, rows, w)
    found[f"transposed_{precision}"] = matmul.transposed_product(x, None, x[:, :40].copy())
products(**arrays, second=arrays["left"].shape[1] // 2, add=True)
print(amx.has_amx())
np.savez(sys.argv[2], **found, **arrays)
"""
)

# Saves what a search finds by bounds of products on tile registers, or of vectors in their place.
SEARCH = """
import sys
import numpy as np
from rvtrain._engine import _amx as amx
if sys.argv[1] == "vectors":
    amx.has_amx = lambda: True
from rvtrain._engine import _amx_bytes, _byte_tile
assert _byte_tile.TILE is _byte_tile.AMX
if sys.argv[1] == "vectors":
    amx.has_amx = _amx_bytes.has_amx = lambda: False
import rvtrain as rt
given = np.load(sys.argv[2])
scores, found = rt.top_k(given["queries"], given["candidates"], k=5, method="bounds")
np.savez(sys.argv[3], scores=scores, found=found)
"""

# Prints whether the code of a kernel came from the disk.
CALL = """
import numpy as np
import rvtrain as rt
from rvtrain._kernels import _compiling
compilations = []
with _compiling.listening(compilations.append):
    rt.clip_grad_norm(np.ones(4, np.float32), 1.0)
print("compiled" if compilations else "read")
"""


@pytest.fixture(scope="module")
def by_vectors():
    """`products`, compiled without the instructions."""
    scope = {}
    with pytest.MonkeyPatch.context() as patch:
        for module in (amx, amx_tile, amx_bytes):
            patch.setattr(module, "has_amx", lambda: False)
        exec(PRODUCTS, scope)
        _, packed = operands(np.random.default_rng(0), 1)
        scope["products"](**packed, second=packed["left"].shape[1] // 2, add=True)
    return scope["products"]


def operands(rng, steps):
    """Arguments of `products`, of so many left tiles, as numbers and packed."""
    height, width, _ = tile.tile_shape(np.float32)
    tall, deep = 4 * height, 2 * height
    words = max(steps * deep, steps * width // 2)
    numbers = {
        "left": rng.normal(size=(tall, 2 * steps * deep)).astype(np.float32),
        "weights": rng.normal(size=(tall, steps * width)).astype(np.float32),
        "right": rng.normal(size=(2 * words, width)).astype(np.float32),
    }
    side, square = amx.SIDE, amx_bytes.SQUARE
    numbers["codes"], numbers["other_codes"] = codes = rng.integers(-128, 128, (2, square, 4 * side * steps), np.int8)
    left, right = numbers["left"], numbers["right"]
    tiled = bfloat16.joined(left[:, ::2], left[:, 1::2]).reshape(tall, steps, deep).transpose(1, 0, 2)
    packed = {
        "left": np.ascontiguousarray(tiled).reshape(steps, -1).view(np.uint32),
        "blocks": np.ascontiguousarray(numbers["weights"].reshape(4, height, steps, width).transpose(0, 2, 1, 3)),
        "right": bfloat16.joined(right[::2], right[1::2]).view(np.uint32),
        "codes": np.ascontiguousarray(codes[0].view(np.int32).reshape(square, steps, side).transpose(1, 0, 2)),
        "other_codes": np.ascontiguousarray(codes[1].view(np.int32).T),
        "sums": np.empty((square, square), np.int32),
        **{name: rng.normal(size=(n, width)).astype(np.float32) for name, n in
           (("scores", tall), ("to_rows", tall), ("to_columns", width))},
    }  # fmt: skip
    return numbers, packed


def rounded(x):
    return bfloat16.upper_bits(x).view(np.float32).astype(np.float64)


def by_manual(left, right, before, deep):
    """before + left · right as Intel's manual has it, in steps of `deep` words; operands rounded, as float64.

    In float64, a product of two bfloat16 numbers and a sum of float32 size is exact: rounded once, as when fused.
    """
    sums = np.zeros_like(before)
    for start in range(0, left.shape[1], 2 * deep):
        parts = np.zeros((2, *before.shape), np.float32)
        for k in range(start, start + 2 * deep):
            parts[k % 2] = (left[:, k, None] * right[k] + parts[k % 2]).astype(np.float32)
        sums += parts[0] + parts[1]
    return before + sums


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_tiles__have_the_arithmetic_of_the_manual(steps, by_vectors, rng):
    numbers, packed = operands(rng, steps)
    left, weights, right = (rounded(numbers[name]) for name in ("left", "weights", "right"))
    height, width, _ = tile.tile_shape(np.float32)
    for add in (True, False):
        before = {name: packed[name] * np.float32(add) for name in ("scores", "to_rows", "to_columns")}
        found = {name: array.copy() for name, array in packed.items()}
        by_vectors(**found, second=found["left"].shape[1] // 2, add=add)
        turned = np.concatenate([weights[:, j * width : (j + 1) * width] for j in range(steps)]).T  # by rows
        for name, operand, deep in (
            ("scores", left, 2 * height), ("to_rows", weights, width // 2), ("to_columns", turned, 2 * height)
        ):  # fmt: skip
            expected = by_manual(operand, right, before[name], deep)
            np.testing.assert_array_equal(found[name], expected, err_msg=name)
        codes, others = (numbers[name].astype(np.int64) for name in ("codes", "other_codes"))
        np.testing.assert_array_equal(found["sums"], codes @ others.T)


def emulator(folder):
    """The library that emulates AMX, compiled; skips where it cannot be."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    wanted = {"avx512f", "avx512bf16", "avx512bw", "avx512dq", "avx512vl"}
    if compiler is None or platform.system() != "Linux" or not cpu_features() >= wanted:
        pytest.skip("needs a C compiler, Linux, and AVX-512 BF16")
    source, path = Path(__file__).parent.parent / "amx.c", folder / "amx.so"
    options = ("-O2", "-mfma", "-shared", "-fPIC", "-ftls-model=initial-exec")
    subprocess.run([compiler, *options, "-o", path, source], check=True, timeout=60)
    return path


def emulated(library):
    """The environment of a process whose code is for a processor with AMX."""
    features = ",".join([*("+" + name for name in cpu_features()), "+amx-tile", "+amx-bf16", "+amx-int8"])
    chosen = {"NUMBA_CPU_NAME": "sapphirerapids", "NUMBA_CPU_FEATURES": features}
    return {**os.environ, **chosen, "LD_PRELOAD": str(library)}


@pytest.mark.skipif(byte_tile() is None, reason="needs fast products of bytes")
@pytest.mark.parametrize("by", ["vectors", "registers"])
def test_search__by_tiles_of_bytes_finds_the_same(by, tmp_path, rng):
    queries, candidates = rng.normal(size=(70, 75)), rng.normal(size=(4301, 75))
    candidates[-40:] = candidates[:40]  # ties
    given = {"queries": queries.astype(np.float32), "candidates": candidates.astype(np.float32)}
    np.savez(tmp_path / "given.npz", **given)
    env = emulated(emulator(tmp_path)) if by == "registers" else dict(os.environ)
    files = [str(tmp_path / name) for name in ("given.npz", "found.npz")]
    # In a folder of its own, because the code by vectors is not that of this processor.
    result = processes.run(SEARCH, by, *files, env={**env, "RVTRAIN_CACHE_DIR": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    scores, found = rt.top_k(*given.values(), k=5, method="float")
    child = np.load(files[1])
    np.testing.assert_array_equal(child["found"], found)
    np.testing.assert_array_equal(child["scores"], scores)


def test_instructions__have_the_bits_of_the_vectors(tmp_path, by_vectors, rng):
    library = emulator(tmp_path)
    _, packed = operands(rng, 3)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((70, 75), (75, 50)))
    rows = rng.permutation(70)[:67]
    np.savez(tmp_path / "given.npz", x=x, rows=rows, w=w, **packed)
    files = [str(tmp_path / name) for name in ("given.npz", "found.npz")]
    result = processes.run(CHILD, *files, env=emulated(library))
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["True"]
    found = np.load(files[1])
    by_vectors(**packed, second=packed["left"].shape[1] // 2, add=True)
    for name, expected in packed.items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
    assert relative_error(found["product_medium"], rounded(x)[rows] @ rounded(w)) < 1e-6
    assert relative_error(found["transposed_medium"], rounded(x).T @ rounded(x[:, :40])) < 1e-6
    assert relative_error(found["product_high"], x.astype(float)[rows] @ w) < 1e-5
    assert relative_error(found["transposed_high"], x.astype(float).T @ x[:, :40]) < 1e-5


def test_has_amx__needs_the_instructions_and_the_permission(monkeypatch):
    needed = frozenset({"amx-tile", "amx-bf16", "amx-int8", "avx512f", "avx512bf16"})
    for features in (needed, needed - {"amx-bf16"}, frozenset()):
        for permitted in (True, False):
            monkeypatch.setattr(amx, "cpu_features", lambda features=features: features)
            monkeypatch.setattr(amx, "tiles_permitted", lambda permitted=permitted: permitted)
            assert amx.has_amx() == (features == needed and permitted)


def test_process_without_permission__does_not_read_code_for_tiles(tmp_path):
    env = {**os.environ, "RVTRAIN_CACHE_DIR": str(tmp_path)}
    permitted, found = {**env, "LD_PRELOAD": str(emulator(tmp_path))}, []
    for each in (permitted, permitted, env, env):
        result = processes.run(CALL, env=each)
        assert result.returncode == 0, result.stderr
        found += result.stdout.split()
    assert found == ["compiled", "read", "read" if tiles_permitted() else "compiled", "read"]


@pytest.mark.parametrize(("words", "tiles", "medium", "high"), [
    (False, False, np.float32, np.float32), (True, False, np.int32, np.float32), (True, True, np.uint32, np.uint32),
])  # fmt: skip
def test_operands__are_the_fastest_that_the_processor_has(words, tiles, medium, high, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: words)
    monkeypatch.setattr(precision, "has_amx", lambda: tiles)
    single, double = np.dtype(np.float32), np.dtype(np.float64)
    assert precision.operand_for("medium", single) == (medium, False)
    assert precision.operand_for("high", single) == (high, tiles)
    assert precision.operand_for("highest", single) == (np.float32, False)
    for name in precision.PRECISIONS:
        assert precision.operand_for(name, double) == (np.float64, False)
    assert rt.InfoNCELoss(precision="medium").precision_used == ("medium" if words else "highest")
    assert rt.InfoNCELoss(precision="high").precision_used == ("high" if tiles else "highest")
