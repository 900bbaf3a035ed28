"""Row kernels, wide and narrow, against the oracle and each other; a row's numbers are a function of the row alone."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest

import fastxent as fx
import reference as ref
from fastxent.kernels.launch import RowOptions, RowPass
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.rows import record, wide as rows

EDGES = [*range(1, 71), 2047, 2048, 2049, 2050, 4095, 4096, 4097]
FIGURES = ("nll", "lse", "confidence", "entropy", "brier")


def statistics(x: np.ndarray, target: np.ndarray, **options) -> fx.RowStatistics:
    return fx.row_statistics(x, target, **options)


@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_every_width_against_the_oracle(dtype):
    """The errors are those of the compute type: 8 ulp of the largest number a figure is made of."""
    eps = float(np.finfo(np.float64 if dtype == "float64" else np.float32).eps)
    for c in EDGES:
        rng = np.random.default_rng(c)
        n = 19 if c < 100 else 3
        x = (rng.normal(size=(n, c)) * 4).astype(ref.DTYPES[dtype])
        target = rng.integers(0, c, n)
        got, truth = statistics(x, target), ref.row_statistics(x, target)
        size = 1 + float(np.abs(ref.wide(x)).max())
        for name in FIGURES:
            error = np.abs(ref.wide(getattr(got, name)) - getattr(truth, name)).max()
            assert error <= 8 * eps * size, (c, name)
        for name in ("predicted", "rank"):
            np.testing.assert_array_equal(getattr(got, name), getattr(truth, name), err_msg=f"{c} {name}")
        np.testing.assert_array_equal(ref.wide(got.max_logit), truth.max_logit)


@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_the_two_kernels_agree(dtype, monkeypatch):
    """Around the threshold each takes the other's rows: the same ids exactly, figures within rounding."""
    eps = float(np.finfo(np.float64 if dtype == "float64" else np.float32).eps)
    for c in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48):
        rng = np.random.default_rng(c)
        x = rng.integers(-3, 4, size=(37, c)).astype(ref.DTYPES[dtype])  # full of ties
        target = rng.integers(0, c, 37)
        narrow = statistics(x, target)
        with monkeypatch.context() as patch:
            patch.setattr(rows, "NARROW", 0)
            wide = statistics(x, target)
        for name in ("predicted", "rank", "max_logit"):
            np.testing.assert_array_equal(getattr(narrow, name), getattr(wide, name))
        for name in FIGURES:
            error = np.abs(getattr(narrow, name) - getattr(wide, name)).max()
            assert error <= 16 * eps, (c, name)


@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_ties_are_broken_by_the_first_index(dtype):
    for c in (1, 2, 16, 17, 48, 49, 64, 65, 2048, 2049, 4100):
        rng = np.random.default_rng(c)
        x = rng.integers(0, 3, size=(12, c)).astype(ref.DTYPES[dtype])
        x[0] = 1
        x[1] = 0
        x[1, c // 2 :] = -np.inf
        x[2], x[2, -1] = -np.inf, 0
        x[3] = np.where(np.arange(c) % 2, -0.0, 0.0)  # one number
        target = rng.integers(0, c, 12)
        target[[0, 1, 2, 3]] = c - 1
        z = ref.wide(x)
        at = z[np.arange(12), target][:, None]
        before = np.arange(c) < target[:, None]
        got = statistics(x, target)
        usable = np.isfinite(z.max(axis=1))
        rank, predicted = ((z > at) | ((z == at) & before)).sum(axis=1), z.argmax(axis=1)
        np.testing.assert_array_equal(got.rank[usable], rank[usable], err_msg=str(c))
        np.testing.assert_array_equal(got.predicted[usable], predicted[usable], err_msg=str(c))


def bits(got: fx.RowStatistics) -> np.ndarray:
    return np.stack([ref.bits_of(np.asarray(a, np.float64)) for a in got])


@pytest.mark.parametrize("dtype", ref.DTYPES)
@pytest.mark.parametrize("c", [1, 2, 5, 16, 17, 47, 48, 49, 63, 64, 65, 100, 2047, 2048, 2049, 4100])
def test_a_row_is_the_same_wherever_it_lies(dtype, c):
    kind = ref.DTYPES[dtype]
    rng = np.random.default_rng(c)
    n = 40
    x = (rng.normal(size=(n, c)) * 5).astype(kind)
    target = rng.integers(0, c, n)
    whole = bits(statistics(x, target))
    order = rng.permutation(n)
    np.testing.assert_array_equal(bits(statistics(x[order], target[order])), whole[:, order])
    for begin, end in ((0, 1), (3, 4), (n - 1, n), (1, 18), (7, 40)):  # another place in a tile, another tile
        np.testing.assert_array_equal(bits(statistics(x[begin:end], target[begin:end])), whole[:, begin:end])
    padded = np.full((n, c + 3), np.nan, kind)  # NaN beside each row
    padded[:, 2 : 2 + c] = x
    np.testing.assert_array_equal(bits(statistics(padded[:, 2 : 2 + c], target)), whole)
    broken = np.repeat(x, 2, axis=0)  # a broken row before and behind each
    broken[1::2] = np.nan
    np.testing.assert_array_equal(bits(statistics(broken, np.repeat(target, 2)))[:, ::2], whole)
    for shift in (1, 2, 3, 5):  # bytes
        memory = np.zeros(x.nbytes + 64, np.uint8)
        view = memory[shift : shift + x.nbytes]
        view[:] = x.reshape(-1).view(np.uint8)
        np.testing.assert_array_equal(bits(statistics(view.view(kind).reshape(n, c), target)), whole)


@pytest.mark.parametrize("dtype", ref.DTYPES)
@pytest.mark.parametrize("full", [True, False])
def test_nothing_beyond_the_rows_is_read(dtype, full):
    """Rows end where memory does; a read beyond would kill the process."""
    kind = ref.DTYPES[dtype]
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 17 * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    assert libc.mprotect(base + 16 * page, page, 0) == 0
    raw = np.frombuffer(memory, np.uint8, 16 * page)
    shaped = dtype == ("float32" if full else "float16")  # has code of its own, which reads by the same loads
    for c in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 48, 49, 50, 65, 127, 2047, 2049, 4100):
        for n in (1, 2, 7, 8, 9, 15, 16, 17):
            if n * c * kind.itemsize > raw.size:
                continue
            values = (np.arange(n * c) % 7).astype(kind).reshape(n, c)
            place = raw[raw.size - values.nbytes :]
            place[:] = values.reshape(-1).view(np.uint8)
            stored = place.view(np.uint16 if dtype == "bfloat16" else kind).reshape(n, c)
            target = np.arange(n) % c
            results = []
            shapes = [RowOptions()]
            if shaped:
                shapes.append(RowOptions(softcap=3.0, class_mask=np.ones(c, np.uint8)))
            for matrix in (Matrix.of(stored, dtype), Matrix.of(stored.copy(), dtype)):
                for options in shapes:
                    take = RowPass(matrix, target, -1, options, full=full)
                    take(0, n)
                    results.append(take.record[rows_of_interest(full), :n].copy())
            np.testing.assert_array_equal(results[: len(shapes)], results[len(shapes) :])
    assert libc.mprotect(base + 16 * page, page, 3) == 0


