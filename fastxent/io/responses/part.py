"""A file of responses as a part of a source: each line is a response, and each of its tokens is a row.

A unit is some consecutive lines, and how many rows it has is known once it is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from fastxent.errors import SourceError, Where
from fastxent.io.batch import Batch, even
from fastxent.io.json_lines import JsonLinesPart, LaidOut, lines_of, type_of
from fastxent.io.layout import Layout, RowReader
from fastxent.io.responses.forms import Form, find_form, inside
from fastxent.io.responses.lines import columns_of
from fastxent.io.responses.rows import table_of
from fastxent.io.storage.files import File
from fastxent.io.storage.identity import Version, unchanged
from fastxent.io.storage.stored import StoredBytes

_BATCH_ROWS = 1 << 15  # which take less memory than the text they were read from
_SEEN_BYTES = 64 << 10  # a line of a response is long, and the columns of all lines are mostly those of the first


@dataclass(frozen=True)
class ResponsesUnit:
    """Consecutive lines of a file. Picklable."""

    file: File
    reader: RowReader
    where: Where  # the first line
    lines: int
    begin: int  # bytes of the file
    end: int
    form: Form
    beside: tuple[pa.Field, ...]  # what is read of a line beside its tokens
    laid_out: LaidOut
    first: int  # number of responses before the file
    version: Version | None = field(default=None, compare=False)

    rows = None  # known once they are parsed
    nbytes = None

    def __getstate__(self) -> dict[str, object]:  # elsewhere the same file was written at another time
        return {**self.__dict__, "version": None}

    def read(self, rows: int, part_bytes: int, whole: bool) -> Iterator[Batch]:
        with unchanged(self.file, self.version), closing(StoredBytes(self.file)) as source:
            columns = self._columns(
                lines_of(source.read(self.begin, self.end - self.begin), self.laid_out, self.file.name)
            )
        request, position = (np.asarray(columns[name]) for name in ("request", "position"))
        columns["request"] = pa.array(request + self.first)
        batch = pa.record_batch(columns)
        step = even(len(batch), min(rows, max(_BATCH_ROWS, self.reader.rows_in(part_bytes))))
        for at in range(0, len(batch), step):
            places = request[at : at + step].tolist(), position[at : at + step].tolist()
            where = Where(self.file.name, None, int(request[at]), places)
            yield self.reader.batch(batch.slice(at, step), where)

    def _columns(self, data: np.ndarray) -> dict[str, pa.Array]:
        """The columns of all tokens of the lines ``data``."""
        first = self.where.first_row
        columns, end = columns_of(data, self.form, first, self.reader.stored, self._by_line)
        if end - first != self.lines:
            raise SourceError(f"{self._place()}: there are {end - first} objects in them; write one object per line")
        table = self._parsed(data) if self.beside else None
        line = pa.array(np.asarray(columns["request"]) - first)
        for column in self.beside:
            assert table is not None
            columns.setdefault(column.name, table.column(column.name).take(line))
        return columns

    def _parsed(self, data: np.ndarray) -> pa.RecordBatch:
        """The columns beside the tokens, a row for each line."""
        from pyarrow import json as pj

        try:
            table = pj.read_json(
                pa.BufferReader(pa.py_buffer(data)),
                read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=pj.ParseOptions(pa.schema(self.beside), unexpected_field_behavior="ignore"),
            )
        except (pa.ArrowException, OSError) as error:
            detail = " ".join(str(error).split())
            rule = f"; all lines must be responses of {self.form.name}" if re.search("changed|convert", detail) else ""
            raise SourceError(f"{self._place()}: {detail}{rule}") from None
        if len(table) != self.lines:
            raise SourceError(f"{self._place()}: there are {len(table)} objects in them; write one object per line")
        return table.combine_chunks().to_batches()[0]

    def _by_line(self, line: bytes, number: int) -> dict[str, pa.Array] | None:
        """The columns of the tokens of a line, as Python reads it; None if it is blank."""
        if not line or line.isspace():
            return None
        try:
            tokens = list(self.form.of_line(line, number))
        except (ValueError, RecursionError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
            raise SourceError(f"cannot read {self.file.name}, line {number + 1}: {why}") from None
        try:
            return table_of(tokens, self.form.numbered)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            detail = " ".join(str(error).split())
            raise SourceError(
                f"cannot read {self.file.name}, line {number + 1}: {detail}; "
                f"all lines must be responses of {self.form.name}"
            ) from None

    def _place(self) -> str:
        first = self.where.first_row
        return f"cannot read {self.file.name}, lines {first + 1}..{first + self.lines}"


def _notes(form: Form, seen: list[Any], name: str) -> tuple[str, ...]:
    """A warning about log-probabilities that are not read: those of a server whose prompts are."""
    found = [response for value in seen if (response := inside(value, form.wrapper)) is not None]
    lists = (response.get("choices") for response in found)
    choices = [choice for held in lists if isinstance(held, list) for choice in held]
    if form.name == "vLLM" and any(isinstance(choice, dict) and choice.get("logprobs") for choice in choices):
        return (f"{name}: prompt_logprobs are read, and the logprobs of choices are not",)
    return ()


class ResponsesPart(JsonLinesPart):
    """A file of responses. Opening it reads the file once, to count its lines."""

    def __init__(self, file: File) -> None:
        super().__init__(file)
        self.form: Form | None = find_form(self.seen)
        if self.form is None:
            self.seen = []
            return
        kind = type_of("", self.seen, lists=False)
        self.notes = _notes(self.form, self.seen, self.name)
        self.seen = []
        self.format = f"responses ({self.form.name})"
        self.refused = {}
        tokens = self.form.fields
        taken = {column.name for column in tokens} | {*self.form.wrapper[:1]}
        self._beside = [column for column in kind or () if column.name not in taken]
        self.schema = pa.schema([*tokens, *self._beside])
        self.lines, self.rows = self.rows or 0, None if self.rows else 0

    def _enough(self, found: list[Any], size: int) -> bool:
        if len(found) == 1:
            self._long = find_form(found) is not None
        return super()._enough(found, size) or (bool(found) and self._long and size > _SEEN_BYTES)

    def width(self, layout: Layout, expected: int | None) -> int | None:
        """None for responses: rows list some classes."""
        return super().width(layout, expected) if self.form is None else None

    def units(self, reader: RowReader) -> Iterator[ResponsesUnit]:  # type: ignore[override]
        if self.form is None:
            yield from super().units(reader)  # type: ignore[misc]
            return
        roots = {name if self.schema.get_field_index(name) >= 0 else name.partition(".")[0] for name in reader.stored}
        beside = tuple(column for column in self._beside if column.name in roots)
        line = 0
        for begin, end, lines in self._pieces:
            where = Where(self.name, None, line)
            unit = (self.file, reader, where, lines, begin, end, self.form, beside, self.laid_out, self.first)
            yield ResponsesUnit(*unit, self._version)
            line += lines
