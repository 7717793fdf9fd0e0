"""Models in the forms of other libraries."""

import importlib
import json

import numpy as np
import pytest

import rvtrain as rt
from rvtrain import cli
from rvtrain.export import to_arrays, to_faiss, to_sentence_transformers

LINEAR = {
    "residual": lambda: rt.LinearAdapter(6, bias=True),
    "low rank": lambda: rt.LinearAdapter(6, rank=2),
    "smaller": lambda: rt.LinearAdapter(6, 3),
    "chain": lambda: rt.Sequential(rt.LinearAdapter(6, 4, bias=True), rt.Sequential(rt.LinearAdapter(4, bias=True))),
    "shared": lambda: rt.TwoTower(rt.LinearAdapter(6, bias=True)),
}
OTHERS = {
    "mlp": lambda: rt.MLPAdapter(6, hidden=5),
    "mlp in a chain": lambda: rt.Sequential(rt.LinearAdapter(6, 4), rt.LinearAdapter(4), rt.MLPAdapter(4, 3)),
}
TOWERS = {
    "two": lambda: rt.TwoTower(rt.LinearAdapter(6, 4), rt.LinearAdapter(6, 4, bias=True)),
    "frozen": lambda: rt.TwoTower(rt.LinearAdapter(6, bias=True), "frozen"),
    "two mlps": lambda: rt.TwoTower(rt.MLPAdapter(6, 5), rt.Sequential(rt.LinearAdapter(6), rt.MLPAdapter(6, 5))),
}


def made(make):
    """A model with parameters as after training."""
    model, rng = make(), np.random.default_rng(3)
    for value in model.params.values():
        value += rng.normal(size=value.shape).astype(value.dtype)
    return model


@pytest.fixture
def x(rng):
    return rng.normal(size=(9, 6)).astype(np.float32)


def outputs(model, x):
    return model.encode_query(x) if isinstance(model, rt.TwoTower) else model.transform(x)


# --- Arrays ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LINEAR)
def test_to_arrays__gives_the_outputs_of_the_model(name, x):
    model = made(LINEAR[name])
    arrays = to_arrays(model)
    assert sorted(arrays) == ["bias", "weight"]
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(x @ arrays["weight"] + arrays["bias"], outputs(model, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["two", "frozen"])
def test_to_arrays__of_two_towers(name, x):
    model = made(TOWERS[name])
    arrays = to_arrays(model)
    for side, wanted in (("query", model.encode_query(x)), ("document", model.encode_document(x))):
        found = x @ arrays[f"{side}_weight"] + arrays[f"{side}_bias"]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(to_arrays(model, side)["weight"], arrays[f"{side}_weight"])


def test_to_arrays__refuses_what_is_not_linear():
    with pytest.raises(ValueError, match="model must be linear"):
        to_arrays(rt.MLPAdapter(3))
    with pytest.raises(TypeError, match="got a BagEncoder, which reads texts"):
        to_arrays(rt.Sequential(rt.BagEncoder(9, 3), rt.LinearAdapter(3)))
    with pytest.raises(TypeError, match="got EmbeddingTable"):
        to_arrays(rt.EmbeddingTable(9, 3))
    with pytest.raises(ValueError, match="side must be 'query' or 'document', got 'both'"):
        to_arrays(rt.LinearAdapter(3), "both")


# --- faiss -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*LINEAR, "two", "frozen"])
def test_to_faiss__an_index_finds_what_we_find(name, rng):
    faiss = pytest.importorskip("faiss")
    model = made((LINEAR | TOWERS)[name])
    towers = model if isinstance(model, rt.TwoTower) else rt.TwoTower(model)
    queries, documents = rng.normal(size=(2, 200, 6)).astype(np.float32)
    embedded = towers.encode_document(documents)
    flat = faiss.IndexFlatIP(embedded.shape[1])
    flat.add(embedded / np.linalg.norm(embedded, axis=1, keepdims=True))
    index = faiss.IndexPreTransform(faiss.NormalizationTransform(embedded.shape[1], 2.0), flat)
    index.prepend_transform(to_faiss(model, "query"))
    scores, indices = index.search(queries, 5)
    wanted = rt.top_k(towers.encode_query(queries), embedded, 5)
    np.testing.assert_allclose(scores, wanted[0], rtol=1e-4, atol=1e-5)
    assert (indices == wanted[1]).mean() > 0.99
    if towers.is_shared:  # the index transforms what is added too
        flat.reset()
        index.add(documents)
        np.testing.assert_allclose(index.search(queries, 5)[0], wanted[0], rtol=1e-4, atol=1e-5)


def test_to_faiss__refuses_two_sides():
    pytest.importorskip("faiss")
    with pytest.raises(ValueError, match="side must be 'query' or 'document' for a model of two sides"):
        to_faiss(made(TOWERS["two"]))


# --- sentence-transformers -------------------------------------------------------------------------------


def read_dense(folder):
    """The map of a Dense module, as torch computes it from its files."""
    config = json.loads((folder / "config.json").read_text())
    assert config["activation_function"] == "torch.nn.modules.linear.Identity"
    data = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    arrays = {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], np.float32).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }
    assert arrays["linear.weight"].shape == (config["out_features"], config["in_features"])
    return lambda x: x @ arrays["linear.weight"].T + (arrays["linear.bias"] if config["bias"] else 0)


