"""The values of a comparison from its JSON, checked: the inverse of `CompareValues.to_dict`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from fastxent.errors import StateError
from fastxent.options.config import EvalConfig
from fastxent.options.typed import check
from fastxent.results.comparison import DIVERGENCE_TITLES, QUANTILES, SCHEMA, Compared, CompareValues
from fastxent.results.encoding import float_in, plain
from fastxent.results.values import Metric, RowCounts, labels, metrics_in

Result = TypeVar("Result", bound=CompareValues)


def from_dict(kind: type[Result], values: Any) -> Result:
    """Return the comparison with these values.

    Raises:
        StateError: if the values are not those of a comparison.
    """
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise StateError(f"cannot read the comparison: its schema is not {SCHEMA!r}")
    try:
        slices = {
            column: {entry["value"]: _compared(entry) for entry in entries.values()}
            for column, entries in values["slices"].items()
        }
        hints = _hints(CompareValues)
        given = {name: _in(hints[name], values[name]) for name in ("largest", "names", "files", "warnings")}
        found = kind(
            **vars(_compared(values)), **given, slices=slices, config=EvalConfig.from_dict(values["config"]),
            clusters=values["clusters"], timing=values["timing"], versions=values["versions"],
            score_rows={name: RowCounts(**rows) for name, rows in values.get("scores", {}).items()},
        )  # fmt: skip
        check(found, kind, "")
        _check_shape(found)
        plain(found.timing)  # not nested too deeply
        for column, entries in values["slices"].items():
            if len(slices[column]) < len(entries):
                raise ValueError(f"the slices of {column} must have different values")
    except KeyError as error:
        raise StateError(f"cannot read the comparison: it lacks {error}") from None
    except (TypeError, AttributeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise StateError(f"cannot read the comparison: {error}") from None
    return found


def _compared(values: Any) -> Compared:
    """Return the fields of all rows, or of a slice."""
    return Compared(**{name: _in(hint, values[name]) for name, hint in _hints(Compared).items()})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _in(kind: Any, value: Any) -> Any:
    """Return a value of an annotated type from its JSON-ready form. `check` finds values of other types later."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is float:
        return float_in(value)
    if kind is Metric:
        return metrics_in({"": value})[""]
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{name: _in(hints[name], item) for name, item in value.items()})
    if origin is UnionType:
        return None if value is None else _in(inner[0], value)
    if origin is dict:
        return {float(key) if inner[0] is float else key: _in(inner[1], item) for key, item in value.items()}
    if origin is tuple and isinstance(value, list):
        kinds = inner[:1] * len(value) if inner[1:] == (...,) else inner
        if len(kinds) != len(value):
            return tuple(value)
        return tuple(_in(k, item) for k, item in zip(kinds, value, strict=True))
    return value


def _check_shape(result: CompareValues) -> None:
    """Refuse counts that contradict each other, and other names than those that the text of a comparison needs."""
    named: list[tuple[str, Compared]] = [("", result)]
    for column, parts in result.slices.items():
        named += [(f"slices.{column}.{label}.", p) for label, p in zip(labels(parts), parts.values(), strict=True)]
    scores = [(f"scores.{name}", rows) for name, rows in result.score_rows.items()]
    for where, rows in [*((f"{where}rows", part.rows) for where, part in named), *scores]:
        if min(asdict(rows).values()) < 0 or rows.total != rows.used + rows.ignored + rows.bad:
            raise ValueError(f"{where} must add up, got {rows}")
    for where, part in named:
        found = {"": part.flips, **{f"metrics.{name}.": metric.flips for name, metric in part.metrics.items()}}
        for of, flips in found.items():
            if (
                flips is not None
                and min(flips.both_right, flips.both_wrong, flips.right_to_wrong, flips.wrong_to_right) < 0
            ):
                raise ValueError(f"{where}{of}flips must not be negative, got {flips}")
        _check_names(f"{where}divergences", part.divergences, list(DIVERGENCE_TITLES) if result.divergences else [])
        if (part.same_top_1 is None) == bool(result.divergences):
            raise ValueError(f"{where}same_top_1 must be an object with divergences, and null without")
        _check_names(f"{where}metrics", part.metrics, list(result.metrics))
    for name, divergence in result.divergences.items():
        _check_names(f"divergences.{name}.quantiles", divergence.quantiles, list(QUANTILES))
    target = result.target_probability
    if target is not None:
        edges, counted = target.histogram
        if (edges or counted) and (  # neither of a top-k dump
            len(edges) != len(counted) + 1 or min(counted, default=0) < 0 or list(edges) != sorted(edges)
        ):
            raise ValueError("target_probability.histogram must have ascending edges, one more than counts")


def _check_names(where: str, found: Mapping[Any, Any], names: list[Any]) -> None:
    if list(found) != names:
        expected, got = (", ".join(map(str, each)) or "none" for each in (names, found))
        raise ValueError(f"{where} must be of {expected}, got {got}")
