"""What holds without MPI: with a communicator of one rank, and for the sums from which those of ranks are made."""

import numpy as np
import pytest
from shared_trainings import towers, trained

import rvtrain as rt
from rvtrain._engine import _layout


class Alone:
    """A communicator of one rank."""

    def Get_rank(self):
        return 0

    def Get_size(self):
        return 1

    def Allgather(self, sent, received):
        received[0] = sent

    def Allgatherv(self, sent, received):
        received[0][...] = sent

    def Alltoallv(self, sent, received):
        received[0][...] = sent[0].reshape(received[0].shape)

    def Abort(self, code=0):
        raise AssertionError("no rank has failed")


@pytest.mark.parametrize("symmetric", [False, True])
def test_bits__do_not_depend_on_the_rows_in_memory_at_once(symmetric, monkeypatch):
    anchors, positives = np.random.default_rng(0).normal(size=(2, 700, 24)).astype(np.float32)
    loss, found = rt.InfoNCELoss(0.1, symmetric=symmetric), []
    for size in (1, 1 << 26):
        monkeypatch.setattr(_layout, "slab_bytes", lambda size=size: size)
        value, gradients = loss.compute_with_gradients(anchors, positives, wrt=("anchors", "positives"))
        found.append([value, *(g.tobytes() for g in gradients)])
    assert found[0] == found[1]


def test_trainer_of_one_rank__has_the_losses_of_one_without_ranks():
    alone, shared = (trained("symmetric", comm, epochs=1) for comm in (None, Alone()))
    np.testing.assert_allclose(shared.history["loss"], alone.history["loss"], rtol=1e-5)


def test_loss__is_called_without_the_communicator_afterwards():
    assert trained("mined", Alone(), epochs=1).losses[0][0].comm is None


X = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
REFUSED = {
    "loss": (lambda: rt.Trainer(towers(), rt.LocalContrastiveLoss(), comm=Alone()).fit(X, X), "parameter comm"),
    "labels": (
        lambda: rt.Trainer(rt.LinearAdapter(12), rt.MultiSimilarityLoss(), comm=Alone()).fit_labels(
            X, np.arange(40) % 4
        ),
        "parameter comm",
    ),
    "graph": (
        lambda: rt.Trainer(rt.EmbeddingTable(5, 3), rt.SpreadRegularization(), comm=Alone()).fit_graph([[0, 1]]),
        "parameter comm",
    ),
    "graphs": (
        lambda: rt.Trainer(
            rt.EmbeddingTable(5, 3), [rt.InfoNCELoss(), rt.LocalContrastiveLoss()], comm=Alone()
        ).fit_graph([[0, 1]]),
        "losses must all compare an edge with the nodes of its batch",
    ),
    "communicator": (lambda: rt.Trainer(towers(), comm=3), "communicator of mpi4py"),
    "search": (lambda: rt.top_k(X, X, 2, comm=3), "communicator of mpi4py"),
    "miner": (lambda: rt.HardNegativeMiner.hardest().mine(X, X, 2, comm=3), "communicator of mpi4py"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_ranks_cannot_share__is_refused(what):
    call, message = REFUSED[what]
    with pytest.raises((TypeError, ValueError), match=message):
        call()
