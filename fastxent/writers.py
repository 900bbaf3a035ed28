"""Row-by-row results into a Parquet or Arrow file that is complete under its name, or not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastxent.errors import ConfigError
from fastxent.io.atomic import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

_ARROW = (".arrow", ".feather", ".ipc")


@contextmanager
def open_writer(path: str | os.PathLike[str]) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """A function that appends record batches of one schema to the file that ``path`` will be.

    .parquet, or .arrow (.feather, .ipc). Numbers this dense do not compress, so large list columns are written plain;
    that is also what reads back fastest. No batch at all leaves an empty file of no columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = os.fspath(path)
    arrow = name.endswith(_ARROW)
    if not arrow and not name.endswith((".parquet", ".pq")):
        raise ConfigError(f"cannot tell the format of {name!r}; end its name in .parquet or .arrow")
    with atomic_path(path) as temporary:
        writer: Any = None

        def open_for(schema: pa.Schema) -> Any:
            if arrow:
                return pa.ipc.new_file(str(temporary), schema)
            nested = [f.name for f in schema if pa.types.is_nested(f.type)]
            flat = [f.name for f in schema if f.name not in nested]
            codecs = {f"{n}.list.element": "none" for n in nested} | dict.fromkeys(flat, "zstd")
            return pq.ParquetWriter(str(temporary), schema, compression=codecs, use_dictionary=flat)

        def write(batch: pa.RecordBatch) -> None:
            nonlocal writer
            if writer is None:
                writer = open_for(batch.schema)
            writer.write_batch(batch)

        try:
            yield write
            if writer is None:
                writer = open_for(pa.schema([]))
        finally:
            if writer is not None:
                writer.close()
