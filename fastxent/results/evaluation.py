"""All values of an evaluation's result, and their JSON (schema ``fastxent/eval/1``) and Arrow forms.

`text`, `report` and `trackers` import these values only; the public class `EvalResult` stands above them.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from array import array
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from fastxent._version import __version__
from fastxent.errors import StateError
from fastxent.options.config import EvalConfig
from fastxent.options.typed import check
from fastxent.results import encoding
from fastxent.results.curves import Curves, GainsCurve, OperatingPoint, PrecisionRecallCurve, RocCurve
from fastxent.results.details import Confusion, MostConfused, WorstRow, check_details
from fastxent.results.encoding import float_in, number_in, number_out, plain
from fastxent.results.reliability import Reliability
from fastxent.results.until import Until
from fastxent.results.values import (
    Calibration,
    Histogram,
    Metric,
    PerClass,
    RowCounts,
    Slice,
    columns_in,
    columns_out,
    labels,
    metrics_in,
    metrics_out,
    slices_in,
    slices_out,
)

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

SCHEMA = "fastxent/eval/1"
_CURVES: dict[str, Any] = {"roc": RocCurve, "precision_recall": PrecisionRecallCurve, "gains": GainsCurve}
FEW_CLUSTERS, FEW_ROWS = 30, 100  # below which intervals are approximate


def few_units(rows: int, clusters: int | None) -> str | None:
    """Return the sentence of `EvalValues.caution`."""
    if not rows:
        return None
    count, enough, what = (rows, FEW_ROWS, "used row") if clusters is None else (clusters, FEW_CLUSTERS, "cluster")
    if count >= enough:
        return None
    return f"The intervals are approximate, because there are only {count} {what}{'s' * (count != 1)}."


class SavedState(Protocol):
    """The state that a result was computed from; see `fastxent.EvalState`."""

    def merge(self, other: Self) -> Self: ...

    def to_bytes(self) -> bytes: ...


@functools.cache
def versions() -> tuple[tuple[str, str], ...]:
    packages = [(name, importlib.metadata.version(name)) for name in ("numba", "numpy", "pyarrow")]
    return (("fastxent", __version__), *packages, ("python", platform.python_version()))


@dataclass(frozen=True, repr=False, eq=False)
class EvalValues:
    """All fields of the result of an evaluation, with their JSON and Arrow forms.

    `fastxent.results.result.EvalResult` describes each field.
    """

    rows: RowCounts
    metrics: dict[str, Metric]
    calibration: Calibration
    per_class: PerClass
    nll_histogram: Histogram
    nll_quantiles: dict[float, float]
    slices: dict[str, dict[Any, Slice]]
    config: EvalConfig
    clusters: int | None = None
    timing: dict[str, Any] | None = None
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=lambda: dict(versions()))
    state: SavedState | None = None
    curves: Curves | None = None
    score_rows: dict[str, RowCounts] = field(default_factory=dict)
    confusion: Confusion | None = None
    most_confused: MostConfused | None = None
    worst: tuple[WorstRow, ...] = ()
    until: Until | None = None
    reliability: Reliability | None = None

    def __eq__(self, other: object) -> bool:
        """Compare all fields but ``versions`` and ``state``; NaN equals NaN."""
        if not isinstance(other, EvalValues):
            return False
        return {**self.to_dict(), "versions": None} == {**other.to_dict(), "versions": None}

    __hash__ = None  # type: ignore[assignment]  # it holds dicts

    @property
    def task(self) -> str:
        """The kind of the dump: "multiclass", "binary", "multilabel", "likelihood" or "scores"."""
        return self.config.task

    @property
    def has_losses(self) -> bool:
        """True if at least one row has a loss: the dump has labels, and a row with positive weight was used."""
        return bool(self.nll_histogram.counts or self.nll_histogram.infinite)

    @property
    def caution(self) -> str | None:
        """A sentence about the intervals if few clusters or rows were used; None otherwise."""
        return few_units(self.rows.used, self.clusters)

    @property
    def has_calibration(self) -> bool:
        """True if the bins of the confidence hold rows."""
        return self.has_losses and bool(self.calibration.count)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values.

        The keys of a column's slices are their values as text; ``value`` of each slice holds the value unchanged.
        """
        return {
            "schema": SCHEMA,
            **({"task": self.task} if self.task != "multiclass" else {}),
            "rows": asdict(self.rows),
            "clusters": self.clusters,
            "metrics": metrics_out(self.metrics),
            "calibration": columns_out(self.calibration),
            "per_class": columns_out(self.per_class),
            "nll_histogram": columns_out(self.nll_histogram),
            "nll_quantiles": {repr(q): number_out(value) for q, value in self.nll_quantiles.items()},
            "slices": {column: slices_out(values) for column, values in self.slices.items()},
            "config": self.config.to_dict(),
            "files": list(self.files),
            "timing": plain(self.timing),
            "warnings": list(self.warnings),
            "versions": self.versions,
            **({} if self.curves is None else {"curves": curves_out(self.curves)}),
            **({"scores": {name: asdict(rows) for name, rows in self.score_rows.items()}} if self.score_rows else {}),
            **({} if self.confusion is None else {"confusion": columns_out(self.confusion)}),
            **({} if self.most_confused is None else {"most_confused": columns_out(self.most_confused)}),
            **({} if self.reliability is None else {"reliability": columns_out(self.reliability)}),
            **({} if self.until is None else {"until": plain(asdict(self.until))}),
            **({"worst": [plain(asdict(row)) for row in self.worst]} if self.worst else {}),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the result with these values; the inverse of `to_dict`.

        Raises:
            StateError: if the values are not those of a result.
        """
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise StateError(f"cannot read the result: its schema is not {SCHEMA!r}")
        try:
            found = cls(
                rows=RowCounts(**values["rows"]),
                metrics=metrics_in(values["metrics"]),
                calibration=Calibration(**columns_in(values["calibration"])),
                per_class=PerClass(**columns_in(values["per_class"])),
                nll_histogram=Histogram(**columns_in(values["nll_histogram"])),
                nll_quantiles={float(q): number_in(value) for q, value in values["nll_quantiles"].items()},
                slices={column: slices_in(entries) for column, entries in values["slices"].items()},
                config=EvalConfig.from_dict(values["config"]),
                clusters=values["clusters"],
                timing=values["timing"],
                files=tuple(values["files"]),
                warnings=tuple(values["warnings"]),
                versions=values["versions"],
                curves=None if values.get("curves") is None else curves_in(values["curves"]),
                score_rows={name: RowCounts(**rows) for name, rows in values.get("scores", {}).items()},
                confusion=None if values.get("confusion") is None else Confusion.of(values["confusion"]),
                most_confused=_table_in(MostConfused, values.get("most_confused")),
                reliability=_table_in(Reliability, values.get("reliability")),
                until=None if values.get("until") is None else _until_in(values["until"]),
                worst=tuple(WorstRow.of(row) for row in values.get("worst", ())),
            )
            check(found, cls, "")
            _check_shape(found)
            plain(found.timing)  # not nested too deeply
            for column, entries in values["slices"].items():
                if len(found.slices[column]) < len(entries):
                    raise ValueError(f"the slices of {column} must have different values")
        except KeyError as error:
            raise StateError(f"cannot read the result: it lacks {error}") from None
        except (TypeError, AttributeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise StateError(f"cannot read the result: {error}") from None
        return found

    def to_json(self, indent: int | None = 1) -> str:
        """Return `to_dict` as JSON text.

        Args:
            indent: int or None. Spaces per level; None for one line.
        """
        return encoding.written(self.to_dict(), indent)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the result with this JSON text; the inverse of `to_json`.

        Raises:
            StateError: if the text is not that of a result.
        """
        return cls.from_dict(encoding.read(text, "result"))

    def to_arrow(self) -> pa.Table:
        """Return a table with one row per metric of all rows (``column`` and ``slice`` are null) and of each slice."""
        import pyarrow as pa

        records: list[tuple[str | None, str | None, str, Metric]] = [
            (None, None, name, metric) for name, metric in self.metrics.items()
        ]
        for column, values in self.slices.items():
            for label, part in zip(labels(values), values.values(), strict=True):
                records += [(column, label, name, metric) for name, metric in part.metrics.items()]
        number = pa.float64()
        return pa.table(
            {
                "column": pa.array([r[0] for r in records], pa.string()),
                "slice": pa.array([r[1] for r in records], pa.string()),
                "metric": pa.array([r[2] for r in records], pa.string()),
                "value": pa.array([r[3].value for r in records], number),
                "stderr": pa.array([r[3].stderr for r in records], number),
                "ci95_low": pa.array([r[3].ci95[0] for r in records], number),
                "ci95_high": pa.array([r[3].ci95[1] for r in records], number),
                "bounds_low": pa.array([r[3].bounds and r[3].bounds[0] for r in records], number),
                "bounds_high": pa.array([r[3].bounds and r[3].bounds[1] for r in records], number),
            }
        )


def _table_in(kind: type[T], values: dict[str, Any] | None) -> T | None:
    return None if values is None else kind(**columns_in(values))


def _until_in(values: dict[str, Any]) -> Until:
    return Until(**{**values, **{name: float_in(values[name]) for name in ("multiplier", "inflation")}})


def curves_out(curves: Curves) -> dict[str, Any]:
    """Return curves in JSON-ready values: one list per column, and one number per rate of a point."""
    return {part.name: plain(columns_out(getattr(curves, part.name))) for part in fields(Curves)}


def curves_in(values: dict[str, Any]) -> Curves:
    """Invert `curves_out`."""
    found: dict[str, Any] = {name: kind(**columns_in(values[name])) for name, kind in _CURVES.items()}
    for name in ("best_f1", "equal_error"):
        found[name] = OperatingPoint(**{rate: float_in(value) for rate, value in values[name].items()})
    return Curves(**found)


def _check_shape(result: EvalValues) -> None:
    """Refuse columns of different lengths, counts that contradict each other, and slices of other metrics."""
    bins, classes, histogram = result.calibration, result.per_class, result.nll_histogram
    scores = ((f"scores.{name}", rows) for name, rows in result.score_rows.items())
    for where, rows in [("rows", result.rows), *scores, *(
        (f"slices.{column}.{label}.rows", part.rows)
        for column, parts in result.slices.items() for label, part in zip(labels(parts), parts.values(), strict=True)
    )]:  # fmt: skip
        if min(asdict(rows).values()) < 0 or rows.total != rows.used + rows.ignored + rows.bad:
            raise ValueError(f"{where} must add up, got {rows}")
    tables: list[tuple[str, Any]] = [("calibration", bins), ("per_class", classes)]
    names = "confusion", "most_confused", "reliability"
    tables += [(name, table) for name in names if (table := getattr(result, name)) is not None]
    if result.curves is not None:
        tables += [(f"curves.{name}", getattr(result.curves, name)) for name in _CURVES]
    for where, table in tables:
        lengths = {name: len(column) for name, column in asdict(table).items() if isinstance(column, tuple | array)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of {where} must have the same length, got {lengths}")
    for where, counts in (("calibration.count", bins.count), ("nll_histogram.counts", histogram.counts)):
        if min(counts, default=0) < 0:
            raise ValueError(f"{where} must not be negative, got {min(counts)}")
    check_details(result.confusion, result.most_confused, result.worst)
    if len(histogram.edges) != len(histogram.counts) + bool(histogram.counts):
        raise ValueError(f"nll_histogram must have {len(histogram.counts) + 1} edges, got {len(histogram.edges)}")
    if not result.metrics:
        raise ValueError("metrics must not be empty")
    for column, parts in result.slices.items():
        for part in parts.values():
            if not result.metrics.keys() <= part.metrics.keys():
                raise ValueError(f"the slices of {column} must have the metrics of all rows")
