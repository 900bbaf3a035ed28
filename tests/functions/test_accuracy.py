"""How exact the array functions are: never worse than the plain formula in the same dtype, plus one ulp.

The plain formula here is NumPy's; `tests/peers/test_torch.py` holds the same rows against torch itself.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastxent as fx
import reference as ref

CLASSES = [1, 2, 3, 10, 17, 64, 127, 128, 129, 1000, 2047, 2048, 2049, 4099]  # ends of vectors and of blocks


def assert_no_worse(result, truth, plain, dtype, terms=None) -> None:
    with np.errstate(over="ignore"):
        worst = ref.excess(result, truth, plain.astype(dtype), dtype, terms=terms)
    assert worst <= 1, f"{worst} ulp farther from the truth than the plain formula"


@pytest.mark.parametrize("dtype", ref.DTYPES)
@pytest.mark.parametrize("family", ref.FAMILIES)
def test_losses_and_softmax(family, dtype):
    for c in CLASSES:
        rows = 60 if c <= 1000 else 6
        x = ref.rows_of(family, rows, c, ref.DTYPES[dtype], seed=c)
        target = np.random.default_rng(c).integers(c, size=rows)
        finite = np.isfinite(ref.wide(x)[np.arange(rows), target])
        truth, plain = ref.log_softmax(x), ref.plain_log_softmax(x)
        loss, grad = fx.cross_entropy_with_grad(x, target, reduction="none")
        at = (np.arange(rows)[finite], target[finite])
        assert_no_worse(loss[finite], -truth[at], -plain[at], loss.dtype)
        assert (loss[~finite] == np.inf).all()
        assert_no_worse(fx.log_softmax(x), truth, plain, x.dtype, terms=0)
        one_hot = np.arange(c) == target[:, None]
        slope = np.where(one_hot, np.expm1(truth), np.exp(truth))
        assert_no_worse(fx.softmax(x), np.exp(truth), np.exp(plain), x.dtype, terms=0)
        assert_no_worse(grad, slope, np.exp(plain) - one_hot, x.dtype, terms=1)


@pytest.mark.parametrize(("c", "dtype"), [*((128_256, dtype) for dtype in ref.DTYPES), (1_000_000, "float32")])
def test_many_classes(c, dtype):
    for family in ("language model", "peaked", "flat", "masked"):
        x = ref.rows_of(family, 1, c, ref.DTYPES[dtype])
        target = np.flatnonzero(np.isfinite(ref.wide(x[0])))[[c // 3]]
        truth, plain = ref.log_softmax(x), ref.plain_log_softmax(x)
        loss, grad = fx.cross_entropy_with_grad(x, target, reduction="none")
        assert_no_worse(loss, -truth[0, target], -plain[0, target], loss.dtype)
        one_hot = np.arange(c) == target[:, None]
        assert_no_worse(
            grad, np.where(one_hot, np.expm1(truth), np.exp(truth)), np.exp(plain) - one_hot, x.dtype, terms=1
        )
        statistics = fx.row_statistics(x, target)
        assert statistics.rank[0] == ref.row_statistics(x, target).rank[0]
        assert statistics.predicted[0] == ref.wide(x).argmax()


@pytest.mark.parametrize("c", [2, 48, 49, 1000, 3000])
@pytest.mark.parametrize("top", [0.1, 17.3, 120.0, 249.0, 1000.1])
def test_a_loss_that_hangs_on_one_other_class_keeps_its_digits(c, top):
    """Where x - max, rounded, would be off by up to 8 units of the loss, in blocks of any order. 3: the rounded entry
    of a table, two roundings, and the slack of a step, 0.7 at -30, in units that may be half as large as the loss's."""
    rng = np.random.default_rng(c)
    x = np.full((400, c), -np.inf, np.float32)
    hot = rng.integers(c, size=400)
    other = (hot + rng.integers(1, c, size=400)) % c
    x[np.arange(400), hot] = top + rng.uniform(-1, 1, 400)
    x[np.arange(400), other] = x[np.arange(400), hot] - rng.uniform(0.5, 30, 400)
    truth = -ref.log_softmax(x)[np.arange(400), hot]
    loss = fx.cross_entropy(x, hot, reduction="none")
    record = fx.row_statistics(x, hot)
    assert ref.ulp_error(loss, truth, np.float32).max() <= 3
    assert ref.ulp_error(record.nll.astype(np.float32), truth, np.float32).max() <= 3


def test_extreme_rows():
    x = np.float32([[3e38, -3e38, 0], [1e4, -1e4, 0], [-3e38, -3e38, -3e38], [1e-45, -1e-45, 0]])
    np.testing.assert_array_equal(fx.softmax(x)[:2], [[1, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(fx.softmax(x)[2:], 1 / 3, rtol=1e-7)
    np.testing.assert_array_equal(fx.log_softmax(x)[0], np.float32([0, -np.inf, -3e38]))  # -6e38 is beyond float32
    np.testing.assert_array_equal(fx.log_softmax(x)[1], np.float32([0, -2e4, -1e4]))
    np.testing.assert_allclose(fx.row_statistics(x, [1, 1, 1, 1]).nll[:2], [6e38, 2e4], rtol=1e-7)
    np.testing.assert_allclose(fx.logsumexp(x), np.float32([3e38, 1e4, -3e38, np.log(3)]), rtol=1e-7)
    assert not np.isnan(fx.cross_entropy_with_grad(x, [1, 1, 1, 1], reduction="none").grad).any()
