"""A job: a source that has been opened, and what is to be computed from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from fastxent.errors import ColumnError, ConfigError
from fastxent.io.layout import all_names, find_field
from fastxent.io.source import OpenSource, open_source
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.options.checks import shown
from fastxent.options.config import EvalConfig, listed
from fastxent.options.declared import DEFAULTS, Names, Options
from fastxent.scoring.scorer import Scorer
from fastxent.state.metrics import UNLABELLED


def names(value: Names, option: str = "by") -> tuple[str, ...]:
    """One name or several, as a tuple."""
    found = () if value is None else listed(value)
    for name in found:
        if not isinstance(name, str):
            raise ConfigError(f"{option} must be a column name or a list of them, got {shown(name)}")
    return found


@dataclass(frozen=True)
class Task:
    """What a worker must know beside the rows it reads."""

    config: EvalConfig
    dtype: str  # of the logits
    soft: bool  # targets of some file are probabilities

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of logits in memory."""
        return self.config.n_classes * FLOAT_TYPES[self.dtype].width


@dataclass
class Job:
    """An opened source and the configuration it is evaluated under."""

    source: OpenSource
    config: EvalConfig

    @classmethod
    def open(cls, source: Any, options: Options, *, columns: Iterable[str] = (), unlabelled: bool = False) -> Job:
        """Open ``source`` for the options of `evaluate`; ``columns`` are read besides.

        Where there is no column of the default name "target", metrics that need none are computed without it;
        ``unlabelled``: so is "all", which then means those.
        """
        values: dict[str, Any] = {**options}
        dtype = values.pop("logits_dtype")
        values["by"] = names(values["by"])
        probe = EvalConfig(**{**values, "n_classes": 1, "class_weight": None, "class_mask": None, "classes": None})
        beside = [*Scorer.columns(replace(probe, target=None, metrics=("all",))), *columns]
        optional = DEFAULTS["target"] if probe.target == DEFAULTS["target"] not in beside else None
        classes = None if values["classes"] is None else listed(values["classes"])
        wanted = [*Scorer.columns(probe), *columns]
        opened = open_source(
            source, logits=probe.logits, columns=wanted, dtype=dtype, classes=classes, optional=optional
        )
        part, reader = opened.parts[0]
        if optional is not None and optional not in reader.columns:
            if not (set(probe.metrics) <= {*UNLABELLED, *(["all"] if unlabelled else [])}):
                missing = ColumnError.missing(optional, all_names(opened.schema), part.name)
                raise ColumnError(f"{missing}; without a target there are only the metrics {', '.join(UNLABELLED)}")
            values["target"] = None
        return cls(opened, EvalConfig(**{**values, "n_classes": opened.n_classes}))

    @property
    def task(self) -> Task:
        """What scoring the source's rows takes."""
        from fastxent.io.columns import is_soft
        from fastxent.io.values import plain_type

        target = self.config.target
        found = [find_field(part.schema, target) for part, _ in self.source.parts if target is not None]
        soft = any(field is not None and is_soft(plain_type(field.type)) for field in found)
        return Task(self.config, self.source.dtype, soft)
