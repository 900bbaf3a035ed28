"""A multilabel dump that is evaluated by several tests, and its figures computed the slow way."""

import math

import numpy as np
import pyarrow as pa
from scipy import special
from sklearn import metrics as sk

N, C = 400, 5
RNG = np.random.default_rng(11)
ODDS = (RNG.normal(size=(N, C)) * 1.5 - [0, 1, -1, 0.5, 2]).astype(np.float32)
P = special.expit(ODDS.astype(np.float64))
TARGET = (RNG.random((N, C)) < P).astype(np.int8)
WEIGHT = RNG.choice([0.0, 0.5, 1.0, 2.25], N)
KIND = np.array(["film", "news", "song"])[RNG.integers(0, 3, N)]
USER = RNG.integers(0, 40, N)


def ids(target=TARGET):
    """The labels that hold in each row."""
    return [np.flatnonzero(row).tolist() for row in target]


def table(**columns):
    given = {"logits": list(ODDS), "target": list(TARGET), "w": WEIGHT, "kind": KIND, "user": USER} | columns
    return pa.table({name: column for name, column in given.items() if column is not None})


def oracle(p, t, weight=None, threshold=0.5, score=None, bins=15):
    """Every figure, label by label: t is NaN where a label is ignored. ``score``: what labels are ranked by."""
    p, t = np.asarray(p, np.float64), np.asarray(t, np.float64)
    score = p if score is None else np.asarray(score, np.float64)
    w = np.ones(len(p)) if weight is None else np.asarray(weight, np.float64)
    known = ~np.isnan(t)
    called = p >= threshold
    sums = dict.fromkeys(("n", "loss", "brier", "right", "both", "called", "held"), 0.0)
    rows, exact, cells = 0.0, 0.0, [[0.0, 0.0, 0.0] for _ in range(bins)]
    for i in range(len(p)):
        if not known[i].any():
            continue
        rows += w[i]
        exact += w[i] * all(called[i, j] == (t[i, j] >= 0.5) for j in range(p.shape[1]) if known[i, j])
        for j in range(p.shape[1]):
            if known[i, j] and w[i]:
                x, y, c = p[i, j], t[i, j], float(called[i, j])
                sums["n"] += w[i]
                sums["loss"] -= w[i] * (special.xlogy(y, x) + special.xlog1py(1 - y, -x))
                sums["brier"] += w[i] * (x - y) ** 2
                sums["right"] += w[i] * (y * c + (1 - y) * (1 - c))
                sums["both"] += w[i] * y * c
                sums["called"] += w[i] * c
                sums["held"] += w[i] * y
                cell = cells[max(0, math.ceil(x * bins) - 1)]
                for k, number in enumerate((x, y, 1.0)):
                    cell[k] += w[i] * number
    macro, area, precision = [], [], []
    for j in range(p.shape[1]):
        used = known[:, j] & (w > 0)
        if not used.any():
            continue
        y, c, v = t[used, j], called[used, j], w[used]
        both, held, predicted = (v * y * c).sum(), (v * y).sum(), (v * c).sum()
        pairs = (both, predicted), (both, held), (2 * both, held + predicted)
        macro.append([upper / lower if lower else 0.0 for upper, lower in pairs])
        hard = np.concatenate([np.ones(len(y)), np.zeros(len(y))])  # a soft target is a row of either class
        twice, share = np.tile(score[used, j], 2), np.concatenate([v * y, v * (1 - y)])
        if held:
            precision.append(sk.average_precision_score(hard, twice, sample_weight=share))
            if held < v.sum():
                area.append(sk.roc_auc_score(hard, twice, sample_weight=share))
    gaps = [abs(x - y) for x, y, _ in cells]
    found = {
        "cross_entropy": sums["loss"] / sums["n"],
        "cross_entropy_bits": sums["loss"] / sums["n"] / math.log(2),
        "accuracy": sums["right"] / sums["n"],
        "exact_match": exact / rows,
        "micro_precision": sums["both"] / sums["called"] if sums["called"] else math.nan,
        "micro_recall": sums["both"] / sums["held"] if sums["held"] else math.nan,
        "brier_score": sums["brier"] / sums["n"],
        "expected_calibration_error": sum(gaps) / sums["n"],
        "maximum_calibration_error": max(g / n for g, (_, _, n) in zip(gaps, cells, strict=True) if n),
        "macro_roc_auc": np.mean(area) if area else math.nan,
        "mean_average_precision": np.mean(precision) if precision else math.nan,
    }
    either = sums["called"] + sums["held"]
    found["micro_f1"] = 2 * sums["both"] / either if either else math.nan
    names = "macro_precision", "macro_recall", "macro_f1"
    return found | dict(zip(names, np.mean(macro, axis=0), strict=True))
