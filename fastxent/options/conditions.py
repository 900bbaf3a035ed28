"""Conditions on a metric, as in ``accuracy<90%``: those of ``--fail-if``, and the one at which a run stops."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from fastxent.errors import ConfigError
from fastxent.options.checks import shown

COMPARE: dict[str, Callable[[float, float], bool]] = {
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
_STOPS = {"stderr": "<", "width": "<", "ci95.low": ">", "ci95.high": "<"}  # part of a metric -> how the sign begins
_EXPECTED = "expected NAME.stderr<NUMBER or NAME.width<NUMBER, as in 'cross_entropy.stderr<0.001'"


@dataclass(frozen=True)
class Comparison:
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
    def parse(cls, text: str) -> Self:
        """Return the condition in a text.

        >>> Comparison.parse("kind=python:accuracy < 0.5").value
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

    def holds(self, number: float) -> bool:
        """Return whether the condition holds for a number; never for NaN."""
        return number == number and COMPARE[self.sign](number, self.bound)


@dataclass(frozen=True)
class StopCondition(Comparison):
    """A condition on the standard error or the interval of a mean of all rows, such as ``accuracy.width<1%``."""

    @property
    def name(self) -> str:
        """The metric."""
        return self.metric.partition(".")[0]

    @property
    def part(self) -> str:
        """What of it is compared: "stderr", "width", "ci95.low" or "ci95.high"."""
        return self.metric.partition(".")[2]

    @classmethod
    def of(cls, name: str, value: Any) -> StopCondition:
        """Return the condition in the text of an option; ConfigError if it is not one."""
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be a condition such as 'cross_entropy.stderr<0.001', got {shown(value)}")
        try:
            found = cls.parse(value)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None
        if found.column is not None:
            raise ConfigError(f"{name} must not name a slice, got {shown(value)}; {_EXPECTED}")
        if found.part not in _STOPS:
            raise ConfigError(f"{name} must compare a standard error or an interval, got {shown(value)}; {_EXPECTED}")
        if found.sign not in (_STOPS[found.part], f"{_STOPS[found.part]}="):
            raise ConfigError(
                f"{name} must compare {found.part} with {_STOPS[found.part]}, got {shown(value)}; more rows make the "
                "interval narrower"
            )
        if found.part in ("stderr", "width") and not found.bound > 0.0:
            raise ConfigError(f"{name} must have a bound above 0, got {shown(value)}")
        return found


def stop_condition(name: str, value: Any) -> str:
    """Check the condition at which a run stops."""
    return StopCondition.of(name, value).text
