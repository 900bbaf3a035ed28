"""The oracle: every array function of fastxent the slow, obvious way, in NumPy's widest float.

Written from the definitions and from nothing else: no code is shared with the package, and no trick is used
beyond those that keep the truth true (log1p of what is beside the maximum, expm1 for 1 - p).
Every function takes the options of its namesake and answers in `WIDE`; rounding is left to the comparison.

For the comparison: `ulp_error` (how many units in the last place a result is off), `plain_log_softmax` (the textbook
formula in the same dtype: what a result may at worst be held against) and `FAMILIES` (rows that hurt).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

WIDE = np.longdouble
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": BFLOAT16,
}
NO_TARGET = -100


class Statistics(NamedTuple):
    """The oracle's row record, field for field that of `fastxent.RowStatistics`."""

    nll: np.ndarray
    lse: np.ndarray
    max_logit: np.ndarray
    confidence: np.ndarray
    predicted: np.ndarray
    rank: np.ndarray
    entropy: np.ndarray
    brier: np.ndarray
    sum_p2: np.ndarray


# ---- numbers -------------------------------------------------------------------------------------------------


def wide(values: Any) -> np.ndarray:
    """The same numbers in `WIDE`; exact for every dtype fastxent takes."""
    array = np.asarray(values)
    return (array.astype(np.float32) if array.dtype == BFLOAT16 else array).astype(WIDE)


def times(a: Any, b: Any) -> np.ndarray:
    """a * b with 0 * inf = 0: what carries no weight costs nothing."""
    with np.errstate(all="ignore"):
        return np.where((np.asarray(a) == 0) & ~np.isnan(b), WIDE(0), np.multiply(a, b))


def float_parameters(dtype: Any) -> tuple[int, int]:
    """(bits of the significand with the hidden one, exponent of the smallest normal number)."""
    info = ml_dtypes.finfo(dtype)
    return info.nmant + 1, int(info.minexp)


def ulp_error(result: Any, truth: Any, dtype: Any) -> np.ndarray:
    """|result - truth| in units in the last place of the truth as `dtype` spaces them.

    0 where both are NaN or the same infinity (a truth beyond the dtype's range counts as infinite), inf where one
    alone is NaN or infinite.
    """
    result, truth = np.broadcast_arrays(wide(result), wide(truth))
    bits, smallest = float_parameters(dtype)
    with np.errstate(all="ignore"):
        rounded = wide(truth.astype(np.float64).astype(dtype))
        truth = np.where(np.isinf(rounded), rounded, truth)
        exponent = np.where(truth == 0, smallest, np.frexp(truth)[1])
        ulp = np.ldexp(WIDE(1), np.maximum(exponent, smallest + 1) - bits)
        error = np.abs(result - truth) / ulp
    same = (result == truth) | (np.isnan(result) & np.isnan(truth))
    return np.where(same, WIDE(0), np.where(np.isfinite(result) & np.isfinite(truth), error, WIDE(np.inf)))


def excess(result: Any, truth: Any, peer: Any, dtype: Any, *, terms: float | None = None) -> float:
    """How many units in the last place a result is farther from the truth than the peer's; at most 1 is fine.

    Losses are compared number for number; in float64, where a float64 evaluation, which the rule takes for the truth,
    is itself a unit off, the largest error of the case with the peer's largest. Where ``terms`` is given the last axis
    is a row of results (softmax, gradient): the largest error of any row is compared with the peer's largest, in units
    of the row's largest number, or of the ``terms`` that it is the difference of (a gradient's p and y) where those
    are larger.
    """
    if terms is None:
        error, allowed = ulp_error(result, truth, dtype), ulp_error(peer, truth, dtype)
        if np.dtype(dtype) == np.float64:
            return float(error.max(initial=0) - min(allowed.max(initial=0), 1e30))
        return float((error - np.minimum(allowed, 1e30)).max(initial=0))
    result, truth, peer = wide(result), wide(truth), wide(peer)
    with np.errstate(all="ignore"):
        truth = np.where(np.isinf(truth.astype(np.float64).astype(dtype)), np.copysign(np.inf, truth), truth)
        finite = np.isfinite(truth)
        if not np.array_equal(np.where(finite, 0, result), np.where(finite, 0, truth), equal_nan=True):
            return np.inf
        error, allowed = (np.where(finite, np.abs(v - truth), 0).max(axis=-1) for v in (result, peer))
    bits, smallest = float_parameters(dtype)
    largest = np.maximum(np.where(finite, np.abs(truth), 0).max(axis=-1), terms)
    exponent = np.where(largest == 0, smallest, np.frexp(largest)[1])
    unit = np.ldexp(WIDE(1), np.maximum(exponent, smallest + 1) - bits)
    allowed = np.nan_to_num(allowed, nan=np.inf)
    with np.errstate(over="ignore"):  # a peer may be off by more than there are numbers
        return float((error / unit).max(initial=0) - (allowed / unit).max(initial=0))


