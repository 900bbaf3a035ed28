"""What an evaluation found: read-only values, and the forms they are written in.

JSON (schema ``fastxent/eval/1``): an undefined number (NaN) is ``null``, an infinite one the string ``"inf"`` or
``"-inf"``; all others are the shortest decimals that read back as the same double.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import math
import platform
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

from fastxent._version import __version__
from fastxent.errors import StateError
from fastxent.options.config import EvalConfig
from fastxent.options.typed import check

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure


SCHEMA = "fastxent/eval/1"


@dataclass(frozen=True)
class Metric:
    """A figure, its standard error and its 95 % interval; NaN where they are not defined."""

    value: float
    stderr: float = math.nan
    ci95: tuple[float, float] = (math.nan, math.nan)


@dataclass(frozen=True)
class Rows:
    """How many rows there were, and what became of them: ``total = used + ignored + bad``."""

    total: int
    used: int
    ignored: int
    bad: int
    bad_logits: int = 0
    bad_target: int = 0


@dataclass(frozen=True)
class Calibration:
    """Bins (lower, upper] of the confidence: rows, mean confidence and accuracy (NaN if empty) of each.

    ``weight`` is the sum of the sample weights in each bin, by which the means are taken; None without weights.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    count: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    weight: tuple[float, ...] | None = None


@dataclass(frozen=True)
class PerClass:
    """One entry for each class that is a target or a prediction of some row; ``name`` where classes have names.

    ``support``, ``predicted``, ``correct`` count rows; precision, recall, F1 and the mean NLL of the rows of the
    class go by sample weight. NaN is a ratio over nothing.
    """

    class_id: tuple[int, ...]
    name: tuple[str, ...] | None
    support: tuple[int, ...]
    predicted: tuple[int, ...]
    correct: tuple[int, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]
    nll: tuple[float, ...]


