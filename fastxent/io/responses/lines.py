"""The tokens of JSON lines, as compiled code finds them. A line that is not as its form has it is left to Python."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import numpy as np
import pyarrow as pa

from fastxent.io.responses.emitted import (
    BEGIN,
    CHOICE,
    END,
    ENTRY,
    FIRST,
    ITEMS,
    LAST,
    LINE,
    N_BYTES,
    NEWLINE,
    NUMBER,
    POSITION,
    ROWS,
    USED,
    copy_texts,
    row,
    text_offsets,
)
from fastxent.io.responses.forms import Form
from fastxent.io.responses.listed import (
    read_chat,
    read_chat_choice,
    read_legacy,
    read_legacy_choice,
    read_native,
    read_responses,
)
from fastxent.io.responses.prompts import read_sglang, read_vllm
from fastxent.io.responses.rows import NUMBERS, REAL, WHOLE
from fastxent.io.storage.buffers import buffers
from fastxent.kernels.jit import bare
from fastxent.kernels.json_members import NO_NUMBER, code_of, member
from fastxent.kernels.json_text import most_values
from fastxent.kernels.json_values import OBJECT, UNREAD, behind_spaces, kind_of, read_value


def _reader(read: Any) -> Any:
    """The kernel that reads lines of a form. read: function that adds the rows of a response; whether it can be."""

    @bare
    def kernel(text, at, end, wrapper, values, line, out):  # type: ignore[no-untyped-def]
        """Add the rows of lines from the byte ``at`` on: (place, line) of the end, or of a line that is not read.

        text: uint8 (2n,). JSON lines, which end at ``end``, and room for texts without escapes.
        wrapper: int64 (k,). The names of the objects around a response.
        values: as in `read_value`.
        out: a tuple of int64 (r, 9) and float64 (r,), rows; int64 (m, 4) and float64 (m,), items; int64 (3,), how many
            there are. r and m are the number of values in all lines at least.
        """
        counts = out[4]
        while True:
            at = behind_spaces(text, at, end)
            if at >= end:
                return end, line
            if text[at] == NEWLINE:
                at += 1
                continue
            rows, items, begin = counts[ROWS], counts[ITEMS], at
            at, counts[USED] = read_value(text, at, end, counts[USED], values)
            good = at != UNREAD and kind_of(values, 0) == OBJECT
            if good:
                at = behind_spaces(text, at, end)
                good = at >= end or text[at] == NEWLINE
            if good:
                inner = 0
                for name in wrapper:
                    is_object = inner >= 0 and kind_of(values, inner) == OBJECT
                    inner = member(text, values, inner, name) if is_object else -1
                if inner >= 0 and kind_of(values, inner) == OBJECT:
                    good = read(text, values, inner, line, out)
                if good and counts[ROWS] == rows:
                    row(out, line, 0, 0)
            if not good:
                counts[ROWS], counts[ITEMS] = rows, items
                return begin, line
            line += 1

    return kernel


_READERS = {
    "chat": _reader(read_chat),
    "llama.cpp": _reader(read_native),
    "completions": _reader(read_legacy),
    "vLLM": _reader(read_vllm),
    "SGLang": _reader(read_sglang),
    "Responses API": _reader(read_responses),
    "chat choices": _reader(read_chat_choice),
    "completion choices": _reader(read_legacy_choice),
}


Columns = dict[str, pa.Array]
ByLine = Callable[[bytes, int], "Columns | None"]


def columns_of(
    data: np.ndarray, form: Form, first: int, needed: Container[str], by_line: ByLine
) -> tuple[Columns, int]:
    """(the columns of the tokens of JSON lines, of which those in ``needed`` and `NUMBERS`, the number behind the last
    line).

    data: uint8 (n,). first: int. The number of the first line.
    by_line: function of a line and its number, which returns its columns: Python's reader, for lines that compiled code
        does not read. None for a line of spaces.
    """
    names = [*NUMBERS, *(field.name for field in form.fields if field.name in needed)]
    memory = buffers()
    text = memory.take(2 * len(data))
    text[: len(data)] = data
    found, ascii = most_values(text[: len(data)])
    codes = [code_of(name) for name in form.wrapper]
    most = int(found) if None not in codes and (ascii or _is_utf8(data)) else 0
    values, rows, items = (
        memory.take(8 * width * most).view(np.int64).reshape(most, width) for width in (2, POSITION + 1, ENTRY + 1)
    )
    row_reals, item_reals = (memory.take(8 * most).view(np.float64) for _ in range(2))
    counts = np.array([0, 0, len(data)])
    out = rows, row_reals, items, item_reals, counts
    wrapper = np.array([code for code in codes if code is not None], np.int64)
    parts, whole, at, line = list[Columns](), b"", 0, first
    while at < len(data):
        if most:
            counts[ROWS] = counts[ITEMS] = 0
            at, line = _READERS[form.name](text, at, len(data), wrapper, values, line, out)
            if counts[ROWS]:
                parts.append(_columns(text, out, form.numbered, names))
        if at < len(data):
            whole = whole or data.tobytes()
            stop = whole.find(b"\n", at) % (len(whole) + 1)
            part = by_line(whole[at:stop], line)
            if part is not None:
                parts.append(part)
                line += 1
            at = stop + 1
    if len(parts) == 1:
        return {name: parts[0][name] for name in names}, line
    return {name: pa.concat_arrays([part[name] for part in parts]) for name in names}, line


def _is_utf8(data: np.ndarray) -> bool:
    try:
        str(data.data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _columns(text: np.ndarray, out: tuple[np.ndarray, ...], numbered: bool, names: list[str]) -> Columns:
    """The columns ``names`` of rows and items that compiled code has found."""
    rows, items = out[0][: out[4][ROWS]], out[2][: out[4][ITEMS]]
    sizes, missing = rows[:, LAST] - rows[:, FIRST], rows[:, FIRST] < 0
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
    mask = pa.array(missing) if missing.any() else None

    def lists(values: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, values, mask=mask)

    ids = _numbers if numbered else lambda table: _texts(text, table)
    makers: dict[str, Callable[[], pa.Array]] = {
        "request": lambda: pa.array(rows[:, LINE].copy()),
        "choice": lambda: pa.array(rows[:, CHOICE].copy()),
        "position": lambda: pa.array(rows[:, POSITION].copy()),
        "token": lambda: _texts(text, rows),
        "n_bytes": lambda: _sizes(rows),
        "target": lambda: ids(rows),
        "target_logprob": lambda: _reals(out[1][: len(rows)]),
        "topk_ids": lambda: lists(ids(items)),
        "topk_logprobs": lambda: lists(_reals(out[3][: len(items)])),
        "topk_tokens": lambda: lists(_texts(text, items)),
    }
    return {name: makers[name]() for name in names}


def _numbers(table: np.ndarray) -> pa.Array:
    """The ids of a table."""
    values = table[:, NUMBER]
    return pa.array(values.copy(), WHOLE, mask=values == NO_NUMBER)


def _reals(values: np.ndarray) -> pa.Array:
    return pa.array(values.copy(), REAL, mask=np.isnan(values))


def _sizes(rows: np.ndarray) -> pa.Array:
    """The number of bytes of the token of each row."""
    told, texts = rows[:, N_BYTES], rows[:, BEGIN] >= 0
    values = np.where(told == NO_NUMBER, rows[:, END] - rows[:, BEGIN], told)
    return pa.array(values, WHOLE, mask=(told == NO_NUMBER) & ~texts)


def _texts(text: np.ndarray, table: np.ndarray) -> pa.Array:
    """The texts of a table."""
    offsets = np.zeros(len(table) + 1, np.int32)
    nulls = text_offsets(table, offsets)
    held = np.empty(offsets[-1], np.uint8)
    copy_texts(text, table, offsets, held)
    valid = pa.py_buffer(np.packbits(table[:, BEGIN] >= 0, bitorder="little")) if nulls else None
    return pa.StringArray.from_buffers(len(table), pa.py_buffer(offsets), pa.py_buffer(held), valid, nulls)
