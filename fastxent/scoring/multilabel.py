"""Batches of one number per label: each label of a row holds or not, whatever the others do. They become
`MultilabelRows`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastxent.errors import BadRowError
from fastxent.io.batch import Batch
from fastxent.io.labels import WrongLabel, flags_of, ids_of
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.matrix import Matrix, address_of
from fastxent.kernels.rows import label_sums as row_sums, odds
from fastxent.kernels.rows.record import NO_TARGET
from fastxent.scoring.binary import BinaryScorer, Numbers
from fastxent.scoring.refusal import bad_number
from fastxent.scoring.rows import BAD_LOGITS, BAD_TARGET, IGNORED, USED, KeptOdds, MultilabelRows
from fastxent.scoring.targets import NO_IGNORE, Preparation, Prepared

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 1 << 16  # labels whose records are in memory at a time


class MultilabelPreparation(Preparation):
    """Prepares batches of rows of labels: the target of a row is 0, `NO_IGNORE` or, if it is invalid, C. The soft
    targets are its labels, (n, C), NaN where one is ignored."""

    def targets(self, column: pa.Array, dtype: np.dtype[Any]) -> tuple[np.ndarray, Matrix | None]:
        """(the kind of each row, its labels)."""
        c = self.config
        if c.target_ids:
            found, wrong = ids_of(column, c.n_classes, c.ignore_index, c.classes)
        else:
            found, wrong = flags_of(column, c.n_classes, c.ignore_index)
        kinds = np.where(np.isnan(found).all(axis=1), NO_IGNORE, 0)
        kinds[np.fromiter(wrong, np.int64, len(wrong))] = c.n_classes
        return kinds, Matrix.of(found.astype(dtype, copy=False))


class MultilabelScorer(BinaryScorer):
    """Scores batches of one number per label, of one float type, under one configuration."""

    _preparation = MultilabelPreparation

    def numbers(self, rows: int) -> Numbers:
        """Room for the numbers of the rows of a batch."""
        return Numbers(self.compute, (rows, self.config.n_classes))

    def rows(self, prepared: Prepared, numbers: Numbers) -> MultilabelRows:
        """Score the rows of a batch that are prepared. `BadRowError` as in `BinaryScorer`."""
        values, c = numbers.at(prepared.index), self.config
        status = _statuses(prepared.target)
        with np.errstate(invalid="ignore"):
            bad = np.isnan(values) if c.input == "logits" else ~((values >= 0) & (values <= 1))
            inside = ((values >= 0) & (values <= 1)).all(axis=1) if c.input == "logits" else np.zeros(1, bool)
        status[bad.any(axis=1) & (status != IGNORED)] = BAD_LOGITS
        if c.on_bad_row == "error" and status.max(initial=0) >= BAD_LOGITS:
            self._refuse_row(prepared, values, bad, status, numbers.refused)
        labelled = prepared.soft is not None
        positive = np.zeros_like(values) if prepared.soft is None else prepared.soft.values
        sums, called, probability, losses = self._sums(values, positive, labelled)
        counted = sums[row_sums.COUNTED]
        used = status == USED
        wrong = sums[row_sums.WRONG].astype(np.int64)
        with np.errstate(invalid="ignore"):
            mean = sums[row_sums.NLL_SUM] / counted
        nothing = np.zeros(len(values))
        rows = MultilabelRows(
            status=status,
            target=np.zeros(len(values), np.int64) if labelled else prepared.target,
            loss=sums[row_sums.LOSS_SUM] if labelled else nothing,
            class_weight=None,
            nll=mean if labelled else nothing,
            lse=nothing,
            confidence=nothing,
            predicted=sums[row_sums.CALLED].astype(np.int64),
            rank=wrong,
            entropy=sums[row_sums.ENTROPY_SUM],
            brier=sums[row_sums.BRIER_SUM],
            weight=prepared.weight,
            cluster=None if c.cluster is None else prepared.columns[c.cluster],
            by={name: prepared.columns[name] for name in c.by},
            scores=prepared.scores,
            prepared=prepared,
            probabilities=int((used & inside).sum()) if c.input == "logits" else 0,
            score=values,
            positive=positive,
            called=called,
            probability=probability,
            losses=losses,
            counted=counted,
            held=sums[row_sums.HELD],
            calls=sums[row_sums.CALLED],
            both=sums[row_sums.BOTH],
        )
        if self.keeps:
            rows.kept = KeptOdds(prepared.columns, values, positive)
        return rows

    def shares(self, batch: Batch) -> np.ndarray:
        """The weight of each row in the denominator of a mean, from the columns alone; bad rows are found later."""
        rows = self.prepare(batch, self.compute)
        assert rows.soft is not None
        labels = (~np.isnan(rows.soft.values)).sum(axis=1)
        return np.where(rows.target == 0, labels * (1.0 if rows.weight is None else rows.weight), 0.0)

    def _sums(
        self, values: np.ndarray, positive: np.ndarray, labelled: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(sums of rows, (n, C) predicted labels, probabilities and NLL), in blocks of rows."""
        n, c = values.shape
        sums = np.zeros((row_sums.SUMS, n))
        called = np.empty((n, c), bool)
        probability, losses = np.empty((n, c)), np.zeros((n, c))
        smoothing = self.config.label_smoothing if labelled else 0.0
        step = max(1, _BLOCK // c)
        record = np.empty((odds.FIELDS, min(n, step) * c))
        for begin in range(0, n, step):
            rows = slice(begin, begin + step)
            given, targets = values[rows], positive[rows]
            shaped = self.shaped(given)
            known = np.where(np.isnan(targets), 0, targets) if labelled else None
            tag = FLOAT_TYPES[str(shaped.dtype)].tag
            at = address_of(record), record.strides[0]
            self._kernel(address_of(shaped), shaped.size, tag, address_of(known), smoothing, *at)
            called[rows] = given.astype(np.float64) / self.config.temperature >= self.least
            probability[rows] = record[odds.PROBABILITY, : shaped.size].reshape(shaped.shape)
            if labelled:
                losses[rows] = record[odds.NLL, : shaped.size].reshape(shaped.shape)
            else:
                record[[odds.NLL, odds.BRIER]] = 0.0
            loss = odds.LOSS if smoothing else odds.NLL
            row_sums.sum_labels(record, loss, targets, called[rows], begin, sums)
        return sums, called, probability, losses

    def _refuse_row(
        self, prepared: Prepared, values: np.ndarray, bad: np.ndarray, status: np.ndarray, refused: dict[int, str]
    ) -> None:
        """Raise the error of the first bad row."""
        i = int(np.argmax(status >= BAD_LOGITS))
        place, c = prepared.place(i), self.config
        if status[i] == BAD_LOGITS:
            label = int(bad[i].argmax())
            name = "probability" if c.input == "probs" else "log-odds"
            raise BadRowError(prepared.where, place, refused.get(place) or f"the {name} of label {label} is "
                                                                           f"{values[i, label]}")  # fmt: skip
        why = bad_number(c, prepared, i)
        if why is None:
            row = prepared.columns[str(c.target)].slice(i, 1)
            wrong: WrongLabel = (
                ids_of(row, c.n_classes, c.ignore_index, c.classes)
                if c.target_ids
                else flags_of(row, c.n_classes, c.ignore_index)
            )[1]
            why = wrong[0]
        raise BadRowError(prepared.where, place, why)


def _statuses(target: np.ndarray) -> np.ndarray:
    """The status of each row, as its target and weight say it."""
    right = (target == 0) | (target == NO_TARGET)
    return np.where(target == NO_IGNORE, IGNORED, np.where(right, USED, BAD_TARGET)).astype(np.int8)
