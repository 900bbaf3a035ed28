"""Files of ``llama-perplexity --kl-divergence-base``: the log-probabilities of the tokens of a text, 16 bits each.

A header (magic; int32 n_ctx, n_vocab, n_chunk), the n_chunk · n_ctx tokens as int32, and for each chunk a row for each
token of its second half but the last: float32 scale, float32 floor, n_vocab codes of 16 bits, padded to 4 bytes.
log p_j = scale · code_j + floor. Classes below the floor are stored as the floor, so rows do not quite sum to 1.
All numbers are little endian. The columns are logits, target, token, position and chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from fastxent.errors import SourceError, Where
from fastxent.io.arrow.part import BLOCK_BYTES, unit_rows
from fastxent.io.batch import Batch, Block, even
from fastxent.io.layout import Layout, RowReader
from fastxent.io.remarks import Remarks
from fastxent.io.storage.buffers import buffers, read_only
from fastxent.io.storage.files import File, reading
from fastxent.io.storage.identity import Version, unchanged
from fastxent.io.storage.stored import StoredBytes
from fastxent.kernels.quantized import dequantize

MAGIC = b"_logits_"
_HEADER = 20  # bytes: the magic and three numbers
_CODES = 4  # place of the first code in a row of 16-bit numbers
_MOST_CLASSES = 1 << 24  # a hundred times the largest vocabulary
_UNIT_ROWS = 1 << 18
_INT = np.dtype("<i4")
_RANGE = 16.0  # nats between the largest logit and the floor
_LARGEST_CODE = 65535  # of the likeliest class
_ABOVE = 1e-3  # nats: log-probabilities above 0 by so much are no rounding


@dataclass(frozen=True)
class Header:
    """The numbers in the header of a file, and how many of its rows are complete."""

    context: int  # tokens of a chunk
    classes: int
    chunks: int
    whole: int  # rows that the file holds to their end

    @property
    def rows_per_chunk(self) -> int:
        return self.context - 1 - self.context // 2

    @property
    def rows(self) -> int:
        return self.chunks * self.rows_per_chunk

    @property
    def row_bytes(self) -> int:
        return 2 * (2 * ((self.classes + 1) // 2) + 4)

    @property
    def begin(self) -> int:
        """Where the rows begin in the file."""
        return _HEADER + _INT.itemsize * self.chunks * self.context

    @property
    def missing(self) -> str | None:
        """That the file is cut short; None if it is whole."""
        if self.whole == self.rows:
            return None
        return f"the file is cut short: {self.whole} of its {self.rows} rows are whole"


def _read_header(file: File) -> Header:
    """The header of a file, checked against the size of the file."""
    with file.open() as handle, reading(file.name, "its header"):
        size = handle.size()
        numbers = np.frombuffer(handle.read(_HEADER)[len(MAGIC) :], _INT) if size >= _HEADER else np.zeros(3, _INT)
    context, classes, chunks = numbers.tolist()
    if context < 3 or not 1 <= classes <= _MOST_CLASSES or chunks < 0:
        raise SourceError(
            f"cannot read {file.name}: invalid header (n_ctx={context}, n_vocab={classes}, n_chunk={chunks}); "
            "write the file again with llama-perplexity --kl-divergence-base"
        )
    found = Header(context, classes, chunks, 0)
    whole = max(0, size - found.begin) // found.row_bytes
    if size < found.begin or (found.rows and not whole):
        raise SourceError(
            f"cannot read {file.name}: the file is cut short: none of its {found.rows} rows is whole; "
            "write the file again"
        )
    if size > found.begin + found.rows * found.row_bytes:
        extra = size - found.begin - found.rows * found.row_bytes
        raise SourceError(f"cannot read {file.name}: {extra} bytes follow its last row; write the file again")
    return Header(context, classes, chunks, min(whole, found.rows))


@dataclass(frozen=True)
class LlamaUnit:
    """Consecutive rows of a file. Picklable."""

    file: File
    header: Header
    reader: RowReader
    where: Where
    rows: int
    version: Version | None = field(default=None, compare=False)

    def __getstate__(self) -> dict[str, object]:  # elsewhere the same file was written at another time
        return {**self.__dict__, "version": None}

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def slice(self, begin: int, end: int) -> LlamaUnit:
        """Some rows of the unit."""
        where = replace(self.where, first_row=self.where.first_row + begin)
        return replace(self, where=where, rows=end - begin)

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        first, last = self.where.first_row, self.where.first_row + self.rows
        step = self.reader.rows_in(block_bytes if whole else min(block_bytes, BLOCK_BYTES))
        rows = min(rows, step) if whole else even(self.rows, rows)
        with unchanged(self.file, self.version), closing(StoredBytes(self.file, forward=True)) as source:
            tokens = self._tokens(source) if self.reader.stored_beside else np.empty(0, _INT)
            decoder = _Decoder(source, self.header)

            def blocks(begin: int, end: int) -> Iterator[Block]:
                for at in range(begin, end, step):
                    n = min(step, end - at)
                    yield self.reader.block(_nothing(n)) if self.reader.blind else decoder.block(at, n)

            for begin in range(first, last, rows):
                n, where = min(rows, last - begin), Where(self.where.file, None, begin)
                columns = {name: self._column(name, begin, n, tokens, decoder) for name in self.reader.stored_beside}
                batch = pa.record_batch(columns) if columns else None
                yield Batch(blocks(begin, begin + n), self.reader.beside(batch, n, where), where, n)

    def _tokens(self, source: StoredBytes) -> np.ndarray:
        """The tokens of all chunks that the unit's rows are of."""
        low, high = self._chunks()
        size = _INT.itemsize * self.header.context
        return source.read(_HEADER + low * size, (high - low) * size).view(_INT).copy()

    def _chunks(self) -> tuple[int, int]:
        first, last = self.where.first_row, self.where.first_row + self.rows - 1
        return first // self.header.rows_per_chunk, last // self.header.rows_per_chunk + 1

    def _column(self, name: str, begin: int, n: int, tokens: np.ndarray, decoder: _Decoder) -> pa.Array:
        """A column of ``n`` rows from row ``begin`` on."""
        if name == "logits":
            values = decoder.block(begin, n).values
            return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        h = self.header
        chunk, place = np.divmod(np.arange(begin, begin + n), h.rows_per_chunk)
        position = place + h.context // 2
        if name in ("chunk", "position"):
            return pa.array((chunk if name == "chunk" else position).astype(np.int32))
        at = (chunk - self._chunks()[0]) * h.context + position
        return pa.array(tokens[at + (name == "target")].astype(np.int32))


