"""Rows of some hundred classes a tile at a time: the record of the wide kernel, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import reference as ref
from fastxent.kernels.launch import RowOptions, RowPass
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.rows import record as r, short

FIELDS = [r.NLL, r.LSE, r.MAX, r.REST, r.LOG_SUM]
CLASSES = (49, 63, 64, 65, 79, 80, 81, 96, 97, 100, 128, 129, 200, 299, 300)


def losses(x: np.ndarray, target: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    values = x.view(np.uint16) if dtype == "bfloat16" else x
    take = RowPass(Matrix.of(values, dtype), target, -100, RowOptions(), full=False)
    take(0, len(x))
    return take.record[FIELDS, : len(x)].copy(), take.status[: len(x)].copy()


@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_the_record_is_that_of_the_wide_kernel(dtype, monkeypatch):
    cases = []
    for c in CLASSES:
        rng = np.random.default_rng(c)
        n = int(rng.choice([1, 7, 8, 15, 17, 40, 64]))
        x = np.concatenate([ref.rows_of(family, n, c, ref.DTYPES[dtype], c) for family in ref.FAMILIES])
        x = x[rng.permutation(len(x))[:n]]
        x[rng.random(n) < 0.2, c // 2] = rng.choice([np.nan, np.inf, -np.inf])
        x[rng.random(n) < 0.1] = -np.inf
        target = rng.integers(c, size=n)
        target[rng.random(n) < 0.2] = -100
        target[rng.random(n) < 0.1] = c
        cases.append((x, target, *losses(x, target, dtype)))
    assert set(np.concatenate([status for *_, status in cases])) == {r.USED, r.IGNORED, r.BAD_LOGITS, r.BAD_TARGET}
    monkeypatch.setattr(short, "SHORT", 0)
    for x, target, record, status in cases:
        wide, expected = losses(x, target, dtype)
        np.testing.assert_array_equal(status, expected)
        used = status == r.USED
        np.testing.assert_array_equal(record[:, used].view(np.int64), wide[:, used].view(np.int64), str(x.shape))
        assert np.isnan(record[:2, ~used]).all()
