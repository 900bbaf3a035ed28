"""The columns of a schema that hold the logits, and their layout: checked once per file, before a row is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fastxent.errors import ColumnError, Where
from fastxent.io.batch import Batch, Block, Logits
from fastxent.io.columns import FLOATS, SIXTEEN_BITS, as_rows, gather, is_void, item_of
from fastxent.io.families import check_order, expand, families
from fastxent.io.made import made_field, of_structs, side_by_side, stored_field
from fastxent.io.values import plain, storage
from fastxent.kernels.floats import FLOAT_TYPES

DOCUMENT, POSITION = "document", "position"  # columns that every dump of documents has
BUCKET = "position_bucket"  # a column that every dump with positions has
_UNIT_NUMBERS = 1 << 20  # rows of a unit of a binary dump
VOID = "null"  # the dtype of logits that are all null
AS_TEXT = b"text"  # in the metadata of a field of numbers that are text in the file, and float64 as logits
ACCEPTED = (
    "a list, large_list, fixed_size_list, fixed-shape tensor or binary column of float16, bfloat16, float32 "
    "or float64, or one column per class; or, in a binary dump, a column of floats, one per row"
)


# ---- which columns ---------------------------------------------------------------------------------------------------


def find_field(schema: pa.Schema, name: str) -> pa.Field | None:
    """The field of that name: of a column, of a struct column behind a dot, or of lists made of other columns."""
    found = stored_field(schema, name)
    return made_field(schema, name) if found is None else found


def pick(batch: pa.RecordBatch, name: str) -> pa.Array:
    """The column `find_field` names, nulls of the enclosing structs included."""
    index = batch.schema.get_field_index(name)
    if index >= 0:
        return batch.column(index)
    if stored_field(batch.schema, name) is None and any(mark in name for mark in "*?["):
        return side_by_side(batch, name)
    head, _, tail = name.rpartition(".")
    outer = pick(batch, head)
    return pc.struct_field(outer, tail) if pt.is_struct(outer.type) else of_structs(outer, tail)


def all_names(schema: pa.Schema) -> list[str]:
    """Column names, and those of struct fields behind a dot."""

    def walk(prefix: str, fields: Sequence[pa.Field]) -> Iterator[str]:
        for field in fields:
            yield prefix + field.name
            if pt.is_struct(field.type):
                yield from walk(f"{prefix}{field.name}.", list(field.type))

    return list(walk("", list(schema)))


# ---- how logits lie in them ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """The columns of the logits of a file, and the type of their elements."""

    names: tuple[str, ...]  # one column, or one a class
    per_class: bool
    dtype: str  # or `VOID`
    n_classes: int | None  # where the type tells it
    scalar: bool = False  # a binary dump: one number per row

    @classmethod
    def find(
        cls,
        schema: pa.Schema,
        logits: str | Sequence[str],
        dtype: str | None,
        file: str,
        classes: Sequence[str] | None = None,
    ) -> Layout:
        """The layout of the column(s) a user named, or a `ColumnError` that says what is wrong with them. ``classes``:
        the names of the classes, if they have names."""
        if dtype is not None and dtype not in FLOAT_TYPES:
            raise ColumnError(f"logits_dtype must be one of {', '.join(FLOAT_TYPES)}, got {dtype!r}")
        if isinstance(logits, str):
            exists = stored_field(schema, logits) is not None
            several = not exists and any(mark in logits for mark in "*?[")
            names = expand(schema, logits, file, classes) if several else (logits,)
        else:
            names, several = tuple(logits), True
            check_order(names, classes or ())
        if not names:
            raise ColumnError("logits must name at least one column")
        fields = []
        for name in names:
            field = stored_field(schema, name)
            if field is None:
                raise ColumnError.missing(name, all_names(schema) if several else families(all_names(schema)), file)
            fields.append(field.with_type(pa.float64()) if AS_TEXT in (field.metadata or {}) else field)
        item, size = item_of(fields[0].type)
        if is_void(fields[0].type) and not several:
            return cls(names, False, VOID, None)
        if len(names) == 1 and item is not None:
            found = _element_dtype(fields[0], item, dtype, names[0], file)
            return cls(names, False, found, _classes(size, item, found, names[0], file))
        if not several:
            return cls(names, False, _scalar_dtype(fields[0], dtype, names[0], file), 1, scalar=True)
        kinds = {
            name: _element_dtype(f, f.type, dtype, name, file)
            for f, name in zip(fields, names, strict=True)
            if not pt.is_null(f.type)
        }
        first = next(iter(kinds), None)
        for name, kind in kinds.items():
            if first is not None and kind != kinds[first]:
                raise ColumnError(
                    f"the logits columns of {file} must have one float type, got {kinds[first]} for {first!r} and "
                    f"{kind} for {name!r}"
                )
        return cls(names, True, VOID if first is None else kinds[first], len(names))

    @property
    def itemsize(self) -> int:
        return FLOAT_TYPES[self.dtype].width

    def rows(self, batch: pa.RecordBatch, n_classes: int) -> tuple[Logits, dict[int, str]]:
        """The logits of a record batch, and its bad rows."""
        if self.per_class or self.scalar:
            return gather([pick(batch, name) for name in self.names], self.names, self.dtype)
        return as_rows(pick(batch, self.names[0]), self.dtype, n_classes, "logits")

    def width(self, batch: pa.RecordBatch, file: str) -> int | None:
        """Number of classes, from the first row of the batch that is neither null nor empty."""
        if self.n_classes is not None or self.dtype == VOID:
            return self.n_classes
        for row in storage(pick(batch, self.names[0])):
            if row.is_valid:
                value = row.as_buffer() if isinstance(row, pa.BinaryScalar) else row.values
                size = value.size if isinstance(value, pa.Buffer) else len(value) * self.itemsize
                if size:
                    return _classes(size, None, self.dtype, self.names[0], file)
        return None


NO_LOGITS = Layout((), False, "float64", 1)  # of rows that hold no logits


@dataclass(frozen=True)
class RowReader:
    """Makes a `Batch` of a record batch: everything a worker needs to know beside the bytes."""

    layout: Layout
    n_classes: int
    columns: tuple[str, ...]
    constants: tuple[tuple[str, pa.Scalar], ...] = ()  # columns that folder names give
    blind: bool = False  # the logits are not read
    tags: tuple[tuple[str, str], ...] = ()  # columns of integers that are the bits of floats, and the type of those
    weight: int = 64  # bytes of a row without logits
    bucketed: bool = False  # the column `BUCKET` follows from the positions
    made: tuple[tuple[str, tuple[str, ...]], ...] = ()  # lists, and the columns they are made of

    @property
    def row_bytes(self) -> int:
        return self.weight if self.blind else self.n_classes * self.layout.itemsize

    @property
    def stored(self) -> list[str]:
        """The columns to read."""
        return list(dict.fromkeys([*(() if self.blind else self.layout.names), *self.stored_beside]))

    @property
    def stored_beside(self) -> list[str]:
        """Those of ``columns`` to read; a column of logits may be among them."""
        constant, made = {name for name, _ in self.constants}, dict(self.made)
        names = [POSITION if self.bucketed and name == BUCKET else name for name in self.columns]
        names = [held for name in names for held in made.get(name, (name,))]
        return [name for name in dict.fromkeys(names) if name not in constant]

    def rows_in(self, nbytes: int) -> int:
        """Rows whose logits take at most ``nbytes``; one at the least."""
        return max(1, nbytes // self.row_bytes)

    def unit_rows(self, nbytes: int) -> int:
        """Rows of a unit whose logits take at most ``nbytes``: fewer in a binary dump, so that all workers get some."""
        return min(self.rows_in(nbytes), _UNIT_NUMBERS) if self.layout.scalar else self.rows_in(nbytes)

    def block(self, batch: pa.RecordBatch) -> Block:
        """The logits of a record batch, without classes where they are not read."""
        if self.blind:
            return Block(np.empty((len(batch), 0), np.float32), "float32", {})
        logits, bad = self.layout.rows(batch, self.n_classes)
        return Block(logits.values, logits.dtype, bad)

    def batch(self, batch: pa.RecordBatch, where: Where) -> Batch:
        """A record batch in memory as one block."""
        return Batch(iter((self.block(batch),)), self.beside(batch, len(batch), where), where, len(batch))

    def beside(self, batch: pa.RecordBatch | None, rows: int, where: Where) -> dict[str, pa.Array]:
        """The columns beside the logits as `plain` values, of a record batch that holds them (None if folder names give
        them all)."""
        constants, tags = dict(self.constants), dict(self.tags)
        return {
            name: pa.repeat(constants[name], rows)
            if name in constants
            else buckets_of(plain(pick(batch, POSITION), POSITION, None, where))
            if self.bucketed and name == BUCKET
            else plain(pick(batch, name), name, tags.get(name), where)
            for name in self.columns
        }

    def cut(self, batch: pa.RecordBatch, where: Where, step: int) -> Iterator[Batch]:
        """A record batch in memory as batches of ``step`` rows, without a copy."""
        for begin in range(0, len(batch), step):
            yield self.batch(batch.slice(begin, step), Where(where.file, where.row_group, where.first_row + begin))


def buckets_of(positions: pa.Array) -> pa.Array:
    """(n,) int64. For each position the first of its bucket: 0, 1, 2, 4, 8, ...; null for one below 0."""
    valid = np.array(positions.is_valid())
    found = np.asarray(positions.fill_null(0).cast(pa.int64()))
    valid &= found >= 0
    filled = np.where(valid, found, 0)
    for shift in (1, 2, 4, 8, 16, 32):
        filled |= filled >> shift
    return pa.array(filled - (filled >> 1), mask=~valid)


def _scalar_dtype(field: pa.Field, dtype: str | None, name: str, file: str) -> str:
    """The float type of a column of one number per row."""
    kind = field.type
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pt.is_decimal(kind):
        raise ColumnError(f"column {name!r} of {file} must hold floats, got {field.type}; cast the column to double")
    if _is_blob(field) or not (kind in FLOATS or kind in SIXTEEN_BITS):
        raise _wrong_type(field, name, file)
    return _element_dtype(field, kind, dtype, name, file)


def _is_blob(field: pa.Field) -> bool:
    kind = field.type
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return bool(
        pt.is_fixed_size_binary(kind) or pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind)
    )


def _element_dtype(field: pa.Field, item: pa.DataType, dtype: str | None, name: str, file: str) -> str:
    """dtype of the elements: their type's, else the argument's, else what the field's metadata say."""
    while isinstance(item, pa.BaseExtensionType):
        item = item.storage_type
    found = FLOATS.get(item)
    if found is not None:
        if dtype not in (None, found):
            raise ColumnError(
                f"logits_dtype must be {found} for column {name!r} of {file}, got {dtype}; "
                "omit logits_dtype (--logits-dtype)"
            )
        return found
    blob = _is_blob(field)
    if not blob and item not in SIXTEEN_BITS:
        raise _wrong_type(field, name, file)
    metadata = [field.metadata] + ([field.type.value_field.metadata] if hasattr(field.type, "value_field") else [])
    tags = [m[b"dtype"].decode("utf-8", "replace") for m in metadata if m and b"dtype" in m]
    tag = dtype or next(iter(tags), None)
    fitting = list(FLOAT_TYPES) if blob else ["bfloat16", "float16"]
    if tag not in fitting:
        cause = f"{field.type} cannot hold {tag!r}" if tag else f"{field.type} does not tell the float type"
        raise ColumnError(
            f'cannot read column {name!r} of {file}: {cause}; set logits_dtype="bfloat16" (--logits-dtype bfloat16, '
            f'one of {", ".join(fitting)}), or write the field with the metadata {{"dtype": "bfloat16"}}'
        )
    return tag


def _classes(size: int | None, item: pa.DataType | None, dtype: str, name: str, file: str) -> int | None:
    """Classes in a row of ``size`` elements (bytes where ``item`` is uint8 or None)."""
    if size is None:
        return None
    itemsize = FLOAT_TYPES[dtype].width if item in (None, pa.uint8()) else 1
    if size % itemsize or not size:
        raise ColumnError(
            f"cannot read column {name!r} of {file}: a row of {size} bytes is not a whole number of {dtype} logits"
        )
    return size // itemsize


def _wrong_type(field: pa.Field, name: str, file: str) -> ColumnError:
    return ColumnError(f"logits column {name!r} of {file} must be {ACCEPTED}, got {field.type}")
