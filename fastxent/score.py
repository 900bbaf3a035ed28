"""A batch of logits through the kernels: (n, C) and the columns beside it become `ScoredRows`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastxent.config import EvalConfig
from fastxent.errors import BadRowError, ConfigError
from fastxent.io.batch import Batch, Logits
from fastxent.kernels import emit, record as rows
from fastxent.kernels.launch import MODES, Emit, LossTerms, Matrix, Options, RowPass, gradient_coefficients, loss_rows
from fastxent.scored import BAD_LOGITS, BAD_TARGET, USED, ScoredRows
from fastxent.where import Filter

if TYPE_CHECKING:
    import pyarrow as pa

_NO_IGNORE = rows.NO_TARGET + 1  # what an ignored row's target becomes, whatever the user's ignore_index
_EMPTY = np.empty(0)


def widened(values: np.ndarray, dtype: str) -> np.ndarray:
    """Half precision as float32; float32 and float64 as they are."""
    if dtype == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32) if dtype == "float16" else values


@dataclass
class Scored:
    """A batch scored, and what a second sweep over its logits needs."""

    rows: ScoredRows
    batch: Batch  # the rows that passed the filter
    take: RowPass
    terms: LossTerms

    def emit(self, out: Matrix, output: int, scale: float) -> None:
        """Softmax, log-softmax or gradient rows (times ``scale``) into ``out``, of the logits' dtype."""
        n = self.take.logits.n
        write = Emit(self.take, out, output, streaming=False)
        if output == emit.GRADIENT:
            weight = _EMPTY if self.rows.weight is None else self.rows.weight
            arguments = self.take.record, self.take.targets(0, n), self.take.status, weight, *self.terms.arguments()
            gradient_coefficients(0, n, *arguments, scale, write.coefficients)
        write(0, n)


class Scorer:
    """Scores batches under one configuration."""

    def __init__(self, config: EvalConfig, upcast: bool = False) -> None:
        self.config, self.upcast = config, upcast
        weight = None if config.class_weight is None else np.array(config.class_weight, np.float64)
        mask = None if config.class_mask is None else np.array(config.class_mask, np.uint8)
        smoothed = config.label_smoothing > 0.0
        self._options = Options(MODES[config.input], config.softcap, config.temperature, mask, weight, smoothed)
        self._filter = Filter(config.where) if config.where is not None else None
        if config.input != "logits" and self._options.shaped:
            raise ConfigError(f"temperature, softcap and class_mask shape logits; input is {config.input!r}")
        if config.clip_eps is not None and not (config.input != "logits" and 0.0 <= config.clip_eps < 0.5):
            raise ConfigError(f"clip_eps={config.clip_eps} needs input='probs' or 'log_probs' and lies in 0..0.5")

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
        matrix = self._matrix(batch.logits)
        target, soft = self._targets(batch, matrix.compute_dtype)
        take = RowPass(matrix, target, _NO_IGNORE, self._options, soft, full=True, chunk=n)
        take(0, n)
        record, ids, status = take.record[:, :n], take.ids[:, :n], take.status[:n]
        terms = LossTerms(c.n_classes, c.label_smoothing, 0.0, self._options.class_weight, soft is not None)
        loss, share = np.empty(n), np.empty(n)
        loss_rows(0, n, record, target, status, _EMPTY, *terms.arguments(), loss, share)
        if c.on_bad_row == "error":
            self._refuse_bad(batch, status, target, index)
        plain = soft is not None and not c.label_smoothing and c.class_weight is None
        with np.errstate(all="ignore"):  # rows that are not used
            brier = _brier(record) if soft is None else _soft_brier(matrix, soft, take, c)
        scored = ScoredRows(
            status=status,
            target=target,
            loss=loss,
            class_weight=None if c.class_weight is None else share,
            nll=loss if plain else record[rows.NLL],
            lse=record[rows.LSE],
            confidence=record[rows.CONFIDENCE],
            predicted=ids[rows.PREDICTED],
            rank=ids[rows.RANK],
            entropy=record[rows.ENTROPY],
            brier=brier,
            weight=self._numbers(batch, c.weight, index),
            n_bytes=self._numbers(batch, c.n_bytes, index),
            cluster=None if c.cluster is None else batch.columns[c.cluster],
            by={name: batch.columns[name] for name in c.by},
        )
        if c.input != "logits":
            scored.unnormalised = int(((np.abs(record[rows.REST]) > 1e-3) & (status == USED)).sum())
        return Scored(scored, batch, take, terms)

    def shares(self, batch: Batch) -> np.ndarray:
        """What each row counts for in the denominator of a mean, from the columns alone; bad rows are found later."""
        c = self.config
        index: np.ndarray | None = None
        if self._filter is not None:
            index = self._filter.rows(batch.columns)
            batch = _take(batch, index)
        n = batch.logits.shape[0]
        shares = np.ones(n)
        ids, soft = self._targets(batch, np.dtype(np.float64))
        used = (ids >= 0) & (ids < c.n_classes)
        if soft is None and self._options.class_weight is not None:
            shares = self._options.class_weight[np.where(used, ids, 0)]
        weight = self._numbers(batch, c.weight, index)
        return np.where(used, shares if weight is None else shares * weight, 0.0)

    def _matrix(self, logits: Logits) -> Matrix:
        eps = self.config.clip_eps
        if eps is not None:
            low, high = eps, 1.0 - eps
            if self.config.input == "log_probs":
                low, high = math.log(eps) if eps else -math.inf, math.log1p(-eps)
            return Matrix.of(np.clip(widened(logits.values, logits.dtype), low, high))
        if self.upcast:
            return Matrix.of(widened(logits.values, logits.dtype))
        return Matrix.of(logits.values, logits.dtype)

    def _targets(self, batch: Batch, dtype: np.dtype[Any]) -> tuple[np.ndarray, Matrix | None]:
        """Class ids (the likeliest class of soft targets) with ignored rows marked, and the soft targets."""
        from fastxent.io.columns import is_soft, soft_rows, target_ids

        c = self.config
        column = batch.columns[c.target]
        if not is_soft(column.type):
            ids = target_ids(column, c.ignore_index, c.classes)
            return np.where(ids == c.ignore_index, _NO_IGNORE, ids), None
        found, bad = soft_rows(column, c.n_classes)
        soft = widened(found.values, found.dtype).astype(dtype, order="C")
        with np.errstate(invalid="ignore"):
            broken = ~(soft >= 0).all(axis=1)
        ids = np.where(np.isnan(soft), -1.0, soft).argmax(axis=1).astype(np.int64)
        ids[list(bad)] = c.n_classes  # out of range: a bad target
        ids[broken] = c.n_classes
        if column.null_count:
            ids[np.asarray(column.is_null())] = _NO_IGNORE
        return ids, Matrix.of(soft)

    def _numbers(self, batch: Batch, name: str | None, index: np.ndarray | None) -> np.ndarray | None:
        from fastxent.io.columns import float_column

        if name is None:
            return None
        column = batch.columns[name]
        missing = np.flatnonzero(np.asarray(column.is_null())) if column.null_count else _EMPTY
        if len(missing):
            raise BadRowError(batch.where, _original(int(missing[0]), index), f"column {name!r} is null")
        values = float_column(column, name)
        odd = np.flatnonzero(~np.isfinite(values))
        if len(odd):
            row = int(odd[0])
            raise BadRowError(batch.where, _original(row, index), f"column {name!r} is {values[row]}")
        return values

    def _refuse_bad(self, batch: Batch, status: np.ndarray, target: np.ndarray, index: np.ndarray | None) -> None:
        bad = np.flatnonzero(status >= BAD_LOGITS)
        if not len(bad):
            return
        i = int(bad[0])
        c = self.config.n_classes
        if status[i] == BAD_TARGET:
            value = batch.columns[self.config.target][i].as_py()
            if isinstance(value, list):
                reason = f"the target is no list of {c} probabilities"
            elif isinstance(value, str):
                reason = f"target {value!r} is not among the classes"
            else:
                reason = f"target {value} is outside the {c} classes 0..{c - 1}"
        else:
            reason = batch.bad.get(i) or _describe(widened(batch.logits.values[i], batch.logits.dtype))
        raise BadRowError(batch.where, _original(i, index), reason)


