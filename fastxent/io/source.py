"""What is it? A path, a folder, a table or a dict of arrays, opened as a `Source` of batches."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from fastxent.errors import ColumnError, SourceError
from fastxent.io import arrays, frames, tensors
from fastxent.io.arrow import ipc, part as arrow
from fastxent.io.batch import Unit
from fastxent.io.layout import VOID, Layout, RowReader, all_names, find_field
from fastxent.io.parquet import part as parquet
from fastxent.io.storage.files import File, doubts, find_files, reading
from fastxent.io.values import tag_of

_LOOKERS = 16
Chooser = Callable[[pa.Schema, tuple[str, ...]], Sequence[str]]  # of columns, given all and those of the logits


_FALLBACKS = 20  # files named


class Part(Protocol):
    """One file, or one thing in memory: what each format module offers."""

    @property
    def name(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def schema(self) -> pa.Schema: ...
    @property
    def rows(self) -> int | None: ...
    @property
    def hive(self) -> tuple[tuple[str, str | None], ...]: ...
    @property
    def inputs(self) -> tuple[File, ...]: ...  # the files it is read from; none if it is in memory

    def width(self, layout: Layout, expected: int | None) -> int | None:
        """Classes in the first row that has any, where the schema does not tell."""
        ...

    def units(self, reader: RowReader) -> Iterator[Unit]: ...


@dataclass
class OpenSource:
    """A dump whose every part has been looked at: same classes, same dtype, all columns there."""

    n_classes: int
    dtype: str
    schema: pa.Schema
    parts: list[tuple[Part, RowReader]] = field(repr=False)

    @property
    def rows(self) -> int | None:
        counts = [part.rows for part, _ in self.parts]
        return None if None in counts else sum(count for count in counts if count)

    @property
    def nbytes(self) -> int | None:
        return None if self.rows is None else self.rows * self.parts[0][1].row_bytes

    @property
    def files(self) -> list[str]:
        return [part.name for part, _ in self.parts]

    @property
    def fallbacks(self) -> list[dict[str, str]]:
        """Files whose logits went through pyarrow, and why: of the units taken so far, and the first of many."""
        found = ((part.name, part.fallback) for part, _ in self.parts if isinstance(part, parquet.ParquetPart))
        told = ({"file": name, "reason": why} for name, why in found if why is not None)
        return list(itertools.islice(told, _FALLBACKS))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may not be meant about the files."""
        return tuple(doubts([file for part, _ in self.parts for file in part.inputs]))

    def columns_only(self) -> OpenSource:
        """The same source without its logits, whose batches have no classes: a cheap look ahead."""
        return replace(self, parts=[(part, replace(reader, blind=True)) for part, reader in self.parts])

    def units(self) -> Iterator[Unit]:
        """Every row of the source once, in the order of files and rows."""
        for part, reader in self.filled:
            yield from part.units(reader)

    @property
    def filled(self) -> list[tuple[Part, RowReader]]:
        """The parts that have rows, or may have."""
        return [(part, reader) for part, reader in self.parts if part.rows != 0]


