"""Exponentials, logarithms and tanh against float64 over every bit pattern there is."""

from __future__ import annotations

import numpy as np
import pytest

import reference as ref
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.jit import jit
from fastxent.kernels.simd.exponentials import exp_biased, log, log1p_inside, tanh
from fastxent.kernels.simd.memory import load, store
from fastxent.kernels.simd.types import itemsize, lanes

CHUNK = 1 << 22


def mapped(operation):
    """A kernel that puts every number through a vector operation; lengths are multiples of 16."""

    @jit
    def kernel(x, out, tag):
        w = lanes(tag)
        for i in range(0, x.size, w):
            y = operation(load(x.ctypes.data + i * itemsize(tag), tag))
            store(out.ctypes.data + i * itemsize(tag), y, tag)

    def run(x: np.ndarray) -> np.ndarray:
        padded = np.resize(x, -(-x.size // 16) * 16)
        out = np.empty_like(padded)
        kernel(padded, out, FLOAT_TYPES[x.dtype.name].tag)
        return out[: x.size]

    return run


EXP, LOG, TANH, LOG1P = (mapped(f) for f in (exp_biased, log, tanh, log1p_inside))


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
