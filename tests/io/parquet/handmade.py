"""Parquet pages made by hand: what the format allows and no writer at hand emits, and ways to read them back."""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from fastxent.io.parquet.chunk import LogitsChunk
from fastxent.io.parquet.reader import read_rows
from tests.io.held import held

Row = list[float | None] | None
PLAIN, RLE, BIT_PACKED, DICTIONARY, SPLIT = 0, 3, 4, 8, 9


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def zigzag(value: int) -> bytes:
    return varint((value << 1) ^ (value >> 63) if value < 0 else value << 1)


def struct(fields: dict[int, Any]) -> bytes:
    """A Thrift compact struct of i32 (int), bool, binary (bytes) and struct (dict) fields."""
    out, last = b"", 0
    for number, value in fields.items():
        kind = {bool: 1 if value is True else 2, int: 5, bytes: 8, dict: 12}[type(value)]
        step = number - last
        out += bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + zigzag(number)
        last = number
        if isinstance(value, dict):
            out += struct(value)
        elif isinstance(value, bytes):
            out += varint(len(value)) + value
        elif not isinstance(value, bool):
            out += zigzag(value)
    return out + b"\0"


def hybrid(values: Sequence[int], width: int, rng: random.Random, packed: float = 0.5) -> bytes:
    """The values in runs of both kinds, cut where ``rng`` says."""
    out, at = b"", 0
    while at < len(values):
        if rng.random() < packed:
            groups = rng.randint(1, 3)
            part = list(values[at : at + 8 * groups])
            if len(part) < 8 * groups and at + len(part) != len(values):
                continue
            groups = -(-len(part) // 8)
            bits = sum(value << k * width for k, value in enumerate(part))
            out += varint(groups << 1 | 1) + bits.to_bytes(groups * width, "little")
            at += len(part)
        else:
            same = 1
            while at + same < len(values) and values[at + same] == values[at]:
                same += 1
            same = rng.randint(1, same) if rng.random() < 0.3 else same
            out += varint(same << 1) + values[at].to_bytes(-(-width // 8), "little")
            at += same
    return out


@dataclass
class Layout:
    """How a column is stored. ``size``: bytes of a whole row where it is one binary value, else None: a list."""

    n_classes: int
    dtype: str = "float32"
    optional: bool = True
    optional_element: bool = True
    binary: str | None = None  # "fixed" | "bytes"
    codec: str | None = None
    version: int = 1
    encoding: int = PLAIN
    checksum: bool = False
    packed: float = 0.5
    seed: int = 0
    alike: bool = False  # the levels of every page are cut into runs at the same places
    dictionary: list[bytes] = field(default_factory=list)

    @property
    def number(self) -> np.dtype[Any]:
        return np.dtype("u2" if self.dtype == "bfloat16" else self.dtype)

    @property
    def max_def(self) -> int:
        return int(self.optional) + (0 if self.binary else 1 + int(self.optional_element))


def levels_of(rows: Sequence[Row | bytes], layout: Layout) -> tuple[list[int], list[int], list[bytes | None]]:
    """(repetition, definition, value) of each entry."""
    rep: list[int] = []
    definition: list[int] = []
    values: list[bytes | None] = []

    def entry(r: int, d: int, value: bytes | None) -> None:
        rep.append(r)
        definition.append(d)
        values.append(value)

    top, listed = layout.max_def, int(layout.optional)
    for row in rows:
        if row is None:
            entry(0, 0, None)
        elif isinstance(row, bytes):
            entry(0, top, row)
        elif not row:
            entry(0, listed, None)
        else:
            for k, value in enumerate(row):
                entry(
                    int(k > 0), top if value is not None else top - 1, None if value is None else number(value, layout)
                )
    return rep, definition, values


def number(value: float, layout: Layout) -> bytes:
    return np.array(value).astype(layout.number).tobytes()


def page(
    rep: list[int], definition: list[int], values: list[bytes | None], layout: Layout, rng: random.Random
) -> bytes:
    """One data page: header and body."""
    stored = [value for value in values if value is not None]
    if layout.encoding == DICTIONARY:
        width = max(1, (len(layout.dictionary) - 1).bit_length())
        data = bytes([width]) + hybrid([layout.dictionary.index(value) for value in stored], width, rng, layout.packed)
    elif layout.encoding == SPLIT:
        data = np.frombuffer(b"".join(stored), np.uint8).reshape(len(stored), -1).T.tobytes() if stored else b""
    elif layout.binary == "bytes":
        data = b"".join(len(value).to_bytes(4, "little") + value for value in stored)
    else:
        data = b"".join(stored)
    reps = b"" if layout.binary else hybrid(rep, 1, rng, layout.packed)
    defs = hybrid(definition, layout.max_def.bit_length(), rng, layout.packed) if layout.max_def else b""
    if layout.version == 1:
        prefix = b"" if layout.binary else len(reps).to_bytes(4, "little") + reps
        prefix += len(defs).to_bytes(4, "little") + defs if layout.max_def else b""
        size, body = len(prefix + data), fold(prefix + data, layout)
        sub: dict[int, Any] = {5: {1: len(rep), 2: layout.encoding, 3: RLE, 4: RLE}}
    else:
        size, body = len(reps + defs + data), reps + defs + fold(data, layout)
        sub = {8: {1: len(rep), 2: values.count(None), 3: rep.count(0), 4: layout.encoding, 5: len(defs), 6: len(reps)}}
    return wrap(0 if layout.version == 1 else 3, size, body, sub, layout)


def wrap(kind: int, size: int, body: bytes, sub: dict[int, Any], layout: Layout) -> bytes:
    crc = zlib.crc32(body)
    checksum = {4: crc - (1 << 32) if crc >> 31 else crc} if layout.checksum else {}
    return struct({1: kind, 2: size, 3: len(body), **checksum, **sub}) + body


def fold(data: bytes, layout: Layout) -> bytes:
    if layout.codec is None:
        return data
    name = layout.codec.lower()
    return pa.Codec(name).compress(data, asbytes=True)


def dictionary_page(layout: Layout) -> bytes:
    data = b"".join(
        (len(value).to_bytes(4, "little") if layout.binary == "bytes" else b"") + value for value in layout.dictionary
    )
    return wrap(2, len(data), fold(data, layout), {7: {1: len(layout.dictionary), 2: PLAIN}}, layout)


def column(rows: Sequence[Row | bytes], cuts: Sequence[int], layout: Layout) -> tuple[LogitsChunk, bytes]:
    """The rows in pages that end before each entry of ``cuts``: (chunk, bytes of a file that holds nothing else)."""
    rng = random.Random(layout.seed)
    rep, definition, values = levels_of(rows, layout)
    pages = []
    if layout.encoding == DICTIONARY:
        layout.dictionary = sorted({value for value in values if value is not None})
        pages.append(dictionary_page(layout))
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(rep)}), len(rep)]
    for begin, end in itertools.pairwise(edges):
        if begin < end:
            rng = random.Random(layout.seed) if layout.alike else rng
            pages.append(page(rep[begin:end], definition[begin:end], values[begin:end], layout, rng))
    return chunk_of(pages, len(rep), len(rows), layout)


