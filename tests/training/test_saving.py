"""Models in files."""

import json
import os

import numpy as np
import pytest

import rvtrain as rt

MODELS = {
    "linear": lambda d: rt.LinearAdapter(5, 3, bias=True, seed=1, dtype=d),
    "low rank": lambda d: rt.LinearAdapter(5, rank=2, seed=1, dtype=d),
    "mlp": lambda d: rt.MLPAdapter(5, hidden=9, residual=False, seed=1, dtype=d),
    "towers": lambda d: rt.TwoTower(rt.LinearAdapter(5, dtype=d), rt.MLPAdapter(4, 5, seed=2, dtype=d)),
    "shared": lambda d: rt.TwoTower(rt.LinearAdapter(5, dtype=d)),
    "frozen": lambda d: rt.TwoTower(rt.LinearAdapter(5, 3, dtype=d), "frozen"),
    "chain": lambda d: rt.Sequential(rt.LinearAdapter(5, 3, dtype=d), rt.MLPAdapter(3, hidden=2, seed=3, dtype=d)),
    "towers of chains": lambda d: rt.TwoTower(
        rt.Sequential(rt.Sequential(rt.LinearAdapter(5, dtype=d)), rt.LinearAdapter(5, 3, dtype=d)),
        rt.LinearAdapter(4, 3, dtype=d),
    ),
    "table": lambda d: rt.EmbeddingTable(7, 3, dtype=d),
    "bags": lambda d: rt.BagEncoder(7, 3, dtype=d),
    "texts": lambda d: rt.TwoTower(rt.BagEncoder(7, 3, "sum", features=rt.HashedNgrams(7), dtype=d)),
    "texts with a head": lambda d: rt.TwoTower(
        rt.Sequential(
            rt.BagEncoder(
                9, 3, features=rt.HashedNgrams(9, words=None, characters=(2, 5)).fit(["a b", "b"]), dtype=d
            ),
            rt.LinearAdapter(3, 2, dtype=d),
        ),
        rt.BagEncoder(8, 2, dtype=d),
    ),
}


@pytest.mark.parametrize("format", ["npz", "safetensors"])
@pytest.mark.parametrize("name", MODELS)
def test_load_model__is_what_was_saved(name, format, dtype, tmp_path, rng):
    model = MODELS[name](dtype)
    for value in model.params.values():
        value += rng.normal(size=value.shape).astype(dtype)
    rt.save_model(tmp_path / "model", model, format=format)
    loaded = rt.load_model(tmp_path / "model")
    assert repr(loaded) == repr(model)
    assert set(loaded.params) == set(model.params)
    for key, value in model.params.items():
        np.testing.assert_array_equal(loaded.params[key], value)
        assert loaded.params[key].dtype == dtype


def test_model_files__that_are_none_are_refused(tmp_path):
    with pytest.raises(TypeError, match="model must be"):
        rt.save_model(tmp_path / "model.npz", np.eye(3))

    class Own(rt.LinearAdapter):
        pass

    for name, model in (
        ("model", Own(3)),
        (r"model.query\[1\]", rt.TwoTower(rt.Sequential(rt.LinearAdapter(3), Own(3)), "frozen")),
        ("model.document", rt.TwoTower(rt.LinearAdapter(3), Own(3))),
    ):
        with pytest.raises(TypeError, match=f"{name} must be an adapter, .* got Own; .* save_checkpoint"):
            rt.save_model(tmp_path / "model.npz", model)
    assert not list(tmp_path.iterdir())
    rt.save_checkpoint(tmp_path / "other.npz", table=np.eye(3))
    with pytest.raises(ValueError, match="holds no model"):
        rt.load_model(tmp_path / "other.npz")
    rt.save_checkpoint(
        tmp_path / "odd.npz",
        model={"kind": "LinearAdapter", "options": {"in_features": 3}, "params": {"weight": np.eye(4)}},
    )
    with pytest.raises(ValueError, match="holds no model"):
        rt.load_model(tmp_path / "odd.npz")


# --- safetensors -----------------------------------------------------------------------------------------


def test_safetensors__is_read_by_its_own_library(tmp_path, rng):
    numpy_of = pytest.importorskip("safetensors.numpy")
    model = rt.TwoTower(rt.Sequential(rt.LinearAdapter(3, bias=True), rt.LinearAdapter(3, 2)), rt.LinearAdapter(4, 2))
    rt.save_model(tmp_path / "model.safetensors", model, format="safetensors")
    found = numpy_of.load_file(tmp_path / "model.safetensors")
    assert sorted(found) == sorted(name.replace("/", ".") for name in model.params)
    for name, value in model.params.items():
        np.testing.assert_array_equal(found[name.replace("/", ".")], value)
    numpy_of.save_file(found, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"holds no model, but \['document.weight"):
        rt.load_model(tmp_path / "other.safetensors")


def test_safetensors__is_the_format(tmp_path):
    """Eight bytes of length, JSON, then the elements; offsets count from the end of the JSON."""
    rt.save_model(tmp_path / "model", rt.LinearAdapter(2, dtype=np.float64), format="safetensors")
    data = (tmp_path / "model").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0
    assert header["weight"] == {"dtype": "F64", "shape": [2, 2], "data_offsets": [0, 32]}
    assert all(isinstance(value, str) for value in header["__metadata__"].values())
    assert data[8 + length :] == bytes(32)


def test_safetensors__damaged_is_refused(tmp_path):
    path = tmp_path / "model"
    rt.save_model(path, rt.LinearAdapter(3, bias=True), format="safetensors")
    good = path.read_bytes()
    length = int.from_bytes(good[:8], "little")
    damaged = [
        good[:-1],
        good + b"1",
        good[:20],
        good[:8] + good[8:].replace(b'"F32"', b'"F64"', 1),
        good[:8] + good[8:].replace(b'"F32"', b'"BF1"', 1),
        good[:8] + good[8:].replace(b"[3,3]", b"[3,-]", 1),
        good[:8] + good[8:].replace(b'"bias"', b'"_ias"', 1),
        good[:8] + good[8:].replace(b'"bias"', b'"\\\\\\\\"', 1),
        (length + 8).to_bytes(8, "little") + good[8:],
        (1 << 60).to_bytes(8, "little") + good[8:],
        b"",
    ]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ValueError, match="damaged"):
            rt.load_model(path)


def test_save_model__that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model"
    rt.save_model(path, rt.LinearAdapter(3), format="safetensors")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="format must be 'npz' or 'safetensors', got 'pickle'"):
        rt.save_model(path, rt.LinearAdapter(4), format="pickle")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        rt.save_model(path, rt.LinearAdapter(4), format="safetensors")
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["model"]
