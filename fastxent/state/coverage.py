"""The parts of a sharded evaluation that a state holds, so that each is counted exactly once.

A sharded evaluation has parts 0 .. n-1: shards of a job array, or the units of a plan. The digest of a division
names the files, the configuration and n. A state with all parts has no
coverage: its bytes are those of the state of a run without shards.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import Any

from fastxent.errors import StateError

MIXED = (
    "shards cannot be merged with the states of whole runs, because these may hold the same rows; merge all shards "
    "first, then their state with the states of other rows"
)
_SHOWN = 8
MOST_PARTS = 1 << 24  # more are not planned
Runs = list[tuple[int, int]]  # (first, last) of each run of parts, in order, with a gap between two of them


@dataclass
class Coverage:
    """Parts held, by the digest of the division they belong to: ``{digest: (n, runs of parts)}``."""

    divisions: dict[str, tuple[int, Runs]] = field(default_factory=dict)

    @classmethod
    def part(cls, digest: str, index: int, of: int) -> Coverage:
        """Part ``index`` of ``of``, counted from 0."""
        return cls({digest: (of, [(index, index)])} if of > 1 else {})

    def overlap(self, other: Coverage) -> str | None:
        """Which parts both hold, in words; None if there are none."""
        for digest, (of, parts) in other.divisions.items():
            both = _common(self.divisions.get(digest, (of, []))[1], parts)
            if both:
                return f"{_named(both, of)} {'is' if _count(both) == 1 else 'are'} there twice"
        return None

    def absorb(self, other: Coverage) -> None:
        """Hold the parts of the other too; those of a division that is complete are forgotten."""
        for digest, (of, parts) in other.divisions.items():
            held = self.divisions.setdefault(digest, (of, []))[1]
            for first, last in parts:
                _add(held, first, last)
            if held == [(0, of - 1)]:
                del self.divisions[digest]

    def missing(self) -> str | None:
        """Which parts are not there, in words; None if nothing is missing."""
        gaps = [_named(_gaps(parts, of), of) for of, parts in self.divisions.values()]
        if not gaps:
            return None
        several = len(gaps) > 1 and f" (the states are of {len(gaps)} different divisions: of other files, or other n)"
        return f"missing: {'; '.join(gaps)}{several or ''}"

    def held(self) -> str | None:
        """The parts that the state holds, in words; None if it is not part of a sharded run."""
        return "; ".join(_named(parts, of) for of, parts in self.divisions.values()) or None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, equal for equal coverage: runs of parts as [first, last]."""
        return {
            digest: {"of": of, "parts": [list(run) for run in parts]}
            for digest, (of, parts) in sorted(self.divisions.items())
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Coverage:
        """The inverse of `to_dict`; ValueError if it cannot be."""
        found: dict[str, tuple[int, Runs]] = {}
        for digest, entry in values.items():
            of, runs = entry["of"], [(first, last) for first, last in entry["parts"]]
            if not all(type(number) is int for number in (of, *(end for run in runs for end in run))):
                raise ValueError("parts that are not integers")
            ends = [-2, *(end for run in runs for end in run)]
            apart = all(last + 1 < first for last, first in zip(ends[:-1:2], ends[1::2], strict=True))
            inside = 1 < of <= MOST_PARTS and all(first <= last < of for first, last in runs)
            if not (apart and inside and runs and runs != [(0, of - 1)]):
                raise ValueError("parts out of range")
            found[digest] = of, runs
        return cls(found)

    @property
    def whole(self) -> bool:
        """True if the state is not part of a sharded run."""
        return not self.divisions

    def refuse_overlap(self, other: Coverage) -> None:
        """`StateError` if any part would be counted twice."""
        found = self.overlap(other)
        if found is not None:
            raise StateError(f"{found}; merge each state once")


def _add(runs: Runs, first: int, last: int) -> None:
    """Add parts first .. last, in place."""
    begin = bisect_left(runs, first - 1, key=lambda run: run[1])
    end = bisect_right(runs, last + 1, key=lambda run: run[0])
    touched = runs[begin:end]
    runs[begin:end] = [(min([first, *(run[0] for run in touched)]), max([last, *(run[1] for run in touched)]))]


def _common(one: Runs, other: Runs) -> Runs:
    """Parts in both."""
    found: Runs = []
    for first, last in other:
        begin = bisect_left(one, first, key=lambda run: run[1])
        end = bisect_right(one, last, key=lambda run: run[0])
        found += [(max(first, run[0]), min(last, run[1])) for run in one[begin:end]]
    return found


def _gaps(runs: Runs, of: int) -> Runs:
    """Parts of 0 .. of - 1 that are not there."""
    ends = [-1, *(end for run in runs for end in run), of]
    return [(last + 1, first - 1) for last, first in zip(ends[::2], ends[1::2], strict=True) if last + 1 < first]


def _count(runs: Runs) -> int:
    return sum(last - first + 1 for first, last in runs)


def _named(runs: Runs, of: int) -> str:
    """Parts as people count them, from 1."""
    shown = [f"{a + 1}" if a == b else f"{a + 1}-{b + 1}" for a, b in runs[:_SHOWN]]
    more = ", …" if len(runs) > _SHOWN else ""
    return f"part{'' if _count(runs) == 1 else 's'} {', '.join(shown)}{more} of {of}"
