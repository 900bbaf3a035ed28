"""Compiled readers of responses that list tokens: chat completions, llama.cpp's server and classic completions.

They read what is as its form has it, and return whether it is; Python's readers in `forms` are the rule.
"""

from __future__ import annotations

import numpy as np

from fastxent.io.responses.emitted import (
    FIRST,
    ITEMS,
    LAST,
    MOST,
    N_BYTES,
    POSITION,
    ROWS,
    fill,
    item,
    of_choices,
    row,
)
from fastxent.kernels.jit import bare
from fastxent.kernels.json_members import (
    BYTES,
    COMPLETION_PROBABILITIES,
    CONTENT,
    ID,
    LOGPROB,
    LOGPROBS,
    OUTPUT,
    TOKEN,
    TOKEN_LOGPROBS,
    TOKENS,
    TOP_LOGPROBS,
    count,
    is_flat,
    is_named,
    is_null,
    member,
    real,
    same_text,
)
from fastxent.kernels.json_values import ARRAY, NULL, OBJECT, STRING, after, kind_of

# ---- the form of chat completions, and of llama.cpp's server ---------------------------------------------------------


@bare
def _entry(text, values, at):  # type: ignore[no-untyped-def]
    """The values (token, id, log-probability, bytes, list) of the entry of a token; -1 for those that are not there."""
    token = id = logprob = held = tops = -1
    i, end = at + 1, after(values, at)
    while i < end:
        if is_named(text, values, i, LOGPROB):
            logprob = i + 1
        elif is_named(text, values, i, TOKEN):
            token = i + 1
        elif is_named(text, values, i, BYTES):
            held = i + 1
        elif is_named(text, values, i, ID):
            id = i + 1
        elif is_named(text, values, i, TOP_LOGPROBS):
            tops = i + 1
        i = after(values, i + 1)
    return token, id, logprob, held, tops


@bare
def _entries(text, values, array, line, choice, out):  # type: ignore[no-untyped-def]
    """Rows of an array of entries."""
    rows, reals, _, _, counts = out
    i, place = array + 1, 0
    while i < after(values, array):
        if kind_of(values, i) != OBJECT:
            return False
        r = row(out, line, choice, place)
        token, id, logprob, held, tops = _entry(text, values, i)
        if not fill(values, rows, reals, r, token, id, logprob):
            return False
        if not is_null(values, held):
            if kind_of(values, held) != ARRAY or not is_flat(values, held):
                return False
            rows[r, N_BYTES] = after(values, held) - held - 1
        if not is_null(values, tops):
            if kind_of(values, tops) != ARRAY:
                return False
            rows[r, FIRST] = counts[ITEMS]
            j = tops + 1
            while j < after(values, tops):
                if kind_of(values, j) != OBJECT:
                    return False
                token, id, logprob, _, _ = _entry(text, values, j)
                if not item(values, out, token, id, logprob):
                    return False
                j = after(values, j)
            rows[r, LAST] = counts[ITEMS]
        i, place = after(values, i), place + 1
    return True


@bare
def read_native(text, values, at, line, out):  # type: ignore[no-untyped-def]
    entries = member(text, values, at, COMPLETION_PROBABILITIES)
    if is_null(values, entries):
        return True
    return kind_of(values, entries) == ARRAY and _entries(text, values, entries, line, 0, out)


@bare
def _chat_choice(text, values, at, line, choice, out):  # type: ignore[no-untyped-def]
    entries = logprobs = member(text, values, at, LOGPROBS)
    if not is_null(values, logprobs):
        if kind_of(values, logprobs) != OBJECT:
            return False
        entries = member(text, values, logprobs, CONTENT)
    if is_null(values, entries):
        row(out, line, choice, 0)
        return True
    return kind_of(values, entries) == ARRAY and _entries(text, values, entries, line, choice, out)


read_chat = of_choices(_chat_choice)


@bare
def read_chat_choice(text, values, at, line, out):  # type: ignore[no-untyped-def]
    """The rows of a choice that stands alone."""
    return _chat_choice(text, values, at, line, 0, out)


@bare
def _output_item(text, values, at, line, out):  # type: ignore[no-untyped-def]
    """Rows of the texts of an item of the output of OpenAI's Responses API."""
    content = member(text, values, at, CONTENT)
    if is_null(values, content):
        return True
    if kind_of(values, content) != ARRAY:
        return False
    i = content + 1
    while i < after(values, content):
        if kind_of(values, i) != OBJECT:
            return False
        entries = member(text, values, i, LOGPROBS)
        if not is_null(values, entries) and kind_of(values, entries) != ARRAY:
            return False
        if not is_null(values, entries) and not _entries(text, values, entries, line, 0, out):
            return False
        i = after(values, i)
    return True


