"""A fitted temperature as an option: that of all rows, or one for each slice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastxent.errors import ConfigError
from fastxent.options.checks import listed
from fastxent.results.temperature import TemperatureValues
from fastxent.state.keys import key_of


def whole_temperature(value: Any) -> float:
    """Return a temperature for all rows: the number, or that of a fit."""
    if not isinstance(value, TemperatureValues):
        return float(value)
    if value.note is not None or not value.temperature.value > 0.0:
        raise ConfigError(f"temperature must be a fit with a temperature, got one without: {value.note or 'it is NaN'}")
    return value.temperature.value


def tempered(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `EvalConfig` about the temperature.

    A fit by a column of ``by`` has temperatures of its values. A value without one has the temperature of all rows.
    """
    value = options["temperature"]
    found: dict[str, Any] = {"temperature": whole_temperature(value)}
    if not isinstance(value, TemperatureValues):
        return found
    by = () if options["by"] is None else listed(options["by"])
    columns = [name for name in by if name in value.slices]
    if not columns:
        return found
    if len(columns) > 1:
        raise ConfigError(
            f"temperature must be fitted by one column of by, got {', '.join(map(repr, columns))}; omit one of them"
        )
    each = {key_of(key): part.temperature.value for key, part in value.slices[columns[0]].items()}
    each = {key: t for key, t in sorted(each.items()) if t > 0.0 and math.isfinite(t)}
    return found | {
        "temperature_by": columns[0], "temperature_keys": tuple(each), "temperature_values": tuple(each.values())
    }  # fmt: skip
