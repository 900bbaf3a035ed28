"""The description of a column chunk for the native Parquet reader, and whether that reader supports it.

The numbers come from a footer that nobody vouches for: each is checked here or where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from fastxent.errors import SourceError
from fastxent.io.parquet.codecs import CODECS
from fastxent.io.parquet.footer import ChunkInfo
from fastxent.io.parquet.levels import Nesting
from fastxent.io.storage.local import Ranges
from fastxent.kernels.floats import FLOAT_TYPES

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_PHYSICAL = {"FLOAT": "float32", "DOUBLE": "float64"}
_ENCODINGS = {"PLAIN", "RLE", "RLE_DICTIONARY", "PLAIN_DICTIONARY", "BYTE_STREAM_SPLIT"}
# Numbers of flat columns: how each Arrow type is stored
_FLAT = {
    pa.int8(): "INT32", pa.int16(): "INT32", pa.int32(): "INT32", pa.int64(): "INT64",
    pa.uint8(): "INT32", pa.uint16(): "INT32", pa.uint32(): "INT32", pa.uint64(): "INT64",
    pa.float32(): "FLOAT", pa.float64(): "DOUBLE",
}  # fmt: skip
_WIDTHS = {"INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8}


@dataclass(frozen=True)
class LogitsChunk:
    """The logits of one row group, a run of its pages (`native.split`), or a column of numbers beside them.

    Plain values: picklable.
    """

    file: str
    row_group: int
    begin: int  # bytes of the file; a dictionary page comes first
    end: int
    pages_begin: int  # where to go on behind the dictionary page
    entries: int  # levels, which is values and nulls
    first_row: int  # within the row group
    rows: int
    codec: str | None
    n_classes: int
    dtype: str
    unit_bytes: int  # of one number as it is stored: bfloat16 in a list of uint16 takes 4
    max_rep: int  # 0: one entry a row, 1: one entry a logit
    max_def: int
    list_def: int  # definition level from which there is a list
    element_def: int  # and from which there is an element, null or not
    byte_array: bool = False
    first_page: int = 0
    page_index: tuple[int, int] | None = None  # offset and size in the file: `page_index.page_locations`
    column: str = ""  # the name of a column beside the logits

    @property
    def place(self) -> str:
        """What errors say of it."""
        column = f", column {self.column!r}" if self.column else ""
        return f"{self.file}, row group {self.row_group}{column}"

    @property
    def row_bytes(self) -> int:
        """Bytes of one row as stored."""
        return self.n_classes * self.unit_bytes

    @property
    def per_row(self) -> int:
        """Entries of a good row."""
        return self.n_classes if self.max_rep else 1

    @property
    def def_width(self) -> int:
        return self.max_def.bit_length()

    @property
    def nesting(self) -> Nesting:
        """What kernels must know of the levels."""
        return Nesting(self.n_classes, self.max_rep, self.def_width, self.max_def)


def plan(
    schema: pq.ParquetSchema,
    leaf_index: int,
    info: ChunkInfo,
    row_group: int,
    n_classes: int,
    dtype: str,
    source: Ranges,
) -> LogitsChunk | str:
    """How to read a leaf column of a row group as (rows, n_classes) logits of ``dtype``.

    ``info`` is what `footer.column_chunks` found of it in the file that ``source`` spans.
    A str says why the native reader cannot (pyarrow may); SourceError that the footer contradicts the file.
    """
    leaf, file, file_size = schema.column(leaf_index), source.name, source.end
    shape = _levels(_top_field(schema, leaf_index, file), leaf)
    if isinstance(shape, str):
        return shape
    list_def, element_def = shape
    is_list = leaf.max_repetition_level == 1

    unit, byte_array, element = FLOAT_TYPES[dtype].width, False, leaf.physical_type
    if element == "BYTE_ARRAY" and not is_list:
        byte_array = True
    elif element == "INT32" and dtype == "bfloat16" and is_list:
        unit = 4
    elif element == "FIXED_LEN_BYTE_ARRAY":
        if leaf.length != (unit if is_list else unit * n_classes):
            return f"fixed-size binary of {leaf.length} bytes"
    elif _PHYSICAL.get(element) != dtype or not (is_list or n_classes == 1):
        return f"{element} values as {dtype}"

    if reason := _unsupported(leaf, info):
        return reason
    begin, end = _span(info, file_size)
    entries, rows = info.entries, info.rows
    if entries == rows == 0:
        begin = end = 4  # writers of empty row groups leave any offset
    if not 4 <= begin <= end <= file_size - 8:
        raise SourceError(
            f"cannot read {file}, row group {row_group}: its logits should lie in bytes {begin} to {end} of a file of "
            f"{file_size} bytes; the file is incomplete or its footer is damaged"
        )
    if rows < 0 or entries < rows or (not is_list and entries != rows):
        raise SourceError(
            f"cannot read {file}, row group {row_group}: {entries} values in {rows} rows; the footer is damaged"
        )
    return LogitsChunk(
        file, row_group, begin, end, begin, entries, 0, rows, _codec(info), n_classes, dtype, unit,
        leaf.max_repetition_level, leaf.max_definition_level, list_def, element_def, byte_array,
        page_index=info.page_index,
    )  # fmt: skip


def flat(
    schema: pq.ParquetSchema, field: pa.Field, infos: list[ChunkInfo], file: str, file_size: int
) -> list[LogitsChunk] | None:
    """How to read a column of numbers, the only one of ``schema``, of each row group; None where pyarrow has to.

    ``infos``: what `footer.Footer.proven` has proven of it.
    """
    leaf = schema.column(0)
    top = leaf.max_definition_level
    if _FLAT.get(field.type) != leaf.physical_type or leaf.max_repetition_level or top != int(field.nullable):
        return None
    found = []
    for group, info in enumerate(infos):
        begin, end = _span(info, file_size)
        if info.rows and (_unsupported(leaf, info) or not 4 <= begin <= end <= file_size - 8):
            return None
        found.append(
            LogitsChunk(
                file, group, begin, end, begin, info.entries, 0, info.rows, _codec(info), 1, str(field.type),
                _WIDTHS[leaf.physical_type], 0, top, top, top, column=field.name,
            )
        )  # fmt: skip
    return found


def _codec(info: ChunkInfo) -> str | None:
    return None if info.codec == "UNCOMPRESSED" else info.codec


def _unsupported(leaf: pq.ColumnSchema, info: ChunkInfo) -> str | None:
    """What of a chunk only pyarrow may read."""
    codec = _codec(info)
    if codec is not None and codec not in CODECS:
        return f"compression {codec}"
    known = _ENCODINGS if leaf.max_definition_level else _ENCODINGS | {"BIT_PACKED"}
    if unknown := sorted(info.encodings - known):
        return f"encoding {unknown[0]}"
    return "a column chunk that is encrypted or in another file" if info.elsewhere else None


def _span(info: ChunkInfo, file_size: int) -> tuple[int, int]:
    """The bytes of the file that hold the pages of a chunk, and perhaps some more behind them."""
    begin = info.data_offset
    if info.dictionary_offset is not None and 0 < info.dictionary_offset < begin:
        begin = info.dictionary_offset
    end = begin + info.size
    return begin, min(end + info.slack, max(end, file_size - 8))


def _top_field(schema: pq.ParquetSchema, leaf_index: int, file: str) -> pa.Field:
    """The top-level column that a leaf belongs to: by counting, since names may hold dots and may come twice."""
    try:
        arrow = schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"cannot read the schema of {file}: {error}") from error
    for field in arrow:
        leaf_index -= _leaves(field.type)
        if leaf_index < 0:
            return field
    raise SourceError(f"cannot read {file}: its schema has fewer columns than its footer; the file is damaged")


def _leaves(kind: pa.DataType) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        return _leaves(kind.storage_type)
    return sum(_leaves(kind.field(k).type) for k in range(kind.num_fields)) if pa.types.is_nested(kind) else 1


def _levels(field: pa.Field, leaf: pq.ColumnSchema) -> tuple[int, int] | str:
    """(list_def, element_def) of a top-level column, or what else it is."""
    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    optional = int(field.nullable)
    if leaf.max_repetition_level == 0:
        if leaf.max_definition_level != optional or pa.types.is_nested(kind):
            return "logits inside a struct"
        return leaf.max_definition_level, leaf.max_definition_level
    if leaf.max_repetition_level > 1 or not (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        return f"logits nested as {kind}"
    # the parts of the definition level: an optional list, the repeated group, an optional element
    if leaf.max_definition_level != optional + 1 + int(kind.value_field.nullable):
        return f"logits nested as {kind}"
    return optional, optional + 1
