"""Rows of dumps matched by ids that do not fit in memory.

Rows are divided by a hash of their ids: each part of one dump is a temporary file, and an id of it can only be in the
same part of another dump. The parts are then matched one after the other, within memory. What stays in memory are the
numbers of rows.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fastxent.errors import OutputError, SourceError
from fastxent.io.layout import find_field
from fastxent.io.source import OpenSource
from fastxent.io.storage.temporary import temporary_folder
from fastxent.state.keys import EncodedColumn
from fastxent.verbs.matching import (
    Matching,
    Pairs,
    batches_of,
    check_kinds,
    matching_of,
    no_rows,
    null_ids,
    pairs_of,
    shown_id,
    too_many_ids,
    twice_error,
)  # fmt: skip

_PARTS = 64
_ROW = "row"  # the column of row numbers in a part; ids are named by their number
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio


def match_spilled(sides: Sequence[OpenSource], names: Sequence[str], memory: int, *, inner: bool) -> list[Matching]:
    """Match the first dump with each other, as `matching.match` does, through a temporary folder (TMPDIR)."""
    whole = [all(_is_whole(side, name) for side in sides) for name in names]
    with temporary_folder() as folder:
        try:
            parts = [_Parts.write(os.path.join(folder, str(k)), side, names, whole) for k, side in enumerate(sides)]
        except OSError as error:
            raise OutputError(
                f"cannot put ids in the temporary folder {folder}: {error.strerror}; set TMPDIR to a folder with more "
                "room, or raise memory (--memory)"
            ) from error
        return [_matched(parts[0], other, memory, inner=inner) for other in parts[1:]]


def _matched(first: _Parts, other: _Parts, memory: int, *, inner: bool) -> Matching:
    both = first, other
    check_kinds((first.some, other.some), (first.file, other.file))
    partner = no_rows(first.rows, most=other.rows)
    twice = [(0, -1), (0, -1)]  # rows whose id an earlier row has, and the first of them
    for k in range(_PARTS):
        tables = [side.read(k) for side in both]
        if sum(table.nbytes for table in tables) > memory:
            raise too_many_ids(first.file)
        rows = [table[_ROW].to_numpy() for table in tables]
        ids = [table.drop_columns(_ROW) for table in tables]
        pairs: Pairs = pairs_of((ids[0], ids[1]))
        for number, (count, row) in enumerate(pairs.twice):
            if count:
                here, (before, least) = int(rows[number][row]), twice[number]
                twice[number] = before + count, here if least < 0 else min(least, here)
        partner[rows[0][pairs.rows[0]]] = rows[1][pairs.rows[1]]
    for side, (count, row) in zip(both, twice, strict=True):
        if count:
            raise twice_error(side.file, count, row, side.shown(row))
    return matching_of(partner, other.rows, (first.file, other.file), (first.shown, other.shown), inner=inner)


class _Parts:
    """The ids of a dump, divided over files of a folder.

    some: the ids of its first rows.
    """

    def __init__(self, folder: str, source: OpenSource, names: Sequence[str]) -> None:
        self.file, self.rows = source.files[0], 0
        self.some = pa.table({name: pa.nulls(0) for name in names})
        self._folder, self._source, self._names = folder, source, names

    @classmethod
    def write(cls, folder: str, source: OpenSource, names: Sequence[str], whole: Sequence[bool]) -> _Parts:
        """Divide the ids of a dump. whole: which of the columns ``names`` hold integers in every dump."""
        found, columns = cls(folder, source, names), [str(k) for k in range(len(names))]
        kinds = [pa.int64() if each else pa.large_string() for each in whole]
        schema = pa.schema([(_ROW, pa.int64()), *zip(columns, kinds, strict=True)])
        os.mkdir(folder)
        nulls: tuple[str, int, int] | None = None
        with ExitStack() as stack:
            files = [
                stack.enter_context(pa.ipc.new_file(stack.enter_context(pa.OSFile(found._path(k), "wb")), schema))
                for k in range(_PARTS)
            ]
            for table in batches_of(source, names):
                if not found.rows:
                    found.some = table.slice(0, 1)
                for name in names:
                    if (count := table[name].null_count) and (nulls is None or nulls[0] == name):
                        row = found.rows + pc.index(table[name].is_null(), True).as_py()
                        nulls = (name, count, row) if nulls is None else (name, nulls[1] + count, nulls[2])
                if nulls is None:
                    found._divide(table, whole, files, schema)
                found.rows += len(table)
        if nulls is not None:
            raise null_ids(found.file, *nulls)
        return found

    def _divide(
        self, table: pa.Table, whole: Sequence[bool], files: list[pa.RecordBatchWriter], schema: pa.Schema
    ) -> None:
        hashes, columns = np.zeros(len(table), np.uint64), []
        for name, is_whole in zip(self._names, whole, strict=True):
            column = table[name].combine_chunks()
            if is_whole:
                column = column.cast(pa.int64())
                found = column.to_numpy(zero_copy_only=False).view(np.uint64)
            else:
                encoded = EncodedColumn.of(column, name)
                sums = np.array([zlib.crc32(key.encode()) for key in encoded.keys], np.uint64)
                found = sums[encoded.index] if len(encoded.keys) else np.zeros(0, np.uint64)
                column = pa.array(encoded.keys, pa.large_string()).take(pa.array(encoded.index))
            hashes = (hashes ^ found) * _ODD
            hashes ^= hashes >> np.uint64(29)
            columns.append(column)
        part = (hashes * _ODD >> np.uint64(58)).astype(np.int64)
        order = np.argsort(part, kind="stable")
        rows = pa.array(self.rows + np.arange(len(table)))
        batch = pa.record_batch([rows, *columns], schema=schema).take(pa.array(order))
        edges = np.searchsorted(part[order], np.arange(_PARTS + 1)).tolist()
        for file, begin, end in zip(files, edges, edges[1:], strict=False):
            if end > begin:
                file.write_batch(batch.slice(begin, end - begin))

    def _path(self, part: int) -> str:
        return os.path.join(self._folder, str(part))

    def read(self, part: int) -> pa.Table:
        """The rows of a part, in the order of the dump."""
        with pa.OSFile(self._path(part), "rb") as file:
            return pa.ipc.open_file(file).read_all()

    def shown(self, row: int) -> str:
        """The id of a row, as errors have it. The dump is read once more."""
        begin = 0
        for table in batches_of(self._source, self._names):
            if row < begin + len(table):
                return shown_id(table, row - begin)
            begin += len(table)
        raise SourceError(f"cannot read {self.file} twice: it had {self.rows} ids, then {begin} rows")


def _is_whole(side: OpenSource, name: str) -> bool:
    """Whether a column holds integers in all files, so that none is compared as text."""
    fields = [find_field(part.schema, name) for part, _ in side.filled]
    return all(field is not None and pt.is_integer(field.type) and field.type != pa.uint64() for field in fields)
