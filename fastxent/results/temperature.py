"""The values of a fitted temperature, read-only: text and JSON (schema ``fastxent/temperature/1``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self

from fastxent.errors import StateError
from fastxent.names import printable
from fastxent.options.typed import check
from fastxent.results import encoding
from fastxent.results.encoding import float_in, number_out, plain
from fastxent.results.evaluation import EvalValues
from fastxent.results.text import markdown_table, number, table_of
from fastxent.results.values import Metric, RowCounts, Values, labels, metrics_in, metrics_out

SCHEMA = "fastxent/temperature/1"
SHOWN = ("cross_entropy", "brier_score", "accuracy", "roc_auc", "confidence", "entropy", "expected_calibration_error")


@dataclass(frozen=True, eq=False)
class TemperatureSlice(Values):
    """The temperature of the rows of one value.

    Attributes:
        rows: RowCounts.
        temperature: Metric. NaN if there is none.
        bracket: (float, float). Temperatures that it is proven to lie between; 0 or infinity for no bound.
        cross_entropy: Metric. In nats, at temperature 1.
    """

    rows: RowCounts
    temperature: Metric
    bracket: tuple[float, float]
    cross_entropy: Metric


@dataclass(frozen=True, repr=False)
class TemperatureValues:
    """All fields of a fitted temperature; `fastxent.results.fitted.TemperatureFit` describes them."""

    kind: ClassVar[type[EvalValues]] = EvalValues  # of ``results``

    temperature: Metric
    bracket: tuple[float, float]
    results: Mapping[str, EvalValues]
    folds: tuple[float, ...]
    reads: int
    slices: dict[str, dict[Any, TemperatureSlice]] = field(default_factory=dict)
    note: str | None = None
    timing: dict[str, Any] | None = None

    @property
    def before(self) -> dict[str, Metric]:
        """The metrics at temperature 1."""
        return self.results["before"].metrics

    @property
    def after(self) -> dict[str, Metric]:
        """The metrics after cross-fitted recalibration; empty without a temperature."""
        return self.results["after"].metrics if "after" in self.results else {}

    @property
    def refinement_loss(self) -> float:
        """The cross-entropy after recalibration, in nats: what no temperature can mend (arXiv 2501.19195)."""
        return self.after["cross_entropy"].value if self.after else math.nan

    @property
    def calibration_loss(self) -> float:
        """The cross-entropy that recalibration saves, in nats."""
        return self.before["cross_entropy"].value - self.refinement_loss

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings about the rows."""
        return self.results["before"].warnings

    @property
    def doubts(self) -> tuple[str, ...]:
        """A sentence if the rows do not show that the scores say anything about the targets, at any temperature."""
        if not self.after:
            return ()
        config, loss = self.results["after"].config, self.after["cross_entropy"]
        even = math.log(sum(config.class_mask or ()) or config.n_classes)  # the loss of equal probabilities
        if not loss.value > even - 2.0 * loss.stderr:
            return ()
        return (
            f"The scores may say nothing about the targets: the refinement loss is that of equal probabilities "
            f"({number(even)}), within two standard errors. The temperature is then that of noise.",
        )

    def __repr__(self) -> str:
        return "\n".join([*self.lines(), "", *self._tables(table_of)])

    def to_markdown(self) -> str:
        """Return the temperature and what it changes as Markdown."""
        return "\n".join(["  \n".join(self.lines()), "", *self._tables(markdown_table)]) + "\n"

    def lines(self) -> list[str]:
        """Return what was found, in sentences."""
        rows = self.results["before"].rows
        found = [f"{rows.total:,} rows · {rows.used:,} used · {self.reads} reads"]
        if self.note is not None:
            return [*found, self.note]
        low, high = self.temperature.ci95
        interval = "" if math.isnan(low) else f", 95 % interval {number(low)} … {number(high)}"
        return [
            *found,
            f"temperature {number(self.temperature.value, 6)}{interval}",
            f"calibration loss {number(self.calibration_loss)}, refinement loss {number(self.refinement_loss)} (nats)"
            if self.after
            else "There are no metrics after recalibration: the rows outside of some fold have no best temperature.",
            *self.doubts,
        ]

    def _tables(self, form: Callable[[list[str], list[list[str]]], list[str]]) -> list[str]:
        """Return the lines of the tables of metrics and of each column of slices."""
        headers = ["metric", "before", *(["after", "stderr after"] if self.after else [])]
        cells = []
        for name in SHOWN:
            if name in self.before:
                after = [self.after[name].value, self.after[name].stderr] if self.after else []
                cells.append([name, *map(number, [self.before[name].value, *after])])
        found = list(form(headers, cells))
        for column, slices in self.slices.items():
            cells = []
            for label, part in zip(labels(slices), slices.values(), strict=True):
                t = part.temperature
                numbers = (t.value, t.stderr, part.cross_entropy.value)
                cells.append([printable(label), f"{part.rows.used:,}", *map(number, numbers)])
            found += ["", *form([column, "rows", "temperature", "stderr", "cross-entropy"], cells)]
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "schema": SCHEMA,
            **metrics_out({"temperature": self.temperature}),
            "bracket": [number_out(end) for end in self.bracket],
            "calibration_loss": number_out(self.calibration_loss),
            "refinement_loss": number_out(self.refinement_loss),
            "results": {name: result.to_dict() for name, result in self.results.items()},
            "folds": [number_out(t) for t in self.folds],
            "reads": self.reads,
            "note": self.note,
            "warnings": [*self.warnings, *self.doubts],
            "slices": {
                column: [{"value": value, **_slice_out(part)} for value, part in slices.items()]
                for column, slices in self.slices.items()
            },
            "timing": plain(self.timing),
        }

    def to_json(self, indent: int | None = 1) -> str:
        """Return `to_dict` as JSON text."""
        return encoding.written(plain(self.to_dict()), indent)

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Return the fit with these values; the inverse of `to_dict`. StateError if they are not those of a fit."""
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise StateError(f"cannot read the temperature: its schema is not {SCHEMA!r}")
        try:
            found = cls(
                temperature=metrics_in({"t": values["temperature"]})["t"],
                bracket=tuple(map(float_in, values["bracket"])),
                results={name: cls.kind.from_dict(result) for name, result in values["results"].items()},
                folds=tuple(map(float_in, values["folds"])),
                reads=values["reads"],
                slices={
                    column: {part["value"]: _slice_in(part) for part in parts}
                    for column, parts in values["slices"].items()
                },
                note=values["note"],
                timing=values["timing"],
            )
            check(found, cls, "")
            if "before" not in found.results:
                raise ValueError("results must hold 'before'")
            if found.reads < 1 or not found.folds:
                raise ValueError(f"there must be reads and folds, got {found.reads} and {len(found.folds)}")
            _check_temperatures(found, values["slices"])
        except KeyError as error:
            raise StateError(f"cannot read the temperature: it lacks {error}") from None
        except (TypeError, AttributeError, ValueError, LookupError, RecursionError) as error:
            raise StateError(f"cannot read the temperature: {error}") from None
        return found

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the fit with this JSON text; the inverse of `to_json`. StateError if it is not that of a fit."""
        return cls.from_dict(encoding.read(text, "temperature"))


