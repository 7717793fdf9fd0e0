"""Wrong arguments: each error names the argument before any work, and the model is as it was."""

import warnings

import numpy as np
import pytest

import rvtrain as rt

PAIRS = np.stack([np.arange(60)] * 2, axis=1)
LABELS = np.repeat(np.arange(20), 3)


@pytest.fixture
def vectors(rng):
    """Queries and documents."""
    documents = rng.normal(size=(60, 8)).astype(np.float32)
    return documents + rng.normal(size=(60, 8)).astype(np.float32), documents


def trainer_of(**options):
    return rt.Trainer(rt.LinearAdapter(8), **{"epochs": 2, "batch_size": 16} | options)


def refused(trainer, call, error, message):
    """Assert that a call fails with an error that begins like this, before a record is made."""
    before = trainer.params["weight"].copy()
    with pytest.raises(error, match=f"^{message}"):
        call(trainer)
    assert not len(trainer.history.get("epoch", ()))
    np.testing.assert_array_equal(trainer.params["weight"], before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"progress": "yes"}, ValueError, "progress must be 'auto', True or False, got 'yes'"),
        ({"progress": None}, TypeError, "progress must be 'auto', True or False, got None"),
        ({"metrics": None}, TypeError, "metrics must be names such as 'recall@10', got None"),
        ({"checkpoint": 5}, TypeError, "checkpoint must be a path, got 5"),
        ({"log": 5}, TypeError, "log must be a path, got 5"),
        ({"schedule": -1.0}, ValueError, r"schedule must be a finite number in \[0, inf\), got -1.0"),
        ({"callbacks": [rt.EMACallback]}, TypeError, "callbacks must be objects, got the class EMACallback"),
        ({"mining": rt.HardNegativeMiner}, TypeError, "mining must be a Mining, .* got <class"),
    ],
)
def test_trainer__refuses_by_name(options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        trainer_of(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": "nowhere/run.npz"}, "checkpoint must be in a folder that exists, got 'nowhere/run.npz'"),
        ({"log": "nowhere/run.csv"}, "log must be in a folder that exists, got 'nowhere/run.csv'"),
    ],
)
def test_fit__refuses_files_in_no_folder(vectors, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    refused(trainer_of(**options), lambda t: t.fit(*vectors), FileNotFoundError, message)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"queries": [[1.0] * 8, [1.0] * 7]}, ValueError, "queries must be an array, or what NumPy reads as one: "),
        ({"pairs": [[0, 1], [2]]}, ValueError, "pairs must be an array, or what NumPy reads as one: "),
        ({"pairs": []}, ValueError, r"pairs must not be empty, got shape \(0,\)"),
        ({"validation": []}, ValueError, r"validation must not be empty, got shape \(0,\)"),
        ({"validation": 0.1}, TypeError, r"validation must be pairs \(V, 2\), or a tuple .*, got float"),
        ({"validation": {"pairs": PAIRS}}, TypeError, r"validation must be pairs \(V, 2\), or a tuple .*, got dict"),
        ({"validation": (np.eye(9, 4), np.eye(9, 8))}, ValueError, r"validation\[0\] must have 8 columns"),
        ({"validation": (np.eye(9, 8), np.eye(9, 4))}, ValueError, r"validation\[1\] must have 8 columns"),
        ({"validation": [np.eye(8)] * 4}, ValueError, "validation must be pairs .*, got 4 arrays"),
        ({"guide": (np.eye(60), np.eye(60, 7))}, ValueError, "guide documents must have 60 columns like guide quer"),
    ],
)
def test_fit__refuses_by_name(vectors, given, error, message):
    data = {"queries": vectors[0], "documents": vectors[1], "pairs": PAIRS} | given
    refused(trainer_of(), lambda t: t.fit(**data), error, message)


@pytest.mark.parametrize(
    ("pairs", "given"),
    [
        ([[0, i] for i in range(60)], {}),
        ([[i, 0] for i in range(60)], {}),
        ([[i, j] for i in range(3) for j in range(4)], {}),
        (PAIRS, {"document_ids": np.zeros(60, int)}),
        (PAIRS, {"sample_weight": np.eye(60)[0]}),
    ],
    ids=["one query", "one document", "all of all", "one id", "one of a weight"],
)
def test_fit__refuses_pairs_of_which_no_loss_learns(vectors, pairs, given):
    message = "pairs .*must have negatives without mining, got .* the loss is 0 whatever the model"
    message = message.replace("pairs .*", "pairs (of a sample_weight above 0 )?")
    refused(trainer_of(), lambda t: t.fit(*vectors, pairs, **given), ValueError, message)
    if "sample_weight" not in given and "document_ids" not in given and len(pairs) != 60:
        trainer_of(mining=rt.HardNegativeMiner.hardest()).fit(*vectors, pairs)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(60, int), "y must have at least 2 labels that two rows share, got 1: the loss is 0"),
        (np.r_[np.nan, np.nan, np.repeat(np.arange(29.0), 2)], "y must be labels, got a NaN in row 0"),
        (None, r"y must have shape \(60,\), got \(\)"),
    ],
)
def test_fit_labels__refuses_by_name(vectors, y, message):
    refused(trainer_of(), lambda t: t.fit_labels(vectors[0], y), ValueError, message)


def test_fit_labels__refuses_labels_that_do_not_sort_and_batches_without_groups(vectors):
    mixed = np.array(["a", 1] * 30, object)
    refused(
        trainer_of(), lambda t: t.fit_labels(vectors[0], mixed), TypeError, "y must be labels of a kind that sorts"
    )
    trainer = trainer_of(loss=rt.SupConLoss(), batch_size=4)
    refused(
        trainer, lambda t: t.fit_labels(vectors[0], LABELS, sampler=rt.MPerClass(8)), ValueError,
        r"batch_size must be at least 8 for MPerClass\(8\), got 4",
    )  # fmt: skip