@pytest.mark.parametrize("name", LINEAR)
def test_to_sentence_transformers__writes_one_dense(name, x, tmp_path):
    model = made(LINEAR[name])
    to_sentence_transformers(model, tmp_path / "out")
    (module,) = json.loads((tmp_path / "out" / "modules.json").read_text())
    assert module == {"idx": 0, "name": "0", "path": "0_Dense", "type": "sentence_transformers.models.Dense"}
    found = read_dense(tmp_path / "out" / "0_Dense")(x)
    np.testing.assert_allclose(found, outputs(model, x), rtol=1e-5, atol=1e-5)


def test_to_sentence_transformers__writes_a_router_behind_an_encoder(x, tmp_path):
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "an.Encoder"}]')
    (encoder / "weights").write_text("…")
    model = made(TOWERS["two"])
    to_sentence_transformers(model, tmp_path / "out", encoder=encoder)
    out = tmp_path / "out"
    first, second = json.loads((out / "modules.json").read_text())
    assert (out / "weights").read_text() == "…"
    assert first["type"] == "an.Encoder"
    assert (second["idx"], second["path"]) == (1, "1_Router")
    router = json.loads((out / "1_Router" / "router_config.json").read_text())
    for side, wanted in (("query", model.encode_query(x)), ("document", model.encode_document(x))):
        (name,) = router["structure"][side]
        np.testing.assert_allclose(read_dense(out / "1_Router" / name)(x), wanted, rtol=1e-5, atol=1e-5)


