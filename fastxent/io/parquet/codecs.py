"""Decompression to an exact size.

`pyarrow.Codec.decompress` does not tell how many bytes it wrote: a page that decompresses to less than its header says
would end in whatever the memory held before. So the size is proven first where the compressed form tells it (lz4),
checked by the library (zstd), or counted by streaming (gzip, brotli). Snappy is decompressed here: see `snappy`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from fastxent.io.parquet.levels import lz4_size
from fastxent.io.parquet.snappy import decompress_snappy, snappy_size
from fastxent.io.storage.buffers import MOST_KEPT, buffers, read_only

# names of `footer` -> names of pyarrow's codecs, and the most that one compressed byte can decompress to
# (None: no bound worth the name). An allocation past that bound cannot be honest.
CODECS: dict[str, tuple[str, int | None]] = {
    "SNAPPY": ("snappy", 32),
    "GZIP": ("gzip", 1040),
    "LZ4_RAW": ("lz4_raw", 256),
    "ZSTD": ("zstd", None),
    "BROTLI": ("brotli", None),
}


class CodecError(Exception):
    """Compressed bytes that are damaged or have another size than declared. Never leaves `fastxent.io`."""


class Decompressor:
    """One codec; `decompress` may be called from one thread at a time."""

    def __init__(self, name: str) -> None:
        self.name, self._ratio = CODECS[name]
        self._codec = None if self.name in ("snappy", "gzip", "brotli") else pa.Codec(self.name)
        self._buffers = buffers()

    def decompress(self, body: np.ndarray, size: int) -> np.ndarray:
        """Return the ``size`` bytes that ``body`` decompresses to, in memory that is used again when no view is left
        or of Arrow's pool."""
        if self._ratio is not None and size > self._ratio * (body.size + 8):
            raise CodecError(f"{body.size} bytes of {self.name} cannot decompress to {size}")
        if size == 0:
            return np.frombuffer(b"", np.uint8)
        try:
            told = size
            if self.name == "snappy":
                told = snappy_size(body)[0]
            elif self.name == "lz4_raw":
                told = lz4_size(body)
            if told != size:
                raise CodecError(f"{self.name} data decompresses to {told} bytes where the page header says {size}")
            if self.name == "snappy":
                out = self._buffers.take(size) if size <= MOST_KEPT else np.empty(size, np.uint8)
                if not decompress_snappy(body, out):
                    raise CodecError("snappy data cannot be decompressed (it is damaged)")
                return read_only(out)
            if self._codec is None:
                return self._stream(body, size)
            return read_only(np.frombuffer(self._codec.decompress(pa.py_buffer(body), size), np.uint8))
        except (OSError, MemoryError, pa.ArrowException) as error:
            raise CodecError(f"{self.name} data cannot be decompressed ({error})") from None

    def _stream(self, body: np.ndarray, size: int) -> np.ndarray:
        out: Any = pa.allocate_buffer(size)
        room, filled = memoryview(out), 0
        with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(body)), self.name) as stream:
            while filled < size and (got := stream.readinto(room[filled:])):
                filled += got
            if filled < size or stream.read(1):
                raise CodecError(f"{self.name} data does not decompress to the {size} bytes that the page header says")
        return read_only(np.frombuffer(out, np.uint8))
