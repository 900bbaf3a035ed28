"""A dump of documents as a source of rows: a part of a source whose columns are lists, seen as one row per position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.types as pt

from fastxent.errors import ColumnError, ConfigError, SourceError, Where
from fastxent.io.arrays import ArraysPart
from fastxent.io.columns import item_of
from fastxent.io.documents import Documents, Sequences, SequenceUnit, position_field
from fastxent.io.layout import DOCUMENT, NO_LOGITS, POSITION, Layout, RowReader, find_field
from fastxent.io.parts import Part
from fastxent.io.remarks import Remarks, Storage
from fastxent.names import is_unicode

_DOCUMENT_BYTES = 64 << 10  # of a document in a stream, of which nothing is known before it is read


def unrolled(parts: list[Part], spec: Sequences) -> list[Part]:
    """The parts of a source, those of documents as parts of one row per position."""
    nested = [_holds_documents(part, spec.heads) for part in parts]
    if True not in nested:
        if spec.shift and not spec.plain:
            raise ConfigError(
                f"shift must be 0 for {parts[0].name}, got {spec.shift}; it is for dumps of a document per row"
            )
        return parts
    found: list[Part] = []
    first: int | None = 0
    for part, documents in zip(parts, nested, strict=True):
        if documents is False and part.rows != 0:
            one = parts[nested.index(True)]
            raise SourceError(
                f"cannot evaluate {one.name} and {part.name} together: a row holds a document in the first and one "
                "position in the second; evaluate the files separately"
            )
        if isinstance(part, ArraysPart) and part.steps is not None:
            found.append(part.unrolled(spec, first))
        else:
            found.append(SequencePart(part, spec, first))
        count = found[-1].documents
        first = None if first is None or count is None else first + count
    return found


def _holds_documents(part: Part, heads: Sequence[tuple[str, int]]) -> bool | None:
    """Whether a row is a document, as the first column says that can tell; None if none can."""
    for name, dimensions in heads:
        at = part.schema.get_field_index(name) if is_unicode(name) else -1
        if at < 0:
            continue
        field, levels = part.schema.field(at), 0
        if isinstance(part, ArraysPart) and part.steps is not None:
            levels = 1
        while (inner := position_field(field)) is not None:
            field, levels = inner, levels + 1
        if item_of(field.type)[0] is not None:
            levels += 1  # a row as binary
        if not pt.is_null(field.type) or levels > dimensions + 1:
            return levels > dimensions
    return None


class SequencePart(Remarks):
    """A part whose rows are the positions of another part's documents.

    part: the documents. first: the number of the first of them in the dump, or None if it is not known.
    """

    def __init__(self, part: Part, spec: Sequences, first: int | None) -> None:
        self._part, self._spec, self._first = part, spec, first or 0
        self.name, self.format, self.hive, self.inputs = part.name, part.format, part.hive, part.inputs
        self.missing, self.refused = part.missing, dict(part.refused)
        self.documents, self.n_classes = part.rows, part.n_classes
        self.rows = 0 if part.rows == 0 else None
        fields = [position_field(field) or field for field in part.schema]
        named = set(part.schema.names)
        if DOCUMENT not in named and first is None:
            self.refused[DOCUMENT] = SourceError(
                f"cannot number the documents of {part.name}, because the number of documents before it is not known; "
                "pass one stream, tables or files"
            )
        elif DOCUMENT not in named:
            fields.append(pa.field(DOCUMENT, pa.int64()))
        if POSITION not in named:
            fields.append(pa.field(POSITION, pa.int64()))
        self.schema = pa.schema(fields, part.schema.metadata)
        for name in spec.each:
            field = find_field(part.schema, name)
            if field is None or pt.is_null(field.type):
                continue
            if part.schema.get_field_index(name) < 0 or position_field(field) is None:
                raise ColumnError(
                    f"column {name!r} of {part.name} must hold a list per document, with one value per position, "
                    f"got {field.type}"
                )

    @property
    def consumed(self) -> object | None:
        """As of the part of documents."""
        return self._part.consumed

    def width(self, layout: Layout, expected: int | None) -> int | None:
        """Number of classes in the first position of a document that has any."""
        return self._part.width(_WidthOf(layout), None)  # type: ignore[arg-type]

    def storage(self, names: Sequence[str], layout: Layout | None, n_classes: int | None) -> Storage | None:
        """How the logits are stored."""
        found = self._part.storage(names, None, None)
        return None if found is None else found._replace(fallback="a document per row")

    def units(self, reader: RowReader) -> Iterator[SequenceUnit]:
        """Units of documents."""
        schema = self._part.schema
        names = [name for name in reader.stored if find_field(schema, name) is not None]
        names += [name for name in self._spec.anchors if schema.get_field_index(name) >= 0]
        names = list(dict.fromkeys(names))
        weight = self._part.row_bytes(names) or _DOCUMENT_BYTES
        inner = RowReader(NO_LOGITS, 1, tuple(names), blind=True, weight=max(1, weight))
        if self.format == "parquet" and not reader.blind:
            self.fallback = "a document per row"
        for unit in self._part.units(inner):
            yield SequenceUnit(unit, reader, self._spec, self._first)


class _WidthOf:
    """A layout of rows, asked for the width of documents."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.names = layout.names

    def width(self, batch: pa.RecordBatch, file: str) -> int | None:
        """As `Layout.width`."""
        name = self.names[0]
        spec = Sequences(heads=((name, 1),))
        documents = Documents({name: batch.column(name)}, spec, 0, Where(file, None, 0))
        for begin in range(0, documents.rows, 1024):
            rows = documents.window(begin, min(begin + 1024, documents.rows)).batch([name])
            if (found := self._layout.width(rows, file)) is not None:
                return found
        return None
