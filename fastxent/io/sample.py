"""The first rows of a dump, for `fastxent inspect`: the kind of its scores, and the columns that make slices."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow.compute as pc

from fastxent.errors import FastxentError
from fastxent.io.batch import Batch
from fastxent.io.columns import is_soft
from fastxent.io.documents import Sequences
from fastxent.io.inspect import Candidate
from fastxent.io.labels import flags_of, ids_of
from fastxent.io.source import OpenSource, open_source
from fastxent.kernels.floats import widened

_ROWS, _BYTES = 10_000, 1 << 20
_SCORES = 128 << 10  # bytes of scores; a reader of remote files prefetches several times as much
_FEW, _MANY = 20, 1000  # slices
_IGNORED = -100  # the default ignore_index
_TOLERANCE = 1e-3  # of a sum of probabilities
_PROBS = r"(.*_)?(probs?|probabilit(y|ies)|softmax)([_\W].*)?"
_LOG_PROBS = r".*log_?prob.*"


def score_kind(source: Any, chosen: Candidate, labels: str | None = None) -> str:
    """What the scores are, as ``--input`` says it: the first rows decide; without any, the name does.

    labels: as `label_kind` gives it. Probabilities of labels have any sum.
    """
    named = re.fullmatch(_PROBS, chosen.name, re.IGNORECASE) and not re.fullmatch(_LOG_PROBS, chosen.name, re.I)
    try:
        with closing(_batches(_opened(source, chosen, ()), _SCORES)) as batches:  # type: ignore[type-var]
            held = next(batches).whole()
    except (FastxentError, StopIteration):
        return "probs" if named else "logits"
    values = widened(held.values[:_ROWS], held.dtype).astype(np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    if (chosen.task == "binary" or labels is not None) and len(values):
        return "probs" if values.min() >= 0.0 and values.max() <= 1.0 else "logits"
    if not len(values) or values.shape[1] < 2:
        return "probs" if named else "logits"
    if values.min() >= 0.0 and values.max() <= 1.0:
        return "probs" if named or _all_one(values.sum(axis=1)) else "logits"
    logs = values.max() <= 0.0 and re.fullmatch(_LOG_PROBS, chosen.name, re.IGNORECASE)
    return "log_probs" if logs and _all_one(np.exp(values).sum(axis=1)) else "logits"


def label_kind(source: Any, chosen: Candidate, target: str) -> str | None:
    """What lists of targets are in the first rows: "flags", one per class, of which not always one holds; "ids" of the
    classes that hold; or None if they are one-hot or probabilities that sum to 1, or no lists of numbers."""
    c = chosen.n_classes
    try:
        opened = _opened(source, chosen, (target,)).columns_only()
        with closing(_batches(opened, _BYTES)) as batches:  # type: ignore[type-var]
            column = next(batches).columns[target].slice(0, _ROWS)
        if chosen.task == "binary" or c is None or not is_soft(column.type):
            return None
        flags, wrong = flags_of(column, c, _IGNORED)
    except (FastxentError, StopIteration):
        return None
    if not wrong:
        return None if _all_one(np.nansum(flags, axis=1)) else "flags"
    try:
        return None if ids_of(column, c, _IGNORED, None)[1] else "ids"
    except FastxentError:
        return None


def slice_columns(source: Any, chosen: Candidate | None, names: Sequence[str], head: str | None = None) -> list[str]:
    """Return those of ``names`` with few values. A column of texts has another value in nearly every row.

    head: the column that tells a dump of documents, if there is one.
    """
    if not names:
        return []
    seen: dict[str, set[Any]] = {name: set() for name in names}
    rows = 0
    try:
        with closing(_batches(_opened(source, chosen, names, head).columns_only(), _BYTES)) as batches:  # type: ignore[type-var]
            for batch in batches:
                for name, values in seen.items():
                    values.update(pc.unique(batch.columns[name].slice(0, _ROWS)).to_pylist())
                rows += min(_ROWS, batch.rows)
                if rows >= _ROWS:
                    break
    except FastxentError:
        return list(names)
    return [name for name, values in seen.items() if len(values) <= max(_FEW, min(_MANY, rows // 2))]


def _opened(source: Any, chosen: Candidate | None, columns: Sequence[str], head: str | None = None) -> OpenSource:
    if chosen is None:
        return open_source(source, logits=None, columns=columns, sequences=Sequences(heads=((head or "", 1),)))
    return open_source(source, logits=chosen.name, columns=columns, dtype=None if chosen.dtype else "bfloat16")


def _batches(source: OpenSource, size: int) -> Iterator[Batch]:
    for unit in source.units():
        yield from (batch for batch in unit.read(_ROWS, size, whole=True) if batch.rows)


def _all_one(sums: np.ndarray) -> bool:
    return bool((np.abs(sums - 1.0) <= _TOLERANCE).all())
