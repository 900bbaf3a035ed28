"""Parts of JSON objects that `json_values` has read, found by the names that responses of servers have."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import bare
from fastxent.kernels.json_values import (
    INTEGER, NULL, NUMBER, OBJECT, STRING, after, end_of, kind_of,
)  # fmt: skip

_NAMES = (
    "response", "body", "choices", "index", "logprobs", "content", "id", "token", "bytes", "logprob", "top_logprobs",
    "completion_probabilities", "tokens", "token_logprobs", "prompt_logprobs", "prompt_token_ids", "rank",
    "decoded_token", "start_indices", "end_indices", "token_ids", "ranks", "decoded_tokens", "meta_info",
    "input_token_logprobs", "input_top_logprobs", "output_token_logprobs", "output_top_logprobs", "outputs",
    "output",
)  # fmt: skip
(
    RESPONSE, BODY, CHOICES, INDEX, LOGPROBS, CONTENT, ID, TOKEN, BYTES, LOGPROB, TOP_LOGPROBS,
    COMPLETION_PROBABILITIES, TOKENS, TOKEN_LOGPROBS, PROMPT_LOGPROBS, PROMPT_TOKEN_IDS, RANK,
    DECODED_TOKEN, START_INDICES, END_INDICES, TOKEN_IDS, RANKS, DECODED_TOKENS, META_INFO,
    INPUT_TOKENS, INPUT_TOPS, OUTPUT_TOKENS, OUTPUT_TOPS, OUTPUTS,
    OUTPUT,
) = range(len(_NAMES))  # fmt: skip
_TEXT = np.frombuffer("".join(_NAMES).encode(), np.uint8).copy()
_AT = np.concatenate([[0], np.cumsum([len(name) for name in _NAMES])])
NO_NUMBER = np.iinfo(np.int64).min  # in the place of an integer that is null or not there
_EXACT = 1 << 53  # integers up to it are float64 too


def code_of(name: str) -> int | None:
    """The number of a name; None if compiled code does not know it."""
    return _NAMES.index(name) if name in _NAMES else None


@bare
def is_named(text, values, i, name):  # type: ignore[no-untyped-def]
    """Whether the key ``i`` is a name."""
    begin, size = values[i, 0], _AT[name + 1] - _AT[name]
    if end_of(values, i) - begin != size:
        return False
    for k in range(size):
        if text[begin + k] != _TEXT[_AT[name] + k]:
            return False
    return True


@bare
def member(text, values, at, name):  # type: ignore[no-untyped-def]
    """The value of a name in the object ``at``, the last one as in Python; -1 if there is none."""
    i, end, found = at + 1, after(values, at), -1
    while i < end:
        if is_named(text, values, i, name):
            found = i + 1
        i = after(values, i + 1)
    return found


@bare
def count(values, at):  # type: ignore[no-untyped-def]
    """The number of elements of an array, or of members of an object."""
    step = 2 if kind_of(values, at) == OBJECT else 1
    i, end, found = at + 1, after(values, at), 0
    while i < end:
        i, found = after(values, i + step - 1), found + 1
    return found


@bare
def is_flat(values, at):  # type: ignore[no-untyped-def]
    """Whether an array holds no arrays and no objects, so that element j is value at + 1 + j."""
    for i in range(at + 1, after(values, at)):
        if kind_of(values, i) >= OBJECT:
            return False
    return True


@bare
def is_null(values, i):  # type: ignore[no-untyped-def]
    """Whether a value is null or not there."""
    return i < 0 or kind_of(values, i) == NULL


@bare
def whole(values, i):  # type: ignore[no-untyped-def]
    """(whether it is an integer or null, the integer or `NO_NUMBER`) of a value that may not be there."""
    if is_null(values, i):
        return True, NO_NUMBER
    return kind_of(values, i) == INTEGER, values[i, 0]


@bare
def real(values, i):  # type: ignore[no-untyped-def]
    """(whether it is a number or null, the number or NaN) of a value that may not be there."""
    if is_null(values, i):
        return True, np.nan
    kind = kind_of(values, i)
    if kind == INTEGER:
        return -_EXACT <= values[i, 0] <= _EXACT, np.float64(values[i, 0])
    return kind == NUMBER, np.int64(values[i, 0]).view(np.float64)


@bare
def span(values, i):  # type: ignore[no-untyped-def]
    """(whether it is a string or null, begin, end) of a value that may not be there; null begins at -1."""
    if is_null(values, i):
        return True, -1, -1
    return kind_of(values, i) == STRING, values[i, 0], end_of(values, i)


@bare
def same_text(text, values, i, j):  # type: ignore[no-untyped-def]
    """Whether two strings are equal."""
    a, b = values[i, 0], values[j, 0]
    size = end_of(values, i) - a
    if end_of(values, j) - b != size:
        return False
    for k in range(size):
        if text[a + k] != text[b + k]:
            return False
    return True


@bare
def whole_key(text, values, i):  # type: ignore[no-untyped-def]
    """The integer that a key is the decimal of; `NO_NUMBER` for any other key."""
    begin, end = values[i, 0], end_of(values, i)
    negative = begin < end and text[begin] == 0x2D
    begin += np.int64(negative)
    if not 1 <= end - begin <= 18 or (text[begin] == 0x30 and (end - begin > 1 or negative)):
        return NO_NUMBER
    found = 0
    for k in range(begin, end):
        digit = np.int64(text[k]) - 0x30
        if not 0 <= digit <= 9:
            return NO_NUMBER
        found = found * 10 + digit
    return -found if negative else found
