"""One value is one slice and one cluster, whatever Arrow type each batch gives it."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from fastxent.errors import ColumnError
from fastxent.options.config import EvalConfig
from fastxent.state.evaluation import EvalState
from fastxent.state.keys import EncodedColumn, Keys, distinct_values, key_of, value_of
from scored_cases import case, take

# values, and Arrow types that hold each of them exactly
FAMILIES: list[tuple[st.SearchStrategy[Any], list[pa.DataType]]] = [
    (
        st.integers(0, 99),
        [
            pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64(),
            pa.float16(), pa.float32(), pa.float64(), pa.decimal128(38, 0), pa.decimal128(9, 3), pa.decimal256(50, 7),
        ],
    ),
    (st.integers(2**53, 2**63 - 1), [pa.int64(), pa.uint64(), pa.decimal128(38, 0), pa.decimal256(60, 2)]),
    (st.integers(2**63, 2**64 - 1), [pa.uint64(), pa.decimal128(38, 0)]),
    (st.sampled_from([-2.5, -0.0, 0.0, 0.5, 3.0, math.nan, math.inf]), [pa.float16(), pa.float32(), pa.float64()]),
    (
        st.decimals(-10, 10, places=2).map(lambda d: d.quantize(Decimal("0.01"))),
        [pa.decimal128(9, 2), pa.decimal128(38, 5), pa.decimal256(76, 2), pa.float64()],
    ),
    (st.text("ab\U0001f600", max_size=3), [pa.string(), pa.large_string(), pa.string_view()]),
    (st.binary(min_size=2, max_size=2), [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2)]),
    (st.booleans(), [pa.bool_()]),
    (st.dates(), [pa.date32(), pa.date64()]),
    (
        st.datetimes(dt.datetime(1678, 1, 1), dt.datetime(2261, 1, 1)).map(lambda t: t.replace(microsecond=0)),
        [pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")],
    ),
    (
        st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2030, 1, 1), timezones=st.just(dt.UTC)).map(
            lambda t: t.replace(microsecond=500_000)
        ),
        [pa.timestamp(unit, zone) for unit in ("ms", "us", "ns") for zone in ("UTC", "+00:00", "Asia/Tokyo")],
    ),
    (st.times().map(lambda t: t.replace(microsecond=0)), [pa.time32("s"), pa.time32("ms"), pa.time64("us")]),
    (st.integers(0, 99).map(lambda s: dt.timedelta(seconds=s)), [pa.duration(u) for u in ("s", "ms", "us", "ns")]),
]  # fmt: skip


def array(values: list[Any], kind: pa.DataType, coded: bool) -> pa.Array:
    if pa.types.is_decimal(kind):
        values = [None if v is None else Decimal(v) for v in values]
    elif pa.types.is_floating(kind):
        values = [None if v is None else float(v) for v in values]
    elif pa.types.is_date64(kind):
        return pa.array(values, pa.date32()).cast(kind)
    column = pa.array(values, kind)
    return column.dictionary_encode() if coded else column


@st.composite
def equal_columns(draw: st.DrawFn) -> tuple[pa.Array, pa.Array]:
    """The same values under two types."""
    strategy, kinds = draw(st.sampled_from(FAMILIES))
    values = draw(st.lists(st.one_of(st.none(), strategy), min_size=1, max_size=12))
    one, other = (array(values, draw(st.sampled_from(kinds)), draw(st.booleans())) for _ in range(2))
    return one, other


@settings(max_examples=300, deadline=None)
@given(equal_columns())
def test_equal_values_have_equal_keys_under_any_type(columns):
    one, other = (EncodedColumn.of(column, "k") for column in columns)
    assert [one.keys[i] for i in one.index] == [other.keys[i] for i in other.index]
    mixed = Keys()
    np.testing.assert_array_equal(mixed.codes(one), mixed.codes(other))


@settings(max_examples=60, deadline=None)
@given(equal_columns(), st.integers(0, 12))
def test_states_of_equal_values_are_equal_bytes(columns, cut):
    one, other = columns
    cfg = EvalConfig(n_classes=7, by=("k",), cluster="c")
    rows = case("plain", len(one), dirty=False)[1]
    cut = min(cut, len(one))

    def state(first: pa.Array, second: pa.Array) -> EvalState:
        """The rows before ``cut`` with values of one array, the others of the other; merged."""
        parts = []
        for column, index in ((first, np.arange(cut)), (second, np.arange(cut, len(one)))):
            part = take(rows, index)
            values = column.slice(cut) if len(index) and index[0] == cut else column.slice(0, len(index))
            part.by, part.cluster = {"k": values}, values
            parts.append(EvalState.empty(cfg).add(part))
        return parts[0].merge(parts[1])

    expected = state(one, one)
    for found in (state(one, other), state(other, one), state(other, other)):
        assert found.to_bytes() == expected.to_bytes()
        assert found.result().to_json() == expected.result().to_json()
    assert EvalState.from_bytes(expected.to_bytes()).to_bytes() == expected.to_bytes()


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1, 1.0, Decimal("1.00"), True, "1", b"1", None], [1, "bool:True", "1", "31", None]),
        ([0.0, -0.0, 0, Decimal("0.0")], [0]),
        ([0.1, Decimal("0.1"), Decimal("0.10"), "0.1"], [0.1, "0.1"]),
        ([math.nan, -math.nan, math.inf], ["nan", "inf"]),
        ([2.0**53, 2**53, 2**53 + 1], [2**53, 2**53 + 1]),
        ([1e300, Decimal("1e30"), 10**19], [1e300, 1e30, 10**19]),
        ([Decimal("0.12345678901234567890123")], ["0.12345678901234567890123"]),
        (["31", b"1"], ["31", "bytes:31"]),
    ],
)
def test_numbers_that_are_equal_are_one_value_and_other_types_stay_apart(values, shown):
    keys = list(dict.fromkeys(map(key_of, values)))
    assert list(map(repr, distinct_values(keys))) == list(map(repr, shown))
    assert [key_of(value_of(key)) for key in keys if key.startswith(("int:", "float:"))] == [
        key for key in keys if key.startswith(("int:", "float:"))
    ]


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        (pa.array([0, 1500], pa.timestamp("ms")), ["1970-01-01 00:00:00", "1970-01-01 00:00:01.5"]),
        (pa.array([0], pa.timestamp("s", "Asia/Tokyo")), ["1970-01-01 00:00:00Z"]),
        (pa.array([10**18], pa.timestamp("us")), ["1000000000000 s since 1970"]),
        (pa.array([10**12], pa.timestamp("s")), ["1000000000000 s since 1970"]),
        (pa.array([10**8], pa.date32()), ["100000000 days since 1970"]),
        (pa.array([86_400_005], pa.date64()), ["1970-01-02"]),
        (pa.array([61_500], pa.time32("ms")), ["00:01:01.5"]),
        (pa.array([-1500], pa.duration("ms")), ["-1.5s"]),
        (pa.array([3], pa.duration("s")), ["3s"]),
    ],
)
def test_times_as_text(column, shown):
    assert list(map(value_of, EncodedColumn.of(column, "k").keys)) == shown


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1]]),
        pa.array([{"a": 1}]),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
        pa.array([pa.MonthDayNano([1, 2, 3])]),
        pa.DictionaryArray.from_arrays([0], pa.array([[1]])),
        pa.DictionaryArray.from_arrays([0], pa.array([{"left": 0, "right": 1}])),  # pd.cut
        pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]),
    ],
)
def test_what_cannot_group_rows_is_refused_in_one_line(column):
    with pytest.raises(
        ColumnError, match=r"cannot group rows by column 'k': its values are of type .*; choose a column"
    ) as error:
        EncodedColumn.of(column, "k")
    assert "\n" not in str(error.value)


def test_keys_of_states_that_are_kept():
    values = [3, "x", True, None, 0.5, math.inf]
    assert list(map(key_of, values)) == ["int:3", "str:x", "bool:True", "null:None", "float:0.5", "float:inf"]


def test_numbers_are_in_order_of_their_digits_and_old_states_are_read():
    keys = Keys(["str:a", "int:2", "float:1.5", "null:None", "int:1", "bool:True"])
    assert keys.names_in_order() == ["bool:True", "int:1", "float:1.5", "int:2", "null:None", "str:a"]
    assert Keys.restored(["float:1.0", "float:0.5", "float:nan"]).names == ["int:1", "float:0.5", "float:nan"]