def _check_temperatures(found: TemperatureValues, slices: dict[str, list[Any]]) -> None:
    """Raise ValueError for a temperature that no fit gives, and for a value of a column that comes twice."""
    each = {"temperature": found.temperature}
    for column, parts in found.slices.items():
        if len(parts) != len(slices[column]):
            raise ValueError(f"a value of slices.{column} comes twice")
        each |= {f"slices.{column}.{value}.temperature": part.temperature for value, part in parts.items()}
    for name, metric in each.items():
        if not (math.isnan(metric.value) or 0.0 < metric.value < math.inf):
            raise ValueError(f"{name}.value must be a finite number above 0 or null, got {metric.value}")


def _slice_out(part: TemperatureSlice) -> dict[str, Any]:
    return {
        "rows": asdict(part.rows),
        "bracket": [number_out(end) for end in part.bracket],
        **metrics_out({"temperature": part.temperature, "cross_entropy": part.cross_entropy}),
    }


def _slice_in(values: dict[str, Any]) -> TemperatureSlice:
    metrics = metrics_in({name: values[name] for name in ("temperature", "cross_entropy")})
    low, high = map(float_in, values["bracket"])
    return TemperatureSlice(RowCounts(**values["rows"]), metrics["temperature"], (low, high), metrics["cross_entropy"])
