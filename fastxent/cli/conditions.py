"""``--fail-if``: a condition on a metric, parsed before the run and checked after it."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any

import click

from fastxent.errors import ConfigError
from fastxent.names import some
from fastxent.results import comparison
from fastxent.results.compare import CompareResult
from fastxent.results.compare_many import CompareSet
from fastxent.results.result import EvalResult
from fastxent.results.values import Metric, RowCounts, Slice, labels

Group = EvalResult | Slice | comparison.Compared  # all rows, or those of a slice
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_PATTERN = re.compile(
    r"(?:(?P<column>[^=:<>]+)=(?P<value>.*):)?\s*"
    r"(?P<metric>\w+(?:\.\w+)*)\s*(?P<sign>>=|<=|==|!=|>|<)\s*(?P<bound>[^\s<>=%]+)\s*(?P<percent>%?)\s*"
)
_COUNTS = tuple(f"rows.{field.name}" for field in fields(RowCounts))
_PARTS: dict[str, Callable[[Metric], float]] = {
    "": lambda metric: metric.value,
    "value": lambda metric: metric.value,
    "stderr": lambda metric: metric.stderr,
    "ci95.low": lambda metric: metric.ci95[0],
    "ci95.high": lambda metric: metric.ci95[1],
    "bounds.low": lambda metric: metric.value if metric.bounds is None else metric.bounds[0],
    "bounds.high": lambda metric: metric.value if metric.bounds is None else metric.bounds[1],
}
DUMP = "dump"  # in the place of a column: one of several comparisons
_MOST_FAILURES = 20  # printed for one condition on every slice


@dataclass(frozen=True)
class Condition:
    """``[column=value:]metric sign bound``, such as ``accuracy<90%`` or ``kind=python:accuracy.ci95.low<0.8``.

    The value ``*`` means every slice of the column.
    """

    text: str
    column: str | None
    value: str | None
    metric: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Return the condition in a text.

        >>> Condition.parse("kind=python:accuracy < 0.5").value
        'python'

        Raises:
            ValueError: the text is not a condition.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(
                f"invalid condition {text!r}; expected METRIC<NUMBER or METRIC>NUMBER, as in 'accuracy<0.9'"
            )
        part = match.groupdict()
        try:
            bound = Decimal(part["bound"]) / (100 if part["percent"] else 1)
        except ArithmeticError:
            raise ValueError(
                f"invalid number {part['bound']!r} in {text!r}; expected a value such as 0.9 or 90%"
            ) from None
        if bound.is_nan():
            raise ValueError(f"invalid number 'nan' in {text!r}; expected a value such as 0.9 or 90%")
        return cls(text, part["column"], part["value"], part["metric"], part["sign"], float(bound))

    def check(self, result: EvalResult | CompareResult | CompareSet) -> list[str]:
        """Return a message for each slice in which the condition holds. A metric that is NaN always fails.

        Of several comparisons, ``dump=NAME:`` before the condition selects one; else each is checked.
        """
        if isinstance(result, CompareSet):
            return self._check_each(result)
        found = []
        for label, group in self._groups(result):
            number = self._read(group)
            if math.isnan(number) or _COMPARE[self.sign](number, self.bound):
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
                f"cannot check --fail-if {self.text!r}: there is no dump {name!r}; {_nearest(name, names)}"
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
                f"{_nearest(self.value, named)}"
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
            known = _nearest(self.metric, [other for other in names if "." not in other or other.startswith("rows.")])
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


def _nearest(name: str | None, known: Any) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {some(known) or 'none'}"
