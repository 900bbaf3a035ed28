"""The column chunks a Parquet footer lists, read without pyarrow, which aborts the process over damaged ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastxent.errors import SourceError
from fastxent.io import thrift
from fastxent.io.ranges import Ranges

_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW")
_ENCODINGS = {
    0: "PLAIN", 2: "PLAIN_DICTIONARY", 3: "RLE", 4: "BIT_PACKED", 5: "DELTA_BINARY_PACKED",
    6: "DELTA_LENGTH_BYTE_ARRAY", 7: "DELTA_BYTE_ARRAY", 8: "RLE_DICTIONARY", 9: "BYTE_STREAM_SPLIT",
}  # fmt: skip


class ChunkInfo(NamedTuple):
    """One leaf column of one row group, as the footer has it: unchecked."""

    rows: int
    codec: str
    encodings: frozenset[str]
    entries: int
    size: int
    data_offset: int
    dictionary_offset: int | None
    elsewhere: bool  # in another file, or encrypted


def column_chunks(source: Ranges, leaf: int) -> list[ChunkInfo]:
    """Leaf column ``leaf`` of each row group of the file that ``source`` spans from its first byte to its last."""
    size = source.end
    tail = source.view(size - 8, 8).tobytes() if size >= 12 else b""
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > size - 12:
        raise SourceError(f"{source.name}: its footer is damaged or cut off; write the file again")
    footer = source.view(size - 8 - length, length)
    table, scratch = np.empty((64, 8), np.int64), thrift.new_header()
    while (groups := thrift.read_chunks(footer, leaf, table, scratch)) > len(table):
        table = np.empty((groups, 8), np.int64)  # each takes a byte of the footer at least, and was seen
    if groups < 0:
        raise SourceError(f"{source.name}: its footer is damaged; write the file again")
    return [_info(*line) for line in table[:groups].tolist()]


def _info(
    codec: int,
    encodings: int,
    entries: int,
    size: int,
    data_offset: int,
    dictionary_offset: int,
    elsewhere: int,
    rows: int,
) -> ChunkInfo:
    return ChunkInfo(
        rows,
        _CODECS[codec] if 0 <= codec < len(_CODECS) else f"number {codec}",
        frozenset(_ENCODINGS.get(bit, f"number {bit}") for bit in range(32) if encodings >> bit & 1),
        entries,
        size,
        data_offset,
        None if dictionary_offset == thrift.MISSING else dictionary_offset,
        bool(elsewhere),
    )
