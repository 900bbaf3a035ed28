"""What becomes of rows of one number each: their targets, and what is predicted for them, in one pass each."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import jit
from fastxent.kernels.simd.memory import load_scalar
from fastxent.kernels.simd.types import itemsize


@jit
def code_targets(ids, ignore, ignored, invalid, coded):  # type: ignore[no-untyped-def]
    """Class ids into ``coded``: 1, 0 or -1 as they are, ``ignored`` for ``ignore``, ``invalid`` for all else."""
    for i in range(ids.size):
        t = ids[i]
        valid = t if -1 <= t <= 1 else invalid
        coded[i] = ignored if t == ignore else valid


@jit
def plain_targets(coded, positive):  # type: ignore[no-untyped-def]
    """Targets of `code_targets` as 1 and 0, into ``positive`` (uint8). How many are -1; -1 if one is no class."""
    minus, other = 0, 0
    for i in range(coded.size):
        t = coded[i]
        positive[i] = t == 1
        minus += t == -1
        other += (t < -1) | (t > 1)
    return -1 if other else minus


@jit
def code_classes(ids, ignore, ignored, n_classes, coded):  # type: ignore[no-untyped-def]
    """Class ids into ``coded``: ``ignored`` for ``ignore``, and ``n_classes`` for what is not the id of a class."""
    for i in range(ids.size):
        t = ids[i]
        valid = t if 0 <= t < n_classes else n_classes
        coded[i] = ignored if t == ignore else valid


@jit
def rows_within(status, used, first, scale, second, bounds, rows):  # type: ignore[no-untyped-def]
    """Write to ``rows`` the rows of status ``used`` whose numbers lie within ``bounds``; return how many there are.

    first, second: float64 (n,). The numbers of each row; ``first`` is multiplied by ``scale``. bounds: the least and
    the largest of the first number, and of the second.
    """
    n = 0
    low, high, floor, ceiling = bounds
    for begin in range(0, status.size, 16):
        end = min(begin + 16, status.size)
        some = False
        for i in range(begin, end):
            x, y = first[i] * scale, second[i]
            some |= (x >= low) & (x <= high) & (y >= floor) & (y <= ceiling)
        for i in range(begin, end if some else begin):
            x, y = first[i] * scale, second[i]
            rows[n] = i
            n += (status[i] == used) & (x >= low) & (x <= high) & (y >= floor) & (y <= ceiling)
    return n


@jit
def count_distributions(address, stride, n_classes, tag, rows, slack):  # type: ignore[no-untyped-def]
    """How many of ``rows`` of a matrix hold no number below 0, nor NaN, and sum to 1 within ``slack``."""
    count, size = 0, itemsize(tag)
    for i in rows:
        at, total, c = address + i * stride, 0.0, 0
        while c < n_classes:
            x = np.float64(load_scalar(at + c * size, tag))
            if not x >= 0.0:
                break
            total += x
            c += 1
        count += (c == n_classes) & (abs(total - 1.0) <= slack)
    return count


@jit
def settle_targets(coded, ignored, invalid, statuses, status, target, share):  # type: ignore[no-untyped-def]
    """The status of each row, and whether it is of the positive class, as an integer and as a float64.

    coded: int64 (n,), of `code_targets`. statuses: the status of a row that is ignored, of one with an invalid target,
    and of all others.
    """
    for i in range(coded.size):
        t = coded[i]
        other = statuses[1] if t == invalid else statuses[2]
        status[i] = statuses[0] if t == ignored else other
        target[i] = t == 1
        share[i] = t == 1


@jit
def predict(values, temperature, least, target, predicted, rank, score):  # type: ignore[no-untyped-def]
    """Scores as float64, whether they reach ``least`` after the temperature, and whether that is not the target."""
    for i in range(values.size):
        x = float(values[i])
        score[i] = x
        positive = x / temperature >= least
        predicted[i] = positive
        rank[i] = positive != (target[i] == 1)


@jit
def count_kinds(coded, share, score, status, used, counts):  # type: ignore[no-untyped-def]
    """Add to ``counts`` the used rows whose target is -1, those of target 0, and those whose score lies in 0..1."""
    minus, zero, inside = 0, 0, 0
    for i in range(coded.size):
        is_used = status[i] == used
        is_minus = coded[i] == -1
        minus += is_used and is_minus
        zero += is_used and not is_minus and share[i] == 0.0
        inside += is_used and 0.0 <= score[i] <= 1.0
    counts[0] += minus
    counts[1] += zero
    counts[2] += inside
