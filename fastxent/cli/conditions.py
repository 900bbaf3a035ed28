"""``--fail-if``: a condition on a figure, read before the run and judged after it."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import click

from fastxent.errors import ConfigError
from fastxent.result import EvalResult, Rows, Slice, labels

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
    r"(?P<figure>\w+(?:\.\w+)?)\s*(?P<sign>>=|<=|==|!=|>|<)\s*(?P<bound>[^\s<>=]+)\s*"
)
_ROWS = tuple(field.name for field in fields(Rows))


@dataclass(frozen=True)
class Condition:
    """``[column=value:]figure sign bound``, for instance ``accuracy<0.9`` or ``kind=python:rows.bad>0``."""

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
            raise ValueError(f"{text!r} is no condition; write FIGURE<NUMBER or FIGURE>NUMBER, as in 'accuracy<0.9'")
        part = match.groupdict()
        bound = float(part["bound"])
        if math.isnan(bound):
            raise ValueError(f"{text!r} compares with NaN, and so never holds; write a number")
        return cls(text, part["column"], part["value"], part["figure"], part["sign"], bound)

    def check(self, result: EvalResult) -> str | None:
        """None if the figure passes, else what is wrong with it. NaN never passes: it compares false with all."""
        figure = self._read(self._part(result))
        if not math.isnan(figure) and not _COMPARE[self.sign](figure, self.bound):
            return None
        return f"{self.text} ({self.figure} is {figure:.6g})"

    def _part(self, result: EvalResult) -> EvalResult | Slice:
        if self.column is None:
            return result
        slices = result.slices.get(self.column)
        if slices is None:
            raise ConfigError(f"--fail-if {self.text}: no slices of {self.column!r}; add --by {self.column}")
        named = dict(zip(labels(slices), slices.values(), strict=True))
        if self.value not in named:
            raise ConfigError(f"--fail-if {self.text}: no {self.column} {self.value!r}; {_nearest(self.value, named)}")
        return named[self.value]

    def check_figure(self, metrics: Iterable[str]) -> None:
        """`ConfigError` if the figure is none of ``metrics``, nor a count of rows."""
        name, _, field = self.figure.partition(".")
        counts = [f"rows.{field}" for field in _ROWS]
        if self.figure not in counts and not (name in metrics and field in ("", "value", "stderr")):
            raise ConfigError(
                f"--fail-if {self.text}: no figure {self.figure!r}; {_nearest(self.figure, [*metrics, *counts])}"
            )

    def _read(self, part: EvalResult | Slice) -> float:
        self.check_figure(part.metrics)
        name, _, field = self.figure.partition(".")
        return float(getattr(part.rows, field) if name == "rows" else getattr(part.metrics[name], field or "value"))


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
    return f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(known)}"
