"""The result of a conversion: what was written, and what rounding the logits cost, as text and JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from fastxent.names import printable
from fastxent.results.text import markdown_text

SCHEMA = "fastxent/convert/1"


@dataclass(frozen=True)
class Rounding:
    """What another float type cost.

    ``max_logit_error`` is of logits finite before and after; ``overflowed`` counts those that became infinite, and
    ``broken`` the rows that have no loss any more since one became +inf. ``argmax_changed`` counts rows whose predicted
    class is another. ``compared`` rows have a class id as target; the nll figures are theirs (nats, NaN for no rows).
    """

    max_logit_error: float
    overflowed: int
    broken: int
    argmax_changed: int
    compared: int
    nll_before: float  # mean
    nll_after: float
    nll_mean_change: float  # mean |change|
    nll_max_change: float


@dataclass(frozen=True, repr=False)
class Conversion:
    """A file written by `convert`. ``size`` in bytes; ``rounding`` is None where the logits are as they were."""

    files: tuple[str, ...]
    dest: str
    format: str  # "parquet" | "arrow"
    layout: str  # "binary" | "list"
    logits: str  # the column
    rows: int
    n_classes: int
    dtype_before: str
    dtype: str
    size: int
    rounding: Rounding | None
    timing: dict[str, Any] | None = None

    def lines(self) -> list[tuple[str, str]]:
        """(what, figure) for reading."""
        how = "as they were, bit for bit" if self.rounding is None else f"from {self.dtype_before}, rounded once"
        found = [
            ("written", f"{self.dest} ({self.format}, {self.size:,} bytes)"),
            ("rows", f"{self.rows:,}"),
            ("logits", f"{self.logits}: {self.n_classes:,} classes of {self.dtype} as {self.layout}, {how}"),
        ]
        if self.rounding is None:
            return found
        cost = self.rounding
        found += [
            ("largest error", f"{cost.max_logit_error:.4g} (of a logit)"),
            ("argmax changed", _rows(cost.argmax_changed)),
        ]
        if cost.overflowed:
            found += [("overflowed", f"{cost.overflowed:,} logits, which left {_rows(cost.broken)} without a loss")]
        if not cost.compared:
            return [*found, ("nll", "not compared: no row has a class id as target")]
        return [
            *found,
            ("nll, mean", f"{cost.nll_before:.7g} → {cost.nll_after:.7g} ({_rows(cost.compared)})"),
            ("nll, |change|", f"mean {cost.nll_mean_change:.3g}, largest {cost.nll_max_change:.3g}"),
        ]

    def __repr__(self) -> str:
        return "\n".join(f"{what:<15} {printable(figure)}" for what, figure in self.lines())

    def to_markdown(self) -> str:
        """A table."""
        cells = [map(markdown_text, line) for line in self.lines()]
        return "\n".join(["| | |", "| --- | --- |", *(f"| {what} | {figure} |" for what, figure in cells)]) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; NaN is None, an infinite figure a string."""
        found = {"schema": SCHEMA, **asdict(self), "files": list(self.files)}
        if self.rounding is not None:
            found["rounding"] = {name: _plain(value) for name, value in asdict(self.rounding).items()}
        return found

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _plain(value: float) -> float | str | None:
    return value if math.isfinite(value) else None if math.isnan(value) else str(value)
