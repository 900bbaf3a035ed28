"""Rows that list some classes against full rows: bounds of what the classes that are not listed add to divergences.

The full row gives the probability q of each of these classes. The other row says that their probabilities p sum to a
mass, and that none exceeds a cut. KL and Jensen-Shannon divergence are convex in p. So they are least where p is the
lesser of λ·q and the cut, with the same λ for all classes. They are largest at a corner: as many classes as possible
have the cut, one has what is left, and the others have none. The classes of the smallest q have the most.
"""

from __future__ import annotations

import math

import numpy as np

from fastxent.kernels.jit import jit
from fastxent.kernels.rows.listed import exponentials, logarithms

# Rows of the output. PQ: Σ p·log(p/q). QP: Σ q·log(q/p). JS: of Jensen-Shannon divergence.
PQ_LOW, PQ_HIGH, QP_LOW, QP_HIGH, JS_LOW, JS_HIGH = range(6)
FIELDS = 6
_LN2 = math.log(2.0)
_ROUNDING = 2.0**-20  # relative, of a mass
_STEPS = 60  # of the search for λ, which needs few; a bound holds after any number
_GAINS = 0.29381537334041546  # of the cut: JS grows where a class of a smaller q has the cut in the place of 0


@jit
def _log(x, cell):  # type: ignore[no-untyped-def]
    """log of one number of at least 0. cell: float64 (2,)."""
    cell[0] = x
    logarithms(cell[:1], cell[1:])
    return cell[1]