def plain_log_softmax(rows: np.ndarray) -> np.ndarray:
    """x - max - log(sum(exp(x - max))) in the dtype of the rows (halves: in float32), as a textbook has it."""
    x = rows.astype(np.float32) if rows.dtype.itemsize == 2 else rows
    with np.errstate(all="ignore"):
        shifted = x - x.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def bits_of(array: Any) -> np.ndarray:
    """The array's memory as unsigned integers: equality of bits, where all NaN are equal and 0 differs from -0."""
    array = np.ascontiguousarray(array)
    if array.dtype.kind not in "iu":
        array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
    return array.view(f"u{array.dtype.itemsize}")


# ---- rows that hurt ------------------------------------------------------------------------------------------


def _peaked(rng: np.random.Generator, n: int, c: int) -> np.ndarray:
    rows = rng.normal(size=(n, c))
    rows[np.arange(n), rng.integers(c, size=n)] += rng.uniform(5, 40, size=n)
    return rows


def _masked(rng: np.random.Generator, n: int, c: int) -> np.ndarray:
    rows = rng.normal(size=(n, c))
    rows[rng.random((n, c)) < 0.4] = -np.inf
    rows[np.arange(n), rng.integers(c, size=n)] = 1.0  # none is masked altogether
    return rows


FAMILIES = {
    "normal": lambda rng, n, c: rng.normal(size=(n, c)),
    "language model": lambda rng, n, c: rng.normal(size=(n, c)) * 4 - 8,
    "flat": lambda rng, n, c: np.full((n, c), 0.75),
    "peaked": _peaked,
    "wide": lambda rng, n, c: rng.uniform(-80, 80, size=(n, c)),
    "far from zero": lambda rng, n, c: rng.normal(size=(n, c)) + 1000,
    "ten thousands": lambda rng, n, c: rng.uniform(-1e4, 1e4, size=(n, c)),
    "largest": lambda rng, n, c: rng.choice([-3e38, 3e38, 0.0, 1.0], size=(n, c)),
    "denormal": lambda rng, n, c: rng.uniform(-1e-40, 1e-40, size=(n, c)),
    "ascending": lambda rng, n, c: np.sort(rng.normal(size=(n, c)) * 10, axis=-1),
    "masked": _masked,
}


def rows_of(family: str, n: int, c: int, dtype: Any, seed: int = 0) -> np.ndarray:
    """n rows of C classes of a family, in the dtype; what is too large for it is held at its largest number."""
    values = FAMILIES[family](np.random.default_rng([seed, n, c]), n, c)
    largest = float(ml_dtypes.finfo(dtype).max)
    return np.where(np.isinf(values), values, np.clip(values, -largest, largest)).astype(dtype)


# ---- softmax -------------------------------------------------------------------------------------------------


def transformed(
    logits: Any, *, softcap: float | None = None, temperature: float = 1.0, class_mask: Any = None
) -> np.ndarray:
    """Softcap, then temperature, then mask. A -inf logit is a masked class before and after; +inf stays what it is."""
    x = wide(logits)
    z = x if softcap is None else np.where(np.isinf(x), x, softcap * np.tanh(x / WIDE(softcap)))
    z = z / WIDE(temperature)
    return z if class_mask is None else np.where(np.asarray(class_mask, dtype=bool), z, -np.inf)


