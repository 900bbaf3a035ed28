"""A batch of logits through the kernels: (n, C) and the columns beside it become `ScoredRows`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from fastxent.errors import BadRowError, ConfigError
from fastxent.io.batch import Batch, Logits, LogitsStream, batch_bytes
from fastxent.io.source import open_source
from fastxent.kernels.floats import widened
from fastxent.kernels.launch import MODES, Emit, LossTerms, Options, RowPass, row_buffers
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.rows import emit, record as rows
from fastxent.kernels.rows.loss import loss_rows
from fastxent.options.config import EvalConfig
from fastxent.scoring.filter import Filter
from fastxent.scoring.lookalike import TOLERANCE, count_distributions
from fastxent.scoring.rows import BAD_LOGITS, BAD_TARGET, USED, ScoredRows

if TYPE_CHECKING:
    import pyarrow as pa

NO_IGNORE = rows.NO_TARGET + 1  # what an ignored row's target becomes, whatever the user's ignore_index
LARGEST = {"probs": 1.0 + TOLERANCE, "log_probs": TOLERANCE}  # scores above are errors, not rounding


@dataclass
class Scored:
    """A batch scored, and what a second sweep over its logits needs."""

    rows: ScoredRows
    batch: Batch  # the rows that passed the filter
    logits: Matrix  # as the kernels read them: within ``clip``
    soft: Matrix | None
    options: Options  # for losses
    plain: Options  # for softmax: nothing is summed but the exponentials
    terms: LossTerms
    clip: tuple[float, float] | None


class Scorer:
    """Scores batches under one configuration."""

    def __init__(self, config: EvalConfig) -> None:
        self.config = config
        labelled = config.target is not None
        weight = np.array(config.class_weight, np.float64) if labelled and config.class_weight is not None else None
        mask = None if config.class_mask is None else np.array(config.class_mask, np.uint8)
        smoothed = labelled and config.label_smoothing > 0.0
        self._probes = config.input == "logits" and config.softcap is None and mask is None
        self._options = Options(MODES[config.input], config.softcap, config.temperature, mask, weight, smoothed)
        self._plain = Options(MODES[config.input], config.softcap, config.temperature, mask)
        self._filter = Filter(config.where) if config.where is not None else None
        if config.input != "logits" and self._options.shaped:
            raise ConfigError(f"temperature, softcap and class_mask shape logits; input is {config.input!r}")
        if config.clip_eps is not None and not (config.input != "logits" and 0.0 <= config.clip_eps < 0.5):
            raise ConfigError(f"clip_eps={config.clip_eps} needs input='probs' or 'log_probs' and lies in 0..0.5")
        self._clip: tuple[float, float] | None = None
        if config.clip_eps is not None:
            low, high = config.clip_eps, 1.0 - config.clip_eps
            if config.input == "log_probs":
                low, high = math.log(low) if low else -math.inf, math.log1p(-config.clip_eps)
            self._clip = low, high

    @staticmethod
    def columns(config: EvalConfig) -> list[str]:
        """The columns that scoring reads beside the logits."""
        names = [config.target, *config.by, config.cluster, config.weight, config.n_bytes]
        names += Filter(config.where).columns if config.where is not None else []
        return list(dict.fromkeys(name for name in names if name is not None))

    def __call__(self, batch: Batch) -> Scored:
        """Score the rows that pass ``where``. Raises `BadRowError` for the first bad one, unless they are skipped."""
        c = self.config
        index: np.ndarray | None = None  # of the rows that passed, in the batch as it was read
        if self._filter is not None:
            index = self._filter.rows(batch.columns)
            batch = _take(batch, index)
        n = batch.logits.shape[0]
        matrix = self._matrix(batch.held)
        target, soft = self._targets(batch, matrix.compute_dtype)
        weight, n_bytes = (self._numbers(batch, name, target) for name in (c.weight, c.n_bytes))
        record, ids, status = into = row_buffers(n)
        take = RowPass(matrix, target, NO_IGNORE, self._options, soft, full=True, into=into)
        take.sweep(0, n)
        self._check(batch, record, status, index)
        probabilities = self._probabilities(matrix.values, matrix.dtype, record, status)
        with np.errstate(all="ignore"):  # rows that are not used
            nll = record[rows.NLL] if soft is None else self._soft_nll(matrix, target, soft, take)
            brier = record[rows.BRIER] if soft is None else self._soft_brier(matrix, soft)
        terms = LossTerms(c.n_classes, c.label_smoothing, 0.0, self._options.class_weight, soft is not None)
        scored = self._rows(batch, target, record, ids, status, terms, (weight, n_bytes), nll, brier)
        scored.probabilities = probabilities
        if soft is not None:
            with np.errstate(invalid="ignore"):  # rows that are not used
                off = np.abs(soft.values.sum(axis=1, dtype=np.float64) - 1.0) > TOLERANCE
            scored.unnormalised_targets = int((off & (status == USED)).sum())
        return Scored(scored, batch, matrix, soft, self._options, self._plain, terms, self._clip)

    @property
    def streams(self) -> bool:
        """Whether batches of class ids can be scored part by part: nothing asks for all of their logits at once."""
        return self._filter is None and self._clip is None

    def stream(self, batch: Batch) -> ScoredRows:
        """Score a batch whose logits come part by part."""
        assert isinstance(batch.logits, LogitsStream)
        c = self.config
        n, dtype = batch.logits.shape[0], batch.logits.dtype
        target, _ = self._targets(batch, np.dtype(np.float64))
        weight, n_bytes = (self._numbers(batch, name, target) for name in (c.weight, c.n_bytes))
        record, ids, status = into = row_buffers(n)
        take: RowPass | None = None
        at = probabilities = 0
        for values in batch.logits.parts:
            matrix, end = Matrix.of(values, dtype), at + len(values)
            if take is None:
                take = RowPass(matrix, target[at:end], NO_IGNORE, self._options, full=True, into=into)
            else:
                take.turn_to(matrix, target[at:end], at)
            take.sweep(0, matrix.n)
            if c.input != "logits" or (c.on_bad_row == "error" and status[at:end].max(initial=0) >= BAD_LOGITS):
                columns = {name: column.slice(at, matrix.n) for name, column in batch.columns.items()}
                where = replace(batch.where, first_row=batch.where.first_row + at)
                odd = {i - at: reason for i, reason in batch.bad.items() if i >= at}
                part = Batch(Logits(values, dtype), columns, where, odd)
                self._check(part, record[:, at:end], status[at:end], None)
            probabilities += self._probabilities(values, dtype, record[:, at:end], status[at:end])
            at = end
        terms = LossTerms(c.n_classes, c.label_smoothing, 0.0, self._options.class_weight, False)
        numbers = weight, n_bytes
        nll, brier = record[rows.NLL], record[rows.BRIER]
        scored = self._rows(batch, target, record, ids, status, terms, numbers, nll, brier)
        scored.probabilities = probabilities
        return scored

    def _probabilities(self, values: np.ndarray, dtype: str, record: np.ndarray, status: np.ndarray) -> int:
        """Rows of logits that look like probabilities."""
        if not self._probes:
            return 0
        return count_distributions(values, dtype, record, status == USED, self.config.temperature)

    def _check(self, batch: Batch, record: np.ndarray, status: np.ndarray, index: np.ndarray | None) -> None:
        """Mark what cannot be (log-)probabilities, and refuse the first bad row unless they are to be skipped."""
        if self.config.input != "logits":
            most = LARGEST[self.config.input]
            largest = math.exp(most) if self.config.input == "log_probs" else most
            bad = np.isnan(record[rows.ENTROPY]) | (record[rows.CONFIDENCE] > largest)
            if self._clip is not None:  # the record is that of clipped numbers
                given = widened(batch.held.values, batch.logits.dtype)
                bad |= (given > most).any(axis=1) | ((given < 0).any(axis=1) & (self.config.input == "probs"))
            status[(status == USED) & bad] = BAD_LOGITS
        if self.config.on_bad_row == "error" and status.max(initial=0) >= BAD_LOGITS:
            self._refuse_bad(batch, status, index)

    def _rows(
        self, batch: Batch, target: np.ndarray, record: np.ndarray, ids: np.ndarray, status: np.ndarray,
        terms: LossTerms, numbers: tuple[np.ndarray | None, np.ndarray | None], nll: np.ndarray, brier: np.ndarray,
    ) -> ScoredRows:  # fmt: skip
        c, n = self.config, len(status)
        loss = share = nll
        if not terms.plain and c.target is not None:
            loss, share = np.empty(n), np.empty(n)
            loss_rows(0, n, record, target, status, terms.arguments(), loss, share)
        scored = ScoredRows(
            status=status,
            target=target,
            loss=loss,
            class_weight=None if c.class_weight is None else share,
            nll=nll,
            lse=record[rows.LSE],
            confidence=record[rows.CONFIDENCE],
            predicted=ids[rows.PREDICTED],
            rank=ids[rows.RANK],
            entropy=record[rows.ENTROPY],
            brier=brier,
            weight=numbers[0],
            n_bytes=numbers[1],
            cluster=None if c.cluster is None else batch.columns[c.cluster],
            by={name: batch.columns[name] for name in c.by},
        )
        if c.input != "logits":
            scored.unnormalised = int(((np.abs(record[rows.REST]) > TOLERANCE) & (status == USED)).sum())
        return scored

    def shares(self, batch: Batch) -> np.ndarray:
        """What each row counts for in the denominator of a mean, from the columns alone; bad rows are found later."""
        c = self.config
        if self._filter is not None:
            batch = _take(batch, self._filter.rows(batch.columns))
        ids, soft = self._targets(batch, np.dtype(np.float64))
        weight = self._numbers(batch, c.weight, ids)
        used = (ids >= 0) & (ids < c.n_classes)
        shares = np.ones(len(ids)) if weight is None else weight
        if soft is None and self._options.class_weight is not None:
            shares = self._options.class_weight[np.where(used, ids, 0)] * shares
        return np.where(used, shares, 0.0)

    def _matrix(self, logits: Logits) -> Matrix:
        if self._clip is None:
            return Matrix.of(logits.values, logits.dtype)
        return Matrix.of(np.clip(widened(logits.values, logits.dtype), *self._clip))

    def _targets(self, batch: Batch, dtype: np.dtype[Any]) -> tuple[np.ndarray, Matrix | None]:
        """(class ids, soft targets). Ids, of soft targets the likeliest class, are `NO_IGNORE` where the row is
        ignored and C where the target is none of the classes, or no distribution over them."""
        from fastxent.io.columns import is_soft, soft_rows, target_ids

        c = self.config
        if c.target is None:
            return np.full(batch.logits.shape[0], rows.NO_TARGET), None
        column = batch.columns[c.target]
        if not is_soft(column.type):
            ids = target_ids(column, c.ignore_index, c.classes)
            outside = (ids < 0) | (ids >= c.n_classes)
            return np.where(ids == c.ignore_index, NO_IGNORE, np.where(outside, c.n_classes, ids)), None
        found, bad = soft_rows(column, c.n_classes)
        soft = widened(found.values, found.dtype).astype(dtype, order="C")
        with np.errstate(invalid="ignore"):
            broken = ~((soft >= 0) & (soft < np.inf)).all(axis=1)
        ids = np.where(np.isnan(soft), -1.0, soft).argmax(axis=1).astype(np.int64)
        ids[list(bad)] = c.n_classes
        ids[broken] = c.n_classes
        if column.null_count:
            ids[np.asarray(column.is_null())] = NO_IGNORE
        return ids, Matrix.of(soft)

    def _numbers(self, batch: Batch, name: str | None, target: np.ndarray) -> np.ndarray | None:
        """A column of weights or bytes. A row without a finite number, or with a negative number of bytes, is bad, and
        marked so in ``target``."""
        from fastxent.io.columns import float_column

        if name is None:
            return None
        column = batch.columns[name]
        valid = np.asarray(column.is_valid())
        values = np.full(len(valid), np.nan)
        values[valid] = float_column(column.drop_null(), name)
        with np.errstate(invalid="ignore"):
            unfit = ~np.isfinite(values) | ((values < 0) if name == self.config.n_bytes else False)
        target[unfit & (target != NO_IGNORE)] = self.config.n_classes
        return values

    def _soft_nll(self, matrix: Matrix, target: np.ndarray, soft: Matrix, take: RowPass) -> np.ndarray:
        """Σ_c q_c·(-log p_c), without class weights and smoothing."""
        n, nll, share = matrix.n, np.empty(matrix.n), np.empty(matrix.n)
        if self._options.class_weight is not None:
            take = RowPass(matrix, target, NO_IGNORE, self._plain, soft, full=False, chunk=n)
            take(0, n)
        plain = LossTerms(self.config.n_classes, soft=True)
        loss_rows(0, n, take.record, target, take.status, plain.arguments(), nll, share)
        return nll

    def _soft_brier(self, matrix: Matrix, soft: Matrix) -> np.ndarray:
        """Σ_c (p_c - q_c)², some rows at a time."""
        out = np.empty(matrix.n)
        step = max(1, (1 << 20) // matrix.n_classes)
        for i in range(0, matrix.n, step):
            part = Matrix.of(np.ascontiguousarray(widened(matrix.values[i : i + step], matrix.dtype)))
            p = part.values
            if self.config.input == "logits":
                result = Matrix.of(np.empty_like(p))
                take = RowPass(part, None, NO_IGNORE, self._plain, full=False, chunk=part.n)
                take.sweep(0, part.n, Emit(take, result, emit.SOFTMAX, streaming=False))
                p = result.values
            p = p.astype(np.float64)
            p = np.exp(p) if self.config.input == "log_probs" else p
            out[i : i + step] = ((p - soft.values[i : i + step]) ** 2).sum(axis=1)
        return out

    def _refuse_bad(self, batch: Batch, status: np.ndarray, index: np.ndarray | None) -> None:
        bad = np.flatnonzero(status >= BAD_LOGITS)
        if not len(bad):
            return
        from fastxent.io.values import numbers

        i = int(bad[0])
        c = self.config.n_classes
        names = [name for name in (self.config.weight, self.config.n_bytes) if name]
        values = {name: numbers(batch.columns[name].slice(i, 1), name)[0].as_py() for name in names}
        unfit = {
            name: value
            for name, value in values.items()
            if value is None or not math.isfinite(value) or (name == self.config.n_bytes and value < 0)
        }
        if status[i] == BAD_TARGET and unfit:
            name, value = next(iter(unfit.items()))
            reason = f"column {name!r} is {'null' if value is None else value}"
        elif status[i] == BAD_TARGET and self.config.target is not None:
            value = batch.columns[self.config.target][i].as_py()
            if isinstance(value, list):
                reason = f"the target is no list of {c} probabilities"
            elif isinstance(value, str):
                reason = f"target {value!r} is not among the classes"
            elif isinstance(value, float | Decimal) and value % 1:
                reason = f"target {value} is not a whole number"
            else:
                reason = f"target {value} is outside the {c} classes 0..{c - 1}"
        else:
            row = widened(batch.held.values[i], batch.logits.dtype)
            reason = batch.bad.get(i) or _describe(row, self.config.input)
        raise BadRowError(batch.where, i if index is None else int(index[i]), reason)


def _describe(row: np.ndarray, input_: str) -> str:
    """What makes a row of logits unusable."""
    for found, name in ((np.isnan(row), "NaN"), (row == np.inf, "+inf")):
        if found.any():
            return f"logit {int(found.argmax())} is {name}"
    if input_ != "logits":
        outside = row > LARGEST[input_]
        outside |= (row < 0) & (input_ == "probs")
        if outside.any():
            what = "probability" if input_ == "probs" else "log-probability"
            return f"{what} {int(outside.argmax())} is {row[outside.argmax()]}"
    return "no logit is finite" if np.isneginf(row).all() else "the sum of the probabilities is not finite"


def _take(batch: Batch, index: np.ndarray) -> Batch:
    """The rows of a batch that pass the filter; the batch itself where all do."""
    if len(index) == batch.logits.shape[0]:
        return batch
    place = {int(old): new for new, old in enumerate(index)}
    return Batch(
        Logits(batch.held.values[index], batch.logits.dtype),
        {name: column.take(_indices(index)) for name, column in batch.columns.items()},
        batch.where,
        {place[old]: reason for old, reason in batch.bad.items() if old in place},
    )


def _indices(index: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(index)


def score_batch(batch: dict[str, Any] | pa.RecordBatch, config: EvalConfig) -> list[ScoredRows]:
    """The scored rows of columns in memory, named as ``config`` names them; for `EvalState.update`, which adds all of
    them or, where one is bad, none."""
    source = open_source(batch, logits=config.logits, columns=Scorer.columns(config), classes=config.classes)
    if source.n_classes != config.n_classes:
        raise ConfigError(f"the batch has {source.n_classes} classes, the state {config.n_classes}")
    scorer = Scorer(config)
    size = batch_bytes(512 << 20, 1, source.n_classes * 4)
    return [scorer(part).rows for unit in source.units() for part in unit.batches(size)]
