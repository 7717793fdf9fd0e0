"""Models in files."""

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


@pytest.mark.parametrize("name", MODELS)
def test_load_model__is_what_was_saved(name, dtype, tmp_path, rng):
    model = MODELS[name](dtype)
    for value in model.params.values():
        value += rng.normal(size=value.shape).astype(dtype)
    rt.save_model(tmp_path / "model.npz", model)
    loaded = rt.load_model(tmp_path / "model.npz")
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
