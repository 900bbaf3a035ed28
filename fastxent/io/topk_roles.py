"""Which columns of a schema look like a top-k dump: lists of ids beside lists of their log-probabilities."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.types as pt

from fastxent.io.columns import FLOATS, is_soft, item_of

_IDS = r"(top_?(k|\d+)?_?)?((token|class)_?)?(ids?|indices|indexes|tokens|classes)"
_NUMBERS = r"(top_?(k|\d+)?_?)?((token|class)_?)?(log_?probs?|logprobabilities|values)"
_OTHER = r"(other|rest|remaining|unlisted)_(log_?)prob(ability|s)?"
_OWN = r"(target|label|token|actual)_log_?prob(s|ability)?|log_?prob"


def topk_roles(schema: pa.Schema) -> dict[str, list[str]]:
    """The columns of a top-k dump by their role ("ids", "logprobs", "other", "target_logprob"); {} for other dumps."""
    ids = [field.name for field in schema if _named(_IDS, field) and _holds_ids(field.type)]
    numbers = [field.name for field in schema if _named(_NUMBERS, field) and item_of(field.type)[0] in FLOATS]
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


def _named(pattern: str, field: pa.Field) -> bool:
    return re.fullmatch(pattern, field.name, re.IGNORECASE) is not None


def _stem(name: str) -> str:
    """What the columns of a pair begin with: "topk_" of "topk_ids"."""
    return re.split(r"(?i)ids?$|indices$|indexes$|tokens$|classes$|log_?prob\w*$|values$", name)[0].lower()


def _holds_ids(kind: pa.DataType) -> bool:
    item = item_of(kind)[0]
    text = item is not None and (pt.is_string(item) or pt.is_large_string(item) or pt.is_string_view(item))
    return bool(item is not None and is_soft(kind) and (pt.is_integer(item) or text))
