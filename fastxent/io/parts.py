"""The parts of a source: each file or in-memory table, recognised by its first bytes or its type."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from fastxent.errors import FastxentError, SourceError
from fastxent.io import arrays, dicts, frames, llama, npz, tensors
from fastxent.io.arrow import ipc, part as arrow
from fastxent.io.batch import Unit
from fastxent.io.bounds import Keep
from fastxent.io.delimited import delimited_part
from fastxent.io.events import STARTS
from fastxent.io.joined import MadeSource
from fastxent.io.json_lines import BOM
from fastxent.io.layout import Layout, RowReader
from fastxent.io.parquet import part as parquet
from fastxent.io.remarks import Storage
from fastxent.io.responses import part as responses
from fastxent.io.storage.files import File, find_files, reading
from fastxent.io.teachers.part import TeachersPart, is_of_distillkit
from fastxent.io.torch_file import is_torch_file, torch_part

_LOOKERS = 16


class Part(Protocol):
    """One file or one table in memory: the interface of each format."""

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

    @property
    def consumed(self) -> object | None: ...  # as in `Remarks`, like all that follows but `width` and `units`
    @property
    def documents(self) -> int | None: ...
    @property
    def missing(self) -> str | None: ...
    @property
    def fallback(self) -> str | None: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def refused(self) -> Mapping[str, FastxentError]: ...
    @property
    def n_classes(self) -> int | None: ...

    lines: int
    first: int

    def width(self, layout: Layout, expected: int | None) -> int | None:
        """Number of classes in the first row that is not empty, for schemas without it."""
        ...

    def prune(self, reader: RowReader, names: Sequence[str], keep: Keep) -> int:
        """Leave out row groups, as in `Remarks`."""
        ...

    def storage(self, names: Sequence[str], layout: Layout | None, n_classes: int | None) -> Storage | None:
        """How the logits are stored."""
        ...

    def row_bytes(self, names: Sequence[str]) -> int | None:
        """About how many bytes columns of a row take in memory, if that is known."""
        ...

    def units(self, reader: RowReader) -> Iterator[Unit]: ...


def find_parts(source: Any, named: Sequence[str] = ()) -> list[Part]:
    """The parts of a source, in order. ``named``: the columns that will be read, as far as they are known."""
    if isinstance(source, MadeSource):
        return source.make(named)
    if isinstance(source, str | os.PathLike):
        return _file_parts(find_files(source), named)
    if isinstance(source, list | tuple):
        if not source:
            raise SourceError("source must not be an empty list; name at least one file")
        if all(isinstance(item, str | os.PathLike) for item in source):
            return _file_parts([file for item in source for file in find_files(item)], named)
        if (advice := frames.advice(source)) is not None:
            raise SourceError(f"cannot read a {type(source).__name__}; {advice}")
        return [part for item in source for part in find_parts(item, named)]
    if isinstance(source, np.ndarray) and source.dtype.names is not None:
        source = {name: source[name] for name in source.dtype.names}
    if (advice := frames.advice(source)) is not None:
        raise SourceError(f"cannot read a {type(source).__name__}; {advice}")
    if isinstance(source, Mapping):
        return [dicts.dict_part(source, named)]
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
        f"invalid source of type {type(source).__name__}; expected a path, a glob, a folder, a list of them, "
        "an Arrow table or stream, or a dict of arrays"
    )


def _dataset_parts(dataset: Any) -> list[Part]:
    """Parquet files of a dataset are read as files, since its own scanner decodes whole row groups; what else a
    dataset may be (other formats, a filter, parts of files) comes through the scanner with little read-ahead."""
    import pyarrow.dataset as ds

    if not isinstance(dataset, ds.Dataset):
        raise SourceError(f"invalid source of type {type(dataset).__name__}; expected a Dataset or a Table")
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
    """One part per file; ``.npy`` files of the same folder are the columns of one part."""
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
    first = 0
    for part in found:
        if part is not None and part.lines:
            part.first, first = first, first + part.lines
    return [part for part in found if part] + [arrays.npy_part(inside, named) for inside in folders.values()]


def _file_part(file: File, named: Sequence[str]) -> Part | None:
    """Return the part of a file, recognised by its first bytes; None for ``.npy``."""
    with file.open() as handle, reading(file.name):
        head, size = handle.read(16), handle.size()
    if head.startswith(tensors.NPY_MAGIC):
        return None
    if size == 0:
        raise SourceError(f"cannot read {file.name}: the file is empty (0 bytes); write the file again or omit it")
    if head.startswith(parquet.MAGIC):
        part = parquet.ParquetPart(file)
        return TeachersPart(file, part) if is_of_distillkit(part.schema) else part
    if head.startswith(ipc.FILE_MAGIC):
        return arrow.IpcPart(file, "arrow file")
    if head.startswith(ipc.STREAM_MAGIC):
        return arrow.IpcPart(file, "arrow stream")
    if head.startswith(llama.MAGIC):
        return llama.LlamaPart(file)
    if tensors.looks_like_safetensors(head, size):
        return arrays.safetensors_part(file, named)
    if head.startswith(npz.ZIP_MAGIC):
        return torch_part(file, named) if is_torch_file(file) else npz.npz_part(file, named)
    if head.removeprefix(BOM).lstrip().startswith((b"{", b"[", *STARTS)):
        return responses.ResponsesPart(file)
    if (delimited := delimited_part(file, head)) is not None:
        return delimited
    what, cure = _unknown(head)
    raise SourceError(
        f"cannot read {file.name}: {what}; supported formats are Parquet, Arrow IPC, CSV, .npy, .npz, "
        f".safetensors, .pt, JSON and llama.cpp's .kld; {cure}"
    )


_PASS = "and pass the arrays to fastxent.evaluate"
_DUCKDB = "convert it with DuckDB: copy (select * from {}) to 'x.parquet'"
_PICKLE = "unpickling runs code; load it where it is trusted, and save arrays with numpy.savez or torch.save"
_OTHERS = {
    **{b"\x80" + bytes([version]): ("the file is a pickle (.pkl, or .pt of an old torch)", _PICKLE)
       for version in range(2, 6)},
    b"\x1f\x8b": ("the file is gzip-compressed", "decompress it with: gunzip FILE"),
    b"\x28\xb5\x2f\xfd": ("the file is zstd-compressed", "decompress it with: zstd -d FILE"),
    b"BZh": ("the file is bzip2-compressed", "decompress it with: bunzip2 FILE"),
    b"\xfd7zXZ": ("the file is xz-compressed", "decompress it with: unxz FILE"),
    b"SQLite format 3": ("the file is a SQLite database", _DUCKDB.format("sqlite_scan('FILE', 'TABLE')")),
    b"FEA1": ("the file is Feather version 1",
              "convert it with pyarrow: feather.write_feather(feather.read_table(FILE), 'x.arrow')"),
    b"Obj\x01": ("the file is Avro", _DUCKDB.format("read_avro('FILE')")),
    b"ORC": ("the file is ORC",
             "convert it with: pyarrow.parquet.write_table(pyarrow.orc.read_table(FILE), 'x.parquet')"),
    **dict.fromkeys((b"\xff\xfe", b"\xfe\xff"),
                    ("the text is UTF-16", "convert it with: iconv -f UTF-16 -t UTF-8 FILE > OUT")),
    b"\x89HDF": ("the file is HDF5", f"load it with h5py.File(FILE) {_PASS}"),
}  # fmt: skip


def _unknown(head: bytes) -> tuple[str, str]:
    """Return the format of an unsupported file, by its first 16 bytes, and how to convert it."""
    for magic, found in _OTHERS.items():
        if head.startswith(magic):
            return found
    if head[8:12] == b"DUCK":
        return "the file is a DuckDB database", "run in it: copy TABLE to 'x.parquet'"
    return "unknown format", _DUCKDB.format("read_csv('FILE')") + ", if DuckDB can read the file"
