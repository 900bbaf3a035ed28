"""Batches of logits through the kernels: (n, C) and the columns beside it become `ScoredRows`.

A batch is prepared (its columns), swept (its logits, block by block) and put together (its rows).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fastxent.errors import BadRowError
from fastxent.io.batch import Batch, Block
from fastxent.kernels.floats import FLOAT_TYPES, widened
from fastxent.kernels.launch import CHUNK_ROWS, LossTerms, RowOptions, RowPass, row_buffers
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.rows import record as r
from fastxent.kernels.rows.loss import loss_rows
from fastxent.options.config import EvalConfig
from fastxent.scoring import classwise, soft
from fastxent.scoring.clip import bounds_of
from fastxent.scoring.lookalike import TOLERANCE, count_probabilities
from fastxent.scoring.refusal import LARGEST, reason
from fastxent.scoring.rows import BAD_LOGITS, USED, Kept, ScoredRows
from fastxent.scoring.targets import NO_IGNORE, Preparation, Prepared


class Scorer:
    """Scores batches of logits of one float type under one configuration.

    keeps: bool. Keep what a second sweep needs, of batches whose logits are one block.
    """

    def __init__(self, config: EvalConfig, dtype: str, *, keeps: bool = False) -> None:
        self.config, self.keeps = config, keeps
        labelled = config.target is not None
        weight = np.array(config.class_weight, np.float64) if labelled and config.class_weight is not None else None
        mask = None if config.class_mask is None else np.array(config.class_mask, np.uint8)
        smoothed = labelled and config.label_smoothing > 0.0
        self.probes = config.input == "logits" and config.softcap is None and mask is None
        self.options = RowOptions.of(config, mask, weight, smoothed)
        self.plain = RowOptions.of(config, mask)
        self.clip = bounds_of(config.clip_eps, config.input)
        self.prepare = Preparation(config)
        self.compute = FLOAT_TYPES[dtype].compute

    def __call__(self, batch: Batch) -> ScoredRows:
        """Score the rows that pass ``where``. `BadRowError` for the first bad row, unless bad rows are skipped."""
        sweep = Sweep(self, self.prepare(batch, self.compute))
        for block in batch.blocks:
            sweep.add(block)
        return sweep.rows()

    def shares(self, batch: Batch) -> np.ndarray:
        """The weight of each row in the denominator of a mean, from the columns alone; bad rows are found later."""
        rows = self.prepare(batch, np.dtype(np.float64))
        used = (rows.target >= 0) & (rows.target < self.config.n_classes)
        shares = np.ones(len(used)) if rows.weight is None else rows.weight
        if rows.soft is None and self.options.class_weight is not None:
            shares = self.options.class_weight[np.where(used, rows.target, 0)] * shares
        return np.where(used, shares, 0.0)


class Turn(NamedTuple):
    """The rows of a block that are swept: rows ``begin`` to ``end`` of the batch.

    places: (rows,) in the block; None if all rows of the block are there.
    given, matrix: (rows, C) as they were read, and within the bounds of ``clip``.
    """

    block: Block
    places: np.ndarray | None
    given: Matrix
    matrix: Matrix
    begin: int
    end: int


class Turns:
    """The blocks of a prepared batch, in their order."""

    def __init__(self, scorer: Scorer, prepared: Prepared) -> None:
        self._clip, self._prepared = scorer.clip, prepared
        self._read = self._end = 0  # rows of the batch, and of the prepared rows, so far

    def take(self, block: Block) -> Turn:
        """The prepared rows of the next block."""
        first, begin, values, index = self._read, self._end, block.values, None
        self._read += len(values)
        if self._prepared.index is not None:
            index = self._prepared.index[begin : np.searchsorted(self._prepared.index, self._read)] - first
            values = values if len(index) == len(values) else values[index]
        end = self._end = begin + len(values)
        given = matrix = Matrix.of(values, block.dtype)
        if self._clip is not None:
            matrix = Matrix.of(np.clip(widened(values, block.dtype), *self._clip))
        return Turn(block, index, given, matrix, begin, end)


def refuse(config: EvalConfig, rows: Prepared, turn: Turn, i: int, status: int) -> None:
    """Raise the error of row ``i`` of those of a turn, which has this status."""
    place = i if turn.places is None else int(turn.places[i])
    why = turn.block.bad.get(place) if status == BAD_LOGITS else None
    if why is None:
        why = reason(config, rows, turn.begin + i, status, turn.block.values[place], turn.block.dtype)
    raise BadRowError(rows.where, rows.place(turn.begin + i), why)


class Sweep:
    """One pass over the logits of a prepared batch."""

    def __init__(self, scorer: Scorer, prepared: Prepared) -> None:
        self._scorer, self._prepared = scorer, prepared
        n = len(prepared.target)
        self._record, self._ids, self._status = self._into = row_buffers(n)
        self._take: RowPass | None = None
        self._turns = Turns(scorer, prepared)
        self._turn: Turn
        self._probabilities = 0
        self._tolerance = TOLERANCE
        self._gaps = classwise.empty_gaps(scorer.config, prepared)
        self._kept: Matrix | None = None
        self._last: Matrix | None = None
        c = scorer.config
        is_soft = prepared.soft is not None
        self._terms = LossTerms(c.n_classes, c.label_smoothing, 0.0, scorer.options.class_weight, is_soft)
        self._brier = np.empty(n) if is_soft else self._record[r.BRIER]
        self._nll = np.empty(n) if is_soft else self._record[r.NLL]

    def add(self, block: Block) -> None:
        """Sweep the next rows of the batch."""
        take = self.turn_to(block)
        take.sweep(0, take.logits.n)
        self.settle()

    def turn_to(self, block: Block) -> RowPass:
        """The pass over the next rows of the batch, for `settle` once they have been swept."""
        self._tolerance = max(self._tolerance, TOLERANCE + block.excess)
        self._turn = self._turns.take(block)
        return self._pass(self._turn)

    def _pass(self, turn: Turn) -> RowPass:
        """The pass that fills the record of the rows."""
        matrix, begin = turn.matrix, turn.begin
        target, soft_targets = self._prepared.target[begin : turn.end], self._prepared.soft
        some = None if soft_targets is None else Matrix.of(soft_targets.values[begin : turn.end])
        if self._take is None or some is not None:
            how: dict[str, Any] = {"full": True, "chunk": CHUNK_ROWS, "into": self._into}
            self._take = RowPass(matrix, target, NO_IGNORE, self._scorer.options, some, **how)
            self._take.offset = begin
        else:
            self._take.turn_to(matrix, target, begin)
        return self._take

    def settle(self) -> None:
        """Check the rows that have been swept: `BadRowError` for the first bad one, unless bad rows are skipped."""
        scorer, (_, _, given, matrix, begin, end) = self._scorer, self._turn
        status, some = self._status[begin:end], None if self._take is None else self._take.soft
        if some is not None:
            with np.errstate(all="ignore"):  # rows that are not used
                self._brier[begin:end] = soft.brier(matrix, some, scorer.plain)
                if scorer.options.class_weight is not None:
                    target = self._prepared.target[begin:end]
                    self._nll[begin:end] = soft.unweighted_nll(matrix, target, some, scorer.plain)
        if scorer.config.input != "logits":
            self._mark(given, begin, end)
        if scorer.config.on_bad_row == "error" and status.max(initial=0) >= BAD_LOGITS:
            i = int(np.argmax(status >= BAD_LOGITS))
            refuse(scorer.config, self._prepared, self._turn, i, int(status[i]))
        if scorer.probes:
            self._probabilities += count_probabilities(
                given, self._record[:, begin:end], status, scorer.config.temperature
            )
        if self._gaps is not None:
            with np.errstate(all="ignore"):  # rows that are not used
                classwise.add_rows(self._gaps, matrix, self._prepared.target[begin:end], status, scorer.plain)
        if scorer.keeps:
            self._kept, self._last = given, matrix

    def _mark(self, given: Matrix, begin: int, end: int) -> None:
        """Mark rows that cannot be probabilities or log-probabilities."""
        config, record, status = self._scorer.config, self._record[:, begin:end], self._status[begin:end]
        most = LARGEST[config.input]
        largest = math.exp(most) if config.input == "log_probs" else most
        bad = np.isnan(record[r.ENTROPY]) | (record[r.CONFIDENCE] > largest)
        if self._scorer.clip is not None:  # the record is that of clipped numbers
            values = widened(given.values, given.dtype)
            bad |= (values > most).any(axis=1) | ((values < 0).any(axis=1) & (config.input == "probs"))
        status[(status == USED) & bad] = BAD_LOGITS

    def rows(self) -> ScoredRows:
        """The rows, once all blocks have been swept."""
        scorer, prepared, record, ids, status = self._scorer, self._prepared, self._record, self._ids, self._status
        c, terms, n = scorer.config, self._terms, len(self._status)
        if prepared.soft is not None and scorer.options.class_weight is None:
            with np.errstate(all="ignore"):  # rows that are not used
                self._nll = soft.nll(record, prepared.target, status, c.n_classes)
        loss = share = self._nll
        if not terms.plain and c.target is not None:
            loss, share = np.empty(n), np.empty(n)
            loss_rows(0, n, record, prepared.target, status, terms.arguments(), loss, share)
        scored = ScoredRows(
            status=status,
            target=prepared.target,
            loss=loss,
            class_weight=None if c.class_weight is None else share,
            nll=self._nll,
            lse=record[r.LSE],
            confidence=record[r.CONFIDENCE],
            predicted=ids[r.PREDICTED],
            rank=ids[r.RANK],
            entropy=record[r.ENTROPY],
            brier=self._brier,
            weight=prepared.weight,
            n_bytes=prepared.n_bytes,
            cluster=None if c.cluster is None else prepared.columns[c.cluster],
            by={name: prepared.columns[name] for name in c.by},
            scores=prepared.scores,
            probabilities=self._probabilities,
            class_gaps=self._gaps,
            prepared=prepared,
        )
        if c.input != "logits":
            scored.unnormalised = int(((np.abs(record[r.REST]) > self._tolerance) & (status == USED)).sum())
        if prepared.soft is not None:
            scored.soft_targets = int((status == USED).sum())
            scored.unnormalised_targets = int((soft.unnormalised(prepared.soft) & (status == USED)).sum())
        if self._kept is not None and self._last is not None:
            options = scorer.options, scorer.plain
            scored.kept = Kept(prepared.columns, self._kept, self._last, prepared.soft, *options, terms, scorer.clip)
        return scored
