"""Bounds of what unlisted classes add to divergences, against every corner and against a slow search for the least."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fastxent.kernels.rows import unlisted as u


def xlog(x: float, y: float) -> float:
    """x·log(x/y), by the book."""
    return 0.0 if x == 0.0 else math.inf if y == 0.0 else x * (math.log(x) - math.log(y))


def divergences(p: list[float], q: list[float]) -> np.ndarray:
    """Σ p·log(p/q), Σ q·log(q/p) and Jensen-Shannon divergence."""
    both = list(zip(p, q, strict=True))
    js = math.fsum(xlog(a, (a + b) / 2) + xlog(b, (a + b) / 2) for a, b in both) / 2
    return np.array([sum(xlog(a, b) for a, b in both), sum(xlog(b, a) for a, b in both), js])


def corners(n: int, cut: float, mass: float) -> list[list[float]]:
    """Every distribution of a mass of which no class can give to another without one at 0 or at the cut."""
    full = min(math.floor(mass / cut), n) if cut else 0
    left = min(max(mass - full * cut, 0.0), cut)
    held = ([cut] * full + [left] * (full < n) + [0.0] * n)[:n]
    return [list(each) for each in set(itertools.permutations(held))]


def filled(q: list[float], cut: float, mass: float) -> list[float]:
    """min(cut, λ·q) with the λ of that mass, by bisection of its logarithm."""
    low, high = -60.0, 60.0
    for _ in range(70):
        middle = (low + high) / 2
        enough = sum(min(cut, math.exp(middle) * x) for x in q) >= mass
        low, high = (low, middle) if enough else (middle, high)
    return [min(cut, math.exp(high) * x) for x in q]


def least(q: list[float], cut: float, low: float, high: float) -> np.ndarray:
    """The least of each divergence, by a search over the mass, in which all are convex."""
    found = []
    for k in range(3):
        a, b = low, high
        for _ in range(40 if low < high else 0):
            first, second = (2 * a + b) / 3, (a + 2 * b) / 3
            at = [divergences(filled(q, cut, mass), q)[k] for mass in (first, second)]
            a, b = (a, second) if at[0] <= at[1] else (first, b)
        found.append(min(divergences(filled(q, cut, mass), q)[k] for mass in (low, a, b, high)))
    return np.array(found)


def bounds(
    q: np.ndarray, cut: float, low: float, high: float, listed: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """(least, most) of the kernel."""
    c, out = len(q), np.zeros((u.FIELDS, 1))
    with np.errstate(divide="ignore"):
        logq = np.log(q)[None]
    entries = np.array([0, len(listed)]), np.array(listed, np.int64)
    limits = np.array([low]), np.array([high]), np.array([cut])
    rooms = (*(np.empty(c) for _ in range(4)), np.full(c, -1))
    u.bound_unlisted(logq, np.ones(1, bool), entries, limits, rooms, out)
    return out[0::2, 0], out[1::2, 0]


def case(seed: int, n: int, spread: float, masked: bool) -> tuple[np.ndarray, float, float, np.random.Generator]:
    rng = np.random.default_rng(seed)
    q = np.exp(rng.normal(size=n) * spread)
    q *= rng.random() / q.sum()
    if masked:
        q[rng.random(n) < 0.4] = 0.0
    cut = float(rng.random() * rng.choice([0.05, 0.3, 1.0]))
    return q, cut, float(cut * n * rng.random()), rng


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32), n=st.integers(1, 5), spread=st.sampled_from([0.0, 1.0, 6.0]), masked=st.booleans(),
    wide=st.booleans(),
)  # fmt: skip
def test_the_most_is_that_of_every_corner_and_no_distribution_is_beyond(seed, n, spread, masked, wide):
    q, cut, mass, rng = case(seed, n, spread, masked)
    low = mass * rng.random() if wide else mass
    found = bounds(q, cut, low, mass)
    steps = [k * cut for k in range(n + 1) if low <= k * cut <= mass]
    every = [divergences(p, q.tolist()) for m in (low, mass, *steps) for p in corners(n, cut, m)]
    assert found[1] == pytest.approx(np.max(every, axis=0), rel=1e-9, abs=1e-12)
    for _ in range(20):
        total = rng.uniform(low, mass)
        p = np.minimum(rng.dirichlet(np.full(n, rng.choice([0.2, 1.0, 9.0]))) * total, cut)
        room = cut - p
        p += room * ((total - p.sum()) / room.sum() if room.sum() else 0.0)
        some = divergences(np.clip(p, 0.0, cut).tolist(), q.tolist())
        assert (found[0] <= some + 1e-9).all()
        assert (some <= found[1] + 1e-9).all()


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32), n=st.integers(1, 6), spread=st.sampled_from([0.0, 1.0, 6.0]), wide=st.booleans()
)  # fmt: skip
def test_the_least_is_reached(seed, n, spread, wide):
    q, cut, mass, rng = case(seed, n, spread, masked=False)
    low = mass * rng.random() if wide else mass
    assert bounds(q, cut, low, mass)[0] == pytest.approx(least(q.tolist(), cut, low, mass), rel=1e-7, abs=1e-9)


def test_classes_that_the_full_row_excludes():
    q = np.array([0.0, 0.1, 0.0])
    low, high = bounds(q, 0.2, 0.3, 0.3)
    assert low[0] == math.inf, "0.2 is the most of the only class of positive q"
    assert low[1:] == pytest.approx([0.1 * math.log(0.1 / 0.2), divergences([0.2, 0.1], [0.1, 0.0])[2]])
    assert high.tolist() == [math.inf, math.inf, pytest.approx(divergences([0.2, 0.0, 0.1], q.tolist())[2])]
    assert bounds(q, 0.2, 0.1, 0.1)[0] == pytest.approx([0.0, 0.0, 0.0], abs=1e-15)
    assert bounds(np.array([0.3, 0.2]), 0.0, 0.0, 0.0)[0][1] == math.inf
    assert np.all(bounds(np.array([0.3, 0.2]), 0.2, 0.1, 0.1, listed=(0, 1))[1] == 0.0), "all classes are listed"


def test_a_row_of_many_classes_is_that_of_its_classes_in_any_order():
    rng = np.random.default_rng(3)
    q = np.exp(rng.normal(size=5000) * 4)
    q *= 0.3 / q.sum()
    q[::50] = q[7]  # ties
    logs = np.sort(np.log(q))
    cut, mass = 2e-3, 0.2505
    low, high = bounds(q, cut, mass, mass)
    again = bounds(q[::-1], cut, mass, mass)
    assert low == pytest.approx(again[0], rel=1e-12)
    assert high == pytest.approx(again[1], rel=1e-12)
    full = int(mass / cut)
    left = mass - full * cut
    most = cut * (full * math.log(cut) - logs[:full].sum()) + left * (math.log(left) - logs[full])
    assert high[0] == pytest.approx(most, rel=1e-10)
    assert low[:1] == pytest.approx(divergences(filled(q.tolist(), cut, mass), q.tolist())[:1], rel=1e-9)