def rows_of_interest(full: bool) -> list[int]:
    return [record.NLL, record.LSE, *([record.CONFIDENCE, record.ENTROPY] if full else [])]


@pytest.mark.parametrize("dtype", ref.DTYPES)
@pytest.mark.parametrize("c", [2, 17, 48, 49, 2049])
def test_broken_rows_break_alone(dtype, c):
    x = np.zeros((20, c), ref.DTYPES[dtype])
    for row, value in ((3, np.nan), (8, np.inf), (11, -np.inf)):
        x[row, -1] = value
    x[12] = -np.inf
    got = statistics(x, np.zeros(20, int))
    assert np.flatnonzero(np.isnan(got.nll)).tolist() == [3, 8, 12]
    fine = np.delete(got.nll, [3, 8, 11, 12])
    np.testing.assert_allclose(fine, np.log(c), rtol=1e-6)
    assert got.nll[11] == pytest.approx(np.log(c - 1) if c > 1 else 0, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("c", [20, 100, 2500])
@pytest.mark.parametrize("options", [{}, {"temperature": 2.0}, {"softcap": 5.0}], ids=str)
def test_the_lowest_number_is_a_number(dtype, c, options):
    """Padding of the lowest finite number: a whole row of it, and one in which the largest comes late."""
    x = np.full((2, c), np.finfo(dtype).min, dtype)
    x[1, c - 3] = 1
    truth = ref.row_statistics(x, np.array([3, c - 3]), **options)
    got = fx.row_statistics(x, [3, c - 3], **options)
    np.testing.assert_allclose(got.nll, truth.nll.astype(float), rtol=1e-5, atol=1e-12)
    np.testing.assert_array_equal(got.predicted, truth.predicted)
    np.testing.assert_array_equal(got.rank, truth.rank)


@pytest.mark.parametrize("c", [20, 100, 1030])
def test_masked_classes_before_the_first_number_leave_the_row_whole(c):
    x = np.full((1, 1100 + c), 1.0, np.float32)
    x[0, :1100] = -np.inf
    for options in ({"temperature": 0.5}, {"temperature": 2.0}, {"softcap": 5.0}):
        assert fx.row_statistics(x, [1100], **options).nll[0] == pytest.approx(np.log(c), rel=1e-6)


@pytest.mark.parametrize("c", [1, 20, 49, 100, 1500])
def test_of_nothing_but_probabilities_of_0_the_first_is_predicted(c):
    assert fx.row_statistics(np.full((2, c), -np.inf), [0, 0], input="log_probs").predicted.tolist() == [0, 0]
    assert fx.row_statistics(np.zeros((2, c)), [0, 0], input="probs").predicted.tolist() == [0, 0]


@pytest.mark.parametrize("n", [0, 5])
def test_read_only_targets_need_no_code_of_their_own(n):
    """A kernel is compiled again for read-only arrays: it is given the same memory as any other array."""
    target = np.arange(n)
    target.flags.writeable = False
    take = RowPass(Matrix.of(np.zeros((n, 3))), target, -100, RowOptions(), full=True)
    ids = take.arguments()[1][0]
    assert ids.flags.writeable
    assert np.array_equal(ids, target)
    assert not n or ids.ctypes.data == target.ctypes.data
