"""The description of a dump before it is evaluated: its contents, and the likely role of each column."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from fastxent.errors import ColumnError
from fastxent.io.arrays import ArraysPart
from fastxent.io.columns import FLOATS, SIXTEEN_BITS, is_soft, item_of
from fastxent.io.documents import Sequences, position_field
from fastxent.io.families import expand
from fastxent.io.layout import VOID, Layout, all_names, find_field
from fastxent.io.made import made_names
from fastxent.io.parts import Part, find_parts
from fastxent.io.remarks import Storage
from fastxent.io.sequences import unrolled
from fastxent.io.source import full_schema, warnings_of
from fastxent.io.topk_roles import topk_roles

# role -> what its type must be, and the names it usually goes by, likeliest first
_ROLES = {
    "target": (
        "class",
        ("targets?", "labels?", "y|y_true|gold", "(next_)?token(_id)?", "class(_id)?|click(ed)?", ".*_target|.*_label"),
    ),
    "id": ("key", ("id", "row_id|example_id", "uid|uuid", "index|row|key", ".*_id")),
    "cluster": (
        "key",
        (
            "cluster(_id)?",
            "doc(ument)?(_id)?",
            "((conversation|user|session|question|block|request|response)(_id)?|chunk)",
        ),
    ),
    "weight": ("number", ("(sample_)?weights?", "w")),
    "n_bytes": ("number", ("n_?bytes|num_bytes|byte_(count|length)", "bytes")),
}
_SLICES = r"kind|fold|split|lang(uage)?|domain|group|source|subset|category|task|.*_(kind|group|type)"
_SCORE = "p|p_.*|.*_p|p?ctr(_.*)?|(log_)?odds|.*prob.*|(.*_)?scores?|(.*_)?logits?(_.*)?|pred.*|output.*|y_?(hat|pred)"
_CLASS = r"((?:p|probs?|proba|probability|logits?|scores?)_)(.*\D)"  # a column per class
_LOGPROB = r"(target_|token_|label_)?log_?p(robs?|robability)?|(target|token|label)_log_?likelihood"
_METRIC = (
    r"(.*\.)?(acc(uracy)?(_.*)?|(.*_)?match(_.*)?|em|f1(_.*)?|rouge.*|bleu.*|chrf|mc[12]|pass@.*|"
    r"(is_)?correct|scores?|nll|loss)"
)
_HIDDEN = r"(.*_)?hidden(_states?)?(_.*)?"
_LOGITS = ("logits?", "logits?_.*|.*_logits?", ".*log_?probs?.*", "prob.*", "scores?", "pred.*", "output.*")
_HELD = (*FLOATS, *SIXTEEN_BITS, pa.uint8())  # what the rows of logits of a document may hold


@dataclass(frozen=True)
class Candidate:
    """A column, or a family of them, that may hold logits."""

    name: str  # as `--logits` takes it: a column or a glob
    type: str
    dtype: str | None  # None: nothing says, `dtype` must be given
    n_classes: int | None
    task: str = "multiclass"  # "binary": one number per row
    width: int | None = None  # of hidden states, which a head makes logits of
    classes: tuple[str, ...] = ()  # by which one column per class is named


@dataclass
class Description:
    """What `fastxent inspect` prints."""

    files: list[str]
    formats: list[str]
    schema: pa.Schema
    rows: int | None
    documents: int | None = None  # of a dump of documents
    head: str | None = None  # the column that tells a dump of documents
    row_groups: int | None = None  # of Parquet
    compressed_bytes: int | None = None  # of the logits, in Parquet
    uncompressed_bytes: int | None = None
    codecs: list[str] = field(default_factory=list)  # of the logits, in Parquet
    encodings: list[str] = field(default_factory=list)
    logits: list[Candidate] = field(default_factory=list)  # likeliest first
    readers: dict[str, str | None] = field(default_factory=dict)
    # ^ Parquet files -> why pyarrow reads their logits, or None where the native reader does
    roles: dict[str, list[str]] = field(default_factory=dict)
    # ^ "target", "id", "cluster", "weight", "n_bytes", "by" -> columns, likeliest first; "target_logprob" and "scores"
    # where no column looks like logits; "ids", "logprobs", "other" and "target_logprob" of a top-k dump; "hidden" of a
    # dump that needs a head
    labels: str | None = None  # "flags" or "ids" if the first target is lists of which several may hold
    warnings: list[str] = field(default_factory=list)


def describe(source: Any, logits: str | None = None, width: int | None = None) -> Description:
    """Look at a source without reading its rows. ``logits``: the column whose storage is described. ``width``: that of
    an output head; the logits are then hidden states."""
    parts = find_parts(source)
    head = _head(next((part for part in parts if part.rows), parts[0]), logits)
    if head is not None:
        parts = unrolled(parts, Sequences(heads=((head, 1),)))
    first, schema = next((part for part in parts if part.rows), parts[0]), full_schema(parts)
    counts = [part.rows for part in parts]
    found = Description(
        files=[part.name for part in parts],
        formats=list(dict.fromkeys(part.format for part in parts)),
        schema=schema,
        rows=None if None in counts else sum(count for count in counts if count is not None),
        warnings=warnings_of(parts),
        head=head,
    )
    if head is not None:
        documents = [part.documents for part in parts]
        found.documents = None if None in documents else sum(count for count in documents if count is not None)
    found.logits = sorted(
        _candidates(first, schema), key=lambda c: (c.task == "binary", _rank(c.name.rstrip("*_"), _LOGITS))
    )
    states = [c for c in found.logits if re.fullmatch(_HIDDEN, c.name.rstrip("*_"), re.IGNORECASE)]
    if width is not None:
        wide = [c for c in found.logits if c.n_classes in (width, None) and c.task == "multiclass"]
        found.logits = [*(c for c in wide if c in states), *(c for c in wide if c not in states)]
    elif logits is None:
        found.logits = [c for c in found.logits if c not in states]
    topk = topk_roles(schema) if logits is None and width is None else {}
    others = [c.name for c in found.logits if c.name not in topk.get("logprobs", ())]
    if topk and not any(_rank(name.rstrip("*_"), _LOGITS) < 2 for name in others):
        found.logits = []
    else:
        topk = {}
    chosen = logits or (found.logits[0].name if found.logits else None)
    taken = {name for candidate in found.logits for name in _names(schema, candidate.name)}
    taken |= {held for names in topk.values() for name in names for held in (name, *made_names(schema, name))}
    for role, (kind, patterns) in _ROLES.items():
        patterns = (*patterns, *(("input_ids",) if role == "target" and head is not None else ()))
        fitting = [f.name for f in schema if f.name not in taken and _fits(f.type, kind)]
        hits = [name for name in fitting if _rank(name, patterns) < len(patterns)]
        found.roles[role] = sorted(hits, key=lambda name: _rank(name, patterns))
    taken |= {names[0] for role, names in found.roles.items() if names and role != "cluster"}
    found.roles |= topk
    if states and width is None:
        found.roles["hidden"] = [c.name for c in states]
        taken |= {name for c in states for name in _names(schema, c.name)}
    if not found.logits and logits is None and not topk:
        once = [name for name, times in Counter(all_names(schema)).items() if times == 1]
        kinds = {name: column.type for name in once if (column := find_field(schema, name)) is not None}
        numbers = [name for name, kind in kinds.items() if _fits(kind, "number") or pt.is_boolean(kind)]
        likely = [name for name in numbers if pt.is_floating(kinds[name]) and re.fullmatch(_LOGPROB, name, re.I)]
        scores = [name for name in numbers if re.fullmatch(_METRIC, name, re.IGNORECASE)]
        found.roles |= {role: names for role, names in (("target_logprob", likely), ("scores", scores)) if names}
        taken |= {*likely, *scores}
    found.roles["by"] = [f.name for f in schema if f.name not in taken and _slices(f)]
    _storage(parts, schema, chosen, found)
    return found


def _head(part: Part, logits: str | None) -> str | None:
    """The column of scores by which rows are documents; None for other dumps. ``logits``: the column that is chosen."""
    targets = _ROLES["target"][1]
    chosen = [f for f in part.schema if logits in (None, f.name) and _rank(f.name, targets) == len(targets)]
    inner = {f.name: position_field(f) for f in chosen}
    flat = [name for name, field in inner.items() if field is not None and field.type in FLOATS]
    nested = [name for name, field in inner.items() if field is not None and item_of(field.type)[0] in _HELD]
    if isinstance(part, ArraysPart) and part.steps is not None:
        nested, flat = flat, []
    best, other = (min((_rank(name, _LOGITS) for name in names), default=None) for names in (nested, flat))
    if best is None or (other is not None and other < best):
        return None
    return str(next(name for name in nested if _rank(name, _LOGITS) == best))


def _fits(kind: pa.DataType, role: str) -> bool:
    if pt.is_dictionary(kind):
        kind = kind.value_type
    text = pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)
    if role == "number":
        return bool(pt.is_integer(kind) or pt.is_floating(kind))
    return bool(pt.is_integer(kind) or text or (role == "class" and (pt.is_boolean(kind) or _of_targets(kind))))


def _of_targets(kind: pa.DataType) -> bool:
    """Whether rows of that type may be targets: probabilities, flags or ids."""
    item = item_of(kind)[0]
    number = item in FLOATS or (item is not None and (pt.is_integer(item) or pt.is_boolean(item)))
    return bool(number and is_soft(kind))


def _slices(column: pa.Field) -> bool:
    kind = column.type
    named = re.fullmatch(_SLICES, column.name, re.IGNORECASE) is not None
    return bool(pt.is_dictionary(kind) or pt.is_boolean(kind) or (named and _fits(kind, "key")))


def _rank(name: str, patterns: tuple[str, ...]) -> int:
    """Place of the first pattern the name fits, past the end if none."""
    fits = (i for i, pattern in enumerate(patterns) if re.fullmatch(pattern, name, re.IGNORECASE))
    return next(fits, len(patterns))


def _names(schema: pa.Schema, logits: str) -> tuple[str, ...]:
    return (logits,) if schema.get_field_index(logits) >= 0 else expand(schema, logits, "")


def _of_classes(schema: pa.Schema) -> dict[str, list[pa.Field]]:
    """Families of columns that are named after classes, such as prob_cat and prob_dog, by what is in front."""
    found: dict[str, list[pa.Field]] = {}
    for column in schema:
        named = re.fullmatch(_CLASS, column.name, re.IGNORECASE)
        if named and column.type in FLOATS:
            found.setdefault(named[1], []).append(column)
    return {
        prefix: members
        for prefix, members in found.items()
        if len(members) > 1
        and len({column.type for column in members}) == 1
        and len(members) == sum(name.startswith(prefix) for name in schema.names)
    }


def _candidates(part: Part, schema: pa.Schema) -> Iterator[Candidate]:
    """Columns of rows of floats, tagged or untagged blobs, and families such as logit_0, logit_1."""
    families: dict[str, int] = {}
    targets, named = _ROLES["target"][1], _of_classes(schema)
    for prefix, columns in named.items():
        kind, n = columns[0].type, len(columns)
        classes = tuple(column.name[len(prefix) :] for column in columns)
        yield Candidate(f"{prefix}*", f"{n} columns of {kind}", FLOATS[kind], n, classes=classes)
    several = {column.name for columns in named.values() for column in columns}
    for column in schema:
        if _rank(column.name, targets) < len(targets) or column.name in several:
            continue  # rows of floats there are soft targets
        item, size = item_of(column.type)
        if item is not None:
            try:
                layout = Layout.find(part.schema, column.name, None, part.name)
            except ColumnError:
                if item == pa.uint16() or (item == pa.uint8() and size):
                    yield Candidate(column.name, str(column.type), None, size if item == pa.uint16() else None)
                continue
            if layout.dtype == VOID:
                continue
            yield Candidate(column.name, str(column.type), layout.dtype, layout.n_classes or part.width(layout, None))
        numbered = re.fullmatch(r"(.*?)\d+", column.name)
        if column.type in FLOATS and numbered:
            families[numbered[1]] = families.get(numbered[1], 0) + 1
        elif item is None and re.fullmatch(_SCORE, column.name, re.I) and not re.fullmatch(_LOGPROB, column.name, re.I):
            try:
                layout = Layout.find(part.schema, column.name, None, part.name)
            except ColumnError:
                continue
            if layout.scalar:
                yield Candidate(column.name, str(column.type), layout.dtype, 1, "binary")
    for prefix, members in families.items():
        if members > 1:
            pattern = f"{prefix}*" if prefix else "[0-9]*"
            try:
                layout = Layout.find(part.schema, pattern, None, part.name)
            except ColumnError:
                continue  # gaps, other columns between them, or several types: no family
            if layout.n_classes != members:
                continue  # whole numbers among fractions: the label of a table without names
            kind = next(key for key, value in FLOATS.items() if value == layout.dtype)
            yield Candidate(pattern, f"{layout.n_classes} columns of {kind}", layout.dtype, layout.n_classes)


def _storage(parts: list[Part], schema: pa.Schema, logits: str | None, found: Description) -> None:
    """How the logits are stored in the files whose metadata tells."""
    names = _names(schema, logits) if logits else ()
    chosen = next((candidate for candidate in found.logits if candidate.name == logits), None)
    n_classes = None if chosen is None else chosen.n_classes
    told: list[Storage] = []
    for part in parts:
        layout = None
        if logits is not None and chosen is not None and n_classes is not None:
            with suppress(ColumnError):  # of another type there: nothing reads these files together
                layout = Layout.find(part.schema, logits, chosen.dtype or "bfloat16", part.name)
        storage = part.storage(names, layout, n_classes)
        if storage is None:
            continue
        told.append(storage)
        if layout is not None:
            found.readers[part.name] = storage.fallback
    if not told:
        return
    found.row_groups = sum(storage.groups for storage in told)
    found.compressed_bytes = sum(storage.compressed_bytes for storage in told)
    found.uncompressed_bytes = sum(storage.uncompressed_bytes for storage in told)
    found.codecs = list(dict.fromkeys(codec for storage in told for codec in storage.codecs))
    found.encodings = list(dict.fromkeys(encoding for storage in told for encoding in storage.encodings))
