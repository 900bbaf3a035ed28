"""Lines of JSON without some members are the same values without them, and broken text is never read out of range."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings, strategies as st

from fastxent.kernels.json_text import without_members

NAMES = ("bytes", "token")
KEYS = st.sampled_from([*NAMES, "byte", "bytes2", "a", "", 'to"ken', "\\", "é"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('a"\\{}[],:é \n', max_size=6) | st.just("bytes"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def without(data: bytes) -> bytes | None:
    room = np.full(len(data), 255, np.uint8)
    names = np.array([[*f'"{name}"'.encode()] for name in NAMES], np.uint8)
    end = without_members(np.frombuffer(data, np.uint8), names, room)
    assert -1 <= end <= len(data)
    return None if end < 0 else room[:end].tobytes()


def pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: pruned(item) for key, item in value.items() if key not in NAMES}
    return [pruned(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=300)
@given(lines=st.lists(VALUES, max_size=3), spaced=st.booleans(), ascii=st.booleans())
def test_the_same_values_without_the_members(lines, spaced, ascii):
    separators = (" , ", " : ") if spaced else (",", ":")
    text = "\n".join(json.dumps(value, separators=separators, ensure_ascii=ascii) for value in lines)
    found = without(text.encode())
    assert found is not None
    assert [json.loads(line) for line in found.split(b"\n") if line] == [pruned(value) for value in lines]


@settings(max_examples=300)
@given(value=VALUES, data=st.data())
def test_broken_text_keeps_its_lines(value, data):
    text = bytearray(json.dumps({"bytes": value, "token": "x\\", "a": [value]}).encode() + b"\n{}")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at] = data.draw(st.sampled_from([*b'{}[]",:\\a\n', 0, 255]))
    found = without(bytes(text))
    assert found is None or found.count(b"\n") == text.count(b"\n")
