"""Numbers of JSON text are those of Python's json, bit for bit, or left to it."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from fastxent.kernels.json_numbers import NEITHER, WHOLE, read_number

DIGITS = st.text("0123456789", min_size=1, max_size=20)
TEXTS = (
    st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.floats(-50, 0, width=32).map(repr)
    | st.builds("{}{}.{}".format, st.sampled_from(["", "-"]), DIGITS, DIGITS)
    | st.builds("{}e{}".format, st.integers(), st.integers(-40, 60))
    | st.builds("{}.{}E+{}".format, st.integers(-9, 9), DIGITS, st.integers(0, 40))
    | st.integers().map(str)
    | st.text("0123456789+-.eE", max_size=8)
)


def read(text: str) -> int | float | None:
    """The number, which the same bytes hold at the end of what may be read and in front of other text."""
    found = []
    for behind, size in ((b"1", 0), (b", 1234567", 9)):
        held, last = np.frombuffer(b"x" + text.encode() + behind, np.uint8), 1 + len(text.encode())
        kind, whole, real, end = read_number(held, 1, last + size)
        found.append(None if kind == NEITHER or end != last else whole if kind == WHOLE else real)
    assert repr(found[0]) == repr(found[1])
    return found[0]


@settings(max_examples=400)
@given(text=TEXTS)
@example("9007199254740993.0")  # half way between two floats
@example("9007199254740995e0")
@example("36893488147419103232e-20")
@example("-0.0")
@example("-0")
@example("0e99999999999")
@example("1e")
@example("01")
def test_the_number_of_python(text):
    found = read(text)
    if found is None:
        return
    value = json.loads(text)
    assert type(value) is type(found)
    assert struct.pack("d", value) == struct.pack("d", found)


def test_numbers_of_servers_are_read():
    rng = np.random.default_rng(0)
    for value in (-rng.exponential(4, 200)).tolist() + (-rng.exponential(4, 200)).astype(np.float32).tolist():
        assert read(repr(value)) == value
    assert (read("-1.1920928955078125e-07"), read("-9999"), read("-9999.0")) == (-(2.0**-23), -9999, -9999.0)


@pytest.mark.parametrize(
    "text", ["", "-", "+1", ".5", "5.", "00", "1e+", "NaN", "1" * 19, "1." + "1" * 19, "1e-28", "1e56"]
)
def test_other_text_is_left(text):
    assert read(text) is None