def chunk_of(pages: list[bytes], entries: int, rows: int, layout: Layout) -> tuple[LogitsChunk, bytes]:
    data = b"PAR1" + b"".join(pages)
    listed = int(layout.optional)
    chunk = LogitsChunk(
        file="by hand", row_group=0, begin=4, end=len(data), pages_begin=4, entries=entries, first_row=0, rows=rows,
        codec=layout.codec, n_classes=layout.n_classes, dtype=layout.dtype, unit_bytes=layout.number.itemsize,
        max_rep=0 if layout.binary else 1, max_def=layout.max_def, list_def=listed,
        element_def=listed if layout.binary else listed + 1, byte_array=layout.binary == "bytes",
    )  # fmt: skip
    return chunk, data


def read(chunk: LogitsChunk, data: bytes, max_bytes: int = 1 << 20) -> tuple[np.ndarray, dict[int, str]]:
    """All rows as one array, and all that is wrong with them by row; checks what every piece must keep to."""
    pieces, bad, at = [], {}, chunk.first_row
    with closing(held(data, chunk.file, chunk.begin, chunk.end)) as source:
        for values, wrong, first_row in read_rows(chunk, source, max_bytes):
            assert first_row == at
            assert len(values) == 1 or len(values) * chunk.row_bytes <= max_bytes
            assert values.shape[1] == chunk.n_classes
            bad.update({at + k: reason for k, reason in wrong.items()})
            pieces.append(np.array(values))
            at += len(values)
    number = np.dtype("u2" if chunk.dtype == "bfloat16" else chunk.dtype)
    return np.concatenate(pieces) if pieces else np.empty((0, chunk.n_classes), number), bad


def expected(rows: Sequence[Row | bytes], layout: Layout) -> tuple[np.ndarray, dict[int, str]]:
    """What `read` must give, computed from the rows themselves."""
    n_classes = layout.n_classes
    nan = np.array(0x7FC0, "u2") if layout.dtype == "bfloat16" else np.array(np.nan, layout.number)
    out, bad = np.full((len(rows), n_classes), nan, layout.number), {}
    for k, row in enumerate(rows):
        if row is None:
            bad[k] = "logits are null"
        elif isinstance(row, bytes):
            size, width = len(row), layout.number.itemsize
            if size == n_classes * width:
                out[k] = np.frombuffer(row, layout.number)
            else:
                length = f"{size // width}" if size % width == 0 else f"{size} bytes of"
                bad[k] = f"{length} logits where {n_classes} are expected"
        elif len(row) != n_classes:
            bad[k] = f"{len(row)} logits where {n_classes} are expected"
        elif None in row:
            bad[k] = f"logits hold a null, at class {row.index(None)}"
        else:
            out[k] = np.array(row).astype(layout.number)
    return out, bad
