"""Batches of few classes that are summed while they are scored: no record of their rows is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastxent.io.batch import Batch, Block
from fastxent.io.storage.buffers import buffers
from fastxent.kernels.cuts import PLACE, ROWS, WIDTH, Cuts
from fastxent.kernels.fold import Plan, Terms
from fastxent.kernels.grid import MOST_ROWS, WHOLE_BITS, by_bin, places_of
from fastxent.kernels.grouped import Words
from fastxent.kernels.launch import RowPass
from fastxent.kernels.rows import record as r
from fastxent.kernels.rows.class_sums import BLOCK, block_at, room, sum_rows
from fastxent.kernels.rows.wide import NARROW
from fastxent.kernels.tally import FIRST_PATTERN, PATTERN_SHIFT, PATTERNS
from fastxent.options.config import EvalConfig
from fastxent.scoring.classwise import CLASSWISE
from fastxent.scoring.lookalike import bounds_of
from fastxent.scoring.odds_sums import BinarySums
from fastxent.scoring.rows import BAD_TARGET, USED, ScoredRows
from fastxent.scoring.scorer import Scorer, Sweep, Turn, Turns, refuse
from fastxent.scoring.targets import NO_IGNORE, Prepared

_UNSUMMED = (CLASSWISE, "nll_minus_entropy")  # metrics of numbers that are not in the record
_TABLES = 4  # that neighbouring rows are counted in


@dataclass
class ClassSums:
    """The sums of rows that are unweighted and each of one class: what `ScoredRows` of them would give."""

    statuses: np.ndarray  # int64 (4,): rows by status
    words: Words  # of the columns and the pairs of the plan
    cuts: Cuts  # calibration
    grid: np.ndarray  # int64: see `kernels.grid`
    nll: np.ndarray  # int64: see `kernels.tally.tally_patterns`
    extremes: np.ndarray  # float64 (2,): the least and the largest NLL
    matrix: np.ndarray  # int64 (C, C): rows by target and prediction
    losses: Cuts  # the NLL of each class
    probabilities: int
    unnormalised: int = 0
    soft_targets: int = 0
    unnormalised_targets: int = 0

    @property
    def n(self) -> int:
        """Used rows."""
        return int(self.statuses[USED])


Summed = ClassSums | BinarySums
Scored = Summed | ScoredRows | list[ScoredRows] | Iterator[ScoredRows]  # what is left of a batch


def can_sum(config: EvalConfig) -> bool:
    """Whether rows of a multiclass dump are summed while they are scored, if their targets are ids."""
    c = config
    apart = c.by or c.cluster or c.weight or c.n_bytes or c.scores or c.class_weight is not None or c.label_smoothing
    few = c.task == "multiclass" and not c.partial and 2 <= c.n_classes <= NARROW
    plain = c.input == "logits" and c.clip_eps is None and not set(c.metrics) & set(_UNSUMMED)
    return bool(few and plain and c.target is not None and not apart)


class ClassSummingScorer:
    """Sums batches of few classes under a configuration of which `can_sum` holds. Other batches, of soft targets or of
    very many rows, are scored row by row.

    terms, pairs: what to sum of scored rows, and what products of it: of a `MetricPlan`.
    """

    def __init__(
        self,
        config: EvalConfig,
        dtype: str,
        terms: Callable[[ScoredRows], Terms],
        pairs: list[tuple[int, int]],
    ) -> None:
        self.config, self.rows = config, Scorer(config, dtype)
        self._terms, self._pairs = terms, np.array(pairs, np.int64).reshape(-1, 2)
        self._pass: Pass | None = None

    def __call__(self, batch: Batch) -> ScoredRows | ClassSums:
        """Sum or score the rows that pass ``where``. Errors as in `Scorer`."""
        prepared = self.rows.prepare(batch, self.rows.compute)
        if prepared.soft is not None or not 0 < len(prepared.target) <= MOST_ROWS:
            sweep = Sweep(self.rows, prepared)
            for block in batch.blocks:
                sweep.add(block)
            return sweep.rows()
        summing = _Summing(self, prepared)
        for block in batch.blocks:
            summing.add(block)
        return summing.sums()

    def turn_to(self, turn: Turn, target: np.ndarray) -> Pass:
        """The pass over the rows of a turn."""
        given = self._pass
        if given is not None and given.take.logits.dtype == turn.matrix.dtype:
            given.take.turn_to(turn.matrix, target)
            return given
        take = RowPass(turn.matrix, target, NO_IGNORE, self.rows.options, full=True, chunk=BLOCK)
        terms = self._terms(_rows_of(take))
        plan = Plan.of(terms.table, self._pairs)
        c = self.config
        slack, bounds = bounds_of(c.n_classes, turn.matrix.dtype, c.temperature)
        rule = c.on_bad_row == "error", self.rows.probes, c.temperature, slack, bounds
        self._pass = Pass(take, plan, rule, room(len(plan.table)))
        return self._pass


class Pass(NamedTuple):
    """What sums rows: a pass whose record is that of a block, what is summed of the record, and how.

    rule, room: see `kernels.rows.class_sums.sum_rows`.
    """

    take: RowPass
    plan: Plan
    rule: tuple[Any, ...]
    room: tuple[Any, ...]


def _rows_of(take: RowPass) -> ScoredRows:
    """The rows of a block, as columns of the record of a pass."""
    record, ids = take.record, take.ids
    return ScoredRows(
        status=take.status,
        target=ids[r.PREDICTED],  # nothing is summed of it
        loss=record[r.NLL],
        class_weight=None,
        nll=record[r.NLL],
        lse=record[r.LSE],
        confidence=record[r.CONFIDENCE],
        predicted=ids[r.PREDICTED],
        rank=ids[r.RANK],
        entropy=record[r.ENTROPY],
        brier=record[r.BRIER],
    )


class _Summing:
    """One pass over the logits of a prepared batch, whose rows are summed."""

    def __init__(self, scorer: ClassSummingScorer, prepared: Prepared) -> None:
        self._scorer, self._prepared, self._turns = scorer, prepared, Turns(scorer.rows, prepared)
        c, n = scorer.config, len(prepared.target)
        self._words, self._plan = Words.zeros(0), Plan.of(np.zeros((0, 5), np.int64), np.zeros((0, 2), np.int64))
        self._counts = np.zeros(BAD_TARGET + 2, np.int64)
        self._matrix = np.zeros((_TABLES, c.n_classes, c.n_classes), np.int64)
        self._ranks = np.zeros((_TABLES, c.n_classes), np.int64)
        self._nll, self._extremes = np.zeros(PATTERNS, np.int64), np.array([np.inf, -np.inf])
        self._binned, self._losses = (_cuts(*shape, n) for shape in ((c.bins, PLACE), (c.n_classes, WIDTH)))
        self._grid = np.zeros(2 * places_of(WHOLE_BITS, c.bins), np.int64)

    def add(self, block: Block) -> None:
        """Sum the next rows of the batch."""
        turn, prepared = self._turns.take(block), self._prepared
        take, self._plan, rule, space = self._scorer.turn_to(turn, prepared.target[turn.begin : turn.end])
        terms = self._plan.table, self._plan.pairs
        if not len(self._words.words):
            self._words = Words.zeros(sum(map(len, terms)))
        histogram = self._nll, PATTERN_SHIFT, FIRST_PATTERN
        binned, losses = tuple(self._binned), tuple(self._losses)
        sums = *self._words, self._matrix, self._ranks, histogram, self._extremes, binned, self._grid, losses
        kernels, held = (take.kernel_at(), block_at()), tuple(take.buffers())
        done, fine = sum_rows(kernels, take.arguments(), held, rule, terms, sums, self._counts, space)
        if not fine:
            raise ValueError("scored rows hold a class that is out of range")
        if done < take.logits.n:
            refuse(self._scorer.config, prepared, turn, done, int(take.status[done % BLOCK]))

    def sums(self) -> ClassSums:
        """The sums, once all blocks have been added."""
        rows, _ = by_bin(self._grid, self._scorer.config.bins)
        self._binned.sums[:, ROWS], self._binned.sums[:, WIDTH] = rows.sum(axis=1), rows[:, 1]
        words = Words(*self._plan.sums(*self._words, self._ranks.sum(axis=0)))
        return ClassSums(
            self._counts[: BAD_TARGET + 1], words, self._binned, self._grid, self._nll, self._extremes,
            self._matrix.sum(axis=0), self._losses, int(self._counts[-1]),
        )  # fmt: skip


def _cuts(places: int, width: int, rows: int) -> Cuts:
    """No sums, and room for what is left of the numbers of so many rows."""
    left = buffers().take(8 * rows).view(np.float64), buffers().take(8 * rows).view(np.int64), np.zeros(1, np.int64)
    return Cuts(np.zeros((places, width), np.int64), left)
