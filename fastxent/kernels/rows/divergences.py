"""Three divergences of two rows of C numbers, in one sweep over both: KL(a‖b), KL(b‖a) and Jensen-Shannon.

A class of probabilities p and q, of which the larger is ``big``, adds a sum of numbers that are not negative. With
s = |log(q/p)| and t = exp(-s) these are

    big·(1 - t - t·s)                              to KL of the row that has the smaller probability
    big·(s - 1 + t)                                to KL of the row that has the larger
    big·((1 + t)·(log 2 - log(1 + t)) - t·s) / 2   to Jensen-Shannon

as power series in s where s is small, so that nothing cancels. KL has Σ (q - p) too much, which is 0 for two
distributions; for rows with other sums it is the generalised divergence. With ``floor``, KL is the sum of p·log(p/q)
over the classes with log p above `FLOOR`, as llama.cpp has it: of rows with other sums it may be negative.

log(q/p) is the difference of the two numbers, each less the maximum of its row, less the difference of the logarithms
of the two sums: it keeps its digits where two rows hardly differ. Computed in float32 for numbers of at most that
precision, and added up in float64.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.numbers import apply_shape, read
from fastxent.kernels.rows.record import CONFIDENCE, LOG_SUM, LOGITS, MAX, PROBS, USED
from fastxent.kernels.simd.arithmetic import (
    absolute, add_wide, count_ge, fma, keep_first, max_lanes, select_eq, select_gt, splat, sum_lanes, vmax,
)  # fmt: skip
from fastxent.kernels.simd.apart import LN_2, NEAR, add_far, add_near, constants, frame_limits
from fastxent.kernels.simd.exponentials import exp_biased, floor_exp, log1p, unbias
from fastxent.kernels.simd.memory import load, load_first, store_first
from fastxent.kernels.simd.types import itemsize, lanes

# Of the output: what a pair of rows is left with; CHANGE of the target's probability.
KL_AB, KL_BA, JS, CHANGE = range(4)
FIELDS = 4
FLOOR = -16.0  # of log p
CLOSE = 0.25  # s below which the series serve
_FAR = 1e4  # s from which t is 0
_MOST = 3e38  # of what is finite
_LEAST = 1e-45  # float32 above 0
_NEAR_SQUARE = NEAR * NEAR
_BLOCK = 16  # vectors that are added up in their own precision
# (log 2 - log(1 + t)) / (1 - t) for t from 0 to 1, within 1.2e-7: a minimax fit.
_LOG_REST = (
    0.6931471824645996, -0.3068501651287079, 0.1930721402168274, -0.13935670256614685, 0.10508415848016739,
    -0.07428433001041412, 0.04226599633693695, -0.01589288003742695, 0.002814623760059476,
)  # fmt: skip


def _series(double: bool) -> tuple[list[float], list[float]]:
    """Coefficients, from that of s² on, for the larger probability and for Jensen-Shannon.

    The latter is (1 + t)·h, where h = (log 2 - H) / 2 for the entropy H of the probabilities 1/(1 + t) and t/(1 + t);
    h' = (s/8)·(1 - tanh²(s/2)).
    """
    count = 11 if double else 5
    tanh = [Fraction(1)]  # of odd powers: tanh' = 1 - tanh²
    for n in range(1, count):
        tanh.append(-sum((tanh[k] * tanh[n - 1 - k] for k in range(n)), Fraction(0)) / (2 * n + 1))
    h = [(2 * n + 1) * c / 4**n / 8 / (2 * n + 2) for n, c in enumerate(tanh)]  # of even powers
    powers = [Fraction((-1) ** k, math.factorial(k)) for k in range(count + 2)]  # of t
    powers[0] += 1
    both = [sum((h[n] * powers[k - 2 * n] for n in range(k // 2 + 1)), Fraction(0)) for k in range(count)]
    return [float(powers[k + 2]) for k in range(count)], [float(c) for c in both]


def _horner(coefficients: Iterable[float]) -> Any:
    """The compiled polynomial of these coefficients, the lowest first."""
    last, *others = reversed(list(coefficients))
    rest = tuple(others)

    @inline
    def polynomial(x):  # type: ignore[no-untyped-def]
        total = splat(last, x)
        for k in rest:
            total = fma(total, x, splat(k, x))
        return total

    return polynomial


@functools.cache
def _terms(double: bool) -> tuple[Any, Any]:
    """The functions of (s, t) that ``big`` is multiplied by, where s is small and where it need not be."""
    large, both = map(_horner, _series(double))
    log_rest = _horner(_LOG_REST)

    @inline
    def close(s):  # type: ignore[no-untyped-def]
        square = s * s
        more = square * large(s)
        less = fma(splat(-1.0, s) - s, more, square)  # as s·(1 - t) = less + more and 1 - t = s - more
        return less, more, square * both(s)

    @inline
    def any_(s, t):  # type: ignore[no-untyped-def]
        one = splat(1.0, s)
        most = splat(_FAR, s)
        held = t * select_gt(most, s, s, most)  # t·s, 0 where s is infinite
        if double:
            rest = splat(math.log(2.0), s) - log1p(t)
        else:
            rest = (one - t) * log_rest(t)
        return (one - t) - held, (s - one) + t, ((one + t) * rest - held) * splat(0.5, s)

    return close, any_


@functools.cache
def _adding(double: bool, floor: bool) -> Any:
    """What adds a vector of classes to the sums, with care for infinite numbers."""
    close, any_ = _terms(double)

    @inline
    def above_floor(log_p, log_q, unit):  # type: ignore[no-untyped-def]
        """p·log(p/q) where log p is above the floor, else 0."""
        p = exp_biased(floor_exp(log_p)) * unit
        return select_gt(log_p, splat(FLOOR, log_p), p * (log_p - log_q), splat(0.0, log_p))

    @inline
    def add(x, y, gap, log_sums, sums, tag):  # type: ignore[no-untyped-def]
        """Add a vector of classes. x, y: the numbers less the maximum of their rows; gap: log q - log p, less y - x."""
        zero = splat(0.0, x)
        unit = splat(unbias(tag), x)
        infinite = splat(np.inf, x)
        top = vmax(x - log_sums[0], y - log_sums[1])
        big = exp_biased(floor_exp(top)) * unit  # 0 where neither row has the class
        apart = y - x
        d = apart - gap
        s = absolute(d)
        s = select_eq(s, s, s, zero)  # NaN where neither row has the class
        less, more, middle = close(s)
        near = splat(CLOSE, x)
        if count_ge(s, near) > 0:
            t = exp_biased(floor_exp(zero - s)) * unit
            far_less, far_more, far_middle = any_(s, t)
            less = select_gt(near, s, less, far_less)
            more = select_gt(near, s, more, far_more)
            middle = select_gt(near, s, middle, far_middle)
        less = big * less
        more = select_eq(s, infinite, infinite, big * more)
        middle = big * middle
        if floor:
            rises = above_floor(x, y, unit)
            falls = above_floor(y, x, unit)
            return sums[0] + rises, sums[1] + falls, sums[2] + middle, vmax(absolute(apart), sums[3])
        rises = select_gt(d, zero, less, more)
        falls = select_gt(d, zero, more, less)
        unlike = vmax(absolute(apart), sums[3])
        return sums[0] + rises, sums[1] + falls, sums[2] + middle, unlike

    return add


@functools.cache
def _taking(shaped: bool) -> Any:
    """What reads numbers of a row."""

    @inline
    def take(rows, i, c, count, shape):  # type: ignore[no-untyped-def]
        """``count`` numbers of row i from class ``c`` on; a whole vector without the mask of a part of one."""
        at = rows.address + i * rows.stride
        if shaped or count < lanes(rows.tag):
            x = read(at, c, count, rows.tag, shape.mask_at)
        else:
            x = load(at + c * itemsize(rows.tag), rows.tag)
        return x

    return take


@functools.cache
def _slowly(shaped: bool, mode: int, double: bool, floor: bool) -> Any:
    """What sums over any classes."""
    add, take = _adding(double, floor), _taking(shaped)

    @inline
    def slowly(left, right, i, span, bases, gap, log_sums, shape):  # type: ignore[no-untyped-def]
        """(the three sums over the classes of ``span``, the most that two numbers less their maxima differ by)."""
        first, end = span
        none = splat(0.0, left.tag)
        w = lanes(left.tag)
        sums = none, none, none, none
        for c in range(first, end, w):
            count = min(w, end - c)
            x = take(left, i, c, count, shape)
            y = take(right, i, c, count, shape)
            if mode == PROBS:  # the lanes beyond hold no number that has a logarithm
                x = keep_first(x, count)
                y = keep_first(y, count)
            if shaped or mode == PROBS:
                x = apply_shape(x, shape, mode)
                y = apply_shape(y, shape, mode)
            sums = add(x - bases[0], y - bases[1], gap, log_sums, sums, left.tag)
        return sums

    return slowly


@functools.cache
def _quickly(shaped: bool, mode: int) -> Any:
    """What sums over finite float32 numbers: the near form, the far form, and what compares two rows."""
    take = _taking(shaped)

    @inline
    def both(left, right, i, c, count, shape):  # type: ignore[no-untyped-def]
        """``count`` numbers of either row."""
        x = take(left, i, c, count, shape)
        y = take(right, i, c, count, shape)
        if shaped:
            x = apply_shape(x, shape, mode)
            y = apply_shape(y, shape, mode)
        return x, y

    def summing(far: bool) -> Any:
        @inline
        def add(sums, x, y, gap, count, frames, table):  # type: ignore[no-untyped-def]
            if far:
                return add_far(sums, x, y, gap, count, frames, table)
            return add_near(sums, x, y, gap, count, frames, table)

        @inline
        def block(left, right, i, span, frames, gap, table, shape):  # type: ignore[no-untyped-def]
            """The sums of a block and its largest d²."""
            first, end = span
            none = splat(0.0, left.tag)
            sums = none, none, none, none
            w = lanes(left.tag)
            whole = end // w * w
            for c in range(first, whole, w):
                x, y = both(left, right, i, c, w, shape)
                sums = add(sums, x, y, gap, w, frames, table)
            if whole < end:
                x, y = both(left, right, i, whole, end - whole, shape)
                sums = add(sums, x, y, gap, end - whole, frames, table)
            return sums

        return block

    @inline
    def alike(left, right, i, gap, shape):  # type: ignore[no-untyped-def]
        """Whether y - x is ``gap[0]`` wherever it is a number."""
        w, end = lanes(left.tag), left.n_classes
        unlike = 0
        for c in range(0, end, w):
            x, y = both(left, right, i, c, min(w, end - c), shape)
            unlike += count_ge(absolute((y - x) - gap[0]), splat(_LEAST, left.tag))
        return unlike == 0

    return summing(False), summing(True), alike


@inline
def frame_of_row(base, tag):  # type: ignore[no-untyped-def]
    """(whether there is one, magic, low, unit) for exponentials of numbers of at most ``base`` against a power of 2.
    That times the unit is exp(base)."""
    low, magic = frame_limits(tag)
    steps = np.floor(base / LN_2 + 0.5)
    left = base - steps * LN_2
    unit = 1.0
    for k in range(10, 0, -1):
        unit = 1.0 - unit * left / k
    return abs(base) < -2.0 * low, splat(magic - steps, tag), splat(base + low, tag), unit


@inline
def frames_of(base_a, base_b, sum_a, sum_b, sure_a, sure_b, tag):  # type: ignore[no-untyped-def]
    """(whether there are frames, those of `add_far`, the two terms of the gap, what the sums are multiplied by) of two
    rows with these maxima, logarithms of sums, and confidences."""
    some_a, magic_a, low_a, unit_a = frame_of_row(base_a, tag)
    some_b, magic_b, low_b, unit_b = frame_of_row(base_b, tag)
    unit_a *= sure_a
    unit_b *= sure_b
    frames = magic_a, low_a, magic_b, low_b, splat(unit_b / unit_a, tag)
    first = splat(base_b - base_a, tag)
    rest = (base_b - base_a) - float(max_lanes(first)) + (sum_b - sum_a)
    return some_a and some_b, frames, (first, splat(rest, tag)), unit_a * unbias(tag)


@functools.cache
def divergences_kernel(shaped: bool, mode: int, double: bool, floor: bool = False) -> Any:
    """The kernel of one set of flags. shaped, mode: as in `wide_kernel`. double: the numbers are float64."""
    slowly = _slowly(shaped, mode, double, floor)
    near_block, far_block, alike = _quickly(shaped, mode)
    quick_form = mode == LOGITS and not double

    @jit
    def kernel(left, right, shape, of_a, of_b, out, at):  # type: ignore[no-untyped-def]
        """left, right: fields of `Rows`, one row of each beside another. of_a, of_b: their `Into`. Row i goes to column
        ``at + i`` of ``out``."""
        n_classes = left.n_classes
        tag = left.tag
        w = lanes(tag)
        most = splat(_MOST, tag)
        for i in range(left.n):
            k, m = of_a.at + i, of_b.at + i
            if of_a.status[i] != USED or of_b.status[i] != USED:
                out[KL_AB, at + i] = np.nan
                out[KL_BA, at + i] = np.nan
                out[JS, at + i] = np.nan
                continue
            base_a = base_b = sum_a = sum_b = 0.0
            if mode == LOGITS:
                base_a, base_b = of_a.record[MAX, k], of_b.record[MAX, m]
                sum_a, sum_b = of_a.record[LOG_SUM, k], of_b.record[LOG_SUM, m]
            gap = splat(sum_b - sum_a, tag)
            log_sums = splat(sum_a, tag), splat(sum_b, tag)
            bases = splat(base_a, tag), splat(base_b, tag)
            ab = ba = js = 0.0
            unlike = False
            wide = splat(0.0, 0.0)
            quick_ab, quick_ba, quick_js = wide, wide, wide
            far = False
            if quick_form:
                sure_a, sure_b = of_a.record[CONFIDENCE, k], of_b.record[CONFIDENCE, m]
                quick, frames, gaps, unit = frames_of(base_a, base_b, sum_a, sum_b, sure_a, sure_b, tag)
                table = constants()
                furthest = splat(0.0, tag)
            for first in range(0, n_classes, w * _BLOCK):
                end = min(first + w * _BLOCK, n_classes)
                begin = first
                if quick_form:
                    if quick:
                        begin = end
                        if not far:
                            some = near_block(left, right, i, (first, end), frames, gaps, table, shape)
                        if far or max_lanes(some[3]) > _NEAR_SQUARE:
                            some = far_block(left, right, i, (first, end), frames, gaps, table, shape)
                        far = max_lanes(some[3]) > _NEAR_SQUARE
                        if count_ge(most, absolute(some[0] + some[1])) == w:
                            quick_ab = add_wide(quick_ab, some[0], w)
                            quick_ba = add_wide(quick_ba, some[1], w)
                            quick_js = add_wide(quick_js, some[2], w)
                            furthest = vmax(some[3], furthest)
                        else:  # a number is infinite
                            begin = first
                if begin < end:
                    more = slowly(left, right, i, (begin, end), bases, gap, log_sums, shape)
                    ab += sum_lanes(more[0])
                    ba += sum_lanes(more[1])
                    js += sum_lanes(more[2])
                    unlike |= max_lanes(more[3]) != 0.0
            if quick_form:
                ab += sum_lanes(quick_ab) * unit
                ba += sum_lanes(quick_ba) * unit
                js += sum_lanes(quick_js) * unit
                if quick and not unlike:  # where y - x is gaps[0] throughout, d is -gaps[1]
                    unlike = max_lanes(furthest) > max_lanes(gaps[1] * gaps[1])
                    if not unlike:
                        unlike = not alike(left, right, i, gaps, shape)
            if mode == LOGITS:
                js = min(js, math.log(2.0))
            # where the rows are alike but for a constant, the two sums may yet differ in their last bit
            out[KL_AB, at + i] = ab if unlike else 0.0
            out[KL_BA, at + i] = ba if unlike else 0.0
            out[JS, at + i] = js if unlike else 0.0

    return kernel


@jit
def target_changes(before, after, out):  # type: ignore[no-untyped-def]
    """exp(-after) - exp(-before) into ``out``, of contiguous float64 NLLs."""
    zero = splat(0.0, 0.0)
    unit = splat(unbias(0.0), 0.0)
    for i in range(0, out.size, 8):
        count = min(8, out.size - i)
        x = load_first(before.ctypes.data + i * 8, count, 0.0)
        y = load_first(after.ctypes.data + i * 8, count, 0.0)
        p = exp_biased(floor_exp(zero - vmax(x, zero))) * unit
        q = exp_biased(floor_exp(zero - vmax(y, zero))) * unit
        store_first(out.ctypes.data + i * 8, count, q - p, 0.0)
