"""Which parts of a divided evaluation a state holds, so that none is counted twice and none forgotten.

An evaluation is divided into parts 0 .. n-1: shards of a job array, or the units of a plan. The digest of a division
names the files, the configuration and n. A state whose parts are all there holds simply those rows, and says so by
having no coverage at all: it is, byte for byte, the state of an undivided run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastxent.errors import StateError

MIXED = (
    "parts of a divided run do not go together with states of undivided ones, which may hold the same rows; merge the "
    "parts by themselves, and their state with those of other rows"
)
_SHOWN = 8
MOST_PARTS = 1 << 24  # more are not planned, and a damaged file that claims them takes no memory


@dataclass
class Coverage:
    """Parts held, by the digest of the division they belong to: ``{digest: (n, parts)}``."""

    divisions: dict[str, tuple[int, set[int]]] = field(default_factory=dict)

    @classmethod
    def part(cls, digest: str, index: int, of: int) -> Coverage:
        """Part ``index`` of ``of``, counted from 0."""
        return cls({digest: (of, {index})} if of > 1 else {})

    def overlap(self, other: Coverage) -> str | None:
        """Which parts both hold, in words; None if there are none."""
        for digest, (of, parts) in other.divisions.items():
            both = parts & self.divisions.get(digest, (of, set()))[1]
            if both:
                return f"{_named(both, of)} {'is' if len(both) == 1 else 'are'} there twice"
        return None

    def absorb(self, other: Coverage) -> None:
        """Hold the parts of the other too; those of a division that is complete are forgotten."""
        for digest, (of, parts) in other.divisions.items():
            held = self.divisions.setdefault(digest, (of, set()))[1]
            held |= parts
            if len(held) == of:
                del self.divisions[digest]

    def missing(self) -> str | None:
        """Which parts are not there, in words; None if nothing is missing."""
        gaps = [_named(set(range(of)) - parts, of) for of, parts in self.divisions.values()]
        if not gaps:
            return None
        several = len(gaps) > 1 and f" (the states are of {len(gaps)} different divisions: of other files, or other n)"
        return f"missing: {'; '.join(gaps)}{several or ''}"

    def held(self) -> str | None:
        """Which parts are there, in words; None if this is no part of anything."""
        return "; ".join(_named(parts, of) for of, parts in self.divisions.values()) or None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, equal for equal coverage: runs of parts as [first, last]."""
        return {digest: {"of": of, "parts": _runs(parts)} for digest, (of, parts) in sorted(self.divisions.items())}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Coverage:
        """The inverse of `to_dict`; ValueError if it cannot be."""
        found: dict[str, tuple[int, set[int]]] = {}
        for digest, entry in values.items():
            of, runs = int(entry["of"]), entry["parts"]
            if not (of <= MOST_PARTS and all(0 <= first <= last < of for first, last in runs)):
                raise ValueError("parts out of range")
            found[digest] = of, {part for first, last in runs for part in range(first, last + 1)}
        return cls(found)

    @property
    def whole(self) -> bool:
        """Whether this is no part of anything: of the rows it belongs to it says nothing."""
        return not self.divisions

    def refuse_overlap(self, other: Coverage) -> None:
        """`StateError` if any part would be counted twice."""
        found = self.overlap(other)
        if found is not None:
            raise StateError(f"{found}; merge each state once")


def _runs(parts: set[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for part in sorted(parts):
        if runs and runs[-1][1] == part - 1:
            runs[-1][1] = part
        else:
            runs.append([part, part])
    return runs


def _named(parts: set[int], of: int) -> str:
    """Parts as people count them, from 1."""
    runs = _runs(parts)
    shown = [f"{a + 1}" if a == b else f"{a + 1}-{b + 1}" for a, b in runs[:_SHOWN]]
    more = ", …" if len(runs) > _SHOWN else ""
    return f"part{'' if len(parts) == 1 else 's'} {', '.join(shown)}{more} of {of}"
