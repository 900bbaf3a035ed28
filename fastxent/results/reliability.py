"""The reliability of a confidence: its isotonic line, and where that line lies if the confidence is calibrated.

T. Dimitriadis, T. Gneiting, A. Jordan 2021, "Stable reliability diagrams for probabilistic classifiers",
doi 10.1073/pnas.2016191118.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fastxent.results.values import Values

if TYPE_CHECKING:
    import numpy as np

_SEED = 20_230_917
_SAMPLES = 400
_MOST = 1e15  # rows of a cell, beyond which a binomial number is its mean


class Pools(NamedTuple):
    """Neighbouring values that are pooled: the first of each pool, and its mean."""

    first: np.ndarray
    mean: np.ndarray


def pooled(weights: np.ndarray, sums: np.ndarray) -> Pools:
    """Isotonic regression by pooling neighbours whose means do not rise, as long as there are any.

    weights: float64 (n,), above 0. sums: float64 (n,), the weighted sum of the values of each.
    """
    import numpy as np

    first = np.arange(len(weights))
    while True:
        means = sums / weights
        rises = np.concatenate([[True], means[1:] > means[:-1]])
        if rises.all():
            return Pools(first, means)
        starts = np.flatnonzero(rises)
        first, weights, sums = first[starts], np.add.reduceat(weights, starts), np.add.reduceat(sums, starts)


def isotonic(weights: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Return the isotonic regression of each of several groups: float64 (groups, places); 0 where the weight is 0.

    weights, sums: float64 (groups, places). Sums are from 0 to the weight.
    """
    import numpy as np

    group, place = np.nonzero(weights > 0.0)
    best = np.zeros(weights.shape)
    if len(group):
        weight = weights[group, place]
        pools = pooled(weight, sums[group, place] + 2.0 * group * weight)  # groups lie above one another
        sizes = np.diff(np.append(pools.first, len(group)))
        best[group, place] = np.repeat(pools.mean, sizes) - 2.0 * group
    return best


@dataclass(frozen=True, eq=False)
class Reliability(Values):
    """Rows by fine cells of the confidence, in order; one entry per cell that has rows.

    Of a binary dump, confidence is the probability of the positive class, and accuracy the share of positive rows. Of a
    multilabel dump, the same of all labels together.

    Attributes:
        confidence, accuracy: float (cells,). Means, weighted by sample weight.
        isotonic: float (cells,). The accuracy that rises with the confidence and is nearest to that of the rows.
        weight: float (cells,). Rows, or the sum of their weights.
        rows: float (cells,). Independent rows that the cell is worth: with weights fewer than it has.
    """

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    isotonic: tuple[float, ...]
    weight: tuple[float, ...]
    rows: tuple[float, ...]

    def consistency_band(self, level: float = 0.9) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return where the isotonic line lies at each confidence if the rows are independent and calibrated.

        The targets are drawn 400 times from a fixed seed, each with the probability that the confidence says.

        Args:
            level: float. The share of samples within the band, at each confidence by itself.
        """
        if not self.confidence:
            return (), ()
        import numpy as np

        rng = np.random.RandomState(_SEED)
        forecast = np.clip(np.array(self.confidence), 0.0, 1.0)
        rows = np.maximum(np.rint(np.array(self.rows)), 1.0)
        share = np.tile(forecast, (_SAMPLES, 1))
        few = rows <= _MOST
        share[:, few] = rng.binomial(rows[few].astype(np.int64), forecast[few], (_SAMPLES, int(few.sum()))) / rows[few]
        weights = np.tile(np.array(self.weight), (_SAMPLES, 1))
        lines = isotonic(weights, share * weights)
        low, high = np.quantile(lines, [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=0)
        return tuple(low.tolist()), tuple(high.tolist())
