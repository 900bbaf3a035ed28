"""Rows scored with the temperature of their slice: each row once, with the scorer of its temperature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastxent.io.batch import Batch
from fastxent.options.config import EvalConfig
from fastxent.scoring.binary import BinaryScorer
from fastxent.scoring.rows import ScoredRows
from fastxent.scoring.scorer import Scorer, Sweep
from fastxent.scoring.task import scorer_of
from fastxent.state.keys import EncodedColumn


class TemperedScorer:
    """Scores batches of a configuration with ``temperature_by``. A value without a temperature has that of all rows."""

    def __init__(self, config: EvalConfig, dtype: str) -> None:
        self._column = str(config.temperature_by)
        values = list(dict.fromkeys((config.temperature, *config.temperature_values)))
        place = {value: k for k, value in enumerate(values)}
        self._place = {
            key: place[value] for key, value in zip(config.temperature_keys, config.temperature_values, strict=True)
        }
        plain = replace(config, temperature_by=None, temperature_keys=(), temperature_values=())
        found = [scorer_of(replace(plain, temperature=value), dtype) for value in values]
        self._scorers = [scorer for scorer in found if isinstance(scorer, Scorer | BinaryScorer)]

    def __call__(self, batch: Batch) -> list[ScoredRows]:
        """Score the rows that pass ``where``, those of each temperature apart. Errors as in `Scorer`."""
        column = EncodedColumn.of(batch.columns[self._column], self._column)
        places = np.array([self._place.get(key, 0) for key in column.keys], np.int64)[column.index]
        chosen = self._scorers[0].prepare.chosen(batch)
        index = np.arange(batch.rows) if chosen is None else chosen
        parts = [(self._scorers[k], index[places[index] == k]) for k in np.unique(places[index]).tolist()]
        sweeps, last = [], []
        numbers = None if isinstance(self._scorers[0], Scorer) else self._scorers[0].numbers(batch.rows)
        for scorer, mine in parts:
            prepared = scorer.prepare(batch, scorer.compute, mine)
            if isinstance(scorer, Scorer):
                sweeps.append(Sweep(scorer, prepared))
            else:
                last.append((scorer, prepared))
        for block in batch.blocks:
            for sweep in sweeps:
                sweep.add(block)
            if numbers is not None:
                numbers.add(block)
        rows = [sweep.rows() for sweep in sweeps]
        return rows if numbers is None else [scorer.rows(prepared, numbers) for scorer, prepared in last]


def scorer_for(config: EvalConfig, dtype: str) -> Callable[[Batch], Any]:
    """The scorer of a configuration, with temperatures of slices or without."""
    return scorer_of(config, dtype) if config.temperature_by is None else TemperedScorer(config, dtype)
