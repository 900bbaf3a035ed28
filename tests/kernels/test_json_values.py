"""Lines of JSON hold the values that Python's json finds in them, and broken text is left to it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings, strategies as st

from fastxent.kernels.json_text import count_lines, most_values
from fastxent.kernels.json_values import (
    DEEPEST,
    INTEGER,
    NULL,
    NUMBER,
    OBJECT,
    STRING,
    TRUE_OR_FALSE,
    UNREAD,
    behind_spaces,
    read_value,
)

TEXTS = st.text('a"\\/{}[],:é \n\t\x00\x7f😀', max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, -1e-6) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=15,
)


def read(data: bytes) -> Any:
    """The value that a line holds; Ellipsis if it is not read. True and false are both True."""
    text = np.full(2 * len(data), 255, np.uint8)
    text[: len(data)] = np.frombuffer(data, np.uint8)
    values = np.zeros((int(most_values(text[: len(data)])[0]), 2), np.int64)
    end, used = read_value(text, 0, len(data), len(data), values)
    assert len(data) <= used <= 2 * len(data)
    if end == UNREAD or behind_spaces(text, end, len(data)) != len(data):
        return ...

    def built(i: int) -> tuple[Any, int]:
        kind, last = int(values[i, 1]) & 7, int(values[i, 1]) >> 3
        if kind == STRING:
            return text[values[i, 0] : last].tobytes().decode(), i + 1
        if kind < STRING:
            real = float(values[i : i + 1, 0].view(np.float64)[0])
            return {NULL: None, TRUE_OR_FALSE: True, INTEGER: int(values[i, 0]), NUMBER: real}[kind], i + 1
        found, i = [], i + 1
        while i < last:
            value, i = built(i)
            found.append(value)
        assert i == last
        return (dict(zip(found[::2], found[1::2], strict=True)) if kind == OBJECT else found), i

    return built(0)[0]


def alike(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: alike(item) for key, item in value.items()}
    return [alike(item) for item in value] if isinstance(value, list) else True if value is False else value


@settings(max_examples=300)
@given(value=VALUES, spaced=st.booleans(), ascii=st.booleans())
def test_the_values_of_python(value, spaced, ascii):
    text = json.dumps(value, separators=(" , ", "\t: ") if spaced else (",", ":"), ensure_ascii=ascii)
    assert read(f" {text}\r".encode()) == alike(value)


@settings(max_examples=400)
@given(value=VALUES, data=st.data())
def test_broken_text_is_left_or_as_python_reads_it(value, data):
    text = bytearray(json.dumps({"a\\": 'x"', "b": [value, -1.5]}).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 1))] = data.draw(
            st.sampled_from([*map(bytes, zip(b'{}[]",:\\u0d8e-1.ntf \n\t\x00'))])
        )
    found = read(bytes(text))
    if found is not ...:
        assert found == alike(json.loads(text))


def test_pairs_of_surrogates_and_what_is_left():
    assert read(rb'"\ud83d\ude00\u00e9\u20ac\u0041\/"') == "😀é€A/"
    for text in (rb'"\ud83d"', rb'"\ude00"', rb'"\ud83dx"', rb'"\ud83d\u0041"', rb'"\x"', b'"\x01"', b"NaN", b"tru"):
        assert read(text) is ...
    assert read(b"[" * DEEPEST + b"]" * DEEPEST) is not ...
    assert read(b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1)) is ...


@settings(max_examples=300)
@given(data=st.lists(st.sampled_from(b'\n{[,:*;"a\x1a\x00\x80\xff'), max_size=70).map(bytes), skip=st.integers(0, 7))
def test_lines_and_values_counted(data, skip):
    text = np.frombuffer(b"x" * skip + data, np.uint8)[skip:]
    assert count_lines(text) == (data[:-1].count(b"\n"), data.count(b"\n{"))
    found, ascii = most_values(text)
    assert 1 + sum(byte in b",:[{\n" for byte in data) <= found <= 1 + len(data)
    assert ascii == data.isascii()
