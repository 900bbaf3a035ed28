"""What the native Parquet reader must know of a logits column chunk, and whether it can read it at all.

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


@dataclass(frozen=True)
class LogitsChunk:
    """The logits column of one row group, or a run of its pages (`native.split`). Plain values: picklable."""

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

    codec = None if info.codec == "UNCOMPRESSED" else info.codec
    if codec is not None and codec not in CODECS:
        return f"compression {codec}"
    known = _ENCODINGS if leaf.max_definition_level else _ENCODINGS | {"BIT_PACKED"}
    if unknown := sorted(info.encodings - known):
        return f"encoding {unknown[0]}"
    if info.elsewhere:
        return "a column chunk that is encrypted or in another file"

    begin = info.data_offset
    if info.dictionary_offset is not None and 0 < info.dictionary_offset < begin:
        begin = info.dictionary_offset
    end, entries, rows = begin + info.size, info.entries, info.rows
    end = min(end + info.slack, max(end, file_size - 8))
    if entries == rows == 0:
        begin = end = 4  # writers of empty row groups leave any offset
    if not 4 <= begin <= end <= file_size - 8:
        raise SourceError(
            f"{file}, row group {row_group}: its logits should lie in bytes {begin} to {end} "
            f"of a file of {file_size}; the file is cut short or its footer is broken"
        )
    if rows < 0 or entries < rows or (not is_list and entries != rows):
        raise SourceError(f"{file}, row group {row_group}: {entries} values in {rows} rows; the footer is broken")
    return LogitsChunk(
        file, row_group, begin, end, begin, entries, 0, rows, codec, n_classes, dtype, unit,
        leaf.max_repetition_level, leaf.max_definition_level, list_def, element_def, byte_array,
        page_index=info.page_index,
    )  # fmt: skip


def _top_field(schema: pq.ParquetSchema, leaf_index: int, file: str) -> pa.Field:
    """The top-level column that a leaf belongs to: by counting, since names may hold dots and may come twice."""
    try:
        arrow = schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{file}: its schema cannot be read: {error}") from error
    for field in arrow:
        leaf_index -= _leaves(field.type)
        if leaf_index < 0:
            return field
    raise SourceError(f"{file}: its schema has fewer columns than its footer; the file is damaged")


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
