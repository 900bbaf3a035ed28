"""What a row can be whose likeliest classes are listed: bounds of its figures over every distribution of the rest.

The rest of the probability, R, lies on U other classes, none of which exceeds the cut m. It is most concentrated on as
few classes as possible, m on each and what is left on one more; it is least concentrated where all U have R/U. R itself
may be known within limits only. NLL and entropy are in nats.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastxent.kernels.rows.listed import exponentials, logarithms

_ROUNDING = 2.0**-20  # relative error that is allowed for where two numbers of a dump are compared
Pair = tuple[np.ndarray, np.ndarray]


def exp(x: np.ndarray) -> np.ndarray:
    """exp of numbers that are at most about 0."""
    x, out = np.ascontiguousarray(x, np.float64), np.empty(len(x))
    exponentials(x, out)
    return out


def log(x: np.ndarray) -> np.ndarray:
    """log of numbers of at least 0."""
    x, out = np.ascontiguousarray(x, np.float64), np.empty(len(x))
    logarithms(x, out)
    return out


class Rest(NamedTuple):
    """The unlisted classes of n rows, every field (n,).

    low, high: their probability together. classes: how many, as float64. cut, log_cut: what none of them exceeds.
    """

    low: np.ndarray
    high: np.ndarray
    classes: np.ndarray
    cut: np.ndarray
    log_cut: np.ndarray

    def _even_entropy(self, mass: np.ndarray) -> np.ndarray:
        """Σ −p log p of all classes with the same probability."""
        some = mass > 0.0
        each = log(np.where(some, mass, 1.0)) - log(np.maximum(self.classes, 1.0))
        found: np.ndarray = np.where(some, -mass * each, 0.0)
        return found

    def _packed(self, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(classes at the cut, what is left for one more)."""
        cut = np.where(self.cut > 0.0, self.cut, 1.0)
        full = np.minimum(np.floor(mass / cut), self.classes)
        return full, np.clip(mass - full * cut, 0.0, cut)

    def _packed_entropy(self, mass: np.ndarray) -> np.ndarray:
        full, left = self._packed(mass)
        some = left > 0.0
        last = np.where(some, -left * log(np.where(some, left, 1.0)), 0.0)
        return np.where(full > 0.0, full * self.cut * -self.log_cut, 0.0) + last

    def entropy(self) -> Pair:
        """The least and the largest Σ −p log p."""
        turn = np.clip(self.classes / np.e, self.low, self.high)  # where evenly spread mass has its maximum
        ends = [self._even_entropy(mass) for mass in (self.low, self.high, turn)]
        most = np.maximum(np.maximum(ends[0], ends[1]), ends[2])
        step = np.where(self.cut > 0.0, np.floor(self.high / np.where(self.cut > 0.0, self.cut, 1.0)) * self.cut, 0.0)
        packed = [self._packed_entropy(mass) for mass in (self.low, self.high, np.clip(step, self.low, self.high))]
        least = np.minimum(np.minimum(packed[0], packed[1]), packed[2])
        one = self.classes == 1.0
        least = np.where(one, np.minimum(ends[0], ends[1]), np.minimum(least, most))
        return least, most

    def packed_squares(self, mass: np.ndarray) -> np.ndarray:
        """The largest Σ p²."""
        full, left = self._packed(mass)
        found: np.ndarray = full * self.cut * self.cut + left * left
        return found

    def target(self) -> Pair:
        """The least and the largest probability of one of these classes."""
        most = np.minimum(self.high, self.cut)
        others = (self.classes - 1.0) * self.cut * (1.0 + _ROUNDING)
        least = np.where(self.classes == 1.0, self.low, np.maximum(self.low * (1.0 - _ROUNDING) - others, 0.0))
        return np.minimum(least, most), most

    def known_brier(self, squares: np.ndarray, target: np.ndarray) -> Pair:
        """Σ (p − y)² where the target is none of these classes. squares: Σ p² of the others, target: its p."""
        base = squares + 1.0 - 2.0 * target
        even = self.low * self.low / np.maximum(self.classes, 1.0)
        return base + even, base + np.maximum(self.packed_squares(self.high), even)

    def open_brier(self, squares: np.ndarray) -> Pair:
        """Σ (p − y)² where the target is one of these classes. squares: Σ p² of the listed ones."""
        least, most = self.target()
        spread = np.maximum(self.low - most, 0.0)
        low = squares + 1.0 + most * most - 2.0 * most + spread * spread / np.maximum(self.classes - 1.0, 1.0)
        left = np.maximum(self.high - least, 0.0)
        high = squares + 1.0 + least * least - 2.0 * least
        one = self.classes == 1.0
        high = high + np.where(one, 0.0, self.packed_squares(left))
        return low, np.maximum(low, high)

    def above(self, target: np.ndarray) -> np.ndarray:
        """How many of these classes may have at least the probability ``target``."""
        some = target > 0.0
        fitting = np.floor(self.high * (1.0 + _ROUNDING) / np.where(some, target, 1.0))
        found: np.ndarray = np.where(some, np.minimum(self.classes, fitting), self.classes)
        return found
