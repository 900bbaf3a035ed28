"""The row record: the numbers that are left of a row when its C logits have been read.

Row kernels gather the raw sums of each row; `finish` turns them into the record, eight rows at a time, since a
logarithm and two divisions for one row alone would cost more than the exponentials of a hundred classes.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastxent.kernels.jit import jit
from fastxent.kernels.simd.arithmetic import select_eq, select_gt, splat
from fastxent.kernels.simd.exponentials import exp_biased, floor_exp, log1p, unbias
from fastxent.kernels.simd.memory import load_first, store_first
from fastxent.kernels.simd.types import itemsize

# Rows of the float64 record, as `finish` leaves it. MAX: the shaped maximum, which exponentials are taken against (NaN
# where the row is broken; 0 for log-probabilities and probabilities). HERE: the shaped logit of the target. REST:
# Σ exp(z - MAX) less 1, the maximum's own term, so that the loss of a confident row keeps its digits. LOG_SUM: the
# logarithm of that sum. Where wanted: LINEAR, Σ w·(z - MAX); SOFT, Σ q·w·(z - MAX); SOFT_WEIGHT, Σ q·w.
NLL, LSE, MAX, HERE, REST, LOG_SUM, CONFIDENCE, ENTROPY, SUM_P2, BRIER, LINEAR, SOFT, SOFT_WEIGHT = range(13)
FIELDS = 13
# What row kernels gather in the place of what `finish` makes of it, with e = exp(z - MAX). SUM_ED: Σ e·(z - MAX).
# SUM_EE: Σ e². LARGEST: the largest number as it stands. The wide kernel leaves sums of exponentials not against MAX
# but against MAX - LEFT, without the maxima: of those there are MORE beside the one.
LEFT, MORE, LARGEST, SUM_ED, SUM_EE = NLL, LSE, CONFIDENCE, ENTROPY, SUM_P2
# Rows of the int64 record.
PREDICTED, RANK = range(2)
# Status of a row.
USED, IGNORED, BAD_LOGITS, BAD_TARGET = range(4)
NO_TARGET = np.iinfo(np.int64).min  # a target that is not there: the row is used, nll and rank are not

LOGITS, LOG_PROBS, PROBS = range(3)  # what the numbers are


@functools.cache
def finish_of(full: bool, mode: int, logged: bool, framed: bool) -> Any:
    """What turns raw sums into the record, for one set of compile-time flags.

    full, mode: as in `wide.wide_kernel`. logged: LOG_SUM, log(1 + REST), is there already. framed: sums are still
    against MAX - LEFT.
    """

    @jit
    def finish(first, n, record, real):  # type: ignore[no-untyped-def]
        """Turn what was gathered of ``n`` rows from ``first`` on into their record; broken rows become NaN throughout.

        ``real``: a scalar of the compute type.
        """
        none = splat(0.0, 0.0)
        unit = splat(1.0, 0.0)
        infinite = splat(np.inf, 0.0)
        speck = splat(1e-40, 0.0)  # what masked classes leave in a sum that should be 0
        stride = record.strides[0]
        start = record.ctypes.data + first * 8
        for i in range(0, n, 8):
            count = min(8, n - i)
            at = start + i * 8
            base = load_first(at + MAX * stride, count, 0.0)
            rest = load_first(at + REST * stride, count, 0.0)
            here = load_first(at + HERE * stride, count, 0.0)
            log_s = none
            own = unit
            more = none
            if framed and mode == LOGITS:
                own = exp_biased(none - load_first(at + LEFT * stride, count, 0.0)) * splat(unbias(0.0), 0.0)
                more = load_first(at + MORE * stride, count, 0.0)
                rest = rest * own + more
                store_first(at + REST * stride, count, rest, 0.0)
            if logged:
                log_s = load_first(at + LOG_SUM * stride, count, 0.0)
            elif mode == LOGITS:
                log_s = log1p(rest)
            gap = base - here
            nll = gap + log_s
            if itemsize(real) == 8:  # else the difference of the two is as good as exact
                back = gap - base
                lost = (base - (gap - back)) - (here + back)
                nll = gap + (log_s + select_gt(infinite, gap, lost, none))
            store_first(at + NLL * stride, count, nll, 0.0)
            store_first(at + LSE * stride, count, base + log_s, 0.0)
            if not logged:
                store_first(at + LOG_SUM * stride, count, log_s, 0.0)
            if full:
                entropy = load_first(at + SUM_ED * stride, count, 0.0)
                p2 = load_first(at + SUM_EE * stride, count, 0.0)
                scale = splat(unbias(0.0), 0.0)
                if mode == LOGITS:
                    confidence = unit / (rest + unit)
                    entropy = log_s - entropy * own * confidence
                    p2 = p2 * (own * own) + more
                    square = confidence * confidence
                    # the target's own part comes off Σp² before anything is rounded where it is (one of) the largest
                    p_here = exp_biased(floor_exp(here - base)) * scale * confidence
                    miss = unit - p_here
                    others = (unit + p2) * square - p_here * p_here
                    brier = select_eq(
                        here, base, p2 * square + (rest * confidence) * (rest * confidence), others + miss * miss
                    )
                    p2 = (unit + p2) * square
                else:
                    confidence = load_first(at + LARGEST * stride, count, 0.0)
                    if mode == LOG_PROBS:
                        confidence = exp_biased(floor_exp(confidence)) * scale
                    entropy = none - entropy
                    p_here = exp_biased(floor_exp(here)) * scale
                    miss = unit - p_here
                    brier = (p2 - p_here * p_here) + miss * miss
                tiny = select_gt(speck, entropy, select_gt(entropy, none - speck, none, entropy), entropy)
                broken = base - base  # NaN, else 0
                store_first(at + CONFIDENCE * stride, count, confidence + broken, 0.0)
                store_first(at + ENTROPY * stride, count, tiny + broken, 0.0)
                store_first(at + SUM_P2 * stride, count, p2 + broken, 0.0)
                store_first(at + BRIER * stride, count, select_eq(here, here, brier + broken, here), 0.0)

    return finish
