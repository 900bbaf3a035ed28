"""``--fail-if``: a condition on a metric, which is checked after the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import click

from fastxent.errors import ConfigError
from fastxent.names import nearest, some
from fastxent.options.conditions import Comparison
from fastxent.results import comparison
from fastxent.results.compare import CompareResult
from fastxent.results.compare_many import CompareSet
from fastxent.results.result import EvalResult
from fastxent.results.values import Metric, RowCounts, Slice, labels

Group = EvalResult | Slice | comparison.Compared  # all rows, or those of a slice
_COUNTS = tuple(f"rows.{field.name}" for field in fields(RowCounts))
_PARTS: dict[str, Callable[[Metric], float]] = {
    "": lambda metric: metric.value,
    "value": lambda metric: metric.value,
    "stderr": lambda metric: metric.stderr,
    "width": lambda metric: metric.ci95[1] - metric.ci95[0],
    "ci95.low": lambda metric: metric.ci95[0],
    "ci95.high": lambda metric: metric.ci95[1],
    "bounds.low": lambda metric: metric.value if metric.bounds is None else metric.bounds[0],
    "bounds.high": lambda metric: metric.value if metric.bounds is None else metric.bounds[1],
}
DUMP = "dump"  # in the place of a column: one of several comparisons
_MOST_FAILURES = 20  # printed for one condition on every slice


@dataclass(frozen=True)
class Condition(Comparison):
    """A condition of ``--fail-if``."""

    def check(self, result: EvalResult | CompareResult | CompareSet) -> list[str]:
        """Return a message for each slice in which the condition holds. A metric that is NaN always fails.

        Of several comparisons, ``dump=NAME:`` before the condition selects one; else each is checked.
        """
        if isinstance(result, CompareSet):
            return self._check_each(result)
        found = []
        for label, group in self._groups(result):
            number = self._read(group)
            if math.isnan(number) or self.holds(number):
                place = "" if self.value != "*" else f" of {self.column}={label}"
                found.append(f"{self.text} ({self.metric}{place} is {number:.6g})")
        more = [f"{self.text} (and in {len(found) - _MOST_FAILURES} more)"] if len(found) > _MOST_FAILURES else []
        return found[:_MOST_FAILURES] + more

    def of_dump(self, names: Iterable[str]) -> tuple[str, Condition]:
        """Return the name of a dump, or "*" for each, and the condition on its comparison.

        Raises:
            ConfigError: the condition names none of these dumps.
        """
        if self.column != DUMP:
            return "*", self
        text, names = str(self.value), list(names)
        found = [name for name in ("*", *names) if text == name or text.startswith(f"{name}:")]
        if not found:
            name = text.partition(":")[0]
            raise ConfigError(
                f"cannot check --fail-if {self.text!r}: there is no dump {name!r}; {nearest(name, names)}"
            )
        wanted = max(found, key=len)
        column, _, value = text[len(wanted) + 1 :].partition("=")
        return wanted, replace(self, column=column or None, value=value or None)

    def _check_each(self, result: CompareSet) -> list[str]:
        wanted, inner = self.of_dump(result.comparisons)
        found = []
        for name, each in result.comparisons.items():
            if wanted in ("*", name):
                place = f" of {name}" if wanted == "*" else ""
                found += [f"{failure}{place}" for failure in inner.check(each)]
        return found

    def _groups(self, result: EvalResult | CompareResult) -> list[tuple[str, Group]]:
        if self.column is None:
            return [("", result)]
        slices = result.slices.get(self.column)
        if slices is None:
            raise ConfigError(
                f"cannot check --fail-if {self.text!r}: there are no slices of {self.column!r}; add --by {self.column}"
            )
        named: dict[str, Group] = dict(zip(labels(slices), slices.values(), strict=True))
        if self.value == "*" and named:
            return list(named.items())
        if self.value not in named:
            raise ConfigError(
                f"cannot check --fail-if {self.text!r}: there is no slice {self.value!r} of {self.column!r}; "
                f"{nearest(self.value, named)}"
            )
        return [(str(self.value), named[str(self.value)])]

    def check_name(self, names: Iterable[str]) -> None:
        """Raise ConfigError if the condition names none of these numbers."""
        names = list(names)
        if self.metric in names:
            return
        name = self.metric.partition(".")[0]
        longer = [other for other in names if other.partition(".")[0] == name]
        if longer and name != "rows":
            known = f"expected {some(longer)}"
        else:
            known = nearest(self.metric, [other for other in names if "." not in other or other.startswith("rows.")])
        raise ConfigError(f"cannot check --fail-if {self.text!r}: there is no metric {self.metric!r}; {known}")

    def _read(self, group: Group) -> float:
        numbers = comparison.numbers(group) if isinstance(group, comparison.Compared) else _numbers(group)
        self.check_name(numbers)
        return numbers[self.metric]


def number_names(metrics: Iterable[str]) -> list[str]:
    """Return the names of the numbers of an evaluation with these metrics."""
    return [*(f"{name}.{part}" if part else name for name in metrics for part in _PARTS), *_COUNTS]


def _numbers(group: EvalResult | Slice) -> dict[str, float]:
    """Return every number of all rows or of a slice by name, as in "accuracy.ci95.low"."""
    found = {
        f"{name}.{field}" if field else name: read(metric)
        for name, metric in group.metrics.items()
        for field, read in _PARTS.items()
    }
    return {**found, **{name: float(getattr(group.rows, name.partition(".")[2])) for name in _COUNTS}}


class ConditionType(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """The click type of a condition: an invalid one is an error before the run."""

    name = "expr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Condition:
        if isinstance(value, Condition):
            return value
        try:
            return Condition.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