@bare
def read_responses(text, values, at, line, out):  # type: ignore[no-untyped-def]
    output = member(text, values, at, OUTPUT)
    if is_null(values, output):
        return True
    if kind_of(values, output) != ARRAY:
        return False
    rows, counts = out[0], out[4]
    first, i = counts[ROWS], output + 1
    while i < after(values, output):
        if kind_of(values, i) != OBJECT or not _output_item(text, values, i, line, out):
            return False
        i = after(values, i)
    for r in range(first, counts[ROWS]):
        rows[r, POSITION] = r - first
    return True


# ---- classic completions ---------------------------------------------------------------------------------------------


@bare
def _least(text, values, top, token):  # type: ignore[no-untyped-def]
    """(whether it can be read, number of tokens, whether ``token`` is the least likely of them) of an object of
    log-probabilities."""
    i, n, least, own = top + 1, 0, np.inf, np.nan
    while i < after(values, top):
        good, logprob = real(values, i + 1)
        if not good or np.isnan(logprob) or n == MOST:
            return False, 0, False
        for j in range(top + 1, i, 2):
            if same_text(text, values, i, j):
                return False, 0, False
        least = min(least, logprob)
        if same_text(text, values, i, token):
            own = logprob
        i, n = i + 2, n + 1
    return True, n, own == least


@bare
def _legacy_tokens(text, values, held, line, choice, out):  # type: ignore[no-untyped-def]
    """Rows of the log-probabilities of a choice: see `forms._legacy`."""
    tokens, logprobs = member(text, values, held, TOKENS), member(text, values, held, TOKEN_LOGPROBS)
    tops = member(text, values, held, TOP_LOGPROBS)
    if tokens < 0 or logprobs < 0 or kind_of(values, tokens) != ARRAY or kind_of(values, logprobs) != ARRAY:
        return False
    if not is_flat(values, tokens) or not is_flat(values, logprobs):
        return False
    if after(values, tokens) - tokens != after(values, logprobs) - logprobs:
        return False
    n = after(values, tokens) - tokens - 1
    bare_tokens = is_null(values, tops) or (kind_of(values, tops) == ARRAY and after(values, tops) == tops + 1)
    rows, reals, _, _, counts = out
    if bare_tokens:
        for place in range(n):
            if kind_of(values, tokens + 1 + place) != STRING:
                return False
            if kind_of(values, logprobs + 1 + place) != NULL:
                r = row(out, line, choice, place)
                if not fill(values, rows, reals, r, tokens + 1 + place, -1, logprobs + 1 + place):
                    return False
        return True
    if kind_of(values, tops) != ARRAY or count(values, tops) != n:
        return False
    shortest, longest, always = np.iinfo(np.int64).max, 0, True
    top = tops + 1
    for place in range(n):
        if kind_of(values, tokens + 1 + place) != STRING:
            return False
        if kind_of(values, top) == OBJECT:
            good, size, last = _least(text, values, top, tokens + 1 + place)
            if not good:
                return False
            values[top, 0] = size << 1 | np.int64(last)
            if size:
                shortest, longest, always = min(shortest, size), max(longest, size), always and last
        elif kind_of(values, top) != NULL:
            return False
        top = after(values, top)
    top = tops + 1
    for place in range(n):
        if kind_of(values, logprobs + 1 + place) != NULL:
            r = row(out, line, choice, place)
            if not fill(values, rows, reals, r, tokens + 1 + place, -1, logprobs + 1 + place):
                return False
            if kind_of(values, top) == OBJECT and values[top, 0] > 1:
                size, last = values[top, 0] >> 1, values[top, 0] & 1
                drop = last and (size > shortest or (always and (size > 1 or longest == 1)))
                rows[r, FIRST] = counts[ITEMS]
                for i in range(top + 1, after(values, top), 2):
                    if drop and same_text(text, values, i, tokens + 1 + place):
                        continue
                    item(values, out, i, -1, i + 1)
                rows[r, LAST] = counts[ITEMS]
        top = after(values, top)
    return True


@bare
def _legacy_choice(text, values, at, line, choice, out):  # type: ignore[no-untyped-def]
    held = member(text, values, at, LOGPROBS)
    if held < 0:
        return False
    if kind_of(values, held) == NULL:
        row(out, line, choice, 0)
        return True
    return kind_of(values, held) == OBJECT and _legacy_tokens(text, values, held, line, choice, out)


read_legacy = of_choices(_legacy_choice)


@bare
def read_legacy_choice(text, values, at, line, out):  # type: ignore[no-untyped-def]
    """The rows of a choice that stands alone."""
    return _legacy_choice(text, values, at, line, 0, out)
