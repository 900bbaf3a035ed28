"""Thrift's compact protocol, read and written: real Parquet files with other footers and other page headers.

A struct is a dict: field id -> (type, value). A list is (type of its members, members).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.io.parquet.handmade import varint, zigzag

TRUE, FALSE, I32, I64, BINARY, LIST, STRUCT = 1, 2, 5, 6, 8, 9, 12
SCHEMA, ROWS, GROUPS, CREATED, ORDERS = 2, 3, 4, 6, 7  # of FileMetaData
NAME, CHILDREN = 4, 5  # of SchemaElement
CHUNKS, GROUP_ROWS = 1, 3  # of a row group
TYPE, PATH, VALUES, SIZE, DATA, DICTIONARY, SIZES = 1, 3, 5, 7, 9, 11, 16  # of ColumnMetaData
Struct = dict[int, Any]


def decode(data: bytes, at: int = 0) -> tuple[Struct, int]:
    """(a struct, the position behind it)."""
    found: Struct = {}
    last = 0
    while head := data[at]:
        at += 1
        if head >> 4:
            last += head >> 4
        else:
            last, at = _number(data, at)
        value, at = _value(data, at, head & 15)
        found[last] = (head & 15, value)
    return found, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (TRUE, FALSE):
        return kind == TRUE, at
    if kind in (I32, I64, 4):
        return _number(data, at)
    if kind == 3:
        return data[at], at + 1
    if kind == BINARY:
        size, at = _unsigned(data, at)
        return data[at : at + size], at + size
    if kind == STRUCT:
        return decode(data, at)
    assert kind == LIST, kind
    member, count = data[at] & 15, data[at] >> 4
    at += 1
    if count == 15:
        count, at = _unsigned(data, at)
    members = []
    for _ in range(count):
        if member in (TRUE, FALSE):
            members.append(data[at])
            at += 1
        else:
            value, at = _value(data, at, member)
            members.append(value)
    return (member, members), at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def _number(data: bytes, at: int) -> tuple[int, int]:
    raw, at = _unsigned(data, at)
    return raw >> 1 ^ -(raw & 1), at


def encode(fields: Struct) -> bytes:
    out, last = b"", 0
    for number, (kind, value) in sorted(fields.items()):
        head = TRUE if kind in (TRUE, FALSE) and value else FALSE if kind in (TRUE, FALSE) else kind
        step = number - last
        out += bytes([step << 4 | head]) if 0 < step < 16 else bytes([head]) + zigzag(number)
        out += b"" if kind in (TRUE, FALSE) else _encoded(kind, value)
        last = number
    return out + b"\0"


def _encoded(kind: int, value: Any) -> bytes:
    if kind == BINARY:
        return varint(len(value)) + bytes(value)
    if kind == STRUCT:
        return encode(value)
    if kind == LIST:
        member, members = value
        head = (
            bytes([len(members) << 4 | member]) if len(members) < 15 else bytes([240 | member]) + varint(len(members))
        )
        return head + b"".join(bytes([m]) if member in (TRUE, FALSE, 3) else _encoded(member, m) for m in members)
    return bytes([value]) if kind == 3 else zigzag(value)


def footer_of(data: bytes) -> Struct:
    """The FileMetaData of a file."""
    return decode(data, len(data) - 8 - int.from_bytes(data[-8:-4], "little"))[0]


def with_footer(data: bytes, change: Callable[[Struct], None]) -> bytes:
    """The file with a footer that ``change`` has changed."""
    fields = footer_of(data)
    change(fields)
    footer = encode(fields)
    pages = data[: len(data) - 8 - int.from_bytes(data[-8:-4], "little")]
    return pages + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def groups(fields: Struct) -> list[Struct]:
    return fields[GROUPS][1][1]  # type: ignore[no-any-return]


def chunks(group: Struct) -> list[Struct]:
    """The ColumnMetaData of each column of a row group."""
    return [chunk[3][1] for chunk in group[CHUNKS][1][1]]


def put(fields: Struct, number: int, value: Any) -> None:
    """Another value of the same type."""
    fields[number] = (fields[number][0], value)


def with_page(data: bytes, change: Callable[[Struct, bytes], bytes], *, dictionary: bool = False) -> bytes:
    """The file with another first page, header and body, of the last column of its last row group, which has no more
    than a dictionary and that page. ``change`` gets the header, to change it, and the body, and returns a body."""
    meta = chunks(groups(footer_of(data))[-1])[-1]
    at = meta[DICTIONARY if dictionary else DATA][1]
    header, begin = decode(data, at)
    end = begin + header[3][1]
    body = change(header, data[begin:end])
    page = encode(header) + body
    grown = len(page) - (end - at)

    def moved(fields: Struct) -> None:
        last = chunks(groups(fields)[-1])[-1]
        put(last, SIZE, last[SIZE][1] + grown)
        if dictionary:
            put(last, DATA, last[DATA][1] + grown)

    return with_footer(data[:at] + page + data[end:], moved)
