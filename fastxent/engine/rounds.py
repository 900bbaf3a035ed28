"""Rounds: the units of a job in random order, some at a time, until a rule says that they are enough.

A prefix of a file is not a random sample of its rows, so units come in an order that depends on a seed and on the
number of units alone. Each round makes the number of units larger by a constant factor: a dump of any size is looked at
a few times only. So which rows are read does not depend on threads or on time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from fastxent.engine.job import Job
from fastxent.engine.loop import Loop
from fastxent.engine.recipe import Key, Recipe, S, State, Watch
from fastxent.engine.timing import joined
from fastxent.errors import ConfigError

if TYPE_CHECKING:
    from fastxent.io.batch import Unit

FIRST, GROWTH = 10, 1.5  # units of the first round, and by how much more there are after each other one

St = TypeVar("St", bound=State, contravariant=True)


class Enough(Protocol[St]):
    """The rule that ends a run. ``measure`` gives what is added up over rows, so that one unit's is a difference."""

    def measure(self, state: St) -> Any: ...

    def enough(self, state: St, each: list[tuple[Any, Any]]) -> bool:
        """Look at the state after a round. each: of every unit, what was measured before it and after it."""
        ...


@dataclass(frozen=True)
class Read:
    """What was read of a job."""

    units_read: int
    units: int
    rows_read: int
    rows: int | None  # of all units
    checks: int  # before all units were read


class _Units(Generic[S]):
    """The `Ledger` of a round: measures the state of a worker after each unit, and takes it over at the end."""

    def __init__(self, recipe: Recipe[S], rule: Enough[S]) -> None:
        self.total = recipe.empty()
        self.each: list[tuple[Any, Any]] = []
        self._start = rule.measure(self.total)
        self._rule = rule
        self._before: dict[int, Any] = {}  # by thread
        self._lock = threading.Lock()

    def claim(self, unit: Unit) -> Key | None:
        return unit.where.file, -1, unit.where.first_row, -1, 0

    def keep(self, units: list[Key], state: S, *, last: bool = True) -> bool:
        me = threading.get_ident()
        if not last:
            now = self._rule.measure(state)
            self.each.append((self._before.get(me, self._start), now))
            self._before[me] = now
            return False
        with self._lock:
            self.total.absorb(state)
        self._before.pop(me, None)
        return True

    def result(self) -> S:
        return self.total


def ends(units: int) -> Iterator[int]:
    """The number of units after each round.

    >>> list(ends(40))
    [10, 15, 22, 33, 40]
    """
    end = float(FIRST)
    while int(end) < units:
        yield int(end)
        end *= GROWTH
    yield units


def run_rounds(
    job: Job[Recipe[S]], options: Mapping[str, Any], rule: Enough[S], watch: Watch[S] | None = None
) -> tuple[S, dict[str, Any], Read]:
    """(the state of the units that were read, timing, how many they are).

    options: threads, progress, memory and seed of `options.runs`.
    """
    if job.source.in_memory is not None and job.rows is None:
        raise ConfigError(
            f"until cannot be combined with {job.source.in_memory}, because its rows come in one order only; write "
            "them to a file first"
        )
    units = list(job.units())
    order = np.random.RandomState(options["seed"]).permutation(len(units))  # its streams never change
    counts = [unit.rows for unit in units]
    rows = None if None in counts else sum(count for count in counts if count)
    ledger, timings, begin, done, checks = _Units(job.recipe, rule), [], 0, 0, 0
    for end in ends(len(units)):
        loop = Loop(
            job.recipe, iter([units[k] for k in order[begin:end]]), row_bytes=job.row_bytes, threads=options["threads"],
            memory=int(options["memory"]), rows=rows, progress=options["progress"], ledger=ledger, watch=watch,
        )  # fmt: skip
        loop.rows = done
        state, timing = loop.run()
        timings.append(timing)
        done, begin, last = loop.rows, end, end == len(units)
        checks += not last
        if rule.enough(state, ledger.each):
            break
    return ledger.total, joined(timings) | job.told(), Read(begin, len(units), done, rows, checks)
