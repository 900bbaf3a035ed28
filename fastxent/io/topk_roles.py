"""Which columns of a schema look like a top-k dump: lists of ids beside lists of their log-probabilities. They are two
columns, two fields of a column of lists of structs, or numbered columns."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.types as pt

from fastxent.io.columns import FLOATS, is_soft, item_of
from fastxent.io.made import struct_of

_IDS = r"(top_?(k|\d+)?_?)?((token|class)_?)?(ids?|indices|indexes|tokens|classes)"
_NUMBERS = r"(top_?(k|\d+)?_?)?((token|class)_?)?(log_?probs?|logprobabilities|values)"
_OTHER = r"(other|rest|remaining|unlisted)_(log_?)prob(ability|s)?"
_OWN = r"(target|label|token|actual)_log_?prob(s|ability)?|log_?prob"


def topk_roles(schema: pa.Schema) -> dict[str, list[str]]:
    """The columns of a top-k dump by their role ("ids", "logprobs", "other", "target_logprob"); {} for other dumps."""
    made = _made(schema)
    ids = [field.name for field in schema if _named(_IDS, field) and _holds_ids(field.type)]
    numbers = [field.name for field in schema if _named(_NUMBERS, field) and item_of(field.type)[0] in FLOATS]
    if not ids and len(made) == 1:
        ids, numbers = ([names] for names in made[0])
    pairs = [(a, b) for b in numbers for a in ids if _stem(a) == _stem(b)]
    if not pairs and len(ids) == len(numbers) == 1:
        pairs = [(ids[0], numbers[0])]
    if not pairs:
        return {}
    alone = [field for field in schema if pt.is_floating(field.type)]
    found = {"ids": [pairs[0][0]], "logprobs": [pairs[0][1]]}
    for role, pattern in (("other", _OTHER), ("target_logprob", _OWN)):
        names = [field.name for field in alone if _named(pattern, field)]
        found |= {role: names} if names else {}
    return found


def _made(schema: pa.Schema) -> list[tuple[str, str]]:
    """(ids, log-probabilities) as fields of lists of structs, or as numbered columns."""
    found = []
    for field in schema:
        held = list(struct_of(field.type) or ())
        ids = [inner.name for inner in held if _named(_IDS, inner) and not pt.is_floating(inner.type)]
        numbers = [inner.name for inner in held if _named(_NUMBERS, inner) and pt.is_floating(inner.type)]
        if ids and numbers:
            found.append((f"{field.name}.{ids[0]}", f"{field.name}.{numbers[0]}"))
    stems: dict[str, list[pa.DataType]] = {}
    for field in schema:
        if numbered := re.fullmatch(r"(.*?\D)\d+", field.name):
            stems.setdefault(numbered[1], []).append(field.type)
    columns = {stem: kinds for stem, kinds in stems.items() if len(set(kinds)) == 1 < len(kinds)}
    for a, kinds in columns.items():
        for b, others in columns.items():
            pair = _named(_IDS, pa.field(a.rstrip("_"), kinds[0])), _named(_NUMBERS, pa.field(b.rstrip("_"), others[0]))
            integers, floats = pt.is_integer(kinds[0]) or _is_text(kinds[0]), pt.is_floating(others[0])
            if all(pair) and integers and floats and len(kinds) == len(others):
                found.append((f"{a}*", f"{b}*"))
    return found


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def _named(pattern: str, field: pa.Field) -> bool:
    return re.fullmatch(pattern, field.name, re.IGNORECASE) is not None


def _stem(name: str) -> str:
    """What the columns of a pair begin with: "topk_" of "topk_ids"."""
    return re.split(r"(?i)ids?$|indices$|indexes$|tokens$|classes$|log_?prob\w*$|values$", name)[0].lower()


def _holds_ids(kind: pa.DataType) -> bool:
    item = item_of(kind)[0]
    text = item is not None and _is_text(item)
    return bool(item is not None and is_soft(kind) and (pt.is_integer(item) or text))
