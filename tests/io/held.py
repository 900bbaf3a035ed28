"""Bytes in memory as a file elsewhere: what tests of readers read."""

from __future__ import annotations

from fastxent.io.storage.remote import ReadRanges


def held(data: bytes, name: str, begin: int, end: int) -> ReadRanges:
    """The bytes [begin, end) of ``data``, by range."""
    return ReadRanges(lambda offset, length: data[offset : offset + length], name, begin, end)
