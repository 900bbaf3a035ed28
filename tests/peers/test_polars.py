"""polars Series as input."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import fastxent as fx
import reference as ref

X = ref.rows_of("normal", 6, 9, np.float32)
TARGET = np.array([0, 8, -100, 3, 4, 1])


@pytest.mark.parametrize("kind", [pl.Array(pl.Float32, 9), pl.List(pl.Float32)], ids=["Array", "List"])
@pytest.mark.parametrize("chunks", [1, 3])
def test_series_are_taken_as_they_are(kind, chunks):
    parts = [pl.Series("logits", part.tolist(), dtype=kind) for part in np.split(X, chunks)]
    logits = pl.concat(parts, rechunk=False)
    assert logits.n_chunks() == chunks
    loss = fx.cross_entropy(logits, pl.Series("target", TARGET), reduction="none")
    np.testing.assert_array_equal(loss, fx.cross_entropy(X, TARGET, reduction="none"))
    np.testing.assert_array_equal(fx.log_softmax(logits), fx.log_softmax(X))
    assert fx.logsumexp(pl.Series(X[0])) == fx.logsumexp(X[0])
