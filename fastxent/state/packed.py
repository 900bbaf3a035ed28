"""The file format of a state: named arrays and a JSON header, with a checksum.

``FXSTATE`` + version byte, SHA-256 of all that follows, size of the payload (uint64), then the payload compressed by
zlib: size of the header (uint64), the header, and the arrays' little-endian bytes one after another.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from fastxent.errors import StateError

MAGIC = b"FXSTATE"
VERSION = 1
_DTYPES = ("<i8", "|u1", "<f8")
_FLOOR, _RATIO = 16 << 20, 100  # bytes that any file may decompress to, and per byte of the file
_MOST = 1 << 53  # of a count


def pack(header: dict[str, Any], arrays: dict[str, np.ndarray], compression: int = 6) -> bytes:
    """The bytes; equal contents give equal bytes, at one level of ``compression``."""
    listing = [[name, array.dtype.newbyteorder("<").str, list(array.shape)] for name, array in arrays.items()]
    text = json.dumps({**header, "arrays": listing}, sort_keys=True, allow_nan=False).encode()
    raw = [np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes() for array in arrays.values()]
    payload = b"".join([struct.pack("<Q", len(text)), text, *raw])
    body = struct.pack("<Q", len(payload)) + zlib.compress(payload, compression)
    return MAGIC + bytes([VERSION]) + hashlib.sha256(body).digest() + body


def unpack(
    data: bytes, more: Callable[[dict[str, Any]], int] = lambda header: 0
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The inverse of `pack`; StateError for anything else.

    What it may decompress to is bounded by the size of ``data``. ``more``: bytes that this header allows besides.
    """
    start = len(MAGIC) + 1
    if data[: start - 1] != MAGIC or len(data) < start + 40:
        raise StateError("not a saved state of fastxent: its first bytes are different")
    if data[start - 1] != VERSION:
        raise StateError(f"a saved state of version {data[start - 1]}; this fastxent reads version {VERSION}")
    body = data[start + 32 :]
    if hashlib.sha256(body).digest() != data[start : start + 32]:
        raise StateError("a damaged saved state: its checksum does not match; evaluate its rows again")
    try:
        size = struct.unpack_from("<Q", body)[0]
        limit, stream = _FLOOR + _RATIO * len(data), zlib.decompressobj()
        header_size = struct.unpack("<Q", stream.decompress(body[8:], 8))[0]
        if not 0 < header_size <= min(size, limit):
            raise StateError("a damaged saved state: its header has an impossible size")
        header = json.loads(stream.decompress(stream.unconsumed_tail, header_size))
        if not header_size + 8 <= size <= limit + more(header):
            raise StateError("a damaged saved state: it claims to hold more than a file of its size can")
        size -= header_size + 8
        payload = stream.decompress(stream.unconsumed_tail, size + 1)
        arrays: dict[str, np.ndarray] = {}
        at = 0
        for name, dtype, shape in header.pop("arrays"):
            fine = dtype in _DTYPES and isinstance(name, str) and name not in arrays
            if not (fine and len(shape) <= 3 and all(type(n) is int and n >= 0 for n in shape)):
                raise StateError(f"a damaged saved state: array {name!r}")
            count = math.prod(shape)
            array = np.frombuffer(payload, np.dtype(dtype), count, at).reshape(shape)
            arrays[name] = array.astype(array.dtype.newbyteorder("="))  # a writable copy
            at += array.nbytes
        if at != len(payload) or len(payload) != size:
            raise StateError("a damaged saved state: its size does not match")
    except (*DAMAGED, zlib.error, struct.error) as error:
        raise StateError(f"a damaged saved state: {error}") from None
    return header, arrays


def header_of(data: bytes) -> dict[str, Any]:
    """The header of a saved state, as it stands; no entries if it cannot be read."""
    try:
        start, stream = len(MAGIC) + 1 + 40, zlib.decompressobj()
        size = struct.unpack("<Q", stream.decompress(data[start:], 8))[0]
        header = json.loads(stream.decompress(stream.unconsumed_tail, min(size, _FLOOR)))
    except (*DAMAGED, zlib.error, struct.error):
        return {}
    return header if isinstance(header, dict) else {}


def read_state(file: BinaryIO) -> bytes:
    """The bytes of a file that begins as a state does; what does not, such as /dev/zero, is not read to its end."""
    start = file.read(len(MAGIC))
    return start + file.read() if start == MAGIC else start


# What reading a header or an array of another type, shape or depth than expected raises.
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


def stored(arrays: dict[str, np.ndarray], name: str, dtype: type, *shape: int) -> np.ndarray:
    """The array of that name; ValueError if its type or its shape is another (-1: any extent)."""
    array = arrays[name]
    fits = len(shape) == array.ndim and all(n in (-1, m) for n, m in zip(shape, array.shape, strict=True))
    if array.dtype != dtype or not fits:
        raise ValueError(f"array {name!r} is {array.dtype} {array.shape}")
    return array


def stored_counts(arrays: dict[str, np.ndarray], name: str, *shape: int) -> np.ndarray:
    """`stored` counts; ValueError if one is negative or absurd."""
    array = stored(arrays, name, np.int64, *shape)
    if array.size and not 0 <= array.min() <= array.max() <= _MOST:
        raise ValueError(f"array {name!r} holds impossible counts")
    return array


def stored_sums(arrays: dict[str, np.ndarray], prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of `ExactSums.restore`, of the right types."""
    return {
        "base": stored_counts(arrays, f"{prefix}base", 1),
        "limbs": stored(arrays, f"{prefix}limbs", np.int64, -1, -1, -1),
        "special": stored(arrays, f"{prefix}special", np.uint8, -1, -1),
    }
