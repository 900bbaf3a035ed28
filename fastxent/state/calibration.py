"""The calibration figures that follow from the fine grid, for several groups of rows at once.

Every array below has one line per group. A place is known by its `Moments`; within one, confidences are nearly equal.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from fastxent.kernels.exact import rounded_ratio
from fastxent.kernels.grid import Layout
from fastxent.results.reliability import Reliability, isotonic
from fastxent.results.values import Calibration
from fastxent.state import jackknife
from fastxent.state.grid import Grid, Moments, moments_of
from fastxent.state.metrics import CALIBRATION, CORP, DEBIASED, RESOLVED, SMOOTH, Bins, bin_edges

_COARSE = 512
_START, _SECANTS = 16, 8  # cells of a first guess of the smooth calibration error; steps before the bracket is halved
NEAR = 4  # cells at either end; a rare outcome that lies in these is not resolved
_FINEST = 2.0**-900  # a sum of squares of weights below it has lost precision
_ROUNDING = 2.0**-46  # of a score; differences of scores below it are 0
_NEAREST = 2.0**-40  # the width of the kernel of the smooth calibration error is known to that


def without_drawn(
    grid: Grid, groups: Sequence[int], buckets: int, names: Collection[str]
) -> list[dict[str, np.ndarray]]:
    """For each of some groups the figures ``names``, then without each of some buckets drawn from its counts."""
    parts = []
    for group in groups:
        counts, forecast, layout = grid.coarse_sides(group)
        parts.append(moments_of(jackknife.without_drawn(counts, buckets), forecast))
    found = figures(Moments(*map(np.concatenate, zip(*parts, strict=True))), layout, names)
    ends = np.cumsum([len(part.weight) for part in parts])[:-1]
    each = {name: np.split(values, ends) for name, values in found.items()}
    return [{name: values[g] for name, values in each.items()} for g in range(len(parts))]


def without_each(grid: Grid, group: int, names: Collection[str]) -> dict[str, np.ndarray]:
    """The figures ``names`` of a group of a grid with buckets, then without each of its buckets that has rows."""
    each = grid.moments(grid.buckets_of(group))
    return figures(Moments(*map(jackknife.left_out, each)), grid.layout, names)


def shown_bins(bins: Bins, weighted: bool) -> Calibration:
    """The bins of a result."""
    edges = bin_edges(len(bins.count)).tolist()
    unit = 1 << bins.scale
    return Calibration(
        lower=tuple(edges[:-1]),
        upper=tuple(edges[1:]),
        count=tuple(bins.count),
        confidence=tuple(map(rounded_ratio, bins.confidence, bins.weight)),
        accuracy=tuple(map(rounded_ratio, bins.correct, bins.weight)),
        weight=tuple(rounded_ratio(w, unit) for w in bins.weight) if weighted else None,
    )


def reliability(grid: Grid, group: int) -> Reliability | None:
    """The rows of a group by cells as fine as those of a slice; None if there are none, or weights are not usual."""
    moments = grid.coarse_moments(group)
    weight, total = moments.weight, moments.weight.sum()
    if not (np.isfinite(total) and total > 0.0 and (weight >= 0.0).all()):
        return None
    with np.errstate(all="ignore"):
        found = Moments(*(column[weight > 0.0] for column in moments))
        weight = found.weight
        rows = np.minimum(weight * weight / found.squared_weight, 2.0**62)
    columns = found.forecast / weight, found.outcome / weight, isotonic(weight[None], found.outcome[None])[0], weight
    if not all(np.isfinite(column).all() for column in (*columns, rows)):
        return None
    return Reliability(*(tuple(column.tolist()) for column in (*columns, rows)))


def figures(moments: Moments, layout: Layout, names: Collection[str]) -> dict[str, np.ndarray]:
    """Those of ``names`` that are figures of calibration, each (groups,); NaN where it is not defined."""
    found: dict[str, np.ndarray] = {}
    with np.errstate(all="ignore"):
        total = moments.weight.sum(axis=1)
        if any(name in (*CALIBRATION, DEBIASED) for name in names):
            found |= _binned(moments, layout.bins, total)
        if SMOOTH in names:
            found[SMOOTH] = smooth(_gaps(moments, layout, len(total) > 1) / total[:, None])
        if any(name in CORP for name in names):
            found |= _corp(moments, total)
        defined = np.isfinite(total) & (total > 0.0) & (moments.weight >= 0.0).all(axis=1)
        resolved = defined & ~rare(moments, layout)
    return {
        name: np.where(resolved if name in RESOLVED else defined, found[name], np.nan)
        for name in names
        if name in found
    }


def rare(moments: Moments, layout: Layout) -> np.ndarray:
    """(groups,) whether one outcome is rarer than `NEAR` cells are wide, and most of its rows lie in these cells."""
    cells, total = layout.cells, moments.weight.sum(axis=1)
    found = np.zeros(len(total), bool)
    for outcome, near in (
        (moments.outcome, slice(cells[min(NEAR, len(cells) - 1)])),
        (moments.weight - moments.outcome, slice(cells[-min(NEAR, len(cells))], None)),
    ):
        rows = outcome.sum(axis=1)
        found |= (rows > 0.0) & (rows * len(cells) < NEAR * total) & (2.0 * outcome[:, near].sum(axis=1) > rows)
    return found


def _binned(moments: Moments, starts: np.ndarray, total: np.ndarray) -> dict[str, np.ndarray]:
    """The calibration errors over bins."""
    bins = Moments(*(np.add.reduceat(column, starts, axis=1) for column in moments))
    gaps = np.abs(bins.outcome - bins.forecast)
    unit = -np.frexp(total)[1][:, None]  # weights times 2**unit have squares that are neither infinite nor 0
    weight, gap = np.ldexp(bins.weight, unit), np.ldexp(gaps, unit)
    weighted_square, squared_weight = (np.ldexp(x, 2 * unit) for x in (bins.weighted_square, bins.squared_weight))
    freedom = weight - squared_weight / weight  # rows - 1, where all weigh 1
    several = freedom > 1e-9 * weight
    each = np.where(several, (gap**2 - weighted_square) / np.where(several, freedom, 1.0), 0.0)
    lost = (bins.squared_weight < _FINEST) & (weight > 2.0**-60) | ~np.isfinite(bins.squared_weight)
    debiased = np.sqrt(np.maximum(each.sum(axis=1) / np.ldexp(total, unit[:, 0]), 0.0))
    return {
        CALIBRATION[0]: gaps.sum(axis=1) / total,
        CALIBRATION[1]: np.where(bins.weight > 0.0, gaps / bins.weight, 0.0).max(axis=1),
        DEBIASED: np.where(lost.any(axis=1), np.nan, debiased),
    }


def _gaps(moments: Moments, layout: Layout, coarse: bool) -> np.ndarray:
    """(groups, cells) the sums of w·(y - f). coarse: in at most `_COARSE` cells, enough for a standard error."""
    gaps = np.add.reduceat(moments.outcome - moments.forecast, layout.cells, axis=1)
    some = max(1, gaps.shape[1] // _COARSE)
    found: np.ndarray = gaps.reshape(len(gaps), -1, some).sum(axis=2) if coarse else gaps
    return found


def smooth(gaps: np.ndarray) -> np.ndarray:
    """The smooth calibration error: the σ at which ∫ |Σ_j K_σ(t, f_j)·gap_j| dt is σ itself (J. Błasiok, P. Nakkiran
    2023, arXiv 2309.12236). K_σ is a Gaussian that is reflected at 0 and 1: cosines are its eigenfunctions.
    relplot 1.0.3 gives rows at 0 and 1 half of their weight, since the end points of its grid have no image.

    gaps: (groups, cells). What each cell adds to the mean of y - f.
    """
    cells = gaps.shape[1]
    waves = np.fft.rfft(np.concatenate([gaps, gaps[:, ::-1]], axis=1), axis=1)
    powers = (np.pi * np.arange(cells + 1)) ** 2 / -2.0

    def error(sigma: np.ndarray) -> np.ndarray:
        """The error with kernels of these widths; it falls as they widen."""
        smoothed = np.fft.irfft(waves * np.exp(powers * sigma[:, None] ** 2), 2 * cells, axis=1)
        found: np.ndarray = np.abs(smoothed[:, :cells]).sum(axis=1)
        return found

    # The error hardly changes with the width: secants end soon. If they do not, every other step halves the bracket.
    low, high = np.zeros(len(gaps)), np.ones(len(gaps))
    before = np.abs(gaps.reshape(len(gaps), -1, max(1, cells // _START)).sum(axis=2)).sum(axis=1).clip(0.0, 1.0)
    above = error(before) - before  # falls by 1 at least where the width rises by 1: how far the width is off, at most
    found, steps = before + above, 0
    while True:
        rises = above > 0.0
        low, high = np.where(rises, before, low), np.where(rises, high, before)
        open_ = (np.abs(above) > _NEAREST) & (high - low > _NEAREST)
        if not open_.any():
            break
        beyond = ~((found > low) & (found < high)) | (steps > _SECANTS and steps % 2 == 0)
        found = np.where(open_ & beyond, (low + high) / 2.0, found)
        at_found = error(found) - found
        step = np.divide((found - before) * at_found, above - at_found, out=np.zeros_like(low), where=above != at_found)
        before, above = np.where(open_, found, before), np.where(open_, at_found, above)
        found, steps = np.where(open_, found + step, found), steps + 1
    same: np.ndarray = np.where(np.abs(gaps).sum(axis=1) > 0.0, found, gaps.sum(axis=1))
    return same


def _corp(moments: Moments, total: np.ndarray) -> dict[str, np.ndarray]:
    """Miscalibration, discrimination and uncertainty: the Brier score is the first less the second, plus the third (T.
    Dimitriadis, T. Gneiting, A. Jordan 2021, doi 10.1073/pnas.2016191118).

    The mean confidence of a place is that of each of its rows: so isotonic regression never has a larger score.
    """
    right, wrong = moments.outcome, np.maximum(moments.weight - moments.outcome, 0.0)

    def score(forecast: np.ndarray) -> np.ndarray:
        found: np.ndarray = (right * (1.0 - forecast) ** 2 + wrong * forecast**2).sum(axis=1) / total
        return found

    def above(larger: np.ndarray) -> np.ndarray:
        return np.where(larger - recalibrated > _ROUNDING * larger, larger - recalibrated, 0.0)

    confidence = np.clip(moments.forecast / np.where(moments.weight > 0.0, moments.weight, 1.0), 0.0, 1.0)
    recalibrated = score(isotonic(moments.weight, right))
    uncertainty = right.sum(axis=1) / total * (wrong.sum(axis=1) / total)
    return dict(zip(CORP, (above(score(confidence)), above(uncertainty), uncertainty), strict=True))
