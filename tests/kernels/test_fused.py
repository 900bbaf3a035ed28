"""The fused kernel of few classes: the bits of the way by a record, in whole tiles and in the rows behind them."""

from __future__ import annotations

import numpy as np
import pytest

import fastxent as fx
import reference as ref
from fastxent.kernels.launch import RowPass

CLASSES = (1, 2, 3, 4, 5, 10, 16, 17, 48)
ROWS = (1, 15, 16, 17, 127, 129, 300)


def results(x: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    rows = fx.cross_entropy_with_grad(x, target, reduction="none")
    total = fx.cross_entropy_with_grad(x, target)
    return [*rows, *total, fx.log_softmax(x)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_are_those_of_the_way_by_a_record(dtype, monkeypatch):
    """Halves are widened to float32, which `test_same_bits` holds against float32."""
    kind = np.dtype(dtype)
    cases = []
    for c in CLASSES:
        for n in ROWS:
            rng = np.random.default_rng([c, n])
            x = np.concatenate([ref.rows_of(family, n, c, kind, n) for family in ref.FAMILIES])
            x = x[rng.permutation(len(x))[:n]]
            x[rng.random(n) < 0.1, 0] = rng.choice([np.nan, np.inf, -np.inf])
            target = rng.integers(c, size=n)
            target[rng.random(n) < 0.2] = -100
            cases.append((x, target, results(x, target)))
    monkeypatch.setattr(RowPass, "_fused", lambda *_: None)
    for x, target, found in cases:
        for one, other in zip(found, results(x, target), strict=True):
            np.testing.assert_array_equal(ref.bits_of(np.asarray(one)), ref.bits_of(np.asarray(other)), str(x.shape))


@pytest.mark.parametrize("c", [2, 3, 10, 17, 48])
def test_nothing_beyond_the_arrays_is_touched(c, fenced):
    """Logits, class ids, gradient and losses end where memory does, one after the other."""
    page, _ = fenced
    for n in (1, 7, 16, 17, 20):
        rng = np.random.default_rng(n)
        x = rng.normal(size=(n, c)).astype(np.float32)
        target = rng.integers(c, size=n)
        loss, grad = fx.cross_entropy_with_grad(x, target, reduction="none")

        def at_the_fence(values):
            place = page[page.size - values.nbytes :].view(values.dtype).reshape(values.shape)
            place[...] = values
            return place

        for array in (x, target):
            held = at_the_fence(array)
            arguments = (held, target) if array is x else (x, held)
            again = fx.cross_entropy_with_grad(*arguments, reduction="none")
            np.testing.assert_array_equal(again.loss, loss)
            np.testing.assert_array_equal(again.grad, grad)
        before = page[: page.size - grad.nbytes].copy()
        fx.cross_entropy_with_grad(x, target, reduction="none", out=(held := at_the_fence(np.zeros_like(grad))))
        np.testing.assert_array_equal(held, grad)
        np.testing.assert_array_equal(page[: before.size], before)
        before = page[: page.size - loss.nbytes].copy()
        fx.cross_entropy(x, target, reduction="none", out=(held := at_the_fence(np.zeros_like(loss))))
        np.testing.assert_array_equal(held, loss)
        np.testing.assert_array_equal(page[: before.size], before)


@pytest.mark.parametrize("row", [0, 130, 290, 299])
def test_the_first_target_out_of_range_is_named(row):
    x = np.zeros((300, 10), np.float32)
    target = np.zeros(300, int)
    target[[row, 299]] = 10, -1
    for call in (fx.cross_entropy, fx.cross_entropy_with_grad):
        with pytest.raises(ValueError, match=rf"row {row} .* got {target[row]}$"):
            call(x, target, reduction="none")
