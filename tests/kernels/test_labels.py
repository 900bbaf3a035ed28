"""Kernels over labels and records of rows: what NumPy computes in several passes."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.rows.labels import code_classes, rows_within


def test_class_ids() -> None:
    ids = np.array([0, 2, 3, -1, -100, 2**63 - 1, -(2**63), 1], np.int64)
    ids.flags.writeable = False
    for ignore, due in ((-100, [0, 2, 3, 3, -7, 3, 3, 1]), (2, [0, -7, 3, 3, 3, 3, 3, 1])):
        coded = np.empty(len(ids), np.int64)
        code_classes(ids, ignore, -7, 3, coded)
        assert coded.tolist() == due


def test_rows_within_bounds() -> None:
    rng = np.random.default_rng(0)
    values = np.array([-np.inf, -0.5, 0.5, 1.0, 2.0, np.inf, np.nan])
    status, record = rng.integers(0, 3, 2000).astype(np.int8), rng.choice(values, (2, 2000))
    for bounds in ((0.5, 1.0, -np.inf, np.inf), (-np.inf, np.inf, -0.5, 1.0)):
        for scale in (1.0, 0.5):
            first = record[0] * scale
            with np.errstate(invalid="ignore"):
                due = (status == 1) & (first >= bounds[0]) & (first <= bounds[1])
                due &= (record[1] >= bounds[2]) & (record[1] <= bounds[3])
            rows = np.empty(2000, np.int64)
            n = rows_within(status, 1, record[0], scale, record[1], bounds, rows)
            assert rows[:n].tolist() == np.flatnonzero(due).tolist()
