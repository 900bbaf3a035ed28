"""Write row-by-row results to a Parquet or Arrow file, atomically."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastxent.errors import ColumnError, ConfigError, OutputError
from fastxent.io.storage.atomic import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

_ARROW = (".arrow", ".feather", ".ipc")
_FLUSH_BYTES = 4 << 20  # small batches are gathered up to this: a row group each would drown the file in footers
_PAGE_BYTES, _WRITE_VALUES = 1 << 20, 1024


def carried_field(schema: pa.Schema, name: str) -> pa.Field:
    """The field under which a column of a source is written. Dictionaries, which may differ from batch to batch while
    an Arrow file takes one, are written as their values. What its metadata say (the float type of a tag) is kept."""
    import pyarrow as pa

    from fastxent.io.layout import find_field
    from fastxent.io.values import plain_type

    found = find_field(schema, name)
    assert found is not None, "open_source has made sure of it"
    kind = plain_type(found.type)
    metadata = {key: value for key, value in (found.metadata or {}).items() if key != b"PARQUET:field_id"}
    return pa.field(name, kind.value_type if pa.types.is_dictionary(kind) else kind, metadata=metadata)


def carried(column: pa.Array, field: pa.Field) -> pa.Array:
    """A column of a batch as ``field`` has it, whatever the type it has in this batch's file."""
    import pyarrow as pa

    from fastxent.io.values import FloatBits, numbers, tag_of

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    tag, given = tag_of(field), column.type.tag if isinstance(column.type, FloatBits) else None
    if given == tag is not None:
        column = column.storage
    elif given is not None and pa.types.is_floating(field.type):
        column = numbers(column, field.name)
    elif given != tag:
        raise ColumnError(
            f"column {field.name!r} must have one type in all files, got {tag or field.type} in the first and "
            f"{given or column.type} in another; convert one, or omit the column"
        )
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise ColumnError(
            f"column {field.name!r} must have one type in all files, got {field.type} in the first and {column.type} "
            f"in another ({str(error).splitlines()[0]}); convert one, or omit the column"
        ) from None


def check_not_source(path: str | os.PathLike[str], files: Iterable[str]) -> None:
    """Raise an error if an output file is an input file."""
    for file in files:
        if os.path.exists(path) and os.path.exists(file) and os.path.samefile(path, file):
            raise OutputError(f"cannot write {os.fspath(path)!r}: it is an input file; choose another name")


def is_arrow(path: str | os.PathLike[str]) -> bool:
    """Whether a file of that name is written as Arrow IPC, rather than as Parquet."""
    name = os.fspath(path)
    try:
        os.path.realpath(name).encode()
    except UnicodeEncodeError:
        raise OutputError(f"cannot write {name!r}: Arrow requires file names in UTF-8; choose another name") from None
    arrow = name.endswith(_ARROW)
    if not arrow and not name.endswith((".parquet", ".pq")):
        raise ConfigError(f"invalid output name {name!r}; expected a name that ends in .parquet or .arrow")
    return arrow


@contextmanager
def open_writer(
    path: str | os.PathLike[str], schema: pa.Schema, group_bytes: int = _FLUSH_BYTES
) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Return a function that appends record batches of ``schema`` to the file ``path``.

    .parquet, or .arrow (.feather, .ipc), in row groups or record batches of ``group_bytes`` at least. Numbers this
    dense do not compress, so columns of lists and of fixed-size binary are written plain; that is also what reads back
    fastest.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name, arrow = os.fspath(path), is_arrow(path)
    flat = [f.name for f in schema if not (pa.types.is_nested(f.type) or pa.types.is_fixed_size_binary(f.type))]
    # pages are cut after so many values only: with rows of a whole vocabulary they would be of hundreds of MB
    widest = max([f.type.byte_width for f in schema if pa.types.is_fixed_size_binary(f.type)], default=1)
    pending: list[pa.RecordBatch] = []

    with atomic_path(path) as temporary:
        try:
            writer: Any = (
                pa.ipc.new_file(str(temporary), schema)
                if arrow
                else pq.ParquetWriter(
                    str(temporary), schema, compression=dict.fromkeys(flat, "zstd"), use_dictionary=flat,
                    write_batch_size=max(1, min(_WRITE_VALUES, _PAGE_BYTES // widest)),
                )
            )  # fmt: skip
        except pa.ArrowException as error:
            raise OutputError(f"cannot write {name!r}: {str(error).splitlines()[0]}") from error

        held = 0

        def flush() -> None:
            nonlocal held
            table = pa.Table.from_batches(pending, schema).combine_chunks()
            pending.clear()
            held = 0
            if len(table):
                writer.write_table(table)

        def write(batch: pa.RecordBatch) -> None:
            nonlocal held
            pending.append(batch)
            held += batch.nbytes
            if held >= group_bytes:
                flush()

        with writer:
            yield write
            flush()
