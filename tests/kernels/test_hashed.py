"""Numbers and texts numbered by compiled tables, against Python's dictionaries."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings, strategies as st

from fastxent.kernels import texts as texts_module
from fastxent.kernels.hashed import encoded
from fastxent.kernels.texts import Texts

text = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"", b"\0", b"\0\0", b"\0" * 8, b"\0" * 9, b"a" * 7, b"a" * 8, b"a" * 300]),
)


def codes_of(table: Texts, batch: list[bytes], before: bytes = b"") -> list[int]:
    offsets = np.cumsum([len(before), *map(len, batch)])
    return table.codes(offsets, np.frombuffer(before + b"".join(batch), np.uint8)).tolist()


@given(st.lists(st.lists(text, max_size=30), max_size=5), st.binary(max_size=9))
@settings(max_examples=150)
def test_texts_are_numbered_as_they_appear(batches, before):
    known, expected = Texts(), {}
    for batch in batches:
        assert codes_of(known, batch, before) == [expected.setdefault(item, len(expected)) for item in batch]
    assert known.listed() == list(expected)


def test_many_texts():
    """Texts outgrow their table."""
    names = [f"user-{i % 3000}{'x' * (i % 40)}".encode() for i in range(6000)]
    known, expected = Texts(), {}
    wanted = [expected.setdefault(name, len(expected)) for name in names]
    assert codes_of(known, names) == wanted
    assert codes_of(known, names[::-1]) == wanted[::-1]
    assert known.listed() == list(expected)


def test_texts_of_one_hash():
    """What was entered under the hash of another text is told apart by its bytes."""
    known = Texts()
    assert codes_of(known, [b"same-size"]) == [0]
    known._bytes[8:17] = np.frombuffer(b"another-1", np.uint8)
    assert codes_of(known, [b"same-size", b"same-size"]) == [1, 1]


def test_the_seed_changes_no_code(monkeypatch):
    names = [f"{i * 7919 % 1000}".encode() for i in range(2000)]
    first = codes_of(Texts(), names)
    monkeypatch.setattr(texts_module, "_SEED", np.uint64(1))
    assert codes_of(Texts(), names) == first


whole = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-3, 20), st.sampled_from([-(2**63), 2**63 - 1]))


@given(st.lists(whole, max_size=60) | st.lists(st.integers(-5, 5), max_size=60))
def test_numbers_encoded_by_first_appearance(numbers):
    distinct, codes = encoded(np.array(numbers, np.int64))
    places = {number: place for place, number in enumerate(dict.fromkeys(numbers))}
    assert distinct.tolist() == list(places)
    assert codes.tolist() == [places[number] for number in numbers]