def _normalised(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log p, lse) of the rows; NaN for a row that is all -inf, or holds +inf or NaN."""
    with np.errstate(all="ignore"):
        top = z.max(axis=-1, keepdims=True)
        top = np.where(np.isfinite(top), top, np.nan)
        shifted = z - top
        beside = np.exp(shifted)
        np.put_along_axis(beside, np.nan_to_num(z, nan=np.inf).argmax(axis=-1)[..., None], WIDE(0), axis=-1)
        rest = np.log1p(beside.sum(axis=-1, keepdims=True))
        log_p, lse = shifted - rest, (top + rest)[..., 0]
    return np.where(np.isnan(lse)[..., None], np.nan, log_p), lse


def log_softmax(logits: Any, *, axis: int = -1, temperature: float = 1.0) -> np.ndarray:
    x = np.moveaxis(wide(logits), axis, -1)
    return np.moveaxis(_normalised(transformed(x, temperature=temperature))[0], -1, axis)


def softmax(logits: Any, *, axis: int = -1, temperature: float = 1.0) -> np.ndarray:
    return np.exp(log_softmax(logits, axis=axis, temperature=temperature))


def logsumexp(logits: Any, *, axis: int = -1, temperature: float = 1.0) -> np.ndarray:
    """-inf for a row of -inf, +inf for one that holds it, as the sum of the exponentials is 0 or infinite."""
    z = transformed(np.moveaxis(wide(logits), axis, -1), temperature=temperature)
    top = z.max(axis=-1)
    return np.where(np.isinf(top), top, _normalised(z)[1])


# ---- cross-entropy -------------------------------------------------------------------------------------------


def _log_p(z: np.ndarray, input: str, clip_eps: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(log p, lse, True where a change of the input changes log p)."""
    with np.errstate(all="ignore"):
        if input == "logits":
            log_p, lse = _normalised(z)
        else:
            log_p, lse = (np.log(z) if input == "probs" else z), np.full(z.shape[:-1], np.nan, WIDE)
    if clip_eps is None:
        return log_p, lse, np.ones(z.shape, dtype=bool)
    low, high = np.log(WIDE(clip_eps)), np.log1p(-WIDE(clip_eps))
    return np.clip(log_p, low, high), lse, (log_p >= low) & (log_p <= high)


