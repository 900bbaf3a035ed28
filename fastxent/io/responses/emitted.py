"""Rows, and items, which are the likeliest tokens of each row, as compiled code writes them: tables of integers beside
log-probabilities.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastxent.kernels.jit import bare
from fastxent.kernels.json_members import CHOICES, INDEX, NO_NUMBER, is_null, member, real, span, whole
from fastxent.kernels.json_values import ARRAY, INTEGER, OBJECT, after, kind_of

# Columns of the rows: BEGIN and END of the text of the token, N_BYTES where the response has its bytes, FIRST and LAST
# of its items, -1 where it has no list. The first three columns of items are the same.
BEGIN, END, NUMBER, N_BYTES, FIRST, LAST, LINE, CHOICE, POSITION = range(9)
ENTRY = 3  # of an item: the value that holds its rank
ROWS, ITEMS, USED = range(3)  # how many rows, items and bytes of text there are
MOST = 2048  # entries of an object that are compared with each other
NEWLINE = 0x0A


@bare
def row(out, line, choice, position):  # type: ignore[no-untyped-def]
    """A new row of nulls."""
    rows, reals, _, _, counts = out
    r = counts[ROWS]
    counts[ROWS] = r + 1
    rows[r, LINE], rows[r, CHOICE], rows[r, POSITION] = line, choice, position
    rows[r, BEGIN] = rows[r, END] = rows[r, FIRST] = rows[r, LAST] = -1
    rows[r, NUMBER] = rows[r, N_BYTES] = NO_NUMBER
    reals[r] = np.nan
    return r


@bare
def fill(values, table, reals, r, text, id, logprob):  # type: ignore[no-untyped-def]
    """Set the token, id and log-probability of a row or item to values that may not be there; whether they can be."""
    good_text, table[r, BEGIN], table[r, END] = span(values, text)
    good_id, table[r, NUMBER] = whole(values, id)
    good, reals[r] = real(values, logprob)
    return good and good_id and good_text


@bare
def item(values, out, text, id, logprob):  # type: ignore[no-untyped-def]
    """A new item; whether its values can be."""
    _, _, items, reals, counts = out
    n = counts[ITEMS]
    counts[ITEMS] = n + 1
    return fill(values, items, reals, n, text, id, logprob)


def of_choices(read: Any, name: int = CHOICES) -> Any:
    """The compiled reader of all choices of a response. read: function that adds the rows of a choice; whether it can
    be. name: int. Of the array of choices."""

    @bare
    def read_choices(text, values, at, line, out):  # type: ignore[no-untyped-def]
        choices = member(text, values, at, name)
        if is_null(values, choices):
            return True
        if kind_of(values, choices) != ARRAY:
            return False
        i, number = choices + 1, 0
        while i < after(values, choices):
            if kind_of(values, i) != OBJECT:
                return False
            place = member(text, values, i, INDEX)
            if place >= 0 and kind_of(values, place) != INTEGER:
                return False
            if not read(text, values, i, line, number if place < 0 else values[place, 0], out):
                return False
            i, number = after(values, i), number + 1
        return True

    return read_choices


@bare
def text_offsets(table, offsets):  # type: ignore[no-untyped-def]
    """Write where the text of each row of a table ends to int32 ``offsets``, (n + 1,), of which the first is 0; the
    number of texts that are null."""
    total, nulls = 0, 0
    for r in range(table.shape[0]):
        total += table[r, END] - table[r, BEGIN]
        offsets[r + 1] = total
        nulls += table[r, BEGIN] < 0
    return nulls


@bare
def copy_texts(text, table, offsets, out):  # type: ignore[no-untyped-def]
    """Copy the texts of the rows of a table one behind the other."""
    for r in range(table.shape[0]):
        at, n = table[r, BEGIN], offsets[r]
        for k in range(table[r, END] - at):
            out[n + k] = text[at + k]