def _original(row: int, index: np.ndarray | None) -> int:
    return row if index is None else int(index[row])


def _describe(row: np.ndarray) -> str:
    """What makes a row of logits unusable."""
    for found, name in ((np.isnan(row), "NaN"), (row == np.inf, "+inf")):
        if found.any():
            return f"logit {int(found.argmax())} is {name}"
    return "no logit is finite" if np.isneginf(row).all() else "the sum of the probabilities is not finite"


def _take(batch: Batch, index: np.ndarray) -> Batch:
    """The rows of a batch that pass the filter; the batch itself where all do."""
    if len(index) == batch.logits.shape[0]:
        return batch
    place = {int(old): new for new, old in enumerate(index)}
    return Batch(
        Logits(batch.logits.values[index], batch.logits.dtype),
        {name: column.take(_indices(index)) for name, column in batch.columns.items()},
        batch.where,
        {place[old]: reason for old, reason in batch.bad.items() if old in place},
    )


def _indices(index: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(index)


def _brier(record: np.ndarray) -> np.ndarray:
    """Σ_c (p_c - [c = y])² = (Σ p² - p_y²) + (1 - p_y)²."""
    p = np.exp(-record[rows.NLL])
    return np.maximum(record[rows.SUM_P2] - p * p, 0.0) + np.expm1(-record[rows.NLL]) ** 2


def _soft_brier(matrix: Matrix, soft: Matrix, take: RowPass, config: EvalConfig) -> np.ndarray:
    """Σ_c (p_c - q_c)², some rows at a time."""
    out = np.empty(matrix.n)
    if config.input == "logits":
        p_rows = Matrix.of(np.empty_like(matrix.values, order="C"), matrix.dtype)
        Emit(take, p_rows, emit.SOFTMAX, streaming=False)(0, matrix.n)
        values = p_rows.values
    else:
        values = matrix.values
    step = max(1, (1 << 20) // matrix.n_classes)
    for i in range(0, matrix.n, step):
        p = widened(values[i : i + step], matrix.dtype).astype(np.float64)
        p = np.exp(p) if config.input == "log_probs" else p
        out[i : i + step] = ((p - soft.values[i : i + step]) ** 2).sum(axis=1)
    return out
