"""The cost of rounding logits to another float type, as exact sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastxent.errors import StateError
from fastxent.kernels.exact import exact_add, exact_ratio, exact_zeros
from fastxent.results.conversion import Rounding
from fastxent.scoring.conversion import Rounded
from fastxent.state.coverage import Coverage
from fastxent.state.packed import DAMAGED, pack, stored, unpack


class Cost:
    """Counts, maxima and exact sums of the rows rounded so far."""

    def __init__(self) -> None:
        self.sums = {name: exact_zeros() for name in ("before", "after", "change")}
        self.most = {"error": 0.0, "change": 0.0}
        self.counts = {"overflowed": 0, "broken": 0, "moved": 0, "compared": 0}
        self.coverage = Coverage()

    def add(self, rows: Rounded) -> Cost:
        """Add the rows of a batch, in place."""
        with np.errstate(invalid="ignore"):  # a loss that is infinite before and after has not changed
            change = np.where(rows.before == rows.after, 0.0, np.abs(rows.after - rows.before))
        for name, values in (("before", rows.before), ("after", rows.after), ("change", change)):
            if len(values):
                exact_add(self.sums[name], values)
        self._raise({"error": rows.error, "change": float(change.max(initial=0.0))})
        self._count(
            {"overflowed": rows.overflowed, "broken": rows.broken, "moved": rows.moved, "compared": len(change)}
        )
        return self

    def absorb(self, other: Cost) -> Cost:
        """Add the rows of another state, in place."""
        for name, words in other.sums.items():
            self.sums[name] += words
        self._raise(other.most)
        self._count(other.counts)
        self.coverage.absorb(other.coverage)
        return self

    def _raise(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.most[name] = max(self.most[name], value)

    def _count(self, counts: dict[str, int]) -> None:
        for name, count in counts.items():
            self.counts[name] += count

    def to_bytes(self, compression: int = 6) -> bytes:
        """The state as bytes that check themselves."""
        header: dict[str, Any] = {"conversion": self.counts, "coverage": self.coverage.to_dict()}
        return pack(header, {**self.sums, "most": np.array(list(self.most.values()))}, compression)

    @classmethod
    def from_bytes(cls, data: bytes) -> Cost:
        """The inverse of `to_bytes`; `StateError` for other bytes."""
        header, arrays = unpack(data)
        state = cls()
        try:
            state.sums = {name: stored(arrays, name, np.int64, *words.shape) for name, words in state.sums.items()}
            most = stored(arrays, "most", np.float64, len(state.most)).tolist()
            state.most = dict(zip(state.most, most, strict=True))
            state.counts = {name: int(header["conversion"][name]) for name in state.counts}
            state.coverage = Coverage.from_dict(header["coverage"])
        except DAMAGED:
            raise StateError("a damaged saved state: it does not hold the cost of a conversion") from None
        return state

    def result(self) -> Rounding:
        """The metrics of all rows."""
        n = self.counts["compared"]
        count = exact_zeros()
        exact_add(count, np.array([float(n)]))
        before, after, change = (exact_ratio(words, count) for words in self.sums.values())
        return Rounding(
            max_logit_error=self.most["error"], overflowed=self.counts["overflowed"], broken=self.counts["broken"],
            argmax_changed=self.counts["moved"], compared=n, nll_before=before, nll_after=after,
            nll_mean_change=change, nll_max_change=self.most["change"] if n else math.nan,
        )  # fmt: skip
