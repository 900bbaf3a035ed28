"""The end of a run that may stop before all rows are read."""

from __future__ import annotations

from dataclasses import dataclass

from fastxent.results.values import Values


@dataclass(frozen=True, eq=False)
class Until(Values):
    """How far a run with ``until=`` read, and by how much its intervals are wider.

    Attributes:
        condition: str. The condition.
        held: bool. Whether it held when the run ended.
        checks: int. How often it was checked before all rows were read; 0: the intervals are the ordinary ones.
        rows_read, rows: int. Rows that were read, and rows of all parts, before ``where``; ``rows`` is None if it is
            not known.
        units_read, units: int. Parts of the source that were read, and all of them.
        seed: int. The seed of the order in which parts were read.
        multiplier: float. Half the width of an interval in standard errors.
        inflation: float. By how much standard errors are larger than those of independent rows, because rows of one
            part of the source are alike; at least 1.
    """

    condition: str
    held: bool
    checks: int
    rows_read: int
    rows: int | None
    units_read: int
    units: int
    seed: int
    multiplier: float
    inflation: float

    @property
    def sentence(self) -> str:
        """What happened, in one line for the table."""
        of = f"{self.rows:,}" if self.rows is not None else "an unknown number of"
        read = f"{self.rows_read:,} of {of} rows"
        if not self.rows_read:
            what = "There was no row to read."
        elif self.units_read == self.units:
            what = f"All {self.rows_read:,} rows were read: {self.condition} did not hold before the last of them."
        else:
            what = f"Stopped after {read}, because {self.condition} held."
        if not self.checks:
            return what
        return (
            f"{what} The intervals are those of a confidence sequence, ± {self.multiplier:.3g} standard errors: they "
            "hold at any time of stopping."
        )
