"""Row filters: what they keep, and what they refuse instead of guessing."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from fastxent.errors import ConfigError
from fastxent.io.values import plain
from fastxent.scoring.filter import Filter

COLUMNS = {
    "kind": pa.array(["a", "b", None, "a"]),
    "coded": pa.array(["a", "b", None, "a"]).dictionary_encode(),
    "large": pa.array(["a", "b", "c", None], pa.large_string()),
    "n": pa.array([1, 2, 3, None], pa.int8()),
    "u": pa.array([1, 2, 3, 4], pa.uint64()),
    "x": pa.array([0.5, 2.0, None, float("nan")], pa.float32()),
    "flag": pa.array([True, False, None, True]),
    "day": pa.array([datetime.date(2024, 1, d) for d in (1, 2, 3, 4)]),
    "price": pa.array([Decimal("1.5")] * 4),
    "nothing": pa.nulls(4),
    "item.size": pa.array([1, 2, 3, 4]),
    "n bytes": pa.array([1, 2, 3, 4], pa.int16()),
    "class": pa.array(["x", "y", "x", None]),
    "views": pa.array(["a", "b", None, "a"], pa.string_view()),
    "coded views": pa.array(["a", "b", None, "a"], pa.string_view()).dictionary_encode(),
    "blob": pa.array([b"a", b"\xff", None, b"a"], pa.binary_view()),
    "fixed": pa.array([b"ab", b"cd", None, b"ab"], pa.binary(2)),
    "half": pa.array([np.float16(1.0), np.float16(2.5), None, np.float16(4.0)], pa.float16()),
    "bits": pa.array([16256, 16384, None, 16544], pa.uint16()),  # bfloat16 1, 2, 5
    "double": pa.array([2.0**53, 2.0**53 + 2, None, 0.1]),
    "wide": pa.array([2**53 + 1, 2**63 - 1, -(2**63), None], pa.int64()),
    "huge": pa.array([2**64 - 1, 2**63, 0, None], pa.uint64()),
    "cents": pa.array([Decimal("0.10"), Decimal("-2.50"), None, Decimal(3)], pa.decimal128(38, 2)),
    "mills": pa.array([Decimal("0.1"), Decimal("-2.501"), None, Decimal(3)], pa.decimal128(9, 3)),
    "tenth": pa.array([0.1, 2.5, None, 3.0]),
    "whole": pa.array([1, 2, None, 10**37], pa.decimal128(38, 0)),
    "day64": pa.array([datetime.date(2024, 1, d) for d in (1, 2, 3, 4)], pa.date64()),
    "at": pa.array([datetime.datetime(2024, 1, d, 12) for d in (1, 2, 3, 4)], pa.timestamp("s")),
    "nanos": pa.array([1_704_196_800_000_000_001, None, 0, 1], pa.timestamp("ns")),
    "zoned": pa.array(
        [1_704_150_000, 1_704_153_600, None, 0], pa.timestamp("s", "Europe/Berlin")
    ),  # 00:00, 01:00 there
    "utc": pa.array([1_704_150_000_000, None, 0, 0], pa.timestamp("ms", "UTC")),
    "time": pa.array([datetime.time(1), datetime.time(2, 30), None, datetime.time(3)], pa.time32("ms")),
    "rows": pa.array([[1], [2], None, []]),
}
TAGS = {"bits": "bfloat16"}


def kept(text: str) -> list[int]:
    found = Filter(text)
    return found.rows({name: plain(COLUMNS[name], name, TAGS.get(name)) for name in found.columns}).tolist()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("kind == 'a'", [0, 3]),
        ("coded == 'a'", [0, 3]),
        ("large != 'a'", [1, 2]),
        ("kind == large", [0, 1]),
        ("'a' == kind", [0, 3]),
        ("n > 1", [1, 2]),
        ("n < 1000", [0, 1, 2]),  # past the type of the column
        ("n == -1", []),
        ("n == 1.5", []),
        ("1 < n <= 3", [1, 2]),
        ("n != 1 and not kind == 'a'", [1]),
        ("kind == 'a' or n == 3", [0, 2, 3]),
        ("u > -1", [0, 1, 2, 3]),
        ("x < 1", [0]),
        ("x > 1", [1]),
        ("not x < 1", [1, 3]),  # NaN is less than nothing; null is neither
        ("flag", [0, 3]),
        ("not flag", [1]),
        ("flag == False", [1]),
        ("price == 1.5", [0, 1, 2, 3]),
        ("day in ['2024-01-02']", [1]),
        ("item.size >= 3", [2, 3]),
        ("  kind=='b'  ", [1]),
        ("col('n bytes') > 2", [2, 3]),
        ("1 < col('n bytes') < 4 and col('class') == 'x'", [2]),
        ("col('item.size') == item.size", [0, 1, 2, 3]),
        ("views == 'a'", [0, 3]),
        ("views == kind and views in ['a', 'c']", [0, 3]),
        ("col('coded views') != 'a'", [1]),
        ("col('coded views') in ['b', None]", [1, 2]),
        ("blob == 'a' and blob == b'a'", [0, 3]),
        ("blob in [b'\\xff']", [1]),
        ("fixed == 'cd' or fixed in [b'ab']", [0, 1, 3]),
        ("half >= 2.5", [1, 3]),
        ("bits > 1.5", [1, 3]),
        ("bits in [1, 5.0, 16544]", [0, 3]),
        ("rows is None", [2]),
        (r"kind == '\d' or kind == 'b'", [1]),
        ("1 == 1 and n == 2", [1]),
        ("1 in [1, 2] and 'a' != 'b' and None is None and n == 2", [1]),
    ],
)
def test_comparisons(text, rows):
    assert kept(text) == rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("n <= 1.5", [0]),
        ("n >= 1.5 and n != 2.5", [1, 2]),
        ("2.0 == n", [1]),
        ("n < -1000 or n > 1e999", []),
        ("n > -1000 and n < 1e999 and n != 1000", [0, 1, 2]),
        ("n in [1.0, 2.5, 300, -1e999]", [0]),
        (f"n < {10**60}", [0, 1, 2]),
        (f"double == {2**53 + 1}", []),  # no double is: it is not rounded to one
        (f"double > {2**53 + 1}", [1]),
        (f"double <= {2**53 + 1} and double in [{2**53}, {2**53 + 1}]", [0]),
        ("double == 0.1", [3]),
        (f"wide == {float(2**53)} or wide == {float(2**63)}", []),
        (f"wide == {2**53 + 1}", [0]),
        (f"wide >= {float(2**63)}", []),
        (f"wide <= {-float(2**63)}", [2]),
        ("huge > -1", [0, 1, 2]),
        (f"huge == {2**64 - 1}", [0]),
        (f"huge > {2**64}", []),
        ("huge > n", [0, 1]),
        ("cents == 0.1", [0]),  # as it is written
        ("cents < 0.105", [0, 1]),
        ("cents > 0.1", [3]),
        ("cents <= -2.5 or cents in [3, 0.105]", [1, 3]),
        ("cents == mills", [0, 3]),
        ("cents > mills", [1]),
        ("n == whole", [0, 1]),
        ("cents < x", [0, 1]),
        ("tenth == cents", [0, 3]),
        (f"whole == {10**37}", [3]),
        (f"whole in [1, {10**37}, 1.5]", [0, 3]),
        ("whole < 1e300 and whole > -1e300", [0, 1, 3]),
    ],
)
def test_numbers_are_compared_exactly_whatever_their_types(text, rows):
    assert kept(text) == rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("day >= '2024-01-03'", [2, 3]),
        ("'2024-01-03' > day64", [0, 1]),
        ("day == day64", [0, 1, 2, 3]),
        ("day > '2024-01-02 12:00:00'", [2, 3]),
        ("day in ['2024-01-02', '2024-01-03 12:00:00']", [1]),  # no date has a time of day
        ("at > '2024-01-03'", [2, 3]),
        ("at == '2024-01-03T12:00:00'", [2]),
        ("at == '2024-01-03 12:00:00.000001' or at < '2024-01-01 12:00:00.5'", [0]),
        ("at in ['2024-01-03 12:00:00', '2024-01-04 12:00:00.5']", [2]),
        ("nanos == '2024-01-02 12:00:00.000000001'", [0]),
        ("nanos > '2024-01-02 12:00'", [0]),
        ("zoned == '2024-01-02'", [0]),  # in the zone of the column
        ("zoned > '2024-01-01 23:30:00Z'", [1]),
        ("zoned in ['2024-01-02 00:00:00', '1970-01-01 00:00:00Z']", [0, 3]),
        ("zoned == utc", [0, 3]),
        ("time >= '02:30'", [1, 3]),
        ("time in ['01:00:00', '03:00:00.000001']", [0]),
    ],
)
def test_dates_and_times_are_compared_with_text(text, rows):
    assert kept(text) == rows


@pytest.mark.parametrize("name", ["kind", "coded"])
def test_a_comparison_with_null_keeps_nothing(name):
    for text in (
        "{} == 'a'",
        "{} != 'a'",
        "{} in ['a', 'b']",
        "{} not in ['a', 'b']",
        "not {} in ['a']",
        "not {} != 'z'",
    ):
        assert 2 not in kept(text.format(name))
    assert kept(f"{name} not in ['a']") == kept(f"not {name} in ['a']") == kept(f"not ({name} in ('a',))") == [1]
    assert kept(f"{name} is None") == [2]
    assert kept(f"{name} is not None") == [0, 1, 3]
    assert kept(f"{name} in ['b', None]") == [1, 2]
    assert kept(f"{name} not in ['b', None]") == [0, 3]
    assert kept(f"{name} in []") == []
    assert kept(f"{name} not in []") == [0, 1, 3]
    assert kept("nothing == 1") == kept("nothing in [1]") == kept("nothing") == kept("not nothing") == []
    assert kept(f"nothing == {name}") == kept("nothing < n") == kept("nothing != day") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind == None", "write 'is None'"),
        ("None != kind", "write 'is None'"),
        ("kind in 'abc'", "not a comparison"),  # in Python, a search for a part
        ("kind in large", "not a comparison"),
        ("kind in {'a': 1}", "not a comparison"),
        ("kind in ['a', 1]", "not a comparison"),
        ("kind is large", "not a comparison"),
        ("n + 1 == 2", "not a comparison"),
        ("n == 1j", "not a comparison"),
        ("n == -'a'", "not a comparison"),
        ("n == 10 ** 99", "not a comparison"),
        (f"n == {10**76}", "not a comparison"),
        ("n in [1, True]", "not a comparison"),
        ("n == ...", "not a comparison"),
        ("col(n) == 1", "not a comparison"),
        ("col('n', 1) == 1", "not a comparison"),
        ("col() == 1", "not a comparison"),
        ("__import__('os')", "not a comparison"),
        ("kind.upper() == 'A'", "not a comparison"),
        ("lambda: 1", "not a comparison"),
        ("(kind := 'a')", "not a comparison"),
        ("True", "not a comparison"),
        ("1 == 1", "does not name a column"),
        ("'a' in ['a']", "does not name a column"),
        ("", "invalid where"),
        ("kind ==", "invalid where"),
        ("kind = 'a'", "invalid where"),
        ("kind == 'a'; n", "invalid where"),
        ("\0", "invalid where"),
        ("kind == '\udce9'", "invalid where"),
        ("(" * 1000, "invalid where"),
        ("not " * 100_000 + "flag", "invalid where"),
        ("n", "cannot apply where"),
        ("kind", "cannot apply where"),
        ("kind == 1", "cannot apply where"),
        ("n == 'a'", "cannot apply where"),
        ("n in ['a']", "cannot apply where"),
        ("n == True", "cannot apply where"),
        ("flag == 1", "cannot apply where"),
        ("kind == day", "cannot apply where"),
        ("day == 19724", "cannot apply where"),
        ("day == 'soon'", "invalid time 'soon'"),
        ("at == '2024-01-02T00:00:00Z'", "without a time zone"),
        ("time == 'noon'", "invalid time 'noon'"),
        ("blob == 1", "cannot apply where"),
        ("rows == 1", "cannot apply where"),
        ("task-name == 'a'", r"col\('task-name'\)"),
        ("class == 'a'", r"col\('task-name'\)"),
    ],
)
def test_what_is_no_filter_is_refused(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        kept(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("join", [" or ", " and "])
def test_as_many_conditions_as_one_likes(join):
    found = Filter(join.join(["n == 1", "n <= 1"] * 5000))
    assert found.rows({"n": COLUMNS["n"]}).tolist() == [0]


@pytest.mark.parametrize("text", ["not " * 101 + "flag", "(" * 120 + "n == 1" + " or n == 2 and n == 3)" * 120])
def test_deep_conditions_are_refused_in_one_short_line(text):
    with pytest.raises(ConfigError, match="invalid where") as error:
        Filter(text)
    assert len(str(error.value)) < 600
    assert "\n" not in str(error.value)
    assert Filter("not " * 100 + "flag").rows(COLUMNS).tolist() == [0, 3]


@pytest.mark.parametrize("value", [5, ["n == 1"], b"n == 1"])
def test_a_condition_is_text(value):
    with pytest.raises(ConfigError, match="where must be text"):
        Filter(value)


def test_no_rows_and_the_columns_that_are_read():
    found = Filter("kind == 'a' and kind != 'b' or item.size > 2")
    assert list(dict.fromkeys(found.columns)) == ["kind", "item.size"]
    empty = found.rows({name: COLUMNS[name].slice(0, 0) for name in found.columns})
    assert (empty.tolist(), empty.dtype) == ([], "int64")
