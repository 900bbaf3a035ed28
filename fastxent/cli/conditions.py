"""``--fail-if``: a condition on a figure, read before the run and judged after it."""

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
    r"(?P<figure>\w+(?:\.\w+)*)\s*(?P<sign>>=|<=|==|!=|>|<)\s*(?P<bound>[^\s<>=%]+)\s*(?P<percent>%?)\s*"
)
_ROWS = tuple(field.name for field in fields(Rows))
_PARTS: dict[str, Callable[[Metric], float]] = {
    "": lambda metric: metric.value,
    "value": lambda metric: metric.value,
    "stderr": lambda metric: metric.stderr,
    "ci95.low": lambda metric: metric.ci95[0],
    "ci95.high": lambda metric: metric.ci95[1],
}
_MOST_FAILURES = 20  # said of one condition on every slice


@dataclass(frozen=True)
class Condition:
    """``[column=value:]figure sign bound``, for instance ``accuracy<90%`` or ``kind=python:accuracy.ci95.low<0.8``.

    The value ``*`` stands for every slice of the column.
    """

    text: str
    column: str | None
    value: str | None
    figure: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read a condition.

        >>> Condition.parse("kind=python:accuracy < 0.5").value
        'python'

        Raises:
            ValueError: it is not one.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(
                f"invalid condition {text!r}; expected FIGURE<NUMBER or FIGURE>NUMBER, as in 'accuracy<0.9'"
            )
        part = match.groupdict()
        try:
            bound = Decimal(part["bound"]) / (100 if part["percent"] else 1)
        except ArithmeticError:
            raise ValueError(f"invalid number {part['bound']!r} in {text!r}; expected such as 0.9 or 90%") from None
        if bound.is_nan():
            raise ValueError(f"{text!r} compares with NaN, and so never holds; write a number")
        return cls(text, part["column"], part["value"], part["figure"], part["sign"], float(bound))

    def check(self, result: EvalResult) -> list[str]:
        """What is wrong with the figure, in each slice that is meant. NaN never passes: it compares false with all."""
        found = []
        for label, part in self._parts(result):
            figure = self._read(part)
            if math.isnan(figure) or _COMPARE[self.sign](figure, self.bound):
                place = "" if self.value != "*" else f" of {self.column}={label}"
                found.append(f"{self.text} ({self.figure}{place} is {figure:.6g})")
        more = [f"{self.text} (and in {len(found) - _MOST_FAILURES} more)"] if len(found) > _MOST_FAILURES else []
        return found[:_MOST_FAILURES] + more

    def _parts(self, result: EvalResult) -> list[tuple[str, EvalResult | Slice]]:
        if self.column is None:
            return [("", result)]
        slices = result.slices.get(self.column)
        if slices is None:
            raise ConfigError(f"--fail-if {self.text}: no slices of {self.column!r}; add --by {self.column}")
        named: dict[str, EvalResult | Slice] = dict(zip(labels(slices), slices.values(), strict=True))
        if self.value == "*" and named:
            return list(named.items())
        if self.value not in named:
            raise ConfigError(f"--fail-if {self.text}: no {self.column} {self.value!r}; {_nearest(self.value, named)}")
        return [(str(self.value), named[str(self.value)])]

    def check_figure(self, metrics: Iterable[str]) -> None:
        """`ConfigError` if the figure is none of ``metrics``, nor a count of rows."""
        name, _, field = self.figure.partition(".")
        counts = [f"rows.{field}" for field in _ROWS]
        if self.figure in counts or (name in metrics and field in _PARTS):
            return
        if name in metrics:
            parts = ", ".join(f"{name}.{part}" for part in _PARTS if part)
            raise ConfigError(f"--fail-if {self.text}: no figure {self.figure!r}; there is: {name}, {parts}")
        raise ConfigError(
            f"--fail-if {self.text}: no figure {self.figure!r}; {_nearest(self.figure, [*metrics, *counts])}"
        )

    def _read(self, part: EvalResult | Slice) -> float:
        self.check_figure(part.metrics)
        name, _, field = self.figure.partition(".")
        return float(getattr(part.rows, field) if name == "rows" else _PARTS[field](part.metrics[name]))


class ConditionType(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """click's view of a condition, so that a slip is found before the run."""

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
    return f"did you mean {near[0]!r}?" if near else f"there is: {some(known) or 'none'}"
