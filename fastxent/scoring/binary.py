"""Batches of one number per row: log-odds or probabilities of the positive class become `BinaryRows`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastxent.errors import BadRowError, ColumnError
from fastxent.io.batch import Batch, Block
from fastxent.io.storage.buffers import buffers, read_only
from fastxent.kernels.floats import FLOAT_TYPES, widened
from fastxent.kernels.matrix import Matrix, address_of
from fastxent.kernels.rows import odds
from fastxent.kernels.rows.labels import code_targets, count_kinds, predict, settle_targets
from fastxent.options.config import EvalConfig
from fastxent.scoring.clip import bounds_of
from fastxent.scoring.refusal import bad_number
from fastxent.scoring.rows import BAD_LOGITS, BAD_TARGET, IGNORED, USED, BinaryRows, KeptOdds, ScoredRows
from fastxent.scoring.targets import NO_IGNORE, Preparation, Prepared

if TYPE_CHECKING:
    import pyarrow as pa

MINUS_ONE = -1  # a target of the negative class, beside 0
_INVALID = 2  # a target that is neither class


class BinaryPreparation(Preparation):
    """Prepares batches of a binary dump: targets are 1, 0, `MINUS_ONE`, `NO_IGNORE` or `_INVALID`."""

    def targets(self, column: pa.Array, dtype: np.dtype[Any]) -> tuple[np.ndarray, Matrix | None]:
        """(targets, probabilities). There are probabilities, (n, 1), where the column holds floats."""
        from fastxent.io.columns import is_soft, target_ids

        c = self.config
        if is_soft(column.type):
            raise ColumnError(
                f"the target column is {column.type}; a row of one number has one target: 0 or 1, a text of classes, "
                "or a probability"
            )
        shares = _floats(column)
        if shares is None:
            if c.classes is None and "string" in str(column.type):
                raise ColumnError(
                    "the target column holds strings; name both classes, the negative one first, as in "
                    "classes=('no', 'yes') (--classes no,yes)"
                )
            ids = target_ids(column, c.ignore_index, c.classes)
            coded = np.empty(len(ids), np.int64)
            code_targets(read_only(np.ascontiguousarray(ids)), c.ignore_index, NO_IGNORE, _INVALID, coded)
            return coded, None
        with np.errstate(invalid="ignore"):
            ignored = np.isnan(shares) | (shares == c.ignore_index)
            minus = shares == -1.0
            inside = (shares >= 0.0) & (shares <= 1.0)
        ids = np.where(inside, (shares >= 0.5).astype(np.int64), np.where(minus, MINUS_ONE, _INVALID))
        return np.where(ignored, NO_IGNORE, ids), Matrix.of(np.where(inside, shares, 0.0)[:, None])


def _floats(column: pa.Array) -> np.ndarray | None:
    """A column of floats or decimals as float64, null as NaN; None for other types."""
    import pyarrow as pa

    from fastxent.io.columns import float_column
    from fastxent.io.values import numbers

    column = numbers(column, "target")
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return None
    if not column.null_count:
        return float_column(column, "target")
    shares = np.full(len(column), np.nan)
    shares[np.asarray(column.is_valid())] = float_column(column.drop_null(), "target")
    return shares


class Numbers:
    """The numbers of the rows of a batch, widened, block by block: a copy, which is contiguous and outlives the blocks.

    shape: (rows,), or (rows, numbers per row).
    refused: dict of int to str. What is wrong with rows that hold none, by their place in the batch.
    """

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._all = buffers().take(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)
        self._read = 0
        self.refused: dict[int, str] = {}

    def add(self, block: Block) -> None:
        """Take the numbers of the next rows."""
        values, begin = widened(block.values, block.dtype), self._read
        self._read += len(values)
        self._all[begin : self._read] = values if self._all.ndim == 2 else values[:, 0]
        self.refused |= {begin + place: why for place, why in block.bad.items()}

    def at(self, index: np.ndarray | None) -> np.ndarray:
        """The numbers of the rows at these places of the batch; of all rows for None."""
        return self._all if index is None else self._all[index]


class BinaryScorer:
    """Scores batches of one number per row, of one float type, under one configuration.

    keeps: bool. Keep what `transform` writes.
    """

    _preparation: type[Preparation] = BinaryPreparation

    def __init__(self, config: EvalConfig, dtype: str, *, keeps: bool = False) -> None:
        self.config, self.keeps = config, keeps
        self.prepare = self._preparation(config)
        self._type = FLOAT_TYPES[dtype]
        self.compute = self._type.compute
        self._clip = bounds_of(config.clip_eps, config.input)
        self._kernel = odds.odds_kernel(config.input == "logits")
        t = config.threshold
        if config.input == "probs":  # compared as NumPy compares a number with an array of this type
            self.least = float(_rounded(t, dtype))
        else:
            self.least = math.log(t) - math.log1p(-t) if 0.0 < t < 1.0 else math.inf if t else -math.inf

    def __call__(self, batch: Batch) -> ScoredRows:
        """Score the rows that pass ``where``. `BadRowError` for the first bad row, unless bad rows are skipped."""
        numbers = self.numbers(batch.rows)
        for block in batch.blocks:
            numbers.add(block)
        return self.rows(self.prepare(batch, self.compute), numbers)

    def numbers(self, rows: int) -> Numbers:
        """Room for the numbers of the rows of a batch."""
        return Numbers(self.compute, (rows,))

    def rows(self, prepared: Prepared, numbers: Numbers) -> ScoredRows:
        """Score the rows of a batch that are prepared. Errors as above."""
        n, c = len(prepared.target), self.config
        values, refused = numbers.at(prepared.index), numbers.refused
        status, target, exact = _settled(prepared.target)
        labelled = c.target is not None
        if prepared.soft is not None:
            exact = prepared.soft.values[:, 0]
        positive = exact.astype(self._type.compute) if labelled else np.zeros(0, self._type.compute)
        record = np.empty((odds.FIELDS, n))
        shaped = self.shaped(values)
        smoothing = c.label_smoothing if labelled else 0.0
        record_at, stride = address_of(record), record.strides[0]
        given = address_of(positive) if labelled else 0
        tag = FLOAT_TYPES[str(shaped.dtype)].tag
        if self._kernel(address_of(shaped), n, tag, given, smoothing, record_at, stride) or (
            shaped is not values and c.input == "probs"
        ):
            bad = np.isnan(values) if c.input == "logits" else ~((values >= 0) & (values <= 1))
            status[bad & (status != IGNORED)] = BAD_LOGITS
        if c.on_bad_row == "error" and status.max(initial=0) >= BAD_LOGITS:
            self._refuse(prepared, values, status, refused)
        predicted, rank = np.empty(n, np.int64), np.empty(n, np.int64)
        score, counts = np.empty(n), np.zeros(3, np.int64)
        predict(values, c.temperature, self.least, target, predicted, rank, score)
        count_kinds(prepared.target, exact, score, status, USED, counts)
        minus_ones, zeros, inside = counts.tolist()
        nothing = np.zeros(n)
        rows = BinaryRows(
            status=status,
            target=target if labelled else prepared.target,
            loss=record[odds.LOSS if smoothing else odds.NLL] if labelled else nothing,
            class_weight=None,
            nll=record[odds.NLL] if labelled else nothing,
            lse=nothing,
            confidence=record[odds.PROBABILITY],
            predicted=predicted,
            rank=rank,
            entropy=record[odds.ENTROPY],
            brier=record[odds.BRIER] if labelled else nothing,
            weight=prepared.weight,
            cluster=None if c.cluster is None else prepared.columns[c.cluster],
            by={name: prepared.columns[name] for name in c.by},
            scores=prepared.scores,
            score=score,
            positive=exact,
            minus_ones=minus_ones,
            zeros=zeros if labelled else 0,
            probabilities=inside if c.input == "logits" else 0,
            prepared=prepared,
        )
        if self.keeps:
            rows.kept = KeptOdds(prepared.columns, values, exact)
        return rows

    def shares(self, batch: Batch) -> np.ndarray:
        """The weight of each row in the denominator of a mean, from the columns alone; bad rows are found later."""
        rows = self.prepare(batch, self.compute)
        used = _settled(rows.target)[0] == USED
        return np.where(used, 1.0 if rows.weight is None else rows.weight, 0.0)

    def shaped(self, values: np.ndarray) -> np.ndarray:
        """The numbers after the temperature or within the bounds of ``clip_eps``."""
        c, shaped = self.config, values
        if c.temperature != 1.0:
            with np.errstate(over="ignore"):
                shaped = values / values.dtype.type(c.temperature)
        elif self._clip is not None:
            shaped = np.clip(values, *self._clip)
        return shaped

    def _refuse(self, prepared: Prepared, values: np.ndarray, status: np.ndarray, refused: dict[int, str]) -> None:
        """Raise the error of the first bad row."""
        i = int(np.argmax(status >= BAD_LOGITS))
        place = prepared.place(i)
        if status[i] == BAD_LOGITS:
            name = "probability" if self.config.input == "probs" else "log-odds"
            why = refused.get(place) or f"the {name} is {values[i]}"
        else:
            why = bad_number(self.config, prepared, i) or self._bad_target(prepared, i)
        raise BadRowError(prepared.where, place, why)

    def _bad_target(self, prepared: Prepared, i: int) -> str:
        from fastxent.io.values import numbers

        value = numbers(prepared.columns[str(self.config.target)].slice(i, 1), "target")[0].as_py()
        if isinstance(value, str):
            return f"target {value!r} is not among the classes"
        return f"target {value} is not 0, 1, -1 or a probability"


def _rounded(value: float, dtype: str) -> Any:
    """A number in the precision of a float type."""
    if dtype != "bfloat16":
        return FLOAT_TYPES[dtype].stored.type(value)
    from fastxent.scoring.rounding import round_to

    return widened(round_to(np.array([value]), dtype), dtype)[0]


def _settled(coded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(status, target 0 or 1, the target as float64) of each row, as its coded target says it."""
    n = len(coded)
    status, target, share = np.empty(n, np.int8), np.empty(n, np.int64), np.empty(n)
    settle_targets(coded, NO_IGNORE, _INVALID, (IGNORED, BAD_TARGET, USED), status, target, share)
    return status, target, share
