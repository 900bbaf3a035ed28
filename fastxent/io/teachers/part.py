"""A Parquet file of DistillKit as a part of a source: each token of a sequence is a row.

List s of a sequence is about the token after ``input_ids[s]``, which is its target. A list without such a token is an
ignored row, and a token without a list is a bad one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fastxent.errors import ColumnError, SourceError, Where
from fastxent.io.batch import Batch, Unit
from fastxent.io.layout import NO_LOGITS, Layout, RowReader
from fastxent.io.parquet.part import ParquetPart
from fastxent.io.remarks import Remarks, Storage
from fastxent.io.storage.files import File
from fastxent.io.teachers.compression import Compression, compression_of

LOGPROBS, IDS, TOKENS = "compressed_logprobs", "bytepacked_indices", "input_ids"
RAW_LOGPROBS, RAW_IDS = "top_values", "token_ids"
OWN = ("document", "position", "target", "topk_ids", "topk_logprobs")  # columns of tokens
_SEQUENCES = 8  # that are in memory at a time
_DECODED = 1 << 20  # ids that are in memory at a time


def is_of_distillkit(schema: pa.Schema) -> bool:
    """Whether a file holds sequences of DistillKit."""

    def holds(name: str, item: pa.DataType | None) -> bool:
        at = schema.get_field_index(name)
        inner = _inner(schema.field(at).type) if at >= 0 else None
        return inner is not None and (inner == item if item is not None else pt.is_integer(inner))

    if holds(LOGPROBS, pa.uint8()) and holds(IDS, pa.uint8()):
        return True
    return holds(RAW_IDS, None) and (holds(RAW_LOGPROBS, pa.float32()) or holds(RAW_LOGPROBS, pa.float16()))


def _inner(kind: pa.DataType) -> pa.DataType | None:
    """The type inside lists of lists."""
    for _ in range(2):
        if not (pt.is_list(kind) or pt.is_large_list(kind)):
            return None
        kind = kind.value_type
    return kind


@dataclass(frozen=True)
class Lists:
    """Lists of bytes or of numbers, one after another. valid: bool (n,). starts, sizes: int64 (n,) in ``values``."""

    valid: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, lists: pa.Array) -> Lists:
        """The lists of an array. A list that holds a null is not valid."""
        sizes = np.asarray(pc.list_value_length(lists).fill_null(0)).astype(np.int64)
        starts, values = np.cumsum(sizes) - sizes, lists.flatten()
        valid = np.asarray(lists.is_valid())
        if values.null_count:
            nulls = np.flatnonzero(np.asarray(values.is_null()))
            valid = valid & (np.searchsorted(nulls, starts) == np.searchsorted(nulls, starts + sizes))
            values = values.fill_null(0)
        return cls(valid, starts, sizes, np.asarray(values))

    def rows(self, places: np.ndarray, width: int) -> np.ndarray:
        """(n, width) of the lists at some places, each of that size."""
        found: np.ndarray = self.values[self.starts[places][:, None] + np.arange(width)]
        return found


@dataclass(frozen=True)
class TeachersUnit:
    """Sequences of a file. Picklable."""

    unit: Unit
    reader: RowReader
    compression: Compression | None
    first: int  # number of sequences before the file

    rows = None  # known once they are read
    nbytes = None

    @property
    def where(self) -> Where:
        return self.unit.where

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        with closing(self.unit.read(min(rows, _SEQUENCES), block_bytes, True)) as batches:  # type: ignore[type-var]
            for batch in batches:
                for _ in batch.blocks:
                    pass
                yield from self._unrolled(batch, min(rows, self.reader.rows_in(block_bytes)))

    def _unrolled(self, batch: Batch, step: int) -> Iterator[Batch]:
        """The tokens of some sequences."""
        names = (LOGPROBS, IDS) if self.compression is not None else (RAW_LOGPROBS, RAW_IDS)
        for name in (*names, TOKENS):
            _prove(batch.columns[name], name)
        outer = [batch.columns[name] for name in names]
        tokens = batch.columns[TOKENS]
        held = [np.asarray(pc.list_value_length(column).fill_null(0)).astype(np.int64) for column in (*outer, tokens)]
        null = np.logical_or.reduce([~np.asarray(column.is_valid()) for column in (*outer, tokens)])
        count = np.maximum.reduce([held[0], held[1], held[2] - 1, null.astype(np.int64)])
        lists = [Lists.of(column.flatten()) for column in outer]
        sequence = np.repeat(np.arange(batch.rows), count)
        place = np.arange(len(sequence)) - np.repeat(np.cumsum(count) - count, count)
        targets = _at(tokens.flatten(), held[2], sequence, place + 1)
        k = 1 if self.compression is None else self.compression.k
        step = max(1, min(step, _DECODED // k))
        for begin in range(0, len(sequence), step):
            part = slice(begin, begin + step)
            at = [_places(sizes, sequence[part], place[part]) for sizes in held[:2]]
            ids, logprobs = self._raw(lists, at) if self.compression is None else self._decoded(lists, at)
            document, position = batch.where.first_row + sequence[part], place[part] + 1
            columns = {
                "document": pa.array(document + self.first), "position": pa.array(position), "target": targets[part],
                "topk_ids": ids, "topk_logprobs": logprobs,
            }  # fmt: skip
            for name in self.reader.stored:
                if name not in OWN:
                    columns[name] = batch.columns[name].take(pa.array(sequence[part]))
            tokens_at = document.tolist(), position.tolist()
            where = Where(batch.where.file, None, int(document[0]), tokens_at, documents=True)
            yield self.reader.batch(pa.record_batch(columns), where)

    def _decoded(self, lists: list[Lists], at: list[np.ndarray]) -> tuple[pa.Array, pa.Array]:
        """Lists of ids and of log-probabilities; null where a token has not the bytes of both."""
        c = self.compression
        assert c is not None
        widths = c.logprob_bytes, c.index_bytes
        good = np.ones(len(at[0]), bool)
        for side, places, width in zip(lists, at, widths, strict=True):
            known = places >= 0
            good[~known] = False
            good[known] &= side.valid[places[known]] & (side.sizes[places[known]] == width)
        logprobs = c.logprobs(lists[0].rows(at[0][good], widths[0]))
        ids = c.ids(lists[1].rows(at[1][good], widths[1]))
        kept = ~np.isneginf(logprobs)  # places of no token: their ids mean nothing
        sizes = np.zeros(len(good), np.int64)
        sizes[good] = kept.sum(axis=1)
        return _listed(ids[kept], sizes, good), _listed(logprobs[kept], sizes, good)

    def _raw(self, lists: list[Lists], at: list[np.ndarray]) -> tuple[pa.Array, pa.Array]:
        """Lists that are stored as they are."""
        found = []
        for side, places in zip(lists, at, strict=True):
            good = places >= 0
            good[good] = side.valid[places[good]]
            sizes, starts = np.zeros((2, len(good)), np.int64)
            sizes[good], starts[good] = side.sizes[places[good]], side.starts[places[good]]
            ends = np.cumsum(sizes)
            shift = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - sizes, sizes)
            found.append(_listed(side.values[shift + np.repeat(starts, sizes)], sizes, good))
        return found[1].cast(pa.list_(pa.int64()), safe=False), found[0]


def _prove(column: pa.Array, name: str) -> None:
    """`ColumnError` for lists whose offsets are damaged."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ColumnError(
            f"cannot read column {name!r}: {' '.join(str(error).split())}; write the file again"
        ) from None


