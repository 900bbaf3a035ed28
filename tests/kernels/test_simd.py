"""Vector arithmetic against float64 over every bit pattern there is; loads and stores that never leave their memory."""

from __future__ import annotations

import ctypes
import mmap

import ml_dtypes
import numpy as np
import pytest

import reference as ref
from fastxent.kernels.jit import jit
from fastxent.kernels.simd import operations as simd

CHUNK = 1 << 22


def mapped(operation):
    """A kernel that puts every number through a vector operation; lengths are multiples of 16."""

    @jit
    def kernel(x, out, tag):
        w = simd.lanes(tag)
        for i in range(0, x.size, w):
            y = operation(simd.load(x.ctypes.data + i * simd.itemsize(tag), tag))
            simd.store(out.ctypes.data + i * simd.itemsize(tag), y, tag)

    def run(x: np.ndarray) -> np.ndarray:
        padded = np.resize(x, -(-x.size // 16) * 16)
        out = np.empty_like(padded)
        kernel(padded, out, simd.TAGS[x.dtype.name])
        return out[: x.size]

    return run


EXP, LOG, TANH, LOG1P = (mapped(f) for f in (simd.exp_biased, simd.log, simd.tanh, simd.log1p_inside))


def worst_ulp(got: np.ndarray, truth: np.ndarray) -> float:
    """The largest error in ulp of float32; the truth is float64 and finite, and a normal float32."""
    ulp = np.ldexp(1.0, np.frexp(truth)[1] - 24)
    return float((np.abs(got.astype(np.float64) - truth) / ulp).max())


def patterns(first: float, last: float):
    """Every float32 from ``first`` to ``last``, which have one sign, in chunks."""
    a, b = sorted(int(np.float32(v).view(np.uint32)) for v in (first, last))
    for begin in range(a, b + 1, CHUNK):
        yield np.arange(begin, min(begin + CHUNK, b + 1), dtype=np.uint32).view(np.float32)


def test_exp_of_every_float32_in_range():
    worst = 0.0
    for x in patterns(-0.0, -103.0):
        # nearer to 0 than 2^-30 every result rounds to 1: one in 64 will do there
        if x[-1] > -(2.0**-30):
            x = np.append(x[::64], x[-1])
        worst = max(worst, worst_ulp(EXP(x), np.exp(x.astype(np.float64)) * 2.0**56))
    assert worst <= 1.0
    special = EXP(np.array([0.0, -np.inf, np.nan, -1e30], np.float32))
    assert special[0] == 2.0**56
    assert 0 <= special[1] == special[3] <= 2.0**56 * 2.0**-170  # a speck that no quotient shows, times a million
    assert np.isnan(special[2])


def test_log_of_float32():
    worst = 0.0
    for x in patterns(np.finfo(np.float32).tiny, np.finfo(np.float32).max):
        some = x[(x < 0.5) | (x > 2.0)][::61]
        near = x[(x >= 0.5) & (x <= 2.0) & (x != 1)]  # where it crosses 0
        for part in (some, near):
            if part.size:
                worst = max(worst, worst_ulp(LOG(part), np.log(part.astype(np.float64))))
    assert worst <= 0.501  # computed in float64, rounded once
    special = np.array([1.0, 0.0, -0.0, np.inf, -1.0, np.nan, -np.inf, 2.0**-149], np.float32)
    expected = np.array([0, -np.inf, -np.inf, np.inf, np.nan, np.nan, np.nan, -149 * np.log(2)], np.float32)
    np.testing.assert_array_equal(LOG(special), expected)


def test_log1p_of_float32():
    worst = 0.0
    for x in patterns(np.finfo(np.float32).tiny, 1000.0):
        some = x if x[-1] > 2.0**-30 else x[::61]  # below, it is the number itself
        worst = max(worst, worst_ulp(LOG1P(some), np.log1p(some.astype(np.float64))))
    assert worst <= 0.75
    np.testing.assert_array_equal(LOG1P(np.array([0.0, 2.0**-149], np.float32)), np.array([0, 2.0**-149], np.float32))


def test_log1p_of_float64():
    rng = np.random.default_rng(6)
    x = np.concatenate([rng.uniform(0, 1, 4000), rng.uniform(0, 1000, 4000), 2.0 ** rng.uniform(-1074, 0, 4000)])
    assert ref.ulp_error(LOG1P(x), np.log1p(x.astype(ref.WIDE)), np.float64).max() <= 0.75
    assert LOG1P(np.zeros(8))[0] == 0


def test_tanh_of_float32():
    worst = 0.0
    for sign in (1, -1):
        for x in patterns(sign * np.finfo(np.float32).tiny, sign * 100.0):
            some = x[::17]
            worst = max(worst, worst_ulp(TANH(some), np.tanh(some.astype(np.float64))))
    assert worst <= 0.501
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e30], np.float32)
    got = TANH(special)
    np.testing.assert_array_equal(got, np.array([0, 0, 1, -1, np.nan, 1], np.float32))
    assert np.signbit(got[1])


