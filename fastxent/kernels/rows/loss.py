"""The loss of each row, and the coefficients of its gradient, from the row records."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import jit
from fastxent.kernels.rows import emit
from fastxent.kernels.rows.record import (
    BAD_LOGITS, BAD_TARGET, IGNORED, LINEAR, LOG_SUM, LSE, NLL, SOFT, SOFT_WEIGHT, USED,
)  # fmt: skip


@jit
def plain_losses(begin, n, record, status, loss, unit):  # type: ignore[no-untyped-def]
    """`loss_rows` where a row's loss is its nll, over ``unit``: without branches, so that rows go side by side."""
    for i in range(n):
        state = status[i]
        loss[i] = record[NLL, i] if state == USED else 0.0 if state == IGNORED else np.nan
    if unit != 1.0:
        for i in range(n):
            loss[i] = (record[NLL, i] if status[i] == USED else loss[i]) / unit
    return bad_target(begin, n, status)


@jit
def bad_target(begin, n, status):  # type: ignore[no-untyped-def]
    """The first row whose target is out of range, or -1."""
    worst = USED
    for i in range(n):
        worst = max(worst, status[i])
    if worst == BAD_TARGET:
        for i in range(n):
            if status[i] == BAD_TARGET:
                return begin + i
    return -1


@jit
def first_wrong(ids, n_classes, targets):  # type: ignore[no-untyped-def]
    """The first of these class ids that is out of range, or -1."""
    for i in range(ids.size):
        t = ids[i]
        if t != targets.ignore and t != targets.none and not 0 <= t < n_classes:
            return i
    return -1


@jit
def count_losses(n, status):  # type: ignore[no-untyped-def]
    """How many rows count in a mean: those that are used, and the broken ones that make it NaN."""
    count = 0
    for i in range(n):
        count += status[i] == USED or status[i] == BAD_LOGITS
    return float(count)


@jit
def loss_rows(begin, n, record, target, status, terms, loss, share):  # type: ignore[no-untyped-def]
    """loss[i] and share[i], its part of the denominator of a mean, of rows ``begin``.. of a whole.

    (1-ε)·w_y·nll + (ε/C)·Σ w_c·(lse - z_c) + λ·lse², times the sample weight; 0 where the row is ignored, NaN where it
    is broken. A weight of 0 makes a term 0, even an infinite one. Returns the first row whose target is out of range,
    or -1.
    """
    sample_weight, weight, smoothing, n_classes, weight_sum, z_loss, soft = terms
    wrong = -1
    for i in range(n):
        if status[i] == USED:
            w = 1.0
            main = 0.0
            if soft:
                main = record[SOFT_WEIGHT, i] * record[LOG_SUM, i] - record[SOFT, i]
            else:
                if weight.size > 0:
                    w = weight[target[i]]
                if w != 0.0:
                    main = w * record[NLL, i]
            value = main
            if smoothing > 0.0:
                value = smoothing / n_classes * (weight_sum * record[LOG_SUM, i] - record[LINEAR, i])
                if smoothing < 1.0:
                    value += (1.0 - smoothing) * main
            if record[LSE, i] != record[LSE, i]:
                value = np.nan
            if z_loss != 0.0:
                value += z_loss * record[LSE, i] * record[LSE, i]
            s = 1.0
            if sample_weight.size > 0:
                s = sample_weight[begin + i]
            loss[i] = s * value if s != 0.0 or value != value else 0.0
            share[i] = s * w
        elif status[i] == BAD_TARGET:
            loss[i] = np.nan
            share[i] = np.nan
            if wrong < 0:
                wrong = begin + i
        else:
            broken = status[i] == BAD_LOGITS
            loss[i] = np.nan if broken else 0.0
            share[i] = 0.0
            if broken:
                share[i] = (1.0 if weight.size == 0 or soft else weight[target[i]]) * (
                    sample_weight[begin + i] if sample_weight.size > 0 else 1.0
                )
    return wrong


@jit
def gradient_coefficients(begin, n, record, target, status, terms, scale, coefficients):  # type: ignore[no-untyped-def]
    """What `emit` multiplies p, the one-hot, the uniform and the soft target with; ``scale`` is d result / d row."""
    sample_weight, weight, smoothing, n_classes, weight_sum, z_loss, soft = terms
    for i in range(n):
        if status[i] != USED:
            continue
        g = scale
        if sample_weight.size > 0:
            g *= sample_weight[begin + i]
        keep = 1.0 - smoothing
        hot = 0.0
        total = smoothing / n_classes * weight_sum
        if soft:
            total += keep * record[SOFT_WEIGHT, i]
        else:
            hot = keep * (weight[target[i]] if weight.size > 0 else 1.0)
            total += hot
        if z_loss != 0.0:
            total += 2.0 * z_loss * record[LSE, i]
        coefficients[emit.P, i] = g * total
        coefficients[emit.HOT, i] = g * hot
        coefficients[emit.UNIFORM, i] = g * smoothing / n_classes
        coefficients[emit.SOFT, i] = g * keep
