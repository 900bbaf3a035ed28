"""How many slices there may be, and what a saved state may hold: bounds on memory."""

from __future__ import annotations

from typing import Any

from fastxent.errors import ConfigError
from fastxent.options.checks import whole_number
from fastxent.options.config import MOST_BINS
from fastxent.options.runs import MOST_WORST
from fastxent.state.component import Component
from fastxent.state.keys import value_of

MAX_SLICES = 10_000
_MOST_PAIRS, _FEWEST_SLICES = 1 << 15, 16  # of a slice and a label: each has sums and cells; slices always allowed
_BIN_BYTES = 160  # of a calibration bin in a saved state
_LABEL_BYTES = 400  # and of a label


def check_slices(name: str, count: int, labels: int | None) -> None:
    """Raise ConfigError if a column has too many slices.

    labels: int or None. The number of labels, if slices have sums of each.
    """
    most, what = MAX_SLICES, ""
    if labels is not None:
        most = min(most, max(_FEWEST_SLICES, _MOST_PAIRS // labels))
        what = f", which is the most for macro metrics of {labels} labels"
    if count > most:
        raise ConfigError(
            f"by must name columns with few values, got {name!r} with more than {most} distinct values{what}; if "
            f"rows with the same value depend on each other, use cluster={name!r} instead"
        )


def room(header: dict[str, Any]) -> int:
    """Bytes that calibration bins and labels of a state may take, most of which are empty and compress to nothing."""
    config, slices = header["config"], header["slices"]
    groups = min(1 + sum(len(keys) for keys in slices.values()), 1 + MAX_SLICES * len(slices))
    bins = groups * (min(config["bins"], MOST_BINS) + len(config.get("scores", ()))) * _BIN_BYTES
    if config.get("task") != "multilabel":
        return int(bins)
    pairs = groups * config["n_classes"]
    return int(2 * bins + min(pairs, config["n_classes"] + len(slices) * _MOST_PAIRS) * _LABEL_BYTES)


def worst_of(header: dict[str, Any]) -> int:
    """The number of rows of largest loss that a saved state keeps."""
    return whole_number("worst", header.get("worst", 0), low=0, high=MOST_WORST)


def id_of(header: dict[str, Any]) -> str | None:
    """The column of row names of a saved state."""
    found = header.get("id")
    if not (found is None or isinstance(found, str)):
        raise ValueError("an id that is not the name of a column")
    return found


def texts(keys: Any) -> list[str]:
    if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        raise ValueError("keys that are not text")
    return keys


def values(keys: Any) -> list[str]:
    """Keys of slices, each of which has a value."""
    if len(keys) > MAX_SLICES:
        raise ValueError("too many slices")
    for key in texts(keys):
        value_of(key)
    return list(keys)


def uncounted(confusion: Component | None) -> list[str]:
    """A warning if some rows come from where confused classes were not counted."""
    if getattr(confusion, "known", True):
        return []
    return [
        "some rows come from a state of an earlier version, which did not count confused classes; evaluate them "
        "again for the confusion"
    ]