def open_source(
    source: Any,
    *,
    logits: str | Sequence[str],
    columns: Sequence[str] | Chooser = (),
    dtype: str | None = None,
    classes: Sequence[str] | None = None,
    optional: str | None = None,
) -> OpenSource:
    """Open a dump and make sure that it can be read.

    ``logits``: one column, a list of names or a glob with one column per class. ``columns``: the others to read, or a
    function that names them once the schema and the logits columns are known.
    ``dtype``: of logits whose column does not say ("bfloat16" for uint16 or binary). ``classes``: names of the classes.
    ``optional``: one of ``columns`` that is not read where no part has it.
    Raises `SourceError` for what cannot be read and `ColumnError` for a column that is missing or of a wrong type.
    """
    named = [*([logits] if isinstance(logits, str) else logits), *([] if callable(columns) else columns)]
    parts = find_parts(source, named)
    constants = _hive_columns(parts)
    filled = [part for part in parts if part.rows != 0] or parts  # shards without rows may be of any type
    layouts = [Layout.find(part.schema, logits, dtype, part.name, classes) for part in filled]
    known_dtypes = [(layout, part) for layout, part in zip(layouts, filled, strict=True) if layout.dtype != VOID]
    if not known_dtypes and any(part.rows != 0 for part in filled):
        raise _no_logits(filled[0], layouts[0])
    for layout, part in known_dtypes:
        first, where = known_dtypes[0]
        if layout.dtype != first.dtype:
            raise SourceError(
                f"logits are {first.dtype} in {where.name} and {layout.dtype} in {part.name}; "
                "evaluate them apart or convert one"
            )
        if layout.per_class and layout.names != first.names:
            raise SourceError(
                f"{where.name} and {part.name} have different logits columns, or another order of them; "
                "name the columns in class order, or evaluate the files apart"
            )
    n_classes = _n_classes(filled, layouts)
    found_dtype = known_dtypes[0][0].dtype if known_dtypes else "float32"
    layouts = [replace(layout, dtype=found_dtype) for layout in layouts]
    by_part = {id(part): layout for part, layout in zip(filled, layouts, strict=True)}
    wanted = list(dict.fromkeys(columns(full_schema(parts), layouts[0].names) if callable(columns) else columns))
    if optional not in constants and not any(find_field(part.schema, optional or "") for part in parts):
        wanted = [name for name in wanted if name != optional]
    opened: list[tuple[Part, RowReader]] = []
    for part in parts:
        layout = by_part.get(id(part), layouts[0])
        known = {key: values[part.name] for key, values in constants.items() if find_field(part.schema, key) is None}
        tags: list[tuple[str, str]] = []
        for name in wanted:
            if name in known:
                continue
            found = find_field(part.schema, name)
            if found is None and isinstance(part, arrays.ArraysPart | arrow.TablePart) and name in part.refused:
                raise type(part.refused[name])(str(part.refused[name]))
            if found is None:
                raise ColumnError.missing(name, [*all_names(part.schema), *known], part.name)
            tag = tag_of(found)
            if tag is not None:
                tags.append((name, tag))
        opened.append((part, RowReader(layout, n_classes, tuple(wanted), tuple(known.items()), tags=tuple(tags))))
    return OpenSource(n_classes, found_dtype, full_schema(parts), opened)


def full_schema(parts: list[Part]) -> pa.Schema:
    """The schema of the first part with rows, and the columns that folder names give. What is null there is of the
    type that it has in another part."""
    schema = next((part.schema for part in parts if part.rows != 0), parts[0].schema)
    for k, column in enumerate(schema):
        if pa.types.is_null(column.type):
            others = (part.schema.field(at) for part in parts if (at := part.schema.get_field_index(column.name)) >= 0)
            schema = schema.set(k, next((other for other in others if not pa.types.is_null(other.type)), column))
    for key, values in _hive_columns(parts).items():
        if schema.get_field_index(key) < 0:
            schema = schema.append(pa.field(key, next(iter(values.values())).type))
    return schema


def _n_classes(parts: list[Part], layouts: list[Layout]) -> int:
    """The number of classes all parts agree on."""
    first: tuple[int, str] | None = None
    for part, layout in zip(parts, layouts, strict=True):
        width = layout.n_classes
        if width is None:
            width = part.width(layout, first[0] if first else None)
        if width is None:
            continue
        if first is None:
            first = (width, part.name)
        elif width != first[0]:
            raise SourceError(f"{first[1]} has {first[0]} classes and {part.name} has {width}; evaluate them apart")
    if first is not None:
        return first[0]
    if all(part.rows == 0 for part in parts):
        others = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
        raise SourceError(f"no rows in {parts[0].name}{others}, so nothing says how many classes there are")
    raise _no_logits(parts[0], layouts[0])


def _no_logits(part: Part, layout: Layout) -> ColumnError:
    return ColumnError(
        f"column {layout.names[0]!r} of {part.name} holds no logits, only null or empty rows: "
        "the number of classes is unknown"
    )