def test_fit__takes_a_list_for_the_tuple_of_validation(vectors):
    pair, listed = (trainer_of().fit(*vectors, validation=kind(vectors)) for kind in (tuple, list))
    assert listed.history["val_loss"].tolist() == pair.history["val_loss"].tolist()


def test_fit__says_which_schedule_and_which_step(vectors):
    trainer = trainer_of(schedule=lambda step: 0.1 if step < 3 else float("nan"))
    with pytest.raises(ValueError, match=r"^schedule\(3\) must be a finite number"):
        trainer.fit(*vectors)


def test_fit__warns_of_a_mining_that_never_begins(vectors):
    trainer = trainer_of(mining=rt.Mining(rt.HardNegativeMiner.hardest(), start=3))
    with pytest.warns(UserWarning, match="no negatives will be mined: mining.start is 3, epochs is 2") as caught:
        trainer.fit(*vectors)
    assert caught[0].filename == __file__


def test_fit__in_a_callback_of_the_same_trainer_is_refused(vectors):
    trainer = trainer_of(callbacks=[lambda trainer, record: trainer.fit(*vectors)])
    with pytest.raises(RuntimeError, match="fit must not be called from a callback of the same trainer"):
        trainer.fit(*vectors)
    trainer.callbacks = ()
    assert trainer.fit(*vectors).epoch == 2


def test_fit__says_that_numbers_do_not_fit_the_dtype_of_the_model(vectors):
    huge = vectors[0].astype(np.float64)
    huge[7] = 1e200
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of an overflow
        for given, name in (
            ((huge, vectors[1]), "queries"),
            ((vectors[0], huge), "documents"),
            ((*vectors, None, (vectors[0], huge)), r"validation\[1\]"),
        ):
            with pytest.raises(ValueError, match=f"^{name} must be finite in float32, got .* in row 7"):
                trainer_of().fit(*given)
        with pytest.raises(ValueError, match=r"^X must be finite in float32, got .* in row 7"):
            trainer_of().fit_labels(huge, LABELS)


def test_fit__reads_only_the_rows_of_a_file_that_it_needs(vectors, tmp_path):
    """A row of a file that no pair has may hold anything, until all documents are embedded."""
    documents = vectors[1].copy()
    documents[59] = np.nan
    np.save(tmp_path / "d.npy", documents)
    stored = np.load(tmp_path / "d.npy", mmap_mode="r")
    trained = trainer_of().fit(vectors[0], stored, PAIRS[:50])
    plain = trainer_of().fit(*vectors, PAIRS[:50])
    np.testing.assert_array_equal(trained.params["weight"], plain.params["weight"])
    for call in (
        lambda t: t.fit(vectors[0], stored, PAIRS),
        lambda t: t.fit(vectors[0], stored, PAIRS[:50], PAIRS[:50]),
        lambda t: t.fit_labels(stored, LABELS),
    ):
        with pytest.raises(ValueError, match=r"^(documents|X) must be finite, got a NaN or an infinity in row 59"):
            call(trainer_of())
    with pytest.raises(ValueError, match=r"^documents must be finite, got a NaN or an infinity in row 59"):
        trainer_of().fit(vectors[0], documents, PAIRS[:50])


def test_fit__takes_nullable_frames_of_pandas(vectors):
    pandas = pytest.importorskip("pandas")
    expected = trainer_of(loss=rt.InfoNCELoss(0.1)).fit(
        *vectors, PAIRS, PAIRS, sample_weight=np.arange(60), document_ids=np.arange(60), negatives=PAIRS[::-1]
    )
    frames = [pandas.DataFrame(x).convert_dtypes() for x in (*vectors, PAIRS, PAIRS, PAIRS[::-1])]
    series = pandas.Series(np.arange(60), dtype="Int64")
    trainer = trainer_of(loss=rt.InfoNCELoss(0.1))
    trainer.fit(*frames[:4], sample_weight=series, document_ids=series, negatives=frames[4])
    np.testing.assert_array_equal(trainer.params["weight"], expected.params["weight"])
    frames[0].iloc[3, 2] = None
    refused(trainer_of(), lambda t: t.fit(*frames[:2]), ValueError, "queries must be finite, got .* in row 3")
    frames[2].iloc[3, 1] = None
    refused(
        trainer_of(),
        lambda t: t.fit(*vectors, frames[2]),
        ValueError,
        "pairs must be an array, or what NumPy reads as one: ",
    )


@pytest.mark.parametrize("ending", ["csv", "CSV", "jsonl", "JSONL"])
def test_log__takes_endings_in_either_case(vectors, tmp_path, ending):
    trainer_of(log=tmp_path / f"run.{ending}").fit(*vectors)
    first = (tmp_path / f"run.{ending}").read_text().splitlines()[0]
    assert first.startswith("epoch,step" if ending.lower() == "csv" else '{"epoch": 0')


@pytest.mark.parametrize(
    ("edges", "validation", "message"),
    [
        ([], None, r"edges must not be empty, got shape \(0,\)"),
        ([[0, 1], [1]], None, "edges must be an array, or what NumPy reads as one: "),
        ([[0, 1], [1, 2]], [], r"validation must not be empty, got shape \(0,\)"),
    ],
)
def test_fit_graph__refuses_by_name(edges, validation, message):
    trainer = rt.Trainer(rt.EmbeddingTable(5, 2))
    before = trainer.params["weight"].copy()
    with pytest.raises(ValueError, match=f"^{message}"):
        trainer.fit_graph(edges, validation=validation)
    np.testing.assert_array_equal(trainer.params["weight"], before)
