"""Is head slower than base? An exact answer from processes that took turns, with no assumption about the noise.

In each of G generations two fresh processes of base and two of head time every case in rounds, one after the other in
random order. If the two sides are equally fast, which two of the four were head's is arbitrary: all 6^G ways of naming
them are equally likely, base against base and head against head among them. So what was found is held against what
every other naming of the same timings would have found. That is a permutation test: its p-values are exact whatever the
distribution of the noise, its drift, or what the cases of one process have in common.

Of all cases together the largest statistic counts (max-T, Westfall & Young 1993), so `ALPHA` bounds the chance that an
unchanged tree fails at all, however many cases there are. The statistic is a difference over its standard error, with a
share of the typical error of all cases added to each (Tusher, Tibshirani & Chu 2001), so that a case that happened to
be quiet does not outrank one that got slower.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

ALPHA = 0.001  # that an unchanged tree fails: 20 runs out of 20 pass with a probability of at least 0.98
LEAST = 0.02  # a smaller slowdown is told, and fails nothing
SIDES = np.array([0, 0, 1, 1])  # of the processes of a generation: base, base, head, head
_MOST = 50_000  # namings looked at; beyond it a random sample of them, which is exact as well
_NAMINGS = np.array([[k in head for k in range(4)] for head in itertools.combinations(range(4), 2)])


@dataclass(frozen=True)
class Verdict:
    """Of one case: head's time over base's less 1, the noise of such a difference, and p-values over all cases.

    ``noise`` is the standard error of ``change`` from processes of the same side; ``slower``: beyond noise and `LEAST`.
    """

    case: str
    change: float
    noise: float
    p_slower: float
    p_faster: float
    slower: bool
    faster: bool


def verdicts(cases: list[str], seconds: np.ndarray, alpha: float = ALPHA, least: float = LEAST) -> list[Verdict]:
    """One for each case. ``seconds[g, p, r, m]``: generation, process (`SIDES`), round, case."""
    generations, processes, _, count = seconds.shape
    if processes != len(SIDES) or count != len(cases):
        raise ValueError(f"timings of shape {seconds.shape} are not (generations, 4, rounds, {len(cases)})")
    if 6.0**generations < 1 / alpha:
        raise ValueError(f"{generations} generations cannot tell {alpha:g}; it takes {math.log(1 / alpha, 6):.1f}")
    if not (np.isfinite(seconds).all() and (seconds > 0).all()):
        raise ValueError("a time is not a positive number")
    levels = _levels(seconds)
    change, statistic = _statistics(levels, _namings(generations))
    error = _within(levels)
    # The first naming is the true one: it counts among those at least as extreme as itself.
    highest, lowest = statistic.max(axis=1), statistic.min(axis=1)
    found = []
    for m, case in enumerate(cases):
        slower = float((highest >= statistic[0, m]).mean())
        faster = float((lowest <= statistic[0, m]).mean())
        relative = math.expm1(change[0, m])
        found.append(Verdict(
            case, relative, float(error[m]), slower, faster,
            slower=slower <= alpha and relative > least,
            faster=faster <= alpha and relative < -least,
        ))  # fmt: skip
    return found


def _levels(seconds: np.ndarray) -> np.ndarray:
    """(G, 4, M): the log time of each process against its generation's others.

    Within a round the four ran one after another, so what slowed the machine then leaves their differences alone; the
    median over rounds forgets the round in which it struck between them.
    """
    logs = np.log(seconds)
    return np.median(logs - np.median(logs, axis=1, keepdims=True), axis=2)


def _namings(generations: int) -> np.ndarray:
    """(P, G) of indices into `_NAMINGS`: every way of saying which were head's, the true one first."""
    truth = int(np.flatnonzero((SIDES.astype(bool) == _NAMINGS).all(axis=1))[0])
    if 6**generations <= _MOST:
        every = np.array(list(itertools.product(range(6), repeat=generations)))
        return np.concatenate([every[(every == truth).all(axis=1)], every[(every != truth).any(axis=1)]])
    drawn = np.random.default_rng(0).integers(6, size=(_MOST, generations))
    drawn[0] = truth
    return drawn


def _statistics(levels: np.ndarray, namings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, M) each: the mean difference head - base under every naming, and that over its standard error."""
    generations = len(levels)
    head = np.einsum("np,gpm->gnm", _NAMINGS, levels) / 2
    base = np.einsum("np,gpm->gnm", ~_NAMINGS, levels) / 2
    difference = head - base
    middle = levels.mean(axis=1, keepdims=True)
    around = ((levels - middle) ** 2).sum(axis=1, keepdims=True)
    # what is left within the sides, of which two processes each: twice the variance of a process
    squares = around - 2 * ((head - middle) ** 2 + (base - middle) ** 2)
    index = (np.arange(generations), namings)
    change = difference[index].mean(axis=1)
    variance = np.clip(squares[index].mean(axis=1), 0, None) / 2 / generations
    # the same for every naming, hence no threat to exactness: the spread of all four, in the typical case
    typical = np.median(around.mean(axis=(0, 1)) / 3 / generations)
    return change, change / np.sqrt(variance + typical + np.finfo(float).tiny)


def _within(levels: np.ndarray) -> np.ndarray:
    """The standard error of a difference, from what processes of the same side differ by."""
    pairs = np.stack([levels[:, 1] - levels[:, 0], levels[:, 3] - levels[:, 2]])
    return np.sqrt((pairs**2).mean(axis=(0, 1)) / 2 / len(levels))