@pytest.mark.parametrize(
    ("run", "name", "limit", "low", "high"),
    [(EXP, "exp", 1.0, -740.0, 0.0), (LOG, "log", 1.0, -300.0, 300.0), (TANH, "tanh", 3.5, -19.0, 19.0)],
)
def test_float64(run, name, limit, low, high):
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.uniform(low, high, 4000), rng.choice([-1, 1], 2000) * 2.0 ** rng.uniform(-60, 3, 2000)])
    if name == "exp":
        x = -np.abs(x)
    if name == "log":
        x = np.concatenate([10.0 ** x[:4000], np.abs(x[4000:]), 1 + rng.uniform(-1e-3, 1e-3, 2000)])
    got = run(x)
    truth = getattr(np, name)(x.astype(ref.WIDE)) * (2.0**256 if name == "exp" else 1.0)
    assert ref.ulp_error(got, truth, np.float64).max() <= limit


# ---- half precision --------------------------------------------------------------------------------------------------


@jit
def _widen(x, out, tag):
    for i in range(0, x.size, simd.lanes(tag)):
        simd.store(out.ctypes.data + i * 4, simd.load(x.ctypes.data + i * 2, tag), np.float32(0))


@jit
def _round(x, out, tag):
    for i in range(0, x.size, simd.lanes(tag)):
        simd.store(out.ctypes.data + i * 2, simd.load(x.ctypes.data + i * 4, np.float32(0)), tag)


@jit
def _scalars(x, out, tag):
    for i in range(x.size):
        out[i] = simd.load_scalar(x.ctypes.data + i * 2, tag)


HALF = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


INFINITE = {"float16": 0x7C00, "bfloat16": 0x7F80}


def same_halves(bits: np.ndarray, truth: np.ndarray, nan: np.ndarray, name: str) -> None:
    """The same patterns; where NaN is due, any that is one."""
    np.testing.assert_array_equal(bits[~nan], truth[~nan])
    assert ((bits[nan] & 0x7FFF) > INFINITE[name]).all()


@pytest.mark.parametrize("name", HALF)
def test_every_half_is_widened_exactly(name):
    bits = np.arange(1 << 16, dtype=np.uint16)
    truth = bits.view(HALF[name]).astype(np.float32)
    for kernel in (_widen, _scalars):
        out = np.empty(bits.size, np.float32)
        kernel(bits, out, simd.TAGS[name])
        np.testing.assert_array_equal(ref.bits_of(out), ref.bits_of(truth))
    back = np.empty_like(bits)
    _round(truth, back, simd.TAGS[name])
    same_halves(back, bits, np.isnan(truth), name)


