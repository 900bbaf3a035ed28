"""A job: a source that has been opened, and what is to be computed from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastxent.config import EvalConfig
from fastxent.io.layout import find_field
from fastxent.io.source import OpenSource, open_source
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.options import Names, Options
from fastxent.score import Scorer


def names(value: Names) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


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
    def open(cls, source: Any, options: Options, *, columns: Iterable[str] = ()) -> Job:
        """Open ``source`` for the options of `evaluate`; ``columns`` are read besides."""
        values: dict[str, Any] = {**options}
        dtype = values.pop("logits_dtype")
        logits = values["logits"]
        values["logits"] = logits if isinstance(logits, str) else tuple(logits)
        for name in ("by", "metrics"):
            values[name] = names(values[name])
        for name in ("top_k", "class_weight", "class_mask", "classes"):
            if values[name] is not None:
                values[name] = tuple(values[name] if name == "classes" else np.atleast_1d(values[name]).tolist())
        probe = EvalConfig(**{**values, "n_classes": 1, "class_weight": None, "class_mask": None, "classes": None})
        wanted = [*Scorer.columns(probe), *columns]
        opened = open_source(source, logits=logits, columns=wanted, dtype=dtype)
        return cls(opened, EvalConfig(**{**values, "n_classes": opened.n_classes}))

    @property
    def task(self) -> Task:
        """What scoring the source's rows takes."""
        from fastxent.io.columns import is_soft

        found = [find_field(part.schema, self.config.target) for part, _ in self.source.parts]
        return Task(self.config, self.source.dtype, any(field is not None and is_soft(field.type) for field in found))