@dataclass(frozen=True)
class Histogram:
    """``counts[k]`` rows have edges[k] <= NLL < edges[k + 1]; ``infinite`` more have none. Edges are logarithmic."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    infinite: int


@dataclass(frozen=True)
class Slice:
    """The rows that have one value of a ``by`` column."""

    rows: Rows
    metrics: dict[str, Metric]


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    """Of the programs that the figures rest on."""
    packages = [(name, importlib.metadata.version(name)) for name in ("numba", "numpy", "pyarrow")]
    return (("fastxent", __version__), *packages, ("python", platform.python_version()))


@dataclass(frozen=True, repr=False, eq=False)
class EvalResult:
    """Every figure of one evaluation. ``slices[column][value]`` has the ``rows`` and ``metrics`` of a slice;
    ``clusters`` is the number of clusters that standard errors rest on; ``nll_quantiles`` maps 0 … 1 to nats;
    ``versions`` are those of the programs that computed it; ``state`` is what `evaluate` computed all this from, to be
    saved or merged (None if read from JSON)."""

    rows: Rows
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
    versions: dict[str, str] = field(default_factory=lambda: dict(_versions()), compare=False)
    state: Any = field(default=None, compare=False)

    def __eq__(self, other: object) -> bool:
        """The same figures (NaN is NaN), configuration, files and timing; whatever the versions."""
        return isinstance(other, EvalResult) and {**self.to_dict(), "versions": None} == {
            **other.to_dict(),
            "versions": None,
        }

    __hash__ = None  # type: ignore[assignment]  # it holds dicts

    @property
    def has_losses(self) -> bool:
        """Whether any row has a loss: the dump has labels, and a row of some weight was used."""
        return bool(self.nll_histogram.counts or self.nll_histogram.infinite)

    def __repr__(self) -> str:
        from fastxent.results.text import terminal

        return terminal(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values. Slices are keyed by their value as text; ``value`` in each holds it as it is."""
        return {
            "schema": SCHEMA,
            "rows": asdict(self.rows),
            "clusters": self.clusters,
            "metrics": _metrics_out(self.metrics),
            "calibration": _columns_out(self.calibration),
            "per_class": _columns_out(self.per_class),
            "nll_histogram": _columns_out(self.nll_histogram),
            "nll_quantiles": {repr(q): _out(value) for q, value in self.nll_quantiles.items()},
            "slices": {
                column: dict(zip(labels(values), map(_slice_out, values, values.values()), strict=True))
                for column, values in self.slices.items()
            },
            "config": self.config.to_dict(),
            "files": list(self.files),
            "timing": _plain(self.timing),
            "warnings": list(self.warnings),
            "versions": self.versions,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EvalResult:
        """The inverse of `to_dict`."""
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise StateError(f"not a result of fastxent: its schema is not {SCHEMA!r}")
        try:
            found = cls(
                rows=Rows(**values["rows"]),
                metrics=_metrics_in(values["metrics"]),
                calibration=Calibration(**_columns_in(values["calibration"])),
                per_class=PerClass(**_columns_in(values["per_class"])),
                nll_histogram=Histogram(**_columns_in(values["nll_histogram"])),
                nll_quantiles={float(q): _in(value) for q, value in values["nll_quantiles"].items()},
                slices={
                    column: {
                        entry["value"]: Slice(Rows(**entry["rows"]), _metrics_in(entry["metrics"]))
                        for entry in entries.values()
                    }
                    for column, entries in values["slices"].items()
                },
                config=EvalConfig.from_dict(values["config"]),
                clusters=values["clusters"],
                timing=values["timing"],
                files=tuple(values["files"]),
                warnings=tuple(values["warnings"]),
                versions=values["versions"],
            )
            check(found, cls, "")
            _check_shape(found)
            _plain(found.timing)  # not nested too deeply
            for column, entries in values["slices"].items():
                if len(found.slices[column]) < len(entries):
                    raise ValueError(f"the slices of {column} must have different values")
        except KeyError as error:
            raise StateError(f"a damaged result of fastxent: it lacks {error}") from None
        except (TypeError, AttributeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise StateError(f"a damaged result of fastxent: {error}") from None
        return found

    def to_json(self, indent: int | None = 1) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> EvalResult:
        """The inverse of `to_json`."""
        try:
            values = json.loads(text, parse_int=_whole)
        except (ValueError, RecursionError) as error:
            raise StateError(f"not a result of fastxent: {error}") from None
        return cls.from_dict(values)

    def to_arrow(self) -> pa.Table:
        """A tidy table: one row for each metric of the whole (column and slice null) and of each slice."""
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
            }
        )

    def to_markdown(self) -> str:
        """Markdown tables of metrics and slices."""
        from fastxent.results.text import markdown

        return markdown(self)

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write a self-contained HTML report."""
        from fastxent.results.report import write_html

        write_html(self, path)

    def log(self, tracker: str) -> str:
        """Log to ``jsonl:FILE`` (a line is appended) or ``mlflow:URI`` (a new run); returns the path or the run's id.

        MLflow gets every figure with its error and interval, those of slices too, the configuration, the result as
        JSON and its report. With nothing after ``mlflow:`` it goes where MLflow is set to log, into the active run.

        Raises:
            ConfigError: ``tracker`` names none.
            OutputError: it cannot be written or reached, or is not installed.
        """
        from fastxent.results.trackers import log

        return log(self, tracker)

    def _repr_html_(self) -> str | None:
        """The report for a notebook; without the packages that draw it, None, and the notebook shows the table."""
        if not all(importlib.util.find_spec(name) for name in ("jinja2", "matplotlib")):
            return None
        from fastxent.results.report import notebook_html

        return notebook_html(self)

    def plot_reliability(self) -> Figure:
        """Accuracy against confidence by bin, over the number of rows in each bin."""
        from fastxent.results.report import plot

        return plot("reliability", self)

    def plot_nll_histogram(self) -> Figure:
        """The distribution of the per-row NLL: density, and the share of rows below."""
        from fastxent.results.report import plot

        return plot("nll_histogram", self)

    def plot_slices(self, column: str | None = None, metric: str | None = None) -> Figure:
        """Forest plot of ``metric`` (the first of the result) by the values of ``column`` (the first of ``by``)."""
        from fastxent.results.report import plot

        return plot("forest", self, column=column, metric=metric)


def _whole(text: str) -> int:
    """A whole number of JSON; all of ours are 64 bits wide."""
    if len(text) > 19:
        raise ValueError(f"the number {text[:19]}… is too large")
    return int(text)


def _check_shape(result: EvalResult) -> None:
    """Refuse columns of different lengths, counts that contradict each other, and slices of other metrics."""
    bins, classes, histogram = result.calibration, result.per_class, result.nll_histogram
    for where, rows in [("rows", result.rows), *(
        (f"slices.{column}.{label}.rows", part.rows)
        for column, parts in result.slices.items() for label, part in zip(labels(parts), parts.values(), strict=True)
    )]:  # fmt: skip
        if min(asdict(rows).values()) < 0 or rows.total != rows.used + rows.ignored + rows.bad:
            raise ValueError(f"{where} must add up, got {rows}")
    for where, table in (("calibration", bins), ("per_class", classes)):
        lengths = {name: len(column) for name, column in asdict(table).items() if column is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of {where} must be of one length, got {lengths}")
    for where, counts in (("calibration.count", bins.count), ("nll_histogram.counts", histogram.counts)):
        if min(counts, default=0) < 0:
            raise ValueError(f"{where} must not be below 0")
    if len(histogram.edges) != len(histogram.counts) + bool(histogram.counts):
        raise ValueError(f"nll_histogram must have {len(histogram.counts) + 1} edges, got {len(histogram.edges)}")
    if not result.metrics:
        raise ValueError("metrics must not be empty")
    for column, parts in result.slices.items():
        for part in parts.values():
            if not result.metrics.keys() <= part.metrics.keys():
                raise ValueError(f"the slices of {column} must have the metrics of the whole")


def labels(values: dict[Any, Slice]) -> list[str]:
    """The values of a column as distinct texts, for display and as JSON keys."""
    found: dict[str, None] = {}
    for value in values:
        text = value if isinstance(value, str) else json.dumps(value)
        while text in found:  # the string "1" beside the number 1
            text = json.dumps(text)
        found[text] = None
    return list(found)


def _out(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _plain(value: Any) -> Any:
    """JSON-ready values of any depth: no NaN, no infinity."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else _out(value)


