"""Plain values of an evaluation, read-only, and their JSON: metrics, counts of rows, slices and tables."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from fastxent.results.encoding import float_in, number_in, number_out


class Values:
    """Values are equal if all their fields are equal. NaN equals NaN: two results of the same rows are equal."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Values) or type(self) is not type(other):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return tuple(_comparable(getattr(self, field.name)) for field in fields(self))  # type: ignore[arg-type]


def _comparable(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_comparable, value))
    if isinstance(value, array):
        return value.tobytes()
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


@dataclass(frozen=True, eq=False)
class Metric(Values):
    """A number with a standard error and an interval. What is not defined is NaN. So is the value of a metric of which
    only ``bounds`` are known; its ``ci95`` then covers the intervals of both bounds.

    Attributes:
        value: float. The number.
        stderr: float. Its standard error.
        ci95: (float, float). Lower and upper end of its 95 % confidence interval.
        method: str or None. How the interval is computed: "t" (Student's, of a mean), "exp-t" (its exponential),
            "wilson" (of a rate), "delong" (of the area under the ROC curve), "jackknife" (of what is not a mean) or
            "confidence sequence" (of a run with ``until=``); None without an interval.
        bounds: (float, float) or None. Where the exact number lies, if it is known only within bounds. They may be
            infinite.
    """

    value: float
    stderr: float = math.nan
    ci95: tuple[float, float] = (math.nan, math.nan)
    method: str | None = None
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class RowCounts(Values):
    """Counts of rows. ``total = used + ignored + bad``, and ``bad`` is split by its cause.

    Attributes:
        total: int. All rows that were read.
        used: int. Rows that the metrics are computed from.
        ignored: int. Rows whose target is null or ``ignore_index``, or whose log-probability is null.
        bad: int. Invalid rows that were skipped with ``on_bad_row="skip"``.
        bad_logits: int. Bad rows whose logits or log-probability are invalid.
        bad_target: int. Bad rows whose target, weight, number of bytes or score is invalid.
    """

    total: int
    used: int
    ignored: int
    bad: int
    bad_logits: int = 0
    bad_target: int = 0


@dataclass(frozen=True, eq=False)
class Calibration(Values):
    """Bins (lower, upper] of the confidence, one entry per bin. The means of an empty bin are NaN.

    Of a binary dump, confidence is the probability of the positive class, and accuracy the share of positive rows. Of a
    multilabel dump, the same of all labels together: ``count`` counts labels.

    Attributes:
        lower, upper: float (bins,). Ends of each bin.
        count: int (bins,). Rows in each bin.
        confidence: float (bins,). Mean confidence, weighted by sample weight.
        accuracy: float (bins,). Accuracy, weighted by sample weight.
        weight: float (bins,) or None. Sum of the sample weights; None for rows without weights.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    count: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    weight: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class PerClass(Values):
    """One entry per class that is the target or the prediction of a row. A ratio with denominator 0 is NaN.

    Of a multilabel dump, one entry per label that some row does not ignore. ``nll`` is then a mean over all these rows.

    Attributes:
        class_id: int (classes,).
        name: str (classes,) or None. Class names; None if the evaluation has none.
        support: int (classes,). Rows with this target.
        predicted: int (classes,). Rows with this prediction.
        correct: int (classes,). Rows with this target and this prediction.
        precision, recall, f1: float (classes,). Weighted by sample weight.
        nll: float (classes,). Mean NLL in nats of the rows with this target, weighted by sample weight.
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


@dataclass(frozen=True, eq=False)
class Histogram(Values):
    """The distribution of the NLL of a row, in bins of logarithmic width.

    Attributes:
        edges: float (bins + 1,). Bin k holds the rows with edges[k] <= NLL < edges[k + 1], in nats.
        counts: int (bins,). Rows in each bin.
        infinite: int. Rows whose NLL is infinite, or not known in a top-k dump; no bin holds them.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    infinite: int


@dataclass(frozen=True, eq=False)
class Slice(Values):
    """The rows with one value of a ``by`` column.

    Attributes:
        rows: RowCounts. Counts of the slice.
        metrics: dict of name to Metric. The metrics of the slice.
    """

    rows: RowCounts
    metrics: dict[str, Metric]


def labels(values: Mapping[Any, object]) -> list[str]:
    """Return the values of a column as distinct texts, for display and as JSON keys."""
    found: dict[str, None] = {}
    for value in values:
        text = value if isinstance(value, str) else json.dumps(value)
        while text in found:  # the string "1" beside the number 1
            text = json.dumps(text)
        found[text] = None
    return list(found)


def metrics_out(metrics: dict[str, Metric]) -> dict[str, Any]:
    """Return metrics in JSON-ready values."""
    return {
        name: {
            "value": number_out(m.value),
            "stderr": number_out(m.stderr),
            "ci95": [number_out(end) for end in m.ci95],
            **({} if m.method is None else {"method": m.method}),
            **({} if m.bounds is None else {"bounds": [number_out(end) for end in m.bounds]}),
        }
        for name, m in metrics.items()
    }


def metrics_in(values: dict[str, Any]) -> dict[str, Metric]:
    """Invert `metrics_out`."""
    return {
        name: Metric(
            float_in(m["value"]),
            float_in(m["stderr"]),
            tuple(map(float_in, m["ci95"])),
            m.get("method"),
            None if m.get("bounds") is None else tuple(map(float_in, m["bounds"])),
        )
        for name, m in values.items()
    }


def slices_out(slices: dict[Any, Slice]) -> dict[str, Any]:
    """Return the slices of one column in JSON-ready values, keyed by the value as text."""
    return {
        label: {"value": value, "rows": asdict(part.rows), "metrics": metrics_out(part.metrics)}
        for label, (value, part) in zip(labels(slices), slices.items(), strict=True)
    }


def slices_in(values: dict[str, Any]) -> dict[Any, Slice]:
    """Invert `slices_out`."""
    return {
        entry["value"]: Slice(RowCounts(**entry["rows"]), metrics_in(entry["metrics"])) for entry in values.values()
    }


def columns_out(columns: Any) -> dict[str, Any]:
    """Return a table, a dataclass of columns, in JSON-ready values: one list per column."""
    return {
        name: _listed(column) if isinstance(column, tuple | array) else column
        for name, column in asdict(columns).items()
    }


def _listed(column: tuple[Any, ...] | array[Any]) -> list[Any]:
    return column.tolist() if isinstance(column, array) else [number_out(value) for value in column]


def columns_in(columns: dict[str, Any]) -> dict[str, Any]:
    """Invert `columns_out`."""
    return {
        name: tuple(v if name == "name" else number_in(v) for v in column) if isinstance(column, list) else column
        for name, column in columns.items()
    }
