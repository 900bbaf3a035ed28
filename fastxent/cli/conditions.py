"""``--fail-if``: a condition on a metric, parsed before the run and checked after it."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

import click

from fastxent.errors import ConfigError
from fastxent.names import some
from fastxent.results.result import EvalResult
from fastxent.results.values import Metric, Rows, Slice, labels

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
_ROWS = tuple(field.name for field in fields(Rows))
_PARTS: dict[str, Callable[[Metric], float]] = {
    "": lambda metric: metric.value,
    "value": lambda metric: metric.value,
    "stderr": lambda metric: metric.stderr,
    "ci95.low": lambda metric: metric.ci95[0],
    "ci95.high": lambda metric: metric.ci95[1],
}
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

    def check(self, result: EvalResult) -> list[str]:
        """Return a message for each slice in which the condition holds. A metric that is NaN always fails."""
        found = []
        for label, part in self._parts(result):
            number = self._read(part)
            if math.isnan(number) or _COMPARE[self.sign](number, self.bound):
                place = "" if self.value != "*" else f" of {self.column}={label}"
                found.append(f"{self.text} ({self.metric}{place} is {number:.6g})")
        more = [f"{self.text} (and in {len(found) - _MOST_FAILURES} more)"] if len(found) > _MOST_FAILURES else []
        return found[:_MOST_FAILURES] + more

    def _parts(self, result: EvalResult) -> list[tuple[str, EvalResult | Slice]]:
        if self.column is None:
            return [("", result)]
        slices = result.slices.get(self.column)
        if slices is None:
            raise ConfigError(
                f"cannot check --fail-if {self.text!r}: there are no slices of {self.column!r}; add --by {self.column}"
            )
        named: dict[str, EvalResult | Slice] = dict(zip(labels(slices), slices.values(), strict=True))
        if self.value == "*" and named:
            return list(named.items())
        if self.value not in named:
            raise ConfigError(
                f"cannot check --fail-if {self.text!r}: there is no slice {self.value!r} of {self.column!r}; "
                f"{_nearest(self.value, named)}"
            )
        return [(str(self.value), named[str(self.value)])]

    def check_metric(self, metrics: Iterable[str]) -> None:
        """Raise ConfigError if the condition names neither one of ``metrics`` nor a count of rows."""
        name, field = self._split(metrics)
        counts = [f"rows.{field}" for field in _ROWS]
        if self.metric in counts or (name in metrics and field in _PARTS):
            return
        if name in metrics:
            known = f"expected {name}, {', '.join(f'{name}.{part}' for part in _PARTS if part)}"
        else:
            known = _nearest(self.metric, [*metrics, *counts])
        raise ConfigError(f"cannot check --fail-if {self.text!r}: there is no metric {self.metric!r}; {known}")

    def _split(self, metrics: Iterable[str]) -> tuple[str, str]:
        """(the metric, the part of it). The name of a score may have dots of its own."""
        dotted = (name for name in metrics if "." in name and f"{self.metric}.".startswith(f"{name}."))
        name = max(dotted, key=len, default=self.metric.partition(".")[0])
        return name, self.metric[len(name) + 1 :]

    def _read(self, part: EvalResult | Slice) -> float:
        self.check_metric(part.metrics)
        name, field = self._split(part.metrics)
        return float(getattr(part.rows, field) if name == "rows" else _PARTS[field](part.metrics[name]))


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
