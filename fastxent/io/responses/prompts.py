"""Compiled readers of responses of vLLM and SGLang.

They read what is as its form has it, and return whether it is; Python's readers in `forms` are the rule.
"""

from __future__ import annotations

from typing import Any

from fastxent.io.responses.emitted import (
    BEGIN,
    END,
    ENTRY,
    FIRST,
    ITEMS,
    LAST,
    MOST,
    NUMBER,
    POSITION,
    ROWS,
    fill,
    item,
    of_choices,
    row,
)
from fastxent.kernels.jit import bare
from fastxent.kernels.json_members import (
    DECODED_TOKEN,
    DECODED_TOKENS,
    END_INDICES,
    INPUT_TOKENS,
    INPUT_TOPS,
    LOGPROB,
    LOGPROBS,
    META_INFO,
    NO_NUMBER,
    OUTPUT_TOKENS,
    OUTPUT_TOPS,
    OUTPUTS,
    PROMPT_LOGPROBS,
    PROMPT_TOKEN_IDS,
    RANK,
    RANKS,
    START_INDICES,
    TOKEN_IDS,
    count,
    is_flat,
    is_named,
    is_null,
    member,
    whole,
    whole_key,
)
from fastxent.kernels.json_values import ARRAY, INTEGER, NULL, OBJECT, after, kind_of

# ---- vLLM ------------------------------------------------------------------------------------------------------------


@bare
def _prompt_row(text, values, first, wanted, out, line, choice, place):  # type: ignore[no-untyped-def]
    """A row of the items from ``first`` on, of which ``wanted`` is its token, or the first one without it."""
    rows, reals, items, item_reals, counts = out
    end, own = counts[ITEMS], first
    if end - first > MOST:
        return False
    for i in range(first, end):
        same = False
        for j in range(first, i):
            same |= items[j, NUMBER] == items[i, NUMBER]
        if same:
            return False
        if items[i, NUMBER] == wanted:
            own = i
    if wanted != NO_NUMBER and items[own, NUMBER] != wanted:
        return False
    good, rank = whole(values, items[own, ENTRY])
    if not good:
        return False
    r = row(out, line, choice, place)
    rows[r, BEGIN], rows[r, END], rows[r, NUMBER] = items[own, BEGIN], items[own, END], items[own, NUMBER]
    reals[r] = item_reals[own]
    if rank > end - first:
        for i in range(own + 1, end):
            item_reals[i - 1] = item_reals[i]
            for k in range(ENTRY + 1):
                items[i - 1, k] = items[i, k]
        end -= 1
        counts[ITEMS] = end
    rows[r, FIRST], rows[r, LAST] = first, end
    return True


@bare
def _wanted(values, prompt, at):  # type: ignore[no-untyped-def]
    """(whether it is there, id) of the token of a prompt whose place in the array of ids is ``at``; a prompt without
    ids wants none."""
    if prompt < 0:
        return True, NO_NUMBER
    if at >= after(values, prompt) or kind_of(values, at) != INTEGER:
        return False, NO_NUMBER
    return True, values[at, 0]


@bare
def _ranked(text, values, at):  # type: ignore[no-untyped-def]
    """The values (log-probability, rank, text) of a token; -1 for those that are not there."""
    logprob = rank = token = -1
    i, end = at + 1, after(values, at)
    while i < end:
        if is_named(text, values, i, LOGPROB):
            logprob = i + 1
        elif is_named(text, values, i, RANK):
            rank = i + 1
        elif is_named(text, values, i, DECODED_TOKEN):
            token = i + 1
        i = after(values, i + 1)
    return logprob, rank, token


@bare
def _positions(text, values, array, prompt, line, choice, out):  # type: ignore[no-untyped-def]
    """Rows of a list of null or {id: {logprob, rank, decoded_token}}."""
    items, counts = out[2], out[4]
    i, place, at = array + 1, 0, prompt + 1
    while i < after(values, array):
        if kind_of(values, i) == NULL or (kind_of(values, i) == OBJECT and after(values, i) == i + 1):
            if place:
                row(out, line, choice, place)
        elif kind_of(values, i) != OBJECT:
            return False
        else:
            first = counts[ITEMS]
            j = i + 1
            while j < after(values, i):
                if kind_of(values, j + 1) != OBJECT:
                    return False
                logprob, rank, token = _ranked(text, values, j + 1)
                n, id = counts[ITEMS], whole_key(text, values, j)
                if not item(values, out, token, -1, logprob) or logprob < 0 or id == NO_NUMBER:
                    return False
                items[n, NUMBER], items[n, ENTRY] = id, rank
                j = after(values, j + 1)
            good, wanted = _wanted(values, prompt, at)
            if not good or not _prompt_row(text, values, first, wanted, out, line, choice, place):
                return False
        if prompt >= 0 and at < after(values, prompt):
            at = after(values, at)
        i, place = after(values, i), place + 1
    return True


@bare
def _flat_columns(text, values, at):  # type: ignore[no-untyped-def]
    """(whether they are flat and as long as each other, the six arrays) of vLLM's ``FlatLogprobs``."""
    begins, ends = member(text, values, at, START_INDICES), member(text, values, at, END_INDICES)
    ids, logprobs = member(text, values, at, TOKEN_IDS), member(text, values, at, LOGPROBS)
    ranks, texts = member(text, values, at, RANKS), member(text, values, at, DECODED_TOKENS)
    found, good = (begins, ends, ids, logprobs, ranks, texts), True
    for k in range(6):
        i = found[k]
        good = good and i >= 0 and kind_of(values, i) == ARRAY and is_flat(values, i)
        if good:
            like = begins if k < 2 else ids
            good = after(values, i) - i == after(values, like) - like
    return good, found