def _in(value: Any) -> Any:
    """The inverse of `_out`; what is no number is left to `check`, which knows its place."""
    return math.nan if value is None else float(value) if value in ("inf", "-inf") else value


def _real(value: Any) -> Any:
    """`_in` of what is never a count."""
    return float(value) if type(value) is int else _in(value)


def _metrics_out(metrics: dict[str, Metric]) -> dict[str, Any]:
    return {
        name: {"value": _out(m.value), "stderr": _out(m.stderr), "ci95": [_out(end) for end in m.ci95]}
        for name, m in metrics.items()
    }


def _metrics_in(values: dict[str, Any]) -> dict[str, Metric]:
    return {
        name: Metric(_real(m["value"]), _real(m["stderr"]), tuple(map(_real, m["ci95"]))) for name, m in values.items()
    }


def _slice_out(value: Any, part: Slice) -> dict[str, Any]:
    return {"value": value, "rows": asdict(part.rows), "metrics": _metrics_out(part.metrics)}


def _columns_out(columns: Calibration | PerClass | Histogram) -> dict[str, Any]:
    return {
        name: [_out(value) for value in column] if isinstance(column, tuple) else column
        for name, column in asdict(columns).items()
    }


def _columns_in(columns: dict[str, Any]) -> dict[str, Any]:
    """Lists back to tuples; null and "inf" are floats."""
    return {
        name: tuple(v if name == "name" else _in(v) for v in column) if isinstance(column, list) else column
        for name, column in columns.items()
    }
