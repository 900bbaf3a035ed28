"""Frames of other libraries, read through their Arrow stream, and advice for objects without one."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from fastxent.errors import ColumnError, FastxentError, SourceError
from fastxent.io.arrow.part import StreamPart, TablePart

_COLUMNS = "pass a dict of columns, such as {'logits': logits, 'target': target}"


def advice(source: Any) -> str | None:
    """Advice what to pass instead of an object whose rows cannot be read; None for other objects."""
    library, kind = type(source).__module__.partition(".")[0], type(source).__name__
    if kind == "LazyFrame":
        return "call .collect() on it"
    if library == "datasets" and isinstance(source, Mapping):
        return "pass one of its splits, as dataset['test'].with_format('arrow')[:]"
    if library == "datasets":
        return "pass dataset.with_format('arrow')[:]"
    if isinstance(source, list | tuple):
        rows = all(isinstance(item, Mapping) for item in source) and any(
            isinstance(value, int | float | str) for value in source[0].values()
        )
        if rows:
            return "pass pyarrow.Table.from_pylist(rows) for a list of rows"
        return _COLUMNS if any(isinstance(item, int | float | list | tuple) for item in source) else None
    if isinstance(source, np.ndarray | pa.Array | pa.ChunkedArray) or kind in ("Tensor", "Series", "Array"):
        return _COLUMNS
    return None


def stream_part(source: Any, named: Sequence[str]) -> StreamPart | TablePart:
    """A frame as a stream. If some of its columns cannot become Arrow's, those that can, unless they are ``named``."""
    name = f"<{type(source).__name__}>"
    try:
        return StreamPart(lambda: pa.RecordBatchReader.from_stream(source), name)
    except (SourceError, TypeError) as error:
        failure = " ".join(str(error).split())
    columns: dict[str, pa.ChunkedArray] = {}
    refused: dict[str, FastxentError] = {}
    for column, one in _single_columns(source):
        if column in columns or column in refused:
            columns.pop(column, None)
            refused[column] = ColumnError(
                f"columns of {name} must have different names, got {column!r} twice; rename one"
            )
            continue
        try:
            columns[column] = pa.table(one()).column(column)
        except (pa.ArrowException, TypeError, ValueError, NotImplementedError, KeyError) as error:
            detail = " ".join(str(error).split())
            refused[column] = ColumnError(f"cannot convert column {column!r} of {name} to Arrow: {detail}")
    for column, why in refused.items():
        if any(fnmatch.fnmatchcase(column, pattern) or column == pattern for pattern in named):
            raise ColumnError(str(why))
    if not columns:
        raise SourceError(failure)
    return TablePart(pa.table(columns), name, refused)


def _single_columns(source: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The name of each column of a pandas or polars frame, and what makes a frame of it alone."""
    for k, column in enumerate(getattr(source, "columns", ())):
        if hasattr(source, "iloc"):
            yield str(column), partial(_pandas_column, source, k)
        elif hasattr(source, "select"):
            yield str(column), partial(source.select, column)


def _pandas_column(frame: Any, k: int) -> pa.Table:
    return pa.Table.from_pandas(frame.iloc[:, [k]], preserve_index=False)
