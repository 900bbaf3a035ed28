"""The result of a conversion: the written file and the cost of rounding, as text and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fastxent.names import printable
from fastxent.results import encoding
from fastxent.results.text import markdown_text
from fastxent.results.values import Values

SCHEMA = "fastxent/convert/1"
LISTS = "top-k lists"  # the layout of rows that list some classes


@dataclass(frozen=True, eq=False)
class Rounding(Values):
    """What rounding the logits to another float type changed. Losses are NLLs in nats, NaN if no row was compared.

    Attributes:
        max_logit_error: float. Largest |change| of a logit that is finite before and after.
        overflowed: int. Logits that became infinite.
        broken: int. Rows that no longer have a loss, because a logit became +inf.
        argmax_changed: int. Rows whose predicted class changed.
        compared: int. Rows with a class id as target; the losses below are those of these rows.
        nll_before: float. Mean loss before.
        nll_after: float. Mean loss after.
        nll_mean_change: float. Mean |change| of the loss of a row.
        nll_max_change: float. Largest |change| of the loss of a row.
    """

    max_logit_error: float
    overflowed: int
    broken: int
    argmax_changed: int
    compared: int
    nll_before: float
    nll_after: float
    nll_mean_change: float
    nll_max_change: float


@dataclass(frozen=True, repr=False)
class Conversion:
    """The result of `convert`: which file was written, and what rounding its logits changed.

    Attributes:
        files: tuple of str. The input files.
        dest: str. The file that was written.
        format: str. "parquet" or "arrow".
        layout: str. "binary", "list" or, of rows that list some classes, "top-k lists".
        logits: str. The column of the logits.
        rows: int. Rows written.
        n_classes: int. Logits per row; 0 if rows list some classes.
        dtype_before: str. Float type of the logits in the input files.
        dtype: str. Float type of the logits in ``dest``.
        size: int. Bytes of ``dest``.
        rounding: Rounding or None. What rounding changed; None if the float type is the same.
        timing: dict or None. Seconds, rates and threads of the run.
    """

    files: tuple[str, ...]
    dest: str
    format: str
    layout: str
    logits: str
    rows: int
    n_classes: int
    dtype_before: str
    dtype: str
    size: int
    rounding: Rounding | None
    timing: dict[str, Any] | None = None

    def lines(self) -> list[tuple[str, str]]:
        """Return (name, text) pairs for reading."""
        how = "unchanged, bit for bit" if self.rounding is None else f"from {self.dtype_before}, rounded once"
        found = [
            ("written", f"{self.dest} ({self.format}, {self.size:,} bytes)"),
            ("rows", f"{self.rows:,}"),
            ("logits", f"{self.logits}: {self.n_classes:,} classes of {self.dtype} as {self.layout}, {how}"),
        ]
        if self.layout == LISTS:
            found[-1] = ("lists", f"topk_ids, and {self.logits} of {self.dtype}")
        if self.rounding is None:
            return found
        cost = self.rounding
        found += [
            ("largest error", f"{cost.max_logit_error:.4g} (of a logit)"),
            ("argmax changed", _plural(cost.argmax_changed, "row")),
        ]
        if cost.overflowed:
            found += [
                ("overflowed", f"{_plural(cost.overflowed, 'logit')}; {_plural(cost.broken, 'row')} without a loss")
            ]
        if not cost.compared:
            return [*found, ("nll", "not compared, because no row has a class id as target")]
        return [
            *found,
            ("nll, mean", f"{cost.nll_before:.7g} → {cost.nll_after:.7g} ({_plural(cost.compared, 'row')})"),
            ("nll, |change|", f"mean {cost.nll_mean_change:.3g}, largest {cost.nll_max_change:.3g}"),
        ]

    def __repr__(self) -> str:
        return "\n".join(f"{name:<15} {printable(text)}" for name, text in self.lines())

    def to_markdown(self) -> str:
        """Return a Markdown table."""
        cells = [map(markdown_text, line) for line in self.lines()]
        return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in cells)]) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        found = {"schema": SCHEMA, **asdict(self), "files": list(self.files)}
        if self.rounding is not None:
            found["rounding"] = encoding.plain(asdict(self.rounding))
        return found

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return encoding.written(self.to_dict())


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
