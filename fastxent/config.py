"""The options of an evaluation that can change a figure: one frozen value, shared by every part."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

from fastxent.errors import ConfigError
from fastxent.typed import check

MOST_BINS = 10_000  # in each of as many slices they take some GB; narrower ones have too few rows to tell anything


@dataclass(frozen=True)
class EvalConfig:
    """How rows are scored and grouped. Two states merge only if these are equal.

    Column names are those of the source. ``class_weight`` and ``class_mask`` have one entry a class
    (mask: True keeps the class); ``classes`` are the class names, for string targets and for display.
    """

    n_classes: int
    logits: str | tuple[str, ...] = "logits"
    target: str = "target"
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
        check_loss_options(self.label_smoothing, self.temperature, self.softcap)
        if self.input not in ("logits", "log_probs", "probs"):
            raise ConfigError(f"input={self.input!r}; it is one of 'logits', 'log_probs', 'probs'")
        if self.on_bad_row not in ("error", "skip"):
            raise ConfigError(f"on_bad_row={self.on_bad_row!r}; it is 'error' or 'skip'")
        if self.bins < 1:
            raise ConfigError(f"bins={self.bins}; at least one calibration bin is needed")
        if self.bins > MOST_BINS:
            raise ConfigError(f"bins={self.bins}; at most {MOST_BINS} calibration bins are kept")
        if not self.top_k or min(self.top_k) < 1:
            raise ConfigError(f"top_k={self.top_k}; each k is at least 1")
        for name in ("class_weight", "class_mask", "classes"):
            value = getattr(self, name)
            if value is not None and len(value) != self.n_classes:
                raise ConfigError(f"{name} has {len(value)} entries; the logits have {self.n_classes} classes")

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


def check_loss_options(label_smoothing: float, temperature: float, softcap: float | None) -> None:
    """Refuse loss options outside their range."""
    if not 0.0 <= label_smoothing <= 1.0:
        raise ConfigError(f"label_smoothing={label_smoothing}; it lies between 0 and 1")
    if not (temperature > 0.0 and math.isfinite(temperature)):
        raise ConfigError(f"temperature={temperature}; it is a finite number above 0")
    if softcap is not None and not (softcap > 0.0 and math.isfinite(softcap)):
        raise ConfigError(f"softcap={softcap}; it is a finite number above 0, or None")