class _Decoder:
    """Reads rows of an open file as float32."""

    def __init__(self, source: StoredBytes, header: Header) -> None:
        self._source, self._header, self._memory = source, header, buffers()

    def block(self, at: int, n: int) -> Block:
        """Return ``n`` rows from row ``at`` on. Rows that are missing in the file, or have invalid scales, are bad."""
        h = self._header
        values = self._memory.take(4 * n * h.classes).view(np.float32).reshape(n, h.classes)
        there, bad = min(max(h.whole - at, 0), n), dict[int, str]()
        if there:
            offset, length = h.begin + at * h.row_bytes, there * h.row_bytes
            if offset + length > self._source.size:
                raise SourceError(f"cannot read {self._source.name}: the file became shorter after it was opened")
            data = read_only(self._source.read(offset, length))
            heads = data.view("<f4").reshape(there, -1)[:, :2].astype(np.float32)
            scale, floor = heads[:, 0].copy(), heads[:, 1].copy()
            with np.errstate(over="ignore", invalid="ignore"):
                largest = floor + _LARGEST_CODE * scale
            broken = ~((scale >= 0) & (largest <= _ABOVE) & np.isfinite(largest))
            for i in np.flatnonzero(broken).tolist():
                bad[i] = f"the row has the scale {scale[i]} and the least log-probability {floor[i]}"
            scale[broken] = np.nan
            dequantize(data.view("<u2").reshape(there, -1), _CODES, scale, floor, values[:there])
        values[there:] = np.nan
        bad.update(dict.fromkeys(range(there, n), str(h.missing)))
        return Block(values, "float32", bad, excess=h.classes * math.exp(-_RANGE))


def _nothing(rows: int) -> pa.RecordBatch:
    return pa.record_batch([pa.nulls(rows)], names=[""])


class LlamaPart(Remarks):
    """A file as a part of a source."""

    format = "llama.cpp log-probabilities"

    def __init__(self, file: File) -> None:
        self._version = Version.of(file)
        self.file, self.header = file, _read_header(file)
        self.name, self.hive, self.inputs, self.rows = file.name, file.hive, (file,), self.header.rows
        self.missing = self.header.missing
        number = pa.int32()
        self.schema = pa.schema(
            {
                "logits": pa.list_(pa.float32(), self.header.classes),
                "target": number,
                "token": number,
                "position": number,
                "chunk": number,
            }
        )

    def width(self, layout: Layout, expected: int | None) -> int | None:
        """Never asked: the schema tells."""
        return layout.n_classes

    def units(self, reader: RowReader) -> Iterator[LlamaUnit]:
        most = min(unit_rows(reader, self.rows), _UNIT_ROWS)
        for begin in range(0, self.rows, most):
            n = min(most, self.rows - begin)
            yield LlamaUnit(self.file, self.header, reader, Where(self.name, None, begin), n, self._version)