def _hive_columns(parts: list[Part]) -> dict[str, dict[str, pa.Scalar]]:
    """Columns that ``key=value`` folders give: name -> file -> value. Whole numbers if all are, else strings."""
    keys = dict.fromkeys(key for part in parts for key, _ in part.hive)
    columns = {}
    for key in keys:
        values = {part.name: dict(part.hive).get(key) for part in parts}
        whole = all(value is None or _is_whole(value) for value in values.values())
        kind = pa.int64() if whole else pa.string()
        columns[key] = {
            name: pa.scalar(int(value) if whole and value is not None else value, kind)
            for name, value in values.items()
        }
    return columns


def _is_whole(text: str) -> bool:
    """Whether text is a number as it would be printed; "007" is a name."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19 and str(int(text)) == text


# ---- what is it? -----------------------------------------------------------------------------------------------------


def find_parts(source: Any, named: Sequence[str] = ()) -> list[Part]:
    """The parts of a source, in order. ``named``: the columns that will be read, as far as they are known."""
    if isinstance(source, str | os.PathLike):
        return _file_parts(find_files(source), named)
    if isinstance(source, list | tuple):
        if not source:
            raise SourceError("the list of sources is empty; name at least one file")
        if all(isinstance(item, str | os.PathLike) for item in source):
            return _file_parts([file for item in source for file in find_files(item)], named)
        if (advice := frames.advice(source)) is not None:
            raise SourceError(f"cannot read a {type(source).__name__}: {advice}")
        return [part for item in source for part in find_parts(item, named)]
    if isinstance(source, np.ndarray) and source.dtype.names is not None:
        source = {name: source[name] for name in source.dtype.names}
    if (advice := frames.advice(source)) is not None:
        raise SourceError(f"cannot read a {type(source).__name__}: {advice}")
    if isinstance(source, Mapping):
        return [arrays.dict_part(source, named)]
    if isinstance(source, pa.Table):
        return [arrow.TablePart(source)]
    if isinstance(source, pa.RecordBatch):
        return [arrow.TablePart(pa.Table.from_batches([source]), "<record batch>")]
    if isinstance(source, pa.RecordBatchReader):
        return [arrow.StreamPart(lambda: source, "<reader>", once=True)]
    if type(source).__module__.startswith("pyarrow._dataset"):
        return _dataset_parts(source)
    if hasattr(source, "__arrow_c_stream__"):
        return [frames.stream_part(source, named)]
    raise SourceError(
        f"a {type(source).__name__} is no source; pass a path, a glob, a folder, a list of them, an Arrow table "
        "or stream, or a dict of arrays"
    )


def _dataset_parts(dataset: Any) -> list[Part]:
    """Parquet files of a dataset are read as files, since its own scanner decodes whole row groups; what else a
    dataset may be (other formats, a filter, parts of files) comes through the scanner with little read-ahead."""
    import pyarrow.dataset as ds

    if not isinstance(dataset, ds.Dataset):
        raise SourceError(f"a {type(dataset).__name__} is no source; pass the dataset itself or a Table")
    if isinstance(dataset, ds.FileSystemDataset) and isinstance(dataset.format, ds.ParquetFileFormat):
        try:
            fragments = list(dataset.get_fragments())
        except ValueError:  # filtered: its files hold more rows than it has
            fragments = []
        parts = [parquet.ParquetPart(_dataset_file(ds, fragment)) for fragment in fragments]
        # a fragment may be some row groups of its file (which `count_rows` does not heed)
        if parts and all(len(f.row_groups) == part.groups for f, part in zip(fragments, parts, strict=True)):
            return list(parts)
    scanner = functools.partial(dataset.scanner, batch_readahead=1, fragment_readahead=1)
    return [arrow.StreamPart(lambda: scanner().to_reader(), "<dataset>")]


def _dataset_file(ds: Any, fragment: Any) -> File:
    keys = ds.get_partition_keys(fragment.partition_expression)
    hive = tuple((key, None if value is None else str(value)) for key, value in keys.items())
    local = fragment.filesystem.type_name == "local"
    return File(fragment.path, fragment.path, None if local else fragment.filesystem, hive)


def _file_parts(files: list[File], named: Sequence[str]) -> list[Part]:
    """A part a file; ``.npy`` files of the same folder are the columns of one part."""
    if len(files) > 1 and not files[0].local:  # to look at one takes some answers of a server: at many together
        with ThreadPoolExecutor(_LOOKERS, thread_name_prefix="fastxent-look") as pool:
            looks = [pool.submit(_file_part, file, named) for file in files]
            try:
                found = [look.result() for look in looks]
            finally:
                pool.shutdown(cancel_futures=True)
    else:
        found = [_file_part(file, named) for file in files]
    folders: dict[str, list[File]] = {}
    for file, part in zip(files, found, strict=True):
        if part is None:
            folders.setdefault(os.path.dirname(file.path), []).append(file)
    return [part for part in found if part] + [arrays.npy_part(inside, named) for inside in folders.values()]


def _file_part(file: File, named: Sequence[str]) -> Part | None:
    """What a file is, by its first bytes; None for ``.npy``."""
    with file.open() as handle, reading(file.name):
        head, size = handle.read(16), handle.size()
    if head.startswith(tensors.NPY_MAGIC):
        return None
    if size == 0:
        raise SourceError(f"{file.name} is empty (0 bytes); write it again or leave it out")
    if head.startswith(parquet.MAGIC):
        return parquet.ParquetPart(file)
    if head.startswith(ipc.FILE_MAGIC):
        return arrow.IpcPart(file, "arrow file")
    if head.startswith(ipc.STREAM_MAGIC):
        return arrow.IpcPart(file, "arrow stream")
    if tensors.looks_like_safetensors(head, size):
        return arrays.safetensors_part(file, named)
    what, cure = _unknown(head)
    raise SourceError(f"{file.name}: {what}; fastxent reads Parquet, Arrow IPC, .npy and .safetensors; {cure}")


_PASS = "and pass the arrays to fastxent.evaluate"
_DUCKDB = "convert it with DuckDB: copy (select * from {}) to 'x.parquet'"
_OTHERS = {
    b"PK\x03\x04": ("this is a zip archive (.npz, .pt)",
                    f"load it with np.load(FILE), or torch.load(FILE, weights_only=True), {_PASS}"),
    b"\x80\x02": ("this is a pickle (.pt)", f"load it with torch.load(FILE, weights_only=True) {_PASS}"),
    b"\x1f\x8b": ("this is gzip-compressed", "decompress it with: gunzip FILE"),
    b"\x28\xb5\x2f\xfd": ("this is zstd-compressed", "decompress it with: zstd -d FILE"),
    b"BZh": ("this is bzip2-compressed", "decompress it with: bunzip2 FILE"),
    b"\xfd7zXZ": ("this is xz-compressed", "decompress it with: unxz FILE"),
    b"SQLite format 3": ("this is a SQLite database", _DUCKDB.format("sqlite_scan('FILE', 'TABLE')")),
    b"FEA1": ("this is Feather version 1",
              "convert it with pyarrow: feather.write_feather(feather.read_table(FILE), 'x.arrow')"),
    b"Obj\x01": ("this is Avro", _DUCKDB.format("read_avro('FILE')")),
    b"ORC": ("this is ORC", "convert it with: pyarrow.parquet.write_table(pyarrow.orc.read_table(FILE), 'x.parquet')"),
    b"\x89HDF": ("this is HDF5", f"load it with h5py.File(FILE) {_PASS}"),
    b"{": ("this is JSON", _DUCKDB.format("read_json('FILE')")),
    b"[": ("this is JSON", _DUCKDB.format("read_json('FILE')")),
}  # fmt: skip


def _unknown(head: bytes) -> tuple[str, str]:
    """What a file is that is not read, by its first 16 bytes, and the line that makes of it one that is."""
    for magic, found in _OTHERS.items():
        if head.startswith(magic):
            return found
    if head[8:12] == b"DUCK":
        return "this is a DuckDB database", "run in it: copy TABLE to 'x.parquet'"
    if b"," in head and all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "this looks like CSV", _DUCKDB.format("read_csv('FILE')")
    return "not a format known here", _DUCKDB.format("read_csv('FILE')") + ", if DuckDB reads it"
