"""The targets of two dumps, which must agree; the columns beside them are those of the first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastxent.errors import BadRowError
from fastxent.io.batch import Batch
from fastxent.kernels.matrix import Matrix
from fastxent.options.config import EvalConfig
from fastxent.scoring.targets import Preparation, Prepared

ADVICE = "compare two dumps of the same rows in the same order"


class PairTargets:
    """Finds the targets of the second dump under one configuration.

    preparation: that of the first dump. compute: float type of soft targets of the second.
    """

    def __init__(self, config: EvalConfig, preparation: Preparation, compute: np.dtype[Any]) -> None:
        self.config, self._preparation, self._compute = config, preparation, compute

    def matched(self, prepared: Prepared, batch: Batch) -> Prepared:
        """The same rows of the second dump. `BadRowError` for the first whose target is another one."""
        c = self.config
        columns = {**prepared.columns, **self._preparation.taken(batch, prepared.index)}
        target, soft = prepared.target.copy(), prepared.soft
        wrong = prepared.wrong | self._preparation.wrong(batch, prepared.index)
        target[list(wrong)] = c.n_classes
        if c.target is not None and c.target in batch.columns:
            found, soft = self._preparation.targets(columns[c.target], self._compute)
            unlike = self._unlike((prepared.target, prepared.soft), (found, soft))
            unlike[list(wrong)] = False
            bad = np.flatnonzero(unlike)
            if bad.size:
                self._refuse(int(bad[0]), prepared, columns, batch)
        scores, where = self._preparation.scores(columns, target), batch.where
        return replace(prepared, columns=columns, where=where, target=target, soft=soft, scores=scores, wrong=wrong)

    def _unlike(self, a: tuple[np.ndarray, Matrix | None], b: tuple[np.ndarray, Matrix | None]) -> np.ndarray:
        """Which rows have other targets in the second dump."""
        if self.config.task == "binary":  # classes in one dump may be probabilities of 0 and 1 in the other
            (first, mine), (second, theirs) = (_as_shares(*side) for side in (a, b))
            unlike: np.ndarray = (first != second) | (mine != theirs)
            return unlike
        unlike = a[0] != b[0]
        if a[1] is not None and b[1] is not None:
            mine, theirs = a[1].values.astype(self._compute), b[1].values
            unlike |= ((mine != theirs) & ~(np.isnan(mine) & np.isnan(theirs))).any(axis=1)
        return unlike

    def _refuse(self, i: int, prepared: Prepared, columns: dict[str, Any], batch: Batch) -> None:
        name = str(self.config.target)
        here, there = columns[name][i].as_py(), prepared.columns[name][i].as_py()
        place = f"{prepared.where.file}, {prepared.where.place(prepared.place(i)).spot}"
        what = f"the target is {here!r}, but {there!r} in {place}"
        if isinstance(here, list):
            what = f"the target is not that of {place}"
        raise BadRowError(batch.where, prepared.place(i), what, ADVICE)


def _as_shares(target: np.ndarray, soft: Matrix | None) -> tuple[np.ndarray, np.ndarray]:
    """(0 for the rows of a binary dump that have a class, else the target; the probability of the positive class)."""
    known = (target >= -1) & (target <= 1)
    shares = (target == 1).astype(np.float64) if soft is None else soft.values[:, 0]
    return np.where(known, 0, target), np.where(known, shares, 0.0)
