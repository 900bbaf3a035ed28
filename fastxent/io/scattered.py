"""Where the rows of a dump lie in its files, for `in_place`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import numpy as np

from fastxent.io.arrays import ArrayUnit
from fastxent.io.in_place import InPlace
from fastxent.io.parquet.part import NativeUnit
from fastxent.io.parquet.places import value_runs
from fastxent.io.source import OpenSource
from fastxent.io.storage.files import File
from fastxent.io.storage.identity import Version, unchanged
from fastxent.io.storage.local import LocalRanges
from fastxent.io.tensors import Stored
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.gather import pread

_LEAST = 1 << 10  # bytes of a row that is worth a read of its own


@dataclass(frozen=True)
class _Part:
    """The rows of a unit in its file. runs: (number of its first entry, place in the file) of each."""

    file: File
    version: Version | None
    rows: int
    per_row: int
    runs: list[tuple[int, int]]


@contextmanager
def in_place(source: OpenSource, order: np.ndarray, *, spread: bool = False) -> Iterator[InPlace | None]:
    """The rows of a dump at the places ``order``; None where they have to be copied to be in that order.

    spread: bool. Other machines read them, and the files need not be in memory.
    """
    with ExitStack() as stack:
        parts = _parts(source)
        found = None if parts is None else _array(source, order, parts)
        if found is not None:
            for file, version in {part.file.name: (part.file, part.version) for part in parts or ()}.values():
                stack.enter_context(unchanged(file, version))
            if not (spread or found.is_near()):
                found = None
        yield found


def _array(source: OpenSource, order: np.ndarray, parts: list[_Part]) -> InPlace | None:
    if len({part.per_row for part in parts}) != 1 or sum(part.rows for part in parts) <= order.max(initial=-1):
        return None
    per_row, dtype = parts[0].per_row, FLOAT_TYPES[source.dtype].stored
    files = {part.file.name: part.file for part in parts}
    numbers = {name: number for number, name in enumerate(files)}
    first, offset, of, entries = list[int](), list[int](), list[int](), 0
    for part in parts:
        first += [entries + begin for begin, _ in part.runs]
        offset += [place for _, place in part.runs]
        of += [numbers[part.file.name]] * len(part.runs)
        entries += part.rows * per_row
    first.append(entries)
    entry = per_row, source.n_classes * dtype.itemsize // per_row
    return InPlace(
        (len(order), source.n_classes), dtype, tuple(files.values()), np.array(first, np.int64),
        np.array(offset, np.int64), np.array(of, np.int64), entry, order,
    )  # fmt: skip


def _parts(source: OpenSource) -> list[_Part] | None:
    """The rows of all units; None if some of them are not as they are used, or not worth a read of their own."""
    dtype = FLOAT_TYPES[source.dtype].stored
    if pread() is None or source.task != "multiclass" or source.n_classes * dtype.itemsize < _LEAST:
        return None
    found = []
    with ExitStack() as stack:
        opened: dict[str, LocalRanges] = {}
        for unit in source.units():
            part: _Part | None = None
            if isinstance(unit, ArrayUnit):
                part = _of_array(unit, source)
            elif isinstance(unit, NativeUnit) and unit.source.file.local and unit.chunk.unit_bytes == dtype.itemsize:
                file = unit.source.file
                if file.name not in opened:
                    opened[file.name] = stack.enter_context(closing(LocalRanges(file.path)))
                runs = value_runs(unit.chunk, opened[file.name])
                part = None if runs is None else _Part(
                    file, unit.source.version, unit.rows, unit.chunk.per_row, runs
                )  # fmt: skip
            if part is None:
                return None
            found.append(part)
    return found or None


def _of_array(unit: ArrayUnit, source: OpenSource) -> _Part | None:
    """The rows of an array in a local file."""
    array, _ = unit.arrays[unit.reader.layout.names[0]]
    if not isinstance(array, Stored) or array.fortran or array.forward or not array.file.local or unit.kept is not None:
        return None
    kind, dtype = FLOAT_TYPES[source.dtype].stored, array.dtype
    if not (dtype == kind or (dtype.isnative and dtype.name == source.dtype)) or array.shape[1:] != (source.n_classes,):
        return None
    place = array.offset + unit.where.first_row * source.n_classes * kind.itemsize
    return _Part(array.file, array.version, unit.rows, 1, [(0, place)])