def test_to_sentence_transformers__that_fails_leaves_nothing(tmp_path):
    def refused(error, match, model, folder="out", **options):
        with pytest.raises(error, match=match):
            to_sentence_transformers(model, tmp_path / folder, **options)
        assert not (tmp_path / "out").exists()

    refused(TypeError, "got a BagEncoder", rt.BagEncoder(9, 3))
    refused(ValueError, "encoder must be the folder", rt.LinearAdapter(3), encoder=tmp_path)
    refused(TypeError, "encoder must be a folder or", rt.LinearAdapter(3), encoder=7)
    refused(ValueError, "inputs of one size", rt.TwoTower(rt.LinearAdapter(3, 2), rt.LinearAdapter(4, 2)))
    refused(FileNotFoundError, "nowhere", rt.LinearAdapter(3), "nowhere/out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    refused(FileExistsError, "must be a new or an empty folder", rt.LinearAdapter(3), "full")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "file"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*LINEAR, *OTHERS, *TOWERS])
def test_sentence_transformers__loads_what_was_written(name, tmp_path, monkeypatch, rng):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    library = pytest.importorskip("sentence_transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "cat": 1, "dog": 2, "sat": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    table = rng.normal(size=(4, 6)).astype(np.float32)
    static = importlib.import_module("sentence_transformers.models").StaticEmbedding(words, embedding_weights=table)
    encoder = library.SentenceTransformer(modules=[static], device="cpu")
    texts = ["a cat sat", "dog", "the dog sat"]
    x, model = encoder.encode(texts), made((LINEAR | OTHERS | TOWERS)[name])
    encoder.save(str(tmp_path / "encoder"))
    own_code = any("mlp" in word for word in name.split()) or name == "two mlps"
    for place, given in (("alone", None), ("folder", tmp_path / "encoder"), ("object", encoder)):
        to_sentence_transformers(model, tmp_path / place, encoder=given)
        loaded = library.SentenceTransformer(str(tmp_path / place), trust_remote_code=own_code, device="cpu")
        if given is None:
            loaded = library.SentenceTransformer(modules=[*encoder, *loaded], device="cpu")
        towers = model if isinstance(model, rt.TwoTower) else rt.TwoTower(model)
        for found, wanted in (
            (loaded.encode_query(texts), towers.encode_query(x)),
            (loaded.encode_document(texts), towers.encode_document(x)),
            (loaded.encode(texts), towers.encode_document(x)),
        ):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


# --- The command -----------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Exit code, output and errors of a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def test_export__writes_each_format(run, x, tmp_path):
    model = made(TOWERS["two"])
    rt.save_model("towers.npz", model)
    assert run("export", "towers.npz", "--format", "safetensors", "-o", "m.safetensors")[:2] == (
        0,
        "written: m.safetensors\n",
    )
    np.testing.assert_array_equal(rt.load_model("m.safetensors").encode_query(x), model.encode_query(x))
    assert run("export", "m.safetensors", "--format", "numpy", "-o", "m.npz")[0] == 0
    with np.load("m.npz") as arrays:
        np.testing.assert_allclose(
            x @ arrays["query_weight"] + arrays["query_bias"], model.encode_query(x), rtol=1e-4, atol=1e-5
        )
    command = ("export", "towers.npz", "--format", "sentence-transformers", "-o", "folder")
    assert run(*command)[0] == 0
    code, out, errors = run(*command)
    assert (code, out) == (1, "")
    assert errors == "rvtrain: folder must be a new or an empty folder: it exists\n"
    faiss = pytest.importorskip("faiss")
    assert run("export", "towers.npz", "--format", "faiss", "--side", "document", "-o", "t")[0] == 0
    transform = faiss.read_VectorTransform("t")
    np.testing.assert_allclose(transform.apply(x), model.encode_document(x), rtol=1e-4, atol=1e-5)


def test_export__that_fails_says_why_in_one_line(run, tmp_path):
    rt.save_model("mlp.npz", rt.MLPAdapter(4))
    rt.save_model("texts.npz", rt.BagEncoder(9, 3))
    rt.save_model("towers.npz", rt.TwoTower(rt.LinearAdapter(4), rt.LinearAdapter(4)))
    before = sorted(tmp_path.iterdir())
    for arguments, words in (
        (("mlp.npz", "--format", "numpy", "-o", "a.npz"), "model must be linear"),
        (("mlp.npz", "--format", "numpy", "-o", "a.txt"), "-o must end in .npz"),
        (("texts.npz", "--format", "sentence-transformers", "-o", "a"), "a BagEncoder, which reads texts"),
        (("towers.npz", "--format", "faiss", "-o", "a"), "--side query or --side document is needed"),
        (("mlp.npz", "--format", "safetensors", "-o", "mlp.npz"), "must be another file"),
        (("mlp.npz", "--format", "safetensors", "-o", "no/a"), "must be in a folder that exists"),
        (("mlp.npz", "--format", "faiss", "--encoder", "e", "-o", "a"), "--encoder is for"),
        (("none.npz", "--format", "faiss", "-o", "a"), "none.npz: No such file"),
        (("mlp.npz", "--format", "sentence-transformers", "--encoder", "e", "-o", "a"), "encoder must be the folder"),
    ):
        code, out, errors = run("export", *arguments)
        assert (code, out) == (1, ""), arguments
        assert errors.startswith("rvtrain: ") and errors.count("\n") == 1
        assert words in errors
        assert sorted(tmp_path.iterdir()) == before