@jit
def _select(x, k):  # type: ignore[no-untyped-def]
    """Order ``x`` so that x[k] is its k-th smallest number, those before it are not larger and those behind not
    smaller."""
    low, high, turn = 0, x.size - 1, np.uint64(1)
    while low < high:
        turn = turn * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        pivot = x[low + np.int64(turn >> np.uint64(33)) % (high - low + 1)]
        i, j = low, high
        while i <= j:
            while x[i] < pivot:
                i += 1
            while pivot < x[j]:
                j -= 1
            if i <= j:
                x[i], x[j] = x[j], x[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            return


@jit
def _level(q, cut, mass):  # type: ignore[no-untyped-def]
    """λ of which Σ min(cut, λ·q) is the mass, or somewhat less; infinite if all of positive q have the cut."""
    level, full = 0.0, -1
    for _ in range(_STEPS):
        limit = cut / level if level > 0.0 else np.inf
        count, free = 0, 0.0
        for x in q:
            if x > limit:
                count += 1
            else:
                free += x
        if count == full:
            break
        left = mass - count * cut
        if free <= 0.0:
            return np.inf
        if left <= 0.0:
            break
        level, full = max(level, left / free), count
    return level


@jit
def _nearest(q, cut, factor, low, high):  # type: ignore[no-untyped-def]
    """The mass from ``low`` to ``high`` that is nearest to Σ min(cut, factor·q)."""
    total = 0.0
    for x in q:
        total += min(cut, factor * x)
    return min(max(total, low), high)


@jit
def _least_kl(left, q, cut, mass, forward, cell):  # type: ignore[no-untyped-def]
    """The least Σ p·log(p/q), or Σ q·log(q/p) if not ``forward``, of one mass. left: log q."""
    level = _level(q, cut, mass)
    log_level, log_cut = _log(level, cell) if level < np.inf else 0.0, _log(cut, cell)
    limit = cut / level if level > 0.0 else np.inf
    free, found, reached, rare = 0.0, 0.0, 0.0, 0
    for k in range(q.size):
        if q[k] > limit:
            found += cut * (log_cut - left[k]) if forward else q[k] * (left[k] - log_cut)
            reached += cut
        else:
            free += q[k]
            rare += left[k] > -np.inf
    if level == 0.0:
        return 0.0 if forward or free == 0.0 else np.inf
    if level == np.inf:
        beyond = mass - reached - rare * cut  # of classes that the full row excludes
        return np.inf if forward and beyond > _ROUNDING * mass else found
    lost = mass - reached - level * free  # what the search for λ has left: the bound holds by the slope
    if forward:
        return found + level * log_level * free + (log_level + 1.0) * lost
    return found - log_level * free - lost / level


@jit
def _least_js(left, q, cut, mass, rooms, cell):  # type: ignore[no-untyped-def]
    """The least Jensen-Shannon divergence of one mass. rooms: two arrays as long as q."""
    level = _level(q, cut, mass)
    log_cut = _log(cut, cell)
    limit = cut / level if level > 0.0 else np.inf
    middle, logs = rooms
    free, found, full = 0.0, 0.0, 0
    for k in range(q.size):
        if q[k] > limit:
            found += cut * log_cut + q[k] * left[k]
            middle[full] = (cut + q[k]) / 2.0
            full += 1
        else:
            free += q[k]
    logarithms(middle[:full], logs[:full])
    for k in range(full):
        found -= 2.0 * middle[k] * logs[k]
    lost = mass - full * cut
    if level == 0.0:
        return _LN2 / 2.0 * free
    if level == np.inf:
        return (found + _LN2 * max(lost, 0.0)) / 2.0
    over = _log(2.0 / (1.0 + level), cell)
    slope = over + _log(level, cell)
    return (found + free * (level * slope + over) + slope * (lost - level * free)) / 2.0


@jit
def _corner(left, total, cut, mass, rooms, cell):  # type: ignore[no-untyped-def]
    """(Σ p·log(p/q), Jensen-Shannon divergence) at the corner of one mass. ``left`` changes its order. total: Σ q."""
    if cut <= 0.0:
        return 0.0, _LN2 / 2.0 * total
    full = np.int64(min(mass / cut, float(left.size)))
    last = min(max(mass - full * cut, 0.0), cut) if full < left.size else 0.0
    n = full + (last > 0.0)
    if full < left.size:
        _select(left, full)
    q, middle = rooms
    exponentials(left[:n], q[:n])
    log_cut, log_last = _log(cut, cell), _log(last, cell)
    kl = js = taken = 0.0
    for k in range(n):
        p, log_p = (cut, log_cut) if k < full else (last, log_last)
        kl += p * (log_p - left[k])
        js += p * log_p + (q[k] * left[k] if q[k] > 0.0 else 0.0)
        taken += q[k]
        middle[k] = (p + q[k]) / 2.0
    logarithms(middle[:n], q[:n])
    for k in range(n):
        js -= 2.0 * middle[k] * q[k]
    return kl, (js + _LN2 * max(total - taken, 0.0)) / 2.0


@jit
def _most_backward(left, q, cut, mass, cell):  # type: ignore[no-untyped-def]
    """The most Σ q·log(q/p): infinite if a class of positive q may have p = 0."""
    total = largest = weighted = 0.0
    for k in range(q.size):
        total += q[k]
        largest = max(largest, q[k])
        weighted += q[k] * left[k] if q[k] > 0.0 else 0.0
    if largest == 0.0:
        return 0.0
    last = mass - (q.size - 1) * cut
    if last <= 0.0:
        return np.inf
    return weighted - _log(cut, cell) * (total - largest) - _log(min(last, cut), cell) * largest


@jit
def bound_unlisted(logq, used, entries, limits, rooms, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` (FIELDS, n) with what classes that are not listed add to the divergences of the ``used`` rows.

    logq: float64 (n, C). Log-probabilities of the full rows.
    entries: a tuple of int64 (n + 1,), the first entry of each row, and of ids within 0..C-1, different in each row.
    limits: a tuple of float64 (n,): the least and the most mass of the others, and the cut.
    rooms: a tuple of float64 (C,) four times, and of int64 (C,) that is -1 everywhere.
    """
    starts, ids = entries
    low, high, cuts = limits
    here, q_here, first, second, stamps = rooms
    cell = np.zeros(2)
    for i in range(logq.shape[0]):
        if not used[i]:
            continue
        for k in range(starts[i], starts[i + 1]):
            stamps[ids[k]] = i
        n = 0
        for j in range(logq.shape[1]):
            here[n] = logq[i, j]
            n += stamps[j] != i
        left, q, spare = here[:n], q_here[:n], (first, second)
        exponentials(left, q)
        total = 0.0
        for x in q:
            total += x
        cut = cuts[i]
        least, most = min(low[i], cut * n), min(high[i], cut * n)
        mass = _nearest(q, cut, math.exp(-1.0), least, most)
        out[PQ_LOW, i] = _least_kl(left, q, cut, mass, True, cell)
        out[QP_LOW, i] = _least_kl(left, q, cut, most, False, cell)
        out[QP_HIGH, i] = _most_backward(left, q, cut, least, cell)
        mass = _nearest(q, cut, 1.0, least, most)
        out[JS_LOW, i] = _least_js(left, q, cut, mass, spare, cell)
        below = few = 0
        for x in q:
            below += x < cut
            few += x < _GAINS * cut
        out[PQ_HIGH, i], out[JS_HIGH, i] = _corner(left, total, cut, least, spare, cell)
        for turn in range(3):
            mass = most
            if turn > 0:  # whole multiples of the cut, between which nothing is larger
                begin, end = math.ceil(least / cut) if cut > 0.0 else 1, np.int64(most / cut) if cut > 0.0 else 0
                if begin > end:
                    break
                mass = cut * min(max(below if turn == 1 else few, begin), end)
            kl, js = _corner(left, total, cut, mass, spare, cell)
            out[PQ_HIGH, i], out[JS_HIGH, i] = max(out[PQ_HIGH, i], kl), max(out[JS_HIGH, i], js)
