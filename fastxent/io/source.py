"""Open a path, a folder, a table or a dict of arrays as a `Source` of batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from fastxent.errors import ColumnError, SourceError
from fastxent.io.batch import Unit
from fastxent.io.bounds import Keep
from fastxent.io.documents import Sequences
from fastxent.io.layout import BUCKET, NO_LOGITS, POSITION, VOID, Layout, RowReader, all_names, find_field
from fastxent.io.made import made_names
from fastxent.io.parts import Part, find_parts
from fastxent.io.sequences import unrolled
from fastxent.io.storage.doubts import doubts
from fastxent.io.storage.files import File
from fastxent.io.values import tag_of
from fastxent.kernels.floats import FLOAT_TYPES

Chooser = Callable[[pa.Schema, tuple[str, ...]], Sequence[str]]  # of columns, given all and those of the logits


_FALLBACKS = 20  # files named


@dataclass
class OpenSource:
    """An open dump. All parts have the same classes, the same dtype and all columns."""

    n_classes: int
    dtype: str
    schema: pa.Schema
    parts: list[tuple[Part, RowReader]] = field(repr=False)
    skipped: int | None = None  # row groups that `prune` left out; None if nothing was asked for

    @property
    def task(self) -> str:
        """The kind of the dump, as its columns say: "multiclass", "binary" for one number per row, or "scores" where no
        logits are read."""
        layout = self.parts[0][1].layout
        return "binary" if layout.scalar else "multiclass" if layout.names else "scores"

    @property
    def rows(self) -> int | None:
        counts = [part.rows for part, _ in self.parts]
        return None if None in counts else sum(count for count in counts if count)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of logits in memory."""
        return self.n_classes * FLOAT_TYPES[self.dtype].width

    @property
    def nbytes(self) -> int | None:
        return None if self.rows is None else self.rows * self.parts[0][1].row_bytes

    @property
    def files(self) -> list[str]:
        return [part.name for part, _ in self.parts]

    @property
    def inputs(self) -> list[File]:
        """All files that are read."""
        return [file for part, _ in self.parts for file in part.inputs]

    @property
    def in_memory(self) -> str | None:
        """The name of the first part that is not in files; None if all are."""
        return next((part.name for part, _ in self.filled if not part.inputs), None)

    @property
    def paths(self) -> list[str]:
        """The names of the parts, and the local files that are read."""
        stored = (file.path for file in self.inputs if file.local)
        return list(dict.fromkeys([*self.files, *stored]))

    @property
    def fallbacks(self) -> list[dict[str, str]]:
        """Files whose logits went through pyarrow, and why: of the units taken so far, and the first of many."""
        found = ((part.name, part.fallback) for part, _ in self.parts)
        told = ({"file": name, "reason": why} for name, why in found if why is not None)
        return list(itertools.islice(told, _FALLBACKS))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the files."""
        return tuple(warnings_of([part for part, _ in self.parts]))

    def require_whole(self) -> None:
        """`SourceError` for the first file that is cut short; its missing rows are bad rows otherwise."""
        for part, _ in self.parts:
            if part.missing is not None:
                raise SourceError(
                    f"cannot read {part.name}: {part.missing}; write the file again, or count the missing rows "
                    'as bad with on_bad_row="skip" (--on-bad-row skip)'
                )

    def prune(self, names: Sequence[str], keep: Keep) -> None:
        """Read no row groups whose metadata prove that ``keep`` refuses all their rows. names: columns it looks up."""
        self.skipped = sum(part.prune(reader, names, keep) for part, reader in self.filled)

    def columns_only(self) -> OpenSource:
        """The same source without its logits, whose batches have no classes: a cheap look ahead."""
        return replace(self, parts=[(part, replace(reader, blind=True)) for part, reader in self.parts])

    def units(self) -> Iterator[Unit]:
        """Every row of the source once, in the order of files and rows."""
        return (unit for unit, _ in self.pieces())

    def pieces(self) -> Iterator[tuple[Unit, tuple[File, ...]]]:
        """The units, each with the files that it reads; none if it is in memory."""
        for part, reader in self.filled:
            yield from ((unit, part.inputs) for unit in part.units(reader))

    @property
    def filled(self) -> list[tuple[Part, RowReader]]:
        """The parts that have rows, or may have."""
        return [(part, reader) for part, reader in self.parts if part.rows != 0]


def open_source(
    source: Any,
    *,
    logits: str | Sequence[str] | None,
    columns: Sequence[str] | Chooser = (),
    dtype: str | None = None,
    classes: Sequence[str] | None = None,
    optional: str | None = None,
    needs_logits: bool = True,
    sequences: Sequences | None = None,
) -> OpenSource:
    """Open a dump and make sure that it can be read.

    ``logits``: one column, a list of names or a glob with one column per class; None to read none. ``columns``: the
    others to read, or a function that names them once the schema and the logits columns are known.
    ``dtype``: of logits whose column does not say ("bfloat16" for uint16 or binary). ``classes``: names of the classes.
    ``optional``: one of ``columns`` that is not read where no part has it. ``needs_logits``: else ``logits``, one name,
    is optional too, and not read from parts whose rows list some classes. ``sequences``: how documents are unrolled;
    logits that are lists of rows tell that rows are.
    Raises `SourceError` for what cannot be read and `ColumnError` for a column that is missing or of a wrong type.
    """
    named = [*([logits] if isinstance(logits, str) else logits or ()), *([] if callable(columns) else columns)]
    parts = find_parts(source, named)
    if not needs_logits and not any(find_field(part.schema, str(logits)) and not part.lines for part in parts):
        logits = None
    parts = unrolled(parts, _sequences(sequences or Sequences(), logits))
    constants = _hive_columns(parts)
    filled = [part for part in parts if part.rows != 0] or parts  # shards without rows may be of any type
    refused = [part.refused[logits] for part in filled if isinstance(logits, str) and logits in part.refused]
    if refused:
        raise refused[0]
    layouts = [
        NO_LOGITS if logits is None else Layout.find(part.schema, logits, dtype, part.name, classes) for part in filled
    ]
    known_dtypes = [(layout, part) for layout, part in zip(layouts, filled, strict=True) if layout.dtype != VOID]
    if not known_dtypes and any(part.rows != 0 for part in filled):
        raise _no_logits(filled[0], layouts[0])
    for layout, part in known_dtypes:
        first, where = known_dtypes[0]
        if layout.scalar != first.scalar:
            raise SourceError(
                f"cannot evaluate {where.name} and {part.name} together: a row holds {_held(first)} in the first and "
                f"{_held(layout)} in the second; evaluate the files separately"
            )
        if layout.dtype != first.dtype:
            raise SourceError(
                f"logits must have one float type in all files, got {first.dtype} in {where.name} and {layout.dtype} "
                f"in {part.name}; evaluate the files separately, or convert one"
            )
        if layout.per_class and layout.names != first.names:
            raise SourceError(
                f"cannot evaluate {where.name} and {part.name} together: their logits columns or the order of these "
                "differ; name the columns in class order, or evaluate the files separately"
            )
    n_classes = _n_classes(filled, layouts)
    found_dtype = known_dtypes[0][0].dtype if known_dtypes else "float32"
    scalar = bool(known_dtypes) and known_dtypes[0][0].scalar
    layouts = [replace(layout, dtype=found_dtype, scalar=scalar) for layout in layouts]
    by_part = {id(part): layout for part, layout in zip(filled, layouts, strict=True)}
    wanted = list(dict.fromkeys(columns(full_schema(parts), layouts[0].names) if callable(columns) else columns))
    if optional not in constants and not any(find_field(part.schema, optional or "") for part in parts):
        wanted = [name for name in wanted if name != optional]
    opened: list[tuple[Part, RowReader]] = []
    for part in parts:
        layout = by_part.get(id(part), layouts[0])
        known = {key: values[part.name] for key, values in constants.items() if find_field(part.schema, key) is None}
        tags: list[tuple[str, str]] = []
        made: list[tuple[str, tuple[str, ...]]] = []
        for name in wanted:
            if name in known:
                continue
            found = find_field(part.schema, name)
            if found is None and name == BUCKET and _has_positions(part):
                continue
            if name in part.refused:
                raise type(part.refused[name])(str(part.refused[name]))
            if found is None:
                raise ColumnError.missing(name, [*all_names(part.schema), *known], part.name)
            if held := made_names(part.schema, name):
                made.append((name, held))
            tag = tag_of(found)
            if tag is not None:
                tags.append((name, tag))
        beside = tuple(wanted), tuple(known.items())
        reader = RowReader(layout, n_classes, *beside, blind=logits is None, tags=tuple(tags), made=tuple(made))
        opened.append((part, replace(reader, bucketed=find_field(part.schema, BUCKET) is None)))
    schema = full_schema(parts)
    if BUCKET in wanted and find_field(schema, BUCKET) is None:
        schema = schema.append(pa.field(BUCKET, pa.int64()))
    return OpenSource(n_classes, found_dtype, schema, opened)


def _has_positions(part: Part) -> bool:
    """Whether rows have positions, of which `BUCKET` follows."""
    at = part.schema.get_field_index(POSITION)
    return bool(at >= 0 and pa.types.is_integer(part.schema.field(at).type))


def _sequences(given: Sequences, logits: str | Sequence[str] | None) -> Sequences:
    """How documents are unrolled, if some logits are read."""
    if logits is None:
        return given
    if not isinstance(logits, str):  # one column per class
        return replace(given, heads=())
    return replace(given, heads=((logits, 1),), predictions=(logits, *given.predictions))


def warnings_of(parts: list[Part]) -> list[str]:
    """Warnings about the files of a source."""
    return [
        *doubts([file for part in parts for file in part.inputs]),
        *(f"{part.name}: {part.missing}" for part in parts if part.missing is not None),
        *(note for part in parts for note in part.notes),
    ]


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
            raise SourceError(
                f"all files must have the same number of classes, got {first[0]} in {first[1]} and {width} in "
                f"{part.name}; evaluate the files separately"
            )
    if first is not None:
        return first[0]
    if all(part.rows == 0 for part in parts):
        others = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
        raise SourceError(
            f"cannot evaluate {parts[0].name}{others}: there are no rows, so the number of classes is unknown"
        )
    raise _no_logits(parts[0], layouts[0])


def _held(layout: Layout) -> str:
    return "one number" if layout.scalar else "one score per class"


def _no_logits(part: Part, layout: Layout) -> ColumnError:
    return ColumnError(
        f"cannot read logits from column {layout.names[0]!r} of {part.name}: every row is null or empty, "
        "so the number of classes is unknown"
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