@pytest.mark.parametrize("name", HALF)
def test_float32_is_rounded_to_the_nearest_half(name):
    """All upper halves of a float32, with every tail at which rounding to either type may turn."""
    tails = np.unique([0, 1, 2, 0xFFE, 0xFFF, 0x1000, 0x1001, 0x1FFF, 0x2000, 0x3000, 0x5000, 0x7000, 0x7FFF, 0x8000,
                       0x8001, 0x9000, 0xB000, 0xD000, 0xF000, 0xFFFF])  # fmt: skip
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    for tail in tails.astype(np.uint32):
        x = (upper | tail).view(np.float32)
        out = np.empty(x.size, np.uint16)
        _round(x, out, simd.TAGS[name])
        with np.errstate(all="ignore"):
            truth = x.astype(HALF[name])
        same_halves(out, truth.view(np.uint16), np.isnan(x), name)


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fenced():
    """Two pages, of which the second may not be touched: a read or write past the first kills the process."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    assert libc.mprotect(base + page, page, 0) == 0
    yield np.frombuffer(memory, np.uint8, page), base
    assert libc.mprotect(base + page, page, 3) == 0


@jit
def _first(address, count, out, tag):
    y = simd.load_first(address, count, tag)
    simd.store_wide(out.ctypes.data, simd.lanes(tag), y)
    simd.store_first(address, count, y, tag)


@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_partial_vectors_at_the_end_of_memory(fenced, dtype):
    page, base = fenced
    item = ref.DTYPES[dtype].itemsize
    lanes = 8 if dtype == "float64" else 16
    for count in range(lanes + 1):
        values = np.arange(1, count + 1).astype(ref.DTYPES[dtype])
        start = page.size - count * item
        page[start:] = values.view(np.uint8)
        page[start - 64 : start] = 0xAB
        out = np.zeros(lanes)
        _first(base + start, count, out, simd.TAGS[dtype])
        assert out.tolist() == [*range(1, count + 1), *[-np.inf] * (lanes - count)]
        assert (page[start:] == values.view(np.uint8)).all()
        assert (page[start - 64 : start] == 0xAB).all()


@jit
def _turn(address, stride, last, count, scratch, out, out_stride, rows, tag):
    simd.load_columns(address, stride, last, count, scratch.ctypes.data, tag)
    simd.store_columns(out, out_stride, rows, count, scratch.ctypes.data, tag)


@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_tiles_are_turned_and_turned_back(fenced, dtype):
    page, base = fenced
    kind, lanes = ref.DTYPES[dtype], 8 if dtype == "float64" else 16
    compute = np.float64 if dtype == "float64" else np.float32
    scratch = np.empty((lanes, lanes), compute)
    for count in range(1, lanes + 1):
        for rows in (1, 2, lanes - 1, lanes):
            values = (np.arange(rows * count) % 251).astype(kind).reshape(rows, count)
            start = page.size - values.nbytes
            page[start:] = values.reshape(-1).view(np.uint8)
            page[start - 64 : start] = 0xAB
            out = np.zeros((lanes, count), kind)
            stride = count * kind.itemsize
            _turn(base + start, stride, rows - 1, count, scratch, out.ctypes.data, stride, rows, simd.TAGS[dtype])
            wide = values.astype(compute)
            np.testing.assert_array_equal(scratch[:count, :rows].T, wide)
            np.testing.assert_array_equal(scratch[:count, rows:].T, np.repeat(wide[-1:], lanes - rows, axis=0))
            assert (scratch[count:] == -np.inf).all()
            np.testing.assert_array_equal(out[:rows], values)
            assert not out[rows:].astype(np.float32).any()
            page[start:] = 0  # write back at the fence
            _turn(out.ctypes.data, stride, rows - 1, count, scratch, base + start, stride, rows, simd.TAGS[dtype])
            assert (page[start:] == values.reshape(-1).view(np.uint8)).all()
            assert (page[start - 64 : start] == 0xAB).all()


# ---- exponentials of differences -------------------------------------------------------------------------------------


@jit
def _framed(x, m, out, difference, tag):
    for i in range(0, x.size, simd.lanes(tag)):
        at = i * simd.itemsize(tag)
        frame = simd.frames(simd.load(m.ctypes.data + at, tag))
        d, e = simd.exp_framed(simd.load(x.ctypes.data + at, tag), frame)
        simd.store(out.ctypes.data + at, e, tag)
        simd.store(difference.ctypes.data + at, d, tag)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("around", [0.0, 1.0, 20.0, -249.9, 250.1, 1769.9, 1e4, 3e38])
def test_no_difference_is_rounded_before_its_exponential(kind, around):
    """Where x - m as it comes out in the dtype is off by a hundred units of the result."""
    rng = np.random.default_rng(int(abs(around)) % 1000)
    m = (around + rng.uniform(-1, 1, 4096)).astype(kind)
    x = (m - rng.uniform(0, 100, m.size)).astype(kind)
    x[:16] = m[:16]
    x[16:20] = np.array([-np.inf, np.nan, np.finfo(kind).min, np.nan], kind)
    out, difference = np.empty_like(x), np.empty_like(x)
    _framed(x, m, out, difference, simd.TAGS[x.dtype.name])
    assert np.isnan(out[[17, 19]]).all()
    assert (out[[16, 18]] >= 0).all()
    assert (out[[16, 18]] <= 2.0 ** ((56 - 170) if kind is np.float32 else (256 - 1200))).all()
    truth = np.exp(x.astype(ref.WIDE) - m.astype(ref.WIDE)) * 2.0 ** (56 if kind is np.float32 else 256)
    fine = np.r_[0:16, 20 : x.size]
    assert ref.ulp_error(out[fine], truth[fine], kind).max() <= 0.8
    assert (out[:16] == 2.0 ** (56 if kind is np.float32 else 256)).all()
    low = kind(-125 if kind is np.float32 else -885)
    np.testing.assert_array_equal(difference[fine], np.maximum(x[fine] - m[fine], low))


# ---- the largest of many halves --------------------------------------------------------------------------------------


@jit
def _peak(x, tag):
    found = simd.no_peak(tag)
    for i in range(0, x.size, 2 * simd.lanes(tag)):
        found = simd.peak(found, x.ctypes.data + simd.itemsize(tag) * i, tag)
    return simd.peak_of(found, tag)


@pytest.mark.parametrize("name", HALF)
def test_the_largest_half_is_found_among_their_bits(name):
    rng = np.random.default_rng(8)
    inf = np.inf
    rows = [rng.normal(size=64), -np.abs(rng.normal(size=64)), np.full(64, -inf), np.full(64, -0.0)]
    rows += [
        np.where(np.arange(64) == k, v, -1.0) for k in (0, 31, 32, 63) for v in (inf, 0.0, -0.0, -inf, 1e-7, -1e-7)
    ]
    for row in rows:
        halves = row.astype(HALF[name])
        assert _peak(halves.view(np.uint16), simd.TAGS[name]) == halves.astype(np.float32).max()
    some = rng.normal(size=64).astype(HALF[name])
    some[5] = -np.float32(np.nan)
    bits = some.view(np.uint16)
    bits[5] |= 0x8000  # a NaN with a sign is passed over, one without a sign tells
    assert _peak(bits, simd.TAGS[name]) == np.nanmax(some.astype(np.float32))
    bits[5] &= 0x7FFF
    assert np.isnan(_peak(bits, simd.TAGS[name]))
