"""Named arrays and a JSON header as bytes that prove themselves whole: the file form of a state.

``FXSTATE`` + version byte, SHA-256 of all that follows, size of the payload (uint64), then the payload compressed by
zlib: size of the header (uint64), the header, and the arrays' little-endian bytes one after another.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from typing import Any

import numpy as np

from fastxent.errors import StateError

_MAGIC = b"FXSTATE"
VERSION = 1
_DTYPES = ("<i8", "|u1", "<f8")


def pack(header: dict[str, Any], arrays: dict[str, np.ndarray], compression: int = 6) -> bytes:
    """The bytes; equal contents give equal bytes, at one level of ``compression``."""
    listing = [[name, array.dtype.newbyteorder("<").str, list(array.shape)] for name, array in arrays.items()]
    text = json.dumps({**header, "arrays": listing}, sort_keys=True, allow_nan=False).encode()
    raw = [np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes() for array in arrays.values()]
    payload = b"".join([struct.pack("<Q", len(text)), text, *raw])
    body = struct.pack("<Q", len(payload)) + zlib.compress(payload, compression)
    return _MAGIC + bytes([VERSION]) + hashlib.sha256(body).digest() + body


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The inverse of `pack`; StateError for anything else."""
    start = len(_MAGIC) + 1
    if data[: start - 1] != _MAGIC or len(data) < start + 40:
        raise StateError("not a saved state of fastxent (or cut off at its beginning)")
    if data[start - 1] != VERSION:
        raise StateError(f"a saved state of version {data[start - 1]}; this fastxent reads version {VERSION}")
    body = data[start + 32 :]
    if hashlib.sha256(body).digest() != data[start : start + 32]:
        raise StateError("a damaged saved state: its checksum does not match; evaluate that part again")
    try:
        size = struct.unpack_from("<Q", body)[0]
        payload = zlib.decompressobj().decompress(body[8:], size + 1)
        header_size = struct.unpack_from("<Q", payload)[0]
        header = json.loads(payload[8 : 8 + header_size])
        arrays, at = {}, 8 + header_size
        for name, dtype, shape in header.pop("arrays"):
            if dtype not in _DTYPES or not all(isinstance(n, int) and n >= 0 for n in shape):
                raise StateError(f"a damaged saved state: array {name!r}")
            count = math.prod(shape)
            array = np.frombuffer(payload, np.dtype(dtype), count, at).reshape(shape)
            arrays[name] = array.astype(array.dtype.newbyteorder("="))  # a writable copy
            at += array.nbytes
        if at != len(payload) or len(payload) != size:
            raise StateError("a damaged saved state: its size does not match")
    except (zlib.error, struct.error, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise StateError(f"a damaged saved state: {error}") from None
    return header, arrays
