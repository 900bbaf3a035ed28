"""A row's bits are the row's alone: whatever its neighbours, its place and the number of threads."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

import fastxent as fx
import reference as ref
from tests.functions.every_function import assert_same_bits, every_function, unaligned

families = st.sampled_from(list(ref.FAMILIES))


@settings(max_examples=120)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 3, 5, 8, 10, 16, 31, 33, 64, 65, 128, 129, 1000, 2049]),
    st.sampled_from(list(ref.DTYPES)),
    st.lists(families, min_size=1, max_size=5),
    st.integers(1, 40),
)
@example(0, 64, "float16", ["denormal"], 3)  # 0 and -0 are the largest of a row
@example(0, 1000, "bfloat16", ["denormal"], 40)
def test_a_row_scored_alone_or_anywhere_has_the_same_bits(seed, c, dtype, neighbours, n):
    """Among neighbours of every kind, broken ones too; at another place; unaligned; alone; widened to float32."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([ref.rows_of(family, n, c, ref.DTYPES[dtype], seed) for family in neighbours])
    x[rng.random(len(x)) < 0.05, 0] = np.nan
    x = x[rng.permutation(len(x))]
    target = rng.integers(c, size=len(x))
    batch = every_function(x, target)

    moved = rng.permutation(len(x))
    assert_same_bits(every_function(unaligned(x[moved]), target[moved]), {k: v[moved] for k, v in batch.items()})
    for row in rng.integers(len(x), size=3):
        alone = every_function(x[row], target[row])
        assert_same_bits({k: np.asarray(v) for k, v in alone.items()}, {k: v[row] for k, v in batch.items()})
    if x.itemsize == 2:
        widened = every_function(x.astype(np.float32), target)
        with np.errstate(over="ignore"):
            for name in ("grad", "softmax", "log_softmax", "logsumexp"):
                widened[name] = widened[name].astype(batch[name].dtype)
        assert_same_bits(widened, batch)


@pytest.fixture
def threads():
    """Whatever the test sets, the suite goes on with the number it had."""
    before = fx.get_num_threads()
    yield fx.set_num_threads
    fx.set_num_threads(before)


SCALARS = {
    "mean": {},
    "sum": {"reduction": "sum"},
    "weighted": {"weight": np.random.default_rng(9).random(1000)},
    "smoothed": {"label_smoothing": 0.1, "z_loss": 1e-4},
}


@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_scalar_depends_neither_on_threads_nor_on_the_order_of_rows(name, dtype, threads):
    x = ref.rows_of("language model", 4000, 1000, dtype)
    x[::7] *= 20
    rng = np.random.default_rng(10)
    target = rng.integers(1000, size=len(x))
    sample_weight = rng.normal(size=len(x))
    results = set()
    for count, order in ((1, np.arange(len(x))), (2, np.arange(len(x))), (2, rng.permutation(len(x)))):
        threads(count)
        options = SCALARS[name] | {"sample_weight": sample_weight[order]}
        loss, grad = fx.cross_entropy_with_grad(x[order], target[order], **options)
        results.add((loss, fx.cross_entropy(x[order], target[order], **options), grad[np.argsort(order)].tobytes()))
    assert len(results) == 1


def test_callers_in_many_threads_get_the_same_bits():
    x = ref.rows_of("language model", 2000, 1000, np.float32)
    target = np.random.default_rng(12).integers(1000, size=len(x))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: fx.cross_entropy_with_grad(x, target), range(12)))
    assert len({result.loss for result in results}) == 1
    assert len({result.grad.tobytes() for result in results}) == 1


@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_a_scalar_is_the_correctly_rounded_sum_of_the_rows(dtype):
    x = ref.rows_of("language model", 3000, 50, ref.DTYPES[dtype])
    target = np.random.default_rng(11).integers(50, size=len(x))
    none = fx.cross_entropy(x, target, reduction="none")
    if none.dtype == np.float32:  # the float64 behind it is that of the record
        np.testing.assert_array_equal(none, fx.row_statistics(x, target).nll.astype(np.float32))

    def rows_of(x, target):
        if none.dtype == np.float64:
            return fx.cross_entropy(x, target, reduction="none")
        return fx.row_statistics(x, target).nll

    total = math.fsum(rows_of(x, target))
    assert fx.cross_entropy(x, target, reduction="sum") == total
    assert fx.cross_entropy(x, target) == total / len(x)
    parts = [math.fsum(rows_of(x[k : k + 700], target[k : k + 700])) for k in range(0, 3000, 700)]
    assert fx.cross_entropy(x, target, reduction="sum") == pytest.approx(math.fsum(parts), rel=1e-15)
