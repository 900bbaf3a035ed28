"""Taking turns: ours, each competitor and the ceiling, one after the other, round after round.

Other work on the machine then slows all of them, and a ratio of the best of each holds where seconds do not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

REST = 0.02  # seconds: thread pools of other libraries spin for a while when they have nothing to do


@dataclass(frozen=True)
class Effort:
    quick: bool
    logits: int  # bytes in a kernel case of the table of marks
    file: int  # bytes of logits in a file

    def rounds(self, marked: bool) -> int:
        return 3 if self.quick or not marked else 7

    def bytes(self, marked: bool) -> int:
        """Logits in a kernel case. Half outside the table: between rounds the ceilings sweep the caches clean."""
        return self.logits if marked else self.logits // 2

    def patience(self, marked: bool) -> float:
        """Seconds a competitor may take in all, once it has had its first round."""
        return 0.5 if marked and not self.quick else 0.15


class Turns:
    """Times others between the rounds of a benchmark; `best` holds what each reached."""

    def __init__(self, patience: float, before: Callable[[], Any] = lambda: None) -> None:
        """``before`` makes ready for the benchmark's own round, not timed."""
        self._patience, self._before = patience, before
        self._calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {}
        self._rates: dict[str, Callable[[], float]] = {}
        self._spent: dict[str, float] = {}
        self.best: dict[str, float] = {}  # seconds of each call
        self.rates: dict[str, float] = {}  # the largest of each rate

    def add(
        self, name: str, call: Callable[[], Any], before: Callable[[], Any] | None = None, *, always: bool = False
    ) -> None:
        """A competitor: called and timed, after ``before`` (that of the benchmark unless given), which is not.

        ``always``: in every round, however long it takes, since a mark depends on it.
        """
        self._calls[name] = before or self._before, call
        self._spent[name] = -math.inf if always else 0.0

    def add_rate(self, name: str, measure: Callable[[], float]) -> None:
        """A ceiling: says its own bytes a second."""
        self._rates[name] = measure

    def take(self) -> None:
        """One round of the others."""
        for name, (before, call) in self._calls.items():
            if name in self.best and self._spent[name] > self._patience:
                continue
            before()
            start = time.perf_counter()
            call()
            seconds = time.perf_counter() - start
            self._spent[name] += seconds
            self.best[name] = min(self.best.get(name, seconds), seconds)
        time.sleep(REST)
        for name, measure in self._rates.items():
            self.rates[name] = max(self.rates.get(name, 0.0), measure())
        self._before()

    def run(self, benchmark: BenchmarkFixture, call: Callable[[], Any], rounds: int) -> float | None:
        """Seconds of the best round of ``call``, the others in between; None under ``--benchmark-disable``."""
        benchmark.pedantic(call, setup=self.take, rounds=rounds)
        return None if benchmark.stats is None else benchmark.stats.stats.min