def _places(sizes: np.ndarray, sequence: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Where an element of a sequence is among those of all; -1 if it has fewer."""
    first = np.cumsum(sizes) - sizes
    return np.where(place < sizes[sequence], first[sequence] + place, -1)


def _at(values: pa.Array, sizes: np.ndarray, sequence: np.ndarray, place: np.ndarray) -> pa.Array:
    """Elements of sequences; null where a sequence has fewer."""
    at = _places(sizes, sequence, place)
    return values.take(pa.array(np.maximum(at, 0), mask=at < 0))


def _listed(values: np.ndarray, sizes: np.ndarray, valid: np.ndarray) -> pa.Array:
    """Lists of some values, null where they are not ``valid``."""
    ends = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
    return pa.ListArray.from_arrays(ends, pa.array(values), mask=pa.array(~valid))


class TeachersPart(Remarks):
    """A file of sequences of DistillKit.

    first: int. Number of sequences in the files before it.
    """

    def __init__(self, file: File, part: ParquetPart) -> None:
        names = part.schema.names
        compressed = LOGPROBS in names
        self.compression = compression_of(file) if compressed else None
        self.format = f"parquet of DistillKit ({'compressed' if compressed else 'raw'} top-k)"
        if TOKENS not in names:
            raise SourceError(f"cannot read {file.name}: it has lists of DistillKit, but no column {TOKENS!r}")
        self.part, self.name, self.hive, self.inputs, self.first = part, part.name, part.hive, part.inputs, 0
        self._read = (*((LOGPROBS, IDS) if compressed else (RAW_LOGPROBS, RAW_IDS)), TOKENS)
        self.lines = part.rows or 0
        self.n_classes = None if self.compression is None else self.compression.d
        self.rows = None if part.rows else 0
        real = pa.float64() if self.compression is not None and self.compression.dtype == "float64" else pa.float32()
        if self.compression is None:
            real = _inner(part.schema.field(RAW_LOGPROBS).type)
        tokens = [
            ("document", pa.int64()), ("position", pa.int64()), ("target", part.schema.field(TOKENS).type.value_type),
            ("topk_ids", pa.list_(pa.int64())), ("topk_logprobs", pa.list_(real)),
        ]  # fmt: skip
        beside = [f for f in part.schema if f.name not in (*self._read, *OWN) and not hasattr(f.type, "value_type")]
        self.schema = pa.schema([*tokens, *beside])
        self._check()

    def _check(self) -> None:
        """`SourceError` if the first token has not the bytes that its compression takes."""
        c = self.compression
        if c is None or not self.lines:
            return
        unit = next(self.part.units(self._reader(self._read)))
        with closing(unit.read(1, 1 << 20, True)) as batches:  # type: ignore[type-var]
            batch = next(batches)
        for name, width in ((LOGPROBS, c.logprob_bytes), (IDS, c.index_bytes)):
            sizes = Lists.of(batch.columns[name].flatten()).sizes
            if len(sizes) and sizes[0] != width:
                raise SourceError(
                    f"cannot read {self.name}: {name} has {sizes[0]} bytes per token, and its compression_config.yaml "
                    f"means {width}; put the file that it was written with beside it"
                )

    @staticmethod
    def _reader(names: tuple[str, ...]) -> RowReader:
        return RowReader(NO_LOGITS, 1, names, blind=True)

    def width(self, layout: Layout, expected: int | None) -> int | None:
        """None: rows list some classes."""
        return None

    def storage(self, names: object, layout: object, n_classes: object) -> Storage | None:
        """None: the lists are decoded."""
        return None

    def units(self, reader: RowReader) -> Iterator[TeachersUnit]:
        beside = (name for name in reader.stored if name not in OWN)
        for unit in self.part.units(self._reader(tuple(dict.fromkeys([*self._read, *beside])))):
            yield TeachersUnit(unit, reader, self.compression, self.first)
