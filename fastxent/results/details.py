"""Details of an evaluation, read-only: rows by target and prediction, and the rows of largest loss."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastxent.options.typed import check
from fastxent.results.encoding import number_in
from fastxent.results.values import Values, columns_in

if TYPE_CHECKING:
    import numpy as np

MOST_CLASSES = 1000  # of a whole confusion matrix
MOST_CONFUSED = 100  # pairs in a result
_LEAST_SHARE = 2.0**-64


@dataclass(frozen=True, eq=False)
class Confusion(Values):
    """The confusion matrix: one entry per pair of classes that occurs, ordered by target, then prediction.

    Rows are counted, whatever their sample weight.

    Attributes:
        n_classes: int.
        target, predicted: int64 (pairs,), an ``array.array``. Class ids.
        count: int64 (pairs,), an ``array.array``. Rows with this target and this prediction.
    """

    n_classes: int
    target: Sequence[int]
    predicted: Sequence[int]
    count: Sequence[int]

    def matrix(self) -> np.ndarray:
        """Return int64 (C, C): entry (t, p) is the number of rows with target t and prediction p."""
        import numpy as np

        found = np.zeros((self.n_classes, self.n_classes), np.int64)
        found[np.asarray(self.target), np.asarray(self.predicted)] = self.count
        return found

    @classmethod
    def of(cls, values: dict[str, Any]) -> Confusion:
        """Return the matrix with these JSON-ready values. ValueError if they are not whole numbers of 64 bits."""
        columns = columns_in(values)
        for name in ("target", "predicted", "count"):
            check(columns[name], tuple[int, ...], f"confusion.{name}")
            try:
                columns[name] = array("q", columns[name])
            except OverflowError:
                raise ValueError(f"confusion.{name} must have numbers that fit in 64 bits") from None
        return cls(**columns)


@dataclass(frozen=True, eq=False)
class MostConfused(Values):
    """The pairs of a target and another prediction with the most rows, at most 100; ties by target, then prediction.

    The number of pairs that can be counted is bounded. If more occur, those of a share of all pairs are counted, chosen
    by a hash of the pair: their counts are exact, and pairs outside that share are not listed.

    Attributes:
        target, predicted: int (listed,). Class ids.
        count: int (listed,). Rows with this target and this prediction.
        pairs: int. Different pairs that were counted.
        share: float. Share of all pairs that were counted: 1.0, 0.5, 0.25, …
    """

    target: tuple[int, ...]
    predicted: tuple[int, ...]
    count: tuple[int, ...]
    pairs: int
    share: float = 1.0


@dataclass(frozen=True, eq=False)
class WorstRow(Values):
    """A row of large loss.

    Attributes:
        file: str. row_group: int or None. row: int. Its place; the row is counted within the file.
        id: its value in the ``id`` column, or None.
        loss: float. In nats, with class weight and label smoothing; in a top-k dump the least that it can be.
        target: int or None. None in dumps of several labels and of log-probabilities, and where ids are strings.
        predicted: int or None. In dumps of several labels, how many labels are predicted; None in those of
            log-probabilities.
        confidence: float. Probability of the predicted class; of a binary dump, of the positive class; else NaN.
    """

    file: str
    row_group: int | None
    row: int
    id: Any
    loss: float
    target: int | None
    predicted: int | None
    confidence: float

    @classmethod
    def of(cls, values: dict[str, Any]) -> WorstRow:
        """Return the row with these JSON-ready values."""
        given = {**values, "loss": number_in(values["loss"]), "confidence": number_in(values["confidence"])}
        return cls(**given)

    @property
    def place(self) -> str:
        """The id of the row, or its place."""
        return str(self.id) if self.id is not None else f"{self.file.rpartition('/')[2]}, row {self.row}"


def check_details(confusion: Confusion | None, most_confused: MostConfused | None, worst: tuple[WorstRow, ...]) -> None:
    """Raise ValueError for details from a file that cannot be shown."""
    if confusion is not None:
        if not 0 < confusion.n_classes <= MOST_CLASSES:
            raise ValueError(f"confusion.n_classes must be from 1 to {MOST_CLASSES}, got {confusion.n_classes}")
        if max((*confusion.target, *confusion.predicted), default=0) >= confusion.n_classes:
            raise ValueError(f"confusion must have classes below {confusion.n_classes}")
    for name, table in (("confusion", confusion), ("most_confused", most_confused)):
        if table is None:
            continue
        if min((*table.target, *table.predicted), default=0) < 0:
            raise ValueError(f"{name} must have classes of at least 0")
        if min(table.count, default=1) < 1 or sum(table.count) >= 2**63:
            raise ValueError(f"{name}.count must be at least 1, and the counts must add up to less than 2**63")
    if most_confused is not None and not (_LEAST_SHARE <= most_confused.share <= 1.0 and most_confused.pairs >= 0):
        raise ValueError(f"most_confused.share must be above 0 and at most 1, got {most_confused.share}")
    for row in worst:
        if min(row.target or 0, row.predicted or 0) < 0:
            raise ValueError(f"worst must have classes of at least 0, got {row.target} and {row.predicted}")
