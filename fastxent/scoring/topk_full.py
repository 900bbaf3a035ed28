"""Batches of a top-k dump and a full one: the rows of either, and bounds of their divergences.

The classes that a row lists count exactly. Of the others the full row has every probability, which gives the best
bounds that exist; see `kernels.rows.unlisted`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fastxent.io.lockstep import PairBatch
from fastxent.kernels.floats import widened
from fastxent.kernels.launch import RowPass
from fastxent.kernels.rows import record as r, unlisted as u
from fastxent.options.config import EvalConfig
from fastxent.scoring.pair_targets import PairTargets
from fastxent.scoring.pairs import Steps, StepScorer, join
from fastxent.scoring.rest import log
from fastxent.scoring.rows import USED, ScoredRows, TopkRows
from fastxent.scoring.scorer import Scorer, Sweep
from fastxent.scoring.topk import TopkScorer
from fastxent.scoring.topk_pairs import Bounds, Entries, entries_of, of_shared, pair_of

_CHUNK = 1 << 20  # log-probabilities of full rows that are in memory at a time


def config_of_full(config: EvalConfig) -> EvalConfig:
    """The configuration of the full dump."""
    assert config.full_logits is not None
    return replace(
        config, logits=config.full_logits, full_logits=None, ids=None, other=None, target_logprob=None,
        open_classes=False,
    )  # fmt: skip


class FullPairScorer(StepScorer):
    """Scores batches of a top-k dump and a full one under one configuration.

    dtype: str. Float type of the full logits. full: 0 if the first dump has them, 1 if the second has.
    """

    def __init__(self, config: EvalConfig, dtype: str, full: int) -> None:
        self.config, self.full = config, full
        self._topk, self._whole = TopkScorer(config), Scorer(config_of_full(config), dtype)
        self._targets = PairTargets(config, self._topk.prepare, np.dtype(np.float64))

    def steps(self, batch: PairBatch) -> Steps:
        """Score a batch, whose blocks are sent. `BadRowError` as in `StepScorer`."""
        prepared = self._topk.prepare(batch, np.dtype(np.float64))
        sides = prepared, self._targets.matched(prepared, batch.other)
        listing = sides[1 - self.full]
        lists = self._topk.lists(listing)
        rows = self._topk.rows(listing, lists)
        sweep, known, n = Sweep(self._whole, sides[self.full]), entries_of(lists, rows, rows.target), len(rows.status)
        logq, apart = np.zeros(len(known.row)), np.zeros((u.FIELDS, n))
        while (block := (yield)) is not None:
            take = sweep.turn_to(block.other if self.full else block)
            take.sweep(0, take.logits.n)
            sweep.settle()
            self._against(take, rows, known, logq, apart)
        found = rows, _exact(sweep.rows())
        a, b = found[::-1] if self.full == 0 else found
        b = replace(b, cluster=a.cluster, by=a.by, weight=a.weight, n_bytes=a.n_bytes)
        join(a, b)
        with np.errstate(all="ignore"):  # rows that are not used
            pq, qp, js = of_shared(known.row, known.logprobs, logq, n)
        bounds = _bounds((pq, qp, js), apart, ("ba", "ab") if self.full == 0 else ("ab", "ba"))
        return pair_of(batch, prepared, (a, b), bounds, a.predicted == b.predicted)

    def _against(
        self, take: RowPass, rows: TopkRows, known: Entries, logq: np.ndarray, apart: np.ndarray
    ) -> None:  # fmt: skip
        """Fill ``logq`` of the known classes, and ``apart``, for the rows that were swept."""
        n, c, offset = take.logits.n, self.config.n_classes, take.offset
        starts = np.searchsorted(known.row, np.arange(offset, offset + n + 1))
        rooms = tuple(np.empty(c) for _ in range(4))
        step = max(1, _CHUNK // c)
        for begin in range(0, n, step):
            end = min(n, begin + step)
            part, held = slice(offset + begin, offset + end), slice(starts[begin], starts[end])
            with np.errstate(all="ignore"):  # rows that are not used
                full = self._logs(take.logits.values[begin:end], take.logits.dtype, take.record[r.LSE, part])
            logq[held] = full[known.row[held] - part.start, known.ids[held]]
            used = (take.status[part] == USED) & (rows.status[part] == USED)
            entries = starts[begin : end + 1] - starts[begin], np.ascontiguousarray(known.ids[held])
            more = known.nameless[part]
            limits = rows.rest_low[part] + more, rows.rest_high[part] + more, rows.cut[part]
            found = np.zeros((u.FIELDS, end - begin))
            u.bound_unlisted(full, used, entries, limits, (*rooms, np.full(c, -1)), found)
            apart[:, part] = found

    def _logs(self, values: np.ndarray, dtype: str, lse: np.ndarray) -> np.ndarray:
        """Log-probabilities of full rows."""
        found = widened(values, dtype).astype(np.float64, order="C")
        if self.config.input == "probs":
            return log(found.reshape(-1)).reshape(found.shape)
        return found - lse[:, None] if self.config.input == "logits" else found


def _exact(rows: ScoredRows) -> TopkRows:
    """Full rows as rows that list all classes."""
    n = len(rows.status)
    one, none = np.ones(n), np.zeros(n)
    return TopkRows(
        **vars(rows), nll_low=rows.nll, nll_high=rows.nll, rank_high=rows.rank, entropy_high=rows.entropy,
        brier_high=rows.brier, listed=one, mass=one, own=np.full(n, np.nan), rest_low=none, rest_high=none, cut=none,
    )  # fmt: skip


def _bounds(shared: tuple[np.ndarray, ...], apart: np.ndarray, names: tuple[str, str]) -> Bounds:
    """The least and the most of each divergence. names: of KL(p‖q) and KL(q‖p), p of the top-k dump."""
    found = {}
    for k, (name, sums) in enumerate(zip((*names, "js"), shared, strict=True)):
        most = math.log(2.0) if name == "js" else np.inf
        low = np.clip(sums + apart[2 * k], 0.0, most)
        found[name] = low, np.clip(sums + apart[2 * k + 1], low, most)
    return found
