"""Rows without logits: the log-probability of the outcome, or numbers that another program computed."""

from __future__ import annotations

import numpy as np

from fastxent.errors import BadRowError
from fastxent.io.batch import Batch
from fastxent.options.config import EvalConfig
from fastxent.scoring.lookalike import TOLERANCE
from fastxent.scoring.refusal import bad_number
from fastxent.scoring.rows import BAD_LOGITS, BAD_TARGET, IGNORED, USED, KeptColumns, ScoredRows
from fastxent.scoring.targets import Preparation, Prepared, logprobs_of


class GivenScorer:
    """Takes the loss of each row, if there is one, and its scores from columns.

    keeps: bool. Keep the columns for a visitor.
    """

    def __init__(self, config: EvalConfig, dtype: str = "", *, keeps: bool = False) -> None:
        self.config, self.keeps = config, keeps
        self.prepare = Preparation(config)

    def __call__(self, batch: Batch) -> ScoredRows:
        """The rows that pass ``where``. `BadRowError` for the first bad row, unless bad rows are skipped."""
        for _ in batch.blocks:  # which hold nothing
            pass
        return self.rows(self.prepare(batch, np.dtype(np.float64)))

    def rows(self, prepared: Prepared) -> ScoredRows:
        """Score the rows of a batch that are prepared. Errors as above."""
        n, c = len(prepared.target), self.config
        nothing, none = np.zeros(n), np.zeros(n, np.int64)
        status, nll = np.full(n, USED, np.int8), nothing
        if c.target_logprob is not None:
            given, valid = logprobs_of(prepared.columns[c.target_logprob], c.target_logprob)
            with np.errstate(invalid="ignore"):
                nll = 0.0 - given  # a certain row costs 0.0, not -0.0
                status[~(given <= TOLERANCE)] = BAD_LOGITS
            status[~valid] = IGNORED
        status[(prepared.target == c.n_classes) & (status != IGNORED)] = BAD_TARGET
        status[list(prepared.wrong)] = BAD_TARGET
        if c.on_bad_row == "error" and status.max(initial=0) >= BAD_LOGITS:
            self._refuse(prepared, status, nll)
        return ScoredRows(
            status=status,
            target=prepared.target,
            loss=nll,
            class_weight=None,
            nll=nll,
            lse=nothing,
            confidence=nothing,
            predicted=none,
            rank=none,
            entropy=nothing,
            brier=nothing,
            weight=prepared.weight,
            n_bytes=prepared.n_bytes,
            cluster=None if c.cluster is None else prepared.columns[c.cluster],
            by={name: prepared.columns[name] for name in c.by},
            scores=prepared.scores,
            kept=KeptColumns(prepared.columns) if self.keeps else None,
            prepared=prepared,
        )

    def shares(self, batch: Batch) -> np.ndarray:
        """The weight of each row in the denominator of a mean."""
        rows = self.prepare(batch, np.dtype(np.float64))
        return np.ones(len(rows.target)) if rows.weight is None else rows.weight

    def _refuse(self, prepared: Prepared, status: np.ndarray, nll: np.ndarray) -> None:
        """Raise the error of the first bad row."""
        i = int(np.argmax(status >= BAD_LOGITS))
        why = f"the log-probability is {-nll[i]}" if status[i] == BAD_LOGITS else bad_number(self.config, prepared, i)
        raise BadRowError(prepared.where, prepared.place(i), str(why))
