"""Batches of labelled rows that several ranks share."""

from collections.abc import Callable
from typing import Any

from rvtrain.distributed._ranks import Ranks
from rvtrain.training import _metrics as metrics
from rvtrain.training._embedding import Sides
from rvtrain.training._label_task import Labelled, LabelTask, arguments_of, takes_pairs
from rvtrain.training._losses import LossCall, Weighted
from rvtrain.training._models import outputs
from rvtrain.training._run import fingerprint
from rvtrain.training._sampling import MPerClass
from rvtrain.training._shared import Part, agree_on_data, check_shared, is_enough, of_all_ranks, shared_by, summed
from rvtrain.training._task import Gradients, Rows


def shared_labels(ranks: Ranks, calls: list[LossCall], sides: Sides, *others: Any) -> "SharedLabelTask":
    """The task of a training on labels by these ranks; TypeError if the losses cannot be shared."""
    check_shared(calls)
    return SharedLabelTask(ranks, sides, *others)


class SharedLabelTask(LabelTask):
    """`LabelTask` of several ranks, to the bits of one where the number of ranks divides 8.

    Batches, drawn positives and validation are those of the whole data on every rank; see `SharedPairTask`.
    """

    def __init__(self, ranks: Ranks, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ranks = ranks

    def fingerprints(self) -> dict[str, str]:
        """Compared before the first step, so that all ranks know if their data differ, and how."""
        found = super().fingerprints()
        agree_on_data(self.ranks, {"X": self.data.x, "y": self.data.y}, found)
        return found

    def gradients(self, batch: Rows, losses: list[Weighted]) -> Gradients:
        """Gradients of the whole batch, on each rank."""
        if self.sampler is not None and type(self.sampler) is not MPerClass:
            self.ranks.agree({"batch of the sampler": fingerprint(batch)})
        if not is_enough(len(batch), self.ranks):
            return super().gradients(batch, losses)
        rows, others = self.data.rows[batch], self.drawn[batch]
        self._read(rows, others, takes_pairs(losses))
        value, learned, parts = self._shared(self.data, rows, others, losses, True)
        of_sides = [part.gradients() for part in parts]
        if len(parts) == 1:
            of_sides.append([{}] * parts[0].segments)
        segments = [self.sides.collect(*each) for each in zip(*of_sides, strict=True)]
        grads, of_rows = summed(self.ranks, segments)
        return Gradients(value, grads, learned, of_rows)

    def _loss_on_validation(self, data: Labelled, rows: Rows, others: Rows, losses: list[Weighted]) -> float:
        if not is_enough(len(rows), self.ranks):
            return super()._loss_on_validation(data, rows, others, losses)
        return self._shared(data, rows, others, losses, False)[0]

    def _shared(
        self, data: Labelled, rows: Rows, others: Rows, losses: list[Weighted], gradients: bool
    ) -> tuple[float, list[dict[str, float]], list[Part]]:
        """The losses, the gradients to their own parameters, and this rank's anchors, and positives if there are."""
        sides, total, learned = self.sides, 0.0, []
        parts = [Part(self.ranks, sides.query, data.x, rows, sides.trains_queries, self.micro)]
        if takes_pairs(losses):
            parts.append(Part(self.ranks, sides.document, data.x, others, sides.trains_documents, self.micro))
        labels = data.y[rows[parts[0].rows]]
        with shared_by(self.ranks, losses):
            for call, weight in losses:
                arguments, options = arguments_of(call, parts[0].x, parts[-1].x, labels)
                trained = {name: part for name, part in zip(call.names, parts, strict=False) if part.trains}
                value, found = call(arguments, options, tuple(trained) if gradients else None)
                total += weight * value
                if gradients:
                    for name, part in trained.items():
                        part.add(weight, found[name])
                    learned.append({name: weight * float(found[name]) for name in call.learnable})
        return total, learned, parts

    def metrics(self, names: tuple[str, ...]) -> dict[str, float]:
        """As `LabelTask`: ranks embed and rank rows in parts."""
        assert self.validation is not None
        x, y, ranks = self.validation.x, self.validation.y, self.ranks
        if not is_enough(x.shape[0], ranks):
            return super().metrics(names)

        def by_parts(count: int, function: Callable[[slice], Any]) -> Any:
            return of_all_ranks(ranks, count, function)

        def embedded(side: Any) -> Any:
            return by_parts(x.shape[0], lambda part: outputs(side, x[part]))

        queries, documents = embedded(self.sides.query), embedded(self.sides.document)
        return {name: metrics.evaluate_labels(queries, documents, y, name, by_parts) for name in names}
