"""The options of an evaluation that can change a figure: one frozen value, shared by every part."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

from fastxent.errors import ConfigError
from fastxent.options.checks import real_number, shown, whole_number
from fastxent.options.typed import check

MOST_BINS = 10_000  # in each of as many slices they take some GB; narrower ones have too few rows to tell anything
INPUTS = ("logits", "log_probs", "probs")
_CLIP = "be a number of at least 0 and below 0.5"
_LEAST, _MOST = -(2**63), 2**63 - 1  # of ignore_index


@dataclass(frozen=True)
class EvalConfig:
    """How rows are scored and grouped. Two states merge only if these are equal.

    Column names are those of the source. ``class_weight`` and ``class_mask`` have one entry a class
    (mask: True keeps the class); ``classes`` are the class names, for string targets and for display.
    """

    n_classes: int
    logits: str | tuple[str, ...] = "logits"
    target: str | None = "target"  # None: rows without labels
    input: str = "logits"  # "logits" | "log_probs" | "probs"
    metrics: tuple[str, ...] = ("all",)
    by: tuple[str, ...] = ()
    cluster: str | None = None
    weight: str | None = None
    n_bytes: str | None = None
    where: str | None = None
    ignore_index: int = -100
    label_smoothing: float = 0.0
    class_weight: tuple[float, ...] | None = None
    class_mask: tuple[bool, ...] | None = None
    temperature: float = 1.0
    softcap: float | None = None
    clip_eps: float | None = None
    top_k: tuple[int, ...] = (1, 5)
    bins: int = 15
    on_bad_row: str = "error"
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        smoothing, temperature, softcap = check_loss_options(self.label_smoothing, self.temperature, self.softcap)
        clip, weights, mask, classes = self.clip_eps, self.class_weight, self.class_mask, self.classes
        several = self.logits if isinstance(self.logits, str) else listed(self.logits)
        checked: dict[str, Any] = {
            "n_classes": whole_number("n_classes", self.n_classes, "be an integer of at least 1", low=1),
            "logits": several,
            "by": listed(self.by),
            "metrics": listed(self.metrics),
            "ignore_index": whole_number("ignore_index", self.ignore_index, "be an integer", low=_LEAST, high=_MOST),
            "label_smoothing": smoothing,
            "temperature": temperature,
            "softcap": softcap,
            "clip_eps": None if clip is None else real_number("clip_eps", clip, _CLIP, low=0.0, below=0.5),
            "bins": whole_number("bins", self.bins, f"be an integer from 1 to {MOST_BINS}", low=1, high=MOST_BINS),
            "top_k": tuple(whole_number("top_k", k, "hold integers of at least 1", low=1) for k in listed(self.top_k)),
            "class_weight": None if weights is None else _weights(listed(weights)),
            "class_mask": None if mask is None else _mask(listed(mask)),
            "classes": None if classes is None else _class_names(listed(classes)),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # a NumPy number is the Python number that it equals
        self._check_names()
        for name, choices in {"input": INPUTS, "on_bad_row": ("error", "skip")}.items():
            if (value := getattr(self, name)) not in choices:
                raise ConfigError(f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}")
        for name in ("class_weight", "class_mask", "classes"):
            value = getattr(self, name)
            if value is not None and len(value) != self.n_classes:
                raise ConfigError(f"{name} must have {self.n_classes} entries, one per class, got {len(value)}")

    def _check_names(self) -> None:
        for name in ("target", "cluster", "weight", "n_bytes", "where"):
            value = getattr(self, name)
            if not (value is None or isinstance(value, str)):
                what = "an expression" if name == "where" else "a column name"
                raise ConfigError(f"{name} must be {what}, got {shown(value)}")
        for name in ("logits", "by", "metrics"):
            value = getattr(self, name)
            for item in (value,) if isinstance(value, str) else value:
                if not isinstance(item, str):
                    what = "names of metrics" if name == "metrics" else "a column name or a list of them"
                    raise ConfigError(f"{name} must be {what}, got {shown(item)}")
        for name in ("metrics", "top_k"):
            if not getattr(self, name):
                raise ConfigError(f"{name} must have at least one entry, got none")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values, tuples as lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EvalConfig:
        """The inverse of `to_dict`."""
        names = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            raise ConfigError(f"unknown option {unknown[0]!r}")
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        hints = get_type_hints(cls)
        for name, value in options.items():
            check(value, hints[name], name)
        return cls(**options)


def check_path(name: str, value: Any) -> None:
    """Refuse what is not a path."""
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name} must be a path, got {shown(value)}")


def listed(value: Any) -> tuple[Any, ...]:
    """One entry, or the entries of any sequence or array."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else (value,)


def _weights(values: tuple[Any, ...]) -> tuple[float, ...]:
    """Class weights as floats, none of them negative, infinite or NaN."""
    import numpy as np

    with contextlib.suppress(ValueError):  # lists of differing lengths
        array = np.asarray(values)
        if array.ndim == 1 and array.dtype.kind in "iuf" and (np.isfinite(array) & (array >= 0)).all():
            return tuple(array.astype(np.float64).tolist())
    rule = "hold finite numbers of at least 0, one per class"
    for value in values:
        real_number("class_weight", value, rule, low=0.0)
    raise ConfigError(f"class_weight must {rule}, got {shown(values)}")


def _mask(values: tuple[Any, ...]) -> tuple[bool, ...]:
    for value in values:
        if not (isinstance(value, int | float) and value in (0, 1)):
            raise ConfigError(f"class_mask must hold True or False, one per class, got {shown(value)}")
    return tuple(map(bool, values))


def _class_names(values: tuple[Any, ...]) -> tuple[str, ...]:
    places: dict[str, int] = {}
    for place, value in enumerate(values):
        if not isinstance(value, str):
            raise ConfigError(f"classes must be a list of strings, got {shown(value)}")
        if places.setdefault(value, place) != place:
            raise ConfigError(
                f"classes must differ, got {shown(value)} for classes {places[value]} and {place}; rename one of them"
            )
    return tuple(map(str, values))


def check_loss_options(label_smoothing: Any, temperature: Any, softcap: Any) -> tuple[float, float, float | None]:
    """The loss options as floats; ConfigError where one is not a number or is outside its range."""
    return (
        real_number("label_smoothing", label_smoothing, "be a number from 0 to 1", low=0.0, high=1.0),
        real_number("temperature", temperature, "be a finite number above 0", above=0.0),
        None if softcap is None else real_number("softcap", softcap, "be a finite number above 0 or None", above=0.0),
    )