@bare
def _flat_positions(text, values, at, prompt, line, choice, out):  # type: ignore[no-untyped-def]
    """Rows of vLLM's ``FlatLogprobs``."""
    good, (begins, ends, ids, logprobs, ranks, texts) = _flat_columns(text, values, at)
    if not good or (prompt >= 0 and not is_flat(values, prompt)):
        return False
    items, counts, last = out[2], out[4], 0
    for place in range(after(values, begins) - begins - 1):
        b, e = begins + 1 + place, ends + 1 + place
        if kind_of(values, b) != INTEGER or kind_of(values, e) != INTEGER:
            return False
        begin, end = values[b, 0], values[e, 0]
        if not last <= begin <= end < after(values, ids) - ids:
            return False
        first, last = counts[ITEMS], end
        for j in range(begin, end):
            n = counts[ITEMS]
            good = item(values, out, texts + 1 + j, ids + 1 + j, logprobs + 1 + j)
            if not good or items[n, NUMBER] == NO_NUMBER:
                return False
            items[n, ENTRY] = ranks + 1 + j
        if begin == end:
            if place:
                row(out, line, choice, place)
            continue
        good, wanted = _wanted(values, prompt, prompt + 1 + place)
        if not good or not _prompt_row(text, values, first, wanted, out, line, choice, place):
            return False
    return True


def _of(names: tuple[int, int]) -> Any:
    """The compiled reader of the log-probabilities that an object holds. names: those of them and of the ids."""

    @bare
    def read_held(text, values, at, line, choice, out):  # type: ignore[no-untyped-def]
        held, ids = member(text, values, at, names[0]), member(text, values, at, names[1])
        if held < 0 or kind_of(values, held) < OBJECT:
            return True
        ids = -1 if is_null(values, ids) else ids
        if ids >= 0 and kind_of(values, ids) != ARRAY:
            return False
        if kind_of(values, held) == ARRAY:
            return _positions(text, values, held, ids, line, choice, out)
        return _flat_positions(text, values, held, ids, line, choice, out)

    return read_held


_prompt = _of((PROMPT_LOGPROBS, PROMPT_TOKEN_IDS))
_read_choices = of_choices(_prompt)
_read_outputs = of_choices(_of((LOGPROBS, TOKEN_IDS)), OUTPUTS)


@bare
def read_vllm(text, values, at, line, out):  # type: ignore[no-untyped-def]
    if not _prompt(text, values, at, line, 0, out) or not _read_choices(text, values, at, line, out):
        return False
    rows, counts, held = out[0], out[4], member(text, values, at, PROMPT_LOGPROBS)
    first, begin = counts[ROWS], 0
    if not _read_outputs(text, values, at, line, out):
        return False
    if held >= 0 and kind_of(values, held) == OBJECT:
        held = member(text, values, held, START_INDICES)
    if held >= 0 and kind_of(values, held) == ARRAY:
        begin = count(values, held)
    for r in range(first, counts[ROWS]):
        rows[r, POSITION] += begin
    return True


# ---- SGLang ----------------------------------------------------------------------------------------------------------


@bare
def _array(text, values, at, name):  # type: ignore[no-untyped-def]
    """(whether it is an array or null, its value or -1 if it is empty or null) of a member."""
    i = member(text, values, at, name)
    if is_null(values, i):
        return True, -1
    return kind_of(values, i) == ARRAY, (i if after(values, i) > i + 1 else -1)


@bare
def _is_triple(values, i):  # type: ignore[no-untyped-def]
    return kind_of(values, i) == ARRAY and after(values, i) == i + 4 and is_flat(values, i)


@bare
def _side(text, values, meta, names, listed, line, position, out):  # type: ignore[no-untyped-def]
    """(whether it can be read, the position behind it) of the tokens of the prompt or of the output. listed: bool.
    One of both has lists, and tokens without one are no rows."""
    rows, reals, _, _, counts = out
    good, tokens = _array(text, values, meta, names[0])
    good_tops, tops = _array(text, values, meta, names[1])
    if not good or not good_tops:
        return False, 0
    n = count(values, tokens) if tokens >= 0 else 0
    if tops >= 0 and count(values, tops) != n:
        return False, 0
    i, top = tokens + 1, tops + 1
    for place in range(n):
        if not _is_triple(values, i):
            return False, 0
        if (tops >= 0 or not listed) and kind_of(values, i + 1) != NULL:
            r = row(out, line, 0, position + place)
            if not fill(values, rows, reals, r, i + 3, i + 2, i + 1):
                return False, 0
            if tops >= 0 and kind_of(values, top) == ARRAY and after(values, top) > top + 1:
                rows[r, FIRST] = counts[ITEMS]
                j = top + 1
                while j < after(values, top):
                    if not _is_triple(values, j) or not item(values, out, j + 3, j + 2, j + 1):
                        return False, 0
                    j = after(values, j)
                rows[r, LAST] = counts[ITEMS]
            elif tops >= 0 and kind_of(values, top) != NULL and kind_of(values, top) != ARRAY:
                return False, 0
        i = after(values, i)
        if tops >= 0:
            top = after(values, top)
    return True, position + n


@bare
def read_sglang(text, values, at, line, out):  # type: ignore[no-untyped-def]
    meta = member(text, values, at, META_INFO)
    if meta < 0 or kind_of(values, meta) != OBJECT:
        return False
    listed = _array(text, values, meta, INPUT_TOPS)[1] >= 0 or _array(text, values, meta, OUTPUT_TOPS)[1] >= 0
    good, position = _side(text, values, meta, (INPUT_TOKENS, INPUT_TOPS), listed, line, 0, out)
    if not good:
        return False
    return _side(text, values, meta, (OUTPUT_TOKENS, OUTPUT_TOPS), listed, line, position, out)[0]