def cross_entropy_with_grad(
    logits: Any,
    target: Any,
    *,
    weight: Any = None,
    ignore_index: int = NO_TARGET,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    sample_weight: Any = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    class_mask: Any = None,
    base: float | None = None,
    input: str = "logits",
    axis: int = -1,
    clip_eps: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(loss, d loss / d logits): sum over classes of a_c * -log p_c, with a the weighted, smoothed target."""
    x, target = np.moveaxis(wide(logits), axis, -1), np.asarray(target)
    classes = x.shape[-1]
    soft = target.ndim == x.ndim
    w = np.ones(classes, WIDE) if weight is None else wide(weight)
    if soft:
        y, used = wide(np.moveaxis(target, axis, -1)), np.ones(x.shape[:-1], dtype=bool)
        share = np.ones(x.shape[:-1], WIDE)
    else:
        used = target.astype(object) != ignore_index if target.dtype == np.uint64 else target != ignore_index
        used = np.asarray(used, dtype=bool)
        y = (np.arange(classes) == np.where(used, target, 0)[..., None]).astype(WIDE)
        share = (y * w).sum(axis=-1)
    eps = WIDE(label_smoothing)
    a = w * ((1 - eps) * y + eps / classes)
    s = np.ones(x.shape[:-1], WIDE) if sample_weight is None else wide(sample_weight)

    z = transformed(x, softcap=softcap, temperature=temperature, class_mask=class_mask)
    log_p, lse, moves = _log_p(z, input, clip_eps)
    bad = np.isnan(log_p).any(axis=-1)
    with np.errstate(all="ignore"):
        rows = times(a, -log_p).sum(axis=-1) + (times(WIDE(z_loss), lse**2) if z_loss else 0)
        rows = np.where(used, np.where(bad, WIDE(np.nan), times(s, rows)), WIDE(0))
        if input == "logits":  # p (A - a) - a (1 - p): no cancellation where p is nearly 1
            p, q = np.exp(log_p), -np.expm1(log_p)
            slope = p * (a.sum(axis=-1, keepdims=True) - a) - a * q
            if z_loss:
                slope = slope + 2 * z_loss * lse[..., None] * p
        else:
            slope = times(a, -1 / np.exp(log_p) if input == "probs" else -np.ones_like(log_p))
        slope = np.where(moves, slope, 0) / WIDE(temperature)
        if softcap is not None:
            slope = slope * (1 - np.tanh(x / WIDE(softcap)) ** 2)
        if class_mask is not None:
            slope = np.where(np.asarray(class_mask, dtype=bool), slope, 0)
        grad = np.where(used[..., None], np.where(bad[..., None], np.nan, times(s[..., None], slope)), WIDE(0))

        unit = WIDE(1) if base is None else np.log(WIDE(base))
        rows, grad = rows / unit, grad / unit
        total = (np.where(used, s * share, 0)).sum()
        if (
            reduction == "mean"
        ):  # over a total weight of 0 there is none, and no slope of any class of the rows that count
            total = total if total else WIDE(np.nan)
            grad = np.where(used[..., None], grad / total, WIDE(0))
            loss = rows.sum() / total
        else:
            loss = rows if reduction == "none" else rows.sum()
    return loss, np.moveaxis(grad, -1, axis)


def cross_entropy(logits: Any, target: Any, **options: Any) -> np.ndarray:
    return cross_entropy_with_grad(logits, target, **options)[0]


def nll_loss(log_probs: Any, target: Any, **options: Any) -> np.ndarray:
    return cross_entropy(log_probs, target, input="log_probs", **options)


def log_loss(probs: Any, target: Any, *, labels: Any = None, sample_weight: Any = None, clip_eps: Any = None) -> WIDE:
    """Mean of -log p_y, p held within [eps, 1 - eps]; eps is the dtype's own unless given. One column: of class 1."""
    p = np.asarray(probs)
    eps = float(ml_dtypes.finfo(p.dtype).eps) if clip_eps is None else clip_eps
    p = np.stack([1 - wide(p), wide(p)], axis=-1) if p.ndim == 1 else wide(p)
    names = np.unique(target if labels is None else labels)
    with np.errstate(divide="ignore"):
        rows = -np.log(np.clip(p, eps, 1 - WIDE(eps)))[np.arange(len(p)), np.searchsorted(names, target)]
    s = np.ones(len(p), WIDE) if sample_weight is None else wide(sample_weight)
    return times(s, rows).sum() / s.sum()


# ---- binary, focal -------------------------------------------------------------------------------------------


def binary_cross_entropy_with_grad(
    values: Any,
    target: Any,
    *,
    weight: Any = None,
    pos_weight: Any = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    input: str = "probs",
) -> tuple[np.ndarray, np.ndarray]:
    """-(b t log p + (1 - t) log(1 - p)) for every element, times its weight; and its slope."""
    x = wide(values)
    t = wide(target) * (1 - WIDE(label_smoothing)) + WIDE(label_smoothing) / 2
    b = WIDE(1) if pos_weight is None else wide(pos_weight)
    with np.errstate(all="ignore"):
        if input == "probs":
            log_p, log_q = np.log(x), np.log1p(-x)
            slope = times(1 - t, 1 / (1 - x)) - times(b * t, 1 / x)
        else:
            log_p, log_q = -np.logaddexp(WIDE(0), -x), -np.logaddexp(WIDE(0), x)
            slope = (1 - t) * np.exp(log_p) - b * t * np.exp(log_q)
        w = WIDE(1) if weight is None else wide(weight)
        loss, slope = times(w, times(b * t, -log_p) + times(1 - t, -log_q)), np.broadcast_to(times(w, slope), x.shape)
        if reduction == "none":
            return loss, slope
        return (loss.sum() / x.size, slope / x.size) if reduction == "mean" else (loss.sum(), slope)


def binary_cross_entropy(values: Any, target: Any, **options: Any) -> np.ndarray:
    return binary_cross_entropy_with_grad(values, target, **options)[0]


def focal_loss(
    logits: Any, target: Any, *, gamma: float = 2.0, alpha: Any = None, reduction: str = "mean"
) -> np.ndarray:
    """alpha_y (1 - p_y)^gamma (-log p_y)."""
    target = np.asarray(target)
    nll = -np.take_along_axis(log_softmax(logits), target[..., None], axis=-1)[..., 0]
    scale = WIDE(1) if alpha is None else np.broadcast_to(wide(alpha), wide(logits).shape[-1])[target]
    rows = times(scale * (-np.expm1(-nll)) ** WIDE(gamma), nll)
    return rows if reduction == "none" else rows.mean() if reduction == "mean" else rows.sum()


# ---- entropy and divergences ---------------------------------------------------------------------------------


def _distribution(values: Any, input: str, axis: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """(p, log p) with the classes last."""
    x = np.moveaxis(wide(values), axis, -1)
    log_p = _log_p(x, input, None)[0]
    return (x if input == "probs" else np.exp(log_p)), log_p


def entropy(p: Any, *, input: str = "probs", base: float | None = None, axis: int = -1) -> np.ndarray:
    p, log_p = _distribution(p, input, axis)
    return times(p, -log_p).sum(axis=-1) / (1 if base is None else np.log(WIDE(base)))


def _reduced(rows: np.ndarray, reduction: str, base: float | None) -> np.ndarray:
    rows = rows / (1 if base is None else np.log(WIDE(base)))
    return rows if reduction == "none" else rows.sum() if reduction == "sum" else rows.sum() / rows.size


def kl_divergence(
    p: Any, q: Any, *, input: str = "logits", reduction: str = "batchmean", base: float | None = None
) -> np.ndarray:
    """Σ p (log p - log q) - p + q. The last two add up to 0 for distributions; with others the least value is 0."""
    p, log_p = _distribution(p, input)
    q, log_q = _distribution(q, input)
    with np.errstate(all="ignore"):
        return _reduced(np.where(p == 0, q, p * (log_p - log_q) - p + q).sum(axis=-1), reduction, base)


def js_divergence(
    p: Any, q: Any, *, input: str = "logits", reduction: str = "batchmean", base: float | None = None
) -> np.ndarray:
    """H((p + q) / 2) - (H(p) + H(q)) / 2, summed as two divergences from the mixture."""
    p, log_p = _distribution(p, input)
    q, log_q = _distribution(q, input)
    with np.errstate(all="ignore"):
        log_m = np.log((p + q) / 2)
        rows = np.where(p == 0, 0, p * (log_p - log_m)) + np.where(q == 0, 0, q * (log_q - log_m))
    return _reduced(rows.sum(axis=-1) / 2, reduction, base)


# ---- the row record ------------------------------------------------------------------------------------------


def row_statistics(
    logits: Any,
    target: Any = None,
    *,
    ignore_index: int = NO_TARGET,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: Any = None,
    axis: int = -1,
) -> Statistics:
    x = np.moveaxis(wide(logits), axis, -1)
    z = transformed(x, softcap=softcap, temperature=temperature, class_mask=class_mask)
    log_p, lse = _normalised(z)
    p = np.exp(log_p)
    shape, classes = x.shape[:-1], np.arange(x.shape[-1])
    nll = brier = np.full(shape, np.nan, WIDE)
    rank = np.full(shape, -1)
    if target is not None:
        target = np.asarray(target)
        used = target != ignore_index
        t = np.where(used, target, 0)[..., None]
        at = np.take_along_axis(z, t, axis=-1)
        nll = np.where(used, -np.take_along_axis(log_p, t, axis=-1)[..., 0], np.nan)
        rank = np.where(used, ((z > at) | ((z == at) & (classes < t))).sum(axis=-1), -1)
        off = np.where(classes == t, np.expm1(log_p), p)
        brier = np.where(used, (off**2).sum(axis=-1), np.nan)
    return Statistics(
        nll=nll,
        lse=lse,
        max_logit=z.max(axis=-1),
        confidence=p.max(axis=-1),
        predicted=np.where(np.isnan(lse), -1, z.argmax(axis=-1)),  # a broken row has neither
        rank=np.where(np.isnan(lse), -1, rank),
        entropy=times(p, -log_p).sum(axis=-1),
        brier=brier,
        sum_p2=(p**2).sum(axis=-1),
    )


# ---- binary dumps --------------------------------------------------------------------------------------------


class BinaryRecord(NamedTuple):
    """What is known of rows of one number each."""

    nll: np.ndarray
    loss: np.ndarray
    probability: np.ndarray
    entropy: np.ndarray
    brier: np.ndarray


def binary_record(values: Any, target: Any, with_logits: bool, smoothing: float = 0.0) -> BinaryRecord:
    """The record of log-odds, or of probabilities of the positive class, with targets from 0 to 1."""
    x, t = wide(values), wide(target)
    with np.errstate(all="ignore"):
        if with_logits:
            lost, gained = np.logaddexp(0, -x), np.logaddexp(0, x)  # -log p, -log(1 - p)
            lost, gained = np.where(x == -np.inf, np.inf, lost), np.where(x == np.inf, np.inf, gained)
            p, q = np.exp(-lost), np.exp(-gained)
        else:
            p, q = x, 1 - x
            lost, gained = -np.log(p), -np.log1p(-x)
        s = t * (1 - WIDE(smoothing)) + WIDE(smoothing) / 2
        return BinaryRecord(
            nll=times(t, lost) + times(1 - t, gained),
            loss=times(s, lost) + times(1 - s, gained),
            probability=p,
            entropy=times(p, lost) + times(q, gained),
            brier=np.where(t == 1, q, p - t) ** 2,
        )


def pairs_auc(score: Any, positive: Any) -> float:
    """ROC AUC by comparing every positive row with every negative one."""
    a, b = np.asarray(score)[np.asarray(positive) == 1], np.asarray(score)[np.asarray(positive) == 0]
    return float(((a[:, None] > b) + 0.5 * (a[:, None] == b)).mean())


def delong_stderr(score: Any, positive: Any) -> float:
    """DeLong's standard error of `pairs_auc`, from the placement of every row."""
    a, b = np.asarray(score)[np.asarray(positive) == 1], np.asarray(score)[np.asarray(positive) == 0]
    won = (a[:, None] > b) + 0.5 * (a[:, None] == b)
    return float(np.sqrt(won.mean(axis=1).var(ddof=1) / len(a) + won.mean(axis=0).var(ddof=1) / len(b)))
