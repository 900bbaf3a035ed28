"""Columns of every layout against a plain NumPy truth, row by row."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from fastxent import evaluate
from fastxent.errors import BadRowError, ColumnError, Where
from fastxent.io.columns import (
    OUT_OF_RANGE,
    as_rows,
    float_column,
    is_soft,
    soft_rows,
    target_ids,
)
from fastxent.io.families import expand
from fastxent.io.layout import Layout, all_names, find_field, pick
from fastxent.io.values import plain
from fastxent.kernels import floats

STORED = {name: kind.stored for name, kind in floats.FLOAT_TYPES.items()}
FLOAT_TYPES = {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64(), "bfloat16": pa.uint16()}
LISTS = {
    "list": pa.list_,
    "large_list": pa.large_list,
    "list_view": pa.list_view,
    "large_list_view": pa.large_list_view,
}
BLOBS = {"binary": pa.binary(), "large_binary": pa.large_binary(), "binary_view": pa.binary_view()}
LAYOUTS = [*LISTS, *BLOBS, "fixed_size_list", "fixed_size_binary", "tensor"]


def numbers(n: int, c: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Random logits as they are stored."""
    values = np.random.default_rng(seed).normal(size=(n, c)) * 5
    return values.astype(ml_dtypes.bfloat16).view(np.uint16) if dtype == "bfloat16" else values.astype(STORED[dtype])


def column(rows: list[np.ndarray | list | None], layout: str, dtype: str, c: int) -> pa.Array:
    """The rows in a layout; a row may be None, of another length, or a list with None in it."""
    item = FLOAT_TYPES[dtype]
    if layout in BLOBS or layout == "fixed_size_binary":
        blobs = [None if row is None else np.asarray(row).tobytes() for row in rows]
        kind = BLOBS.get(layout) or pa.binary(c * floats.FLOAT_TYPES[dtype].width)
        return pa.array(blobs, kind)
    lists = [None if row is None else list(row) for row in rows]
    if layout == "fixed_size_list":
        return pa.array(lists, pa.list_(item, c))
    if layout == "tensor":
        return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(item, (c,)), pa.array(lists, pa.list_(item, c)))
    return pa.array(lists, LISTS[layout](item))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("c", [1, 3, 17])
def test_every_layout_and_slice_is_a_view_of_the_numbers(layout: str, dtype: str, c: int) -> None:
    truth = numbers(20, c, dtype)
    array = column(list(truth), layout, dtype, c)
    for begin, end in [(0, 20), (0, 7), (5, 20), (6, 6), (19, 20)]:
        part = array.slice(begin, end - begin)
        logits, bad = as_rows(part, dtype, c, "logits")
        assert bad == {}
        assert logits.dtype == dtype
        assert same_bits(logits.values, truth[begin:end])
        if layout != "binary_view" and end > begin:
            low, high = np.lib.array_utils.byte_bounds(logits.values)
            storage = part.storage if layout == "tensor" else part
            buffers = [b for b in storage.buffers() if b is not None]
            assert any(b.address <= low and high <= b.address + b.size for b in buffers), "a copy was made"


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_null_rows_are_named_and_hold_nan(layout: str, dtype: str) -> None:
    truth = numbers(9, 4, dtype)
    rows = [None if i in (0, 5, 8) else row for i, row in enumerate(truth)]
    array = column(rows, layout, dtype, 4)
    for begin, end in [(0, 9), (1, 9), (4, 7), (1, 5)]:
        logits, bad = as_rows(array.slice(begin, end - begin), dtype, 4, "logits")
        expected = [i - begin for i in (0, 5, 8) if begin <= i < end]
        assert list(bad) == expected
        assert set(bad.values()) <= {"logits are null"}
        for i in range(end - begin):
            if i in bad:
                assert np.isnan(as_float(logits.values[i], dtype)).all()
            else:
                assert same_bits(logits.values[i], truth[begin + i])


def as_float(row: np.ndarray, dtype: str) -> np.ndarray:
    return (row.view(ml_dtypes.bfloat16) if dtype == "bfloat16" else row).astype(np.float64)


@pytest.mark.parametrize("layout", [*LISTS, "fixed_size_list", "tensor"])
@pytest.mark.parametrize("dtype", FLOAT_TYPES)
def test_a_null_among_the_logits_spoils_its_row_only(layout: str, dtype: str) -> None:
    truth = numbers(6, 3, dtype)
    rows: list = [list(row) for row in truth]
    rows[2][1] = None
    rows[5][2] = None
    array = column(rows, layout, dtype, 3)
    logits, bad = as_rows(array, dtype, 3, "logits")
    assert bad == {2: "logits hold a null, at class 1", 5: "logits hold a null, at class 2"}
    for i in (0, 1, 3, 4):
        assert same_bits(logits.values[i], truth[i])
    assert np.isnan(as_float(logits.values[[2, 5]], dtype)).all()
    logits, bad = as_rows(array.slice(3, 2), dtype, 3, "logits")  # nulls outside the slice do not count
    assert bad == {}
    assert same_bits(logits.values, truth[3:5])


def test_a_null_element_below_a_null_row_is_not_another_fault() -> None:
    child = pa.array([1.0, None, 3.0, 4.0], pa.float32())
    array = pa.FixedSizeListArray.from_arrays(child, 2, mask=pa.array([True, False]))
    _, bad = as_rows(array, "float32", 2, "logits")
    assert bad == {0: "logits are null"}


@pytest.mark.parametrize("layout", [*LISTS, *BLOBS])
def test_rows_of_another_length_are_named_and_do_not_shift_the_others(layout: str) -> None:
    truth = numbers(8, 5, "float32")
    rows = [row[:3] if i == 1 else np.concatenate([row, row]) if i == 6 else row[:0] if i == 4 else row
            for i, row in enumerate(truth)]  # fmt: skip
    logits, bad = as_rows(column(rows, layout, "float32", 5), "float32", 5, "logits")
    assert bad == {
        1: "3 logits where 5 are expected", 4: "0 logits where 5 are expected", 6: "10 logits where 5 are expected",
    }  # fmt: skip
    for i in (0, 2, 3, 5, 7):
        assert same_bits(logits.values[i], truth[i])


def test_lengths_that_cancel_out_are_still_found() -> None:
    rows = [[1.0, 2.0, 3.0], [4.0], [5.0, 6.0]]
    _, bad = as_rows(pa.array(rows, pa.list_(pa.float32())), "float32", 2, "logits")
    assert list(bad) == [0, 1]


def test_blobs_of_no_whole_number_of_logits() -> None:
    rows = [np.float32([1, 2]).tobytes(), b"1234567", np.float32([3, 4]).tobytes()]
    logits, bad = as_rows(pa.array(rows, pa.binary()), "float32", 2, "logits")
    assert bad == {1: "7 bytes of logits where 2 are expected"}
    assert logits.values[[0, 2]].tolist() == [[1, 2], [3, 4]]  # the last lies at an odd address


def test_list_views_in_any_order_and_overlapping() -> None:
    values = pa.array(np.arange(6, dtype=np.float32))
    array = pa.ListViewArray.from_arrays(pa.array([4, 0, 1], pa.int32()), pa.array([2, 2, 2], pa.int32()), values)
    logits, bad = as_rows(array, "float32", 2, "logits")
    assert bad == {}
    assert logits.values.tolist() == [[4, 5], [0, 1], [1, 2]]


def test_a_child_with_an_offset() -> None:
    child = pa.array(np.arange(20, dtype=np.float64)).slice(5, 12)
    offsets = pa.array([0, 4, 8, 12], pa.int32())
    logits, _ = as_rows(pa.ListArray.from_arrays(offsets, child).slice(1), "float64", 4, "logits")
    assert logits.values.tolist() == [[9, 10, 11, 12], [13, 14, 15, 16]]


@pytest.mark.parametrize("offsets", [[0, -2, 0], [0, 1 << 30, 2], [3, 400, 4]])
def test_offsets_that_point_outside_are_never_followed(offsets: list[int]) -> None:
    child = pa.array([1.0, 2.0, 3.0, 4.0], pa.float32())
    array = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), child)
    with pytest.raises(ColumnError, match="cannot read the logits column"):
        as_rows(array, "float32", 2, "logits")


@pytest.mark.parametrize("offsets", [[0, 1 << 30], [-2, 0], [3, 0]])
def test_views_that_point_outside_are_never_followed(offsets: list[int]) -> None:
    child = pa.array([1.0, 2.0, 3.0, 4.0], pa.float32())
    array = pa.ListViewArray.from_arrays(pa.array(offsets, pa.int32()), pa.array([2, 2], pa.int32()), child)
    with pytest.raises(ColumnError, match="cannot read the logits column"):
        as_rows(array, "float32", 2, "logits")


@given(
    st.integers(1, 4).flatmap(
        lambda c: st.tuples(
            st.just(c),
            st.lists(
                st.none()
                | st.lists(st.none() | st.floats(width=32), min_size=c, max_size=c)
                | st.lists(st.floats(width=32), max_size=c + 2),
                max_size=30,
            ),
        )
    ),
    st.sampled_from(list(LISTS)),
    st.data(),
)
def test_any_mixture_of_rows(case: tuple[int, list], layout: str, data: st.DataObject) -> None:
    c, rows = case
    begin = data.draw(st.integers(0, len(rows)))
    array = pa.array(rows, LISTS[layout](pa.float32())).slice(begin)
    logits, bad = as_rows(array, "float32", c, "logits")
    rows = rows[begin:]
    assert logits.shape == (len(rows), c)
    for i, row in enumerate(rows):
        good = row is not None and len(row) == c and None not in row
        assert (i not in bad) == good
        if good:
            assert np.array_equal(logits.values[i], np.float32(row), equal_nan=True)
        else:
            assert np.isnan(logits.values[i]).all()
    assert list(bad) == sorted(bad)


# ---- one column per class --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
def test_one_column_per_class(dtype: str) -> None:
    truth = numbers(700, 130, dtype)
    fields = [pa.field(f"logit_{j}", FLOAT_TYPES[dtype], metadata={"dtype": dtype}) for j in range(130)]
    order = sorted(range(130), key=lambda j: str(j))  # in the file: 0, 1, 10, 100, 11 ...
    batch = pa.record_batch([pa.array(truth[:, j]) for j in order], schema=pa.schema([fields[j] for j in order]))
    layout = Layout.find(batch.schema, "logit_*", None, "f")
    assert (layout.n_classes, layout.dtype, layout.per_class) == (130, dtype, True)
    logits, bad = layout.rows(batch.slice(13, 600), 130)
    assert bad == {}
    assert same_bits(logits.values, truth[13:613])


def test_a_null_in_a_column_per_class() -> None:
    batch = pa.record_batch({"a": pa.array([1.0, None, 3.0]), "b": pa.array([4.0, 5.0, None])})
    layout = Layout.find(batch.schema, ["a", "b"], None, "f")
    logits, bad = layout.rows(batch, 2)
    assert bad == {1: "logits hold a null, in column 'a'", 2: "logits hold a null, in column 'b'"}
    assert logits.values[0].tolist() == [1, 4]
    assert np.isnan(logits.values[1:]).all()


def test_a_list_of_names_is_taken_in_its_own_order() -> None:
    batch = pa.record_batch({"a": pa.array([1.0]), "b": pa.array([2.0]), "c": pa.array([3.0])})
    logits, _ = Layout.find(batch.schema, ["c", "a"], None, "f").rows(batch, 2)
    assert logits.values.tolist() == [[3, 1]]


def names(*given: str) -> pa.Schema:
    return pa.schema([(name, pa.float32()) for name in given])


def test_globs_follow_the_numbers() -> None:
    assert expand(names("p10", "p2", "p1", "p0", *(f"p{j}" for j in range(3, 10))), "p*", "f") == tuple(
        f"p{j}" for j in range(11)
    )
    assert expand(names("p_dog", "p_cat", "x"), "p_*", "f") == ("p_dog", "p_cat")
    assert expand(names("p_dog", "p_cat", "x"), "p_*", "f", ["cat", "dog"]) == ("p_cat", "p_dog")
    assert expand(names("v2_b_p", "v2_a_p"), "v2_*", "f") == ("v2_b_p", "v2_a_p")


@pytest.mark.parametrize(
    ("given_names", "pattern", "message"),
    [
        (("p0", "p1", "p3"), "p*", "must be numbered 0, 1, 2"),
        (("p2", "p3", "p4"), "p*", "must be numbered 0, 1, 2"),
        (("p0", "p00"), "p*", "must be numbered 0, 1, 2"),
        (("p_0", "p_1", "p_scale"), "p_*", "'p_scale'"),
        (("x", "y"), "p*", "no column 'p\\*'"),
    ],
)
def test_globs_that_would_misnumber_classes(given_names: tuple[str, ...], pattern: str, message: str) -> None:
    with pytest.raises(ColumnError, match=message):
        expand(names(*given_names), pattern, "f")


# ---- types -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (pa.string(), "logits column 'x' of f must be a list.* got string"),
        (pa.int32(), "one column per class"),
        (pa.list_(pa.int64()), "must be a list.* got list<.*int64>"),
        (pa.list_(pa.string()), "column 'x' of f must be a list"),
        (pa.list_(pa.list_(pa.float32())), "column 'x' of f must be a list"),
        (pa.fixed_shape_tensor(pa.float32(), (2, 3)), "column 'x' of f must be a list"),
        (pa.list_(pa.uint16()), 'set logits_dtype="bfloat16" .--logits-dtype bfloat16, one of bfloat16, float16'),
        (pa.binary(8), 'metadata {"dtype": "bfloat16"}'),
        (pa.binary(), "'x' of f: binary does not tell the float type"),
        (pa.struct([("a", pa.float32())]), "column 'x' of f must be a list"),
    ],
)
def test_types_that_cannot_hold_logits(kind: pa.DataType, message: str) -> None:
    with pytest.raises(ColumnError, match=message):
        Layout.find(pa.schema([("x", kind)]), "x", None, "f")


@pytest.mark.parametrize("kind", [pa.list_(pa.uint16(), 4), pa.list_(pa.int16(), 4), pa.binary(8)])
@pytest.mark.parametrize("how", ["metadata", "argument"])
def test_sixteen_bits_are_tagged_by_metadata_or_argument(kind: pa.DataType, how: str) -> None:
    field = pa.field("x", kind, metadata={"dtype": "bfloat16"} if how == "metadata" else None)
    layout = Layout.find(pa.schema([field]), "x", "bfloat16" if how == "argument" else None, "f")
    assert (layout.dtype, layout.n_classes) == ("bfloat16", 4)


def test_the_tag_may_stand_at_the_list_item() -> None:
    kind = pa.list_(pa.field("item", pa.uint16(), metadata={"dtype": "bfloat16"}))
    assert Layout.find(pa.schema([("x", kind)]), "x", None, "f").dtype == "bfloat16"


@pytest.mark.parametrize(
    ("kind", "dtype", "message"),
    [
        (pa.list_(pa.float32()), "bfloat16", "must be float32 for column 'x' of f, got bfloat16; omit logits_dtype"),
        (pa.list_(pa.uint16()), "float64", "> cannot hold 'float64'"),
        (pa.binary(8), "int8", "logits_dtype must be one of .*, got 'int8'"),
        (pa.binary(7), "float32", "7 bytes"),
        (pa.list_(pa.float32(), 0), None, "0 bytes"),
    ],
)
def test_dtypes_that_do_not_fit(kind: pa.DataType, dtype: str | None, message: str) -> None:
    with pytest.raises(ColumnError, match=message):
        Layout.find(pa.schema([("x", kind)]), "x", dtype, "f")


def test_the_option_that_the_error_of_an_untagged_dump_names_reads_it(tmp_path: Path) -> None:
    path, bits = tmp_path / "a.parquet", [[0x3F80, 0], [0, 0x4000]]  # of 1.0, 0.0 and 0.0, 2.0
    pq.write_table(pa.table({"logits": pa.array(bits, pa.list_(pa.uint16())), "target": [0, 1]}), path)
    with pytest.raises(ColumnError, match="does not tell the float type") as got:
        evaluate(path)
    option = re.search(r"set (\w+)=\"(\w+)\" \((--[\w-]+) (\w+)", str(got.value))
    assert option is not None
    name, value, *flag = option.groups()
    assert evaluate(path, **{name: value}).rows.used == 2  # type: ignore[arg-type]
    assert flag == ["--" + name.replace("_", "-"), value]
    with pytest.raises(ColumnError, match=rf"set {name}="):
        evaluate(path, **{name: "float32"})  # type: ignore[arg-type]


def test_columns_per_class_of_two_types() -> None:
    with pytest.raises(ColumnError, match="got float32 for 'a' and float64 for 'b'"):
        Layout.find(pa.schema([("a", pa.float32()), ("b", pa.float64())]), ["a", "b"], None, "f")


def test_missing_and_double_columns() -> None:
    schema = pa.schema([("logit", pa.list_(pa.float32())), ("x", pa.int8()), ("x", pa.int8())])
    with pytest.raises(ColumnError, match="no column 'logits' in f; did you mean 'logit'"):
        Layout.find(schema, "logits", None, "f")
    with pytest.raises(ColumnError, match="got 'x' 2 times"):
        find_field(schema, "x")
    with pytest.raises(ColumnError, match="logits must name at least one column"):
        Layout.find(schema, [], None, "f")


def test_struct_fields_behind_a_dot() -> None:
    inner = pa.array(
        [{"logits": [1.0, 2.0], "n": 1}, None], pa.struct([("logits", pa.list_(pa.float32())), ("n", pa.int8())])
    )
    batch = pa.record_batch({"out": inner, "a.b": pa.array([1, 2])})
    assert all_names(batch.schema) == ["out", "out.logits", "out.n", "a.b"]
    logits, bad = Layout.find(batch.schema, "out.logits", None, "f").rows(batch, 2)
    assert logits.values[0].tolist() == [1, 2]
    assert bad == {1: "logits are null"}
    assert pick(batch, "a.b").to_pylist() == [1, 2]
    assert find_field(batch.schema, "out.none") is None


# ---- targets, numbers ------------------------------------------------------------------------------------------------

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


@pytest.mark.parametrize("kind", INTEGERS)
def test_targets_of_any_integer_type(kind: pa.DataType) -> None:
    array = pa.array([3, None, 0, 127], kind)
    assert target_ids(array, -100, None).tolist() == [3, -100, 0, 127]
    assert target_ids(array.slice(1, 2), -7, None).tolist() == [-7, 0]
    assert target_ids(array, -100, None).dtype == np.int64
    assert target_ids(array.dictionary_encode(), -100, None).tolist() == [3, -100, 0, 127]


def test_targets_past_int64_are_out_of_range_not_wrapped() -> None:
    array = pa.array([2**64 - 100, 2**63, 5], pa.uint64())
    assert target_ids(array, -100, None).tolist() == [OUT_OF_RANGE, OUT_OF_RANGE, 5]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_string_targets_take_their_place_in_the_class_list(kind: pa.DataType) -> None:
    array = pa.array(["cat", "dog", None, "zebra"], pa.string()).cast(kind)
    assert target_ids(array, -100, ["dog", "cat"]).tolist() == [1, 0, -100, OUT_OF_RANGE]
    assert array[3].as_py() == "zebra"
    with pytest.raises(ColumnError, match="classes must be given"):
        target_ids(array, -100, None)


def test_other_targets() -> None:
    assert target_ids(pa.array([True, None, False]), -100, None).tolist() == [1, -100, 0]
    assert target_ids(pa.nulls(2), -100, None).tolist() == [-100, -100]
    assert target_ids(pa.array([], pa.int32()), -100, None).tolist() == []
    nothing = pa.DictionaryArray.from_arrays(pa.array([None, None], pa.int8()), pa.array([], pa.string()))
    assert target_ids(nothing, -100, ["a"]).tolist() == [-100, -100]
    with pytest.raises(
        ColumnError, match=r"target must hold integers.* got halffloat"
    ):  # its whole numbers end at 2048
        target_ids(pa.array(np.ones(1, np.float16)), -100, None)


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.decimal128(38, 0), pa.decimal128(9, 2)])
def test_targets_that_are_whole_numbers_of_another_type(kind: pa.DataType) -> None:
    array = pa.array([3, None, 0, -100], pa.int8()).cast(kind)
    for column in (array, array.dictionary_encode()):
        assert target_ids(column, -7, None).tolist() == [3, -7, 0, -100]
    assert target_ids(pa.nulls(2, kind), -7, None).tolist() == [-7, -7]
    assert target_ids(pa.array([], kind), -7, None).tolist() == []


def test_floats_that_are_no_class_ids() -> None:
    floats = pa.array([0.5, np.inf, -np.inf, 1e300, 2.0**63, -0.0, np.nan])
    assert target_ids(floats, -7, None).tolist() == [OUT_OF_RANGE] * 5 + [0, -7]  # NaN is what stands for null
    decimals = pa.array([Decimal("0.5"), Decimal("1" + "0" * 25), Decimal(2)], pa.decimal128(38, 2))
    assert target_ids(decimals, -7, None).tolist() == [OUT_OF_RANGE, OUT_OF_RANGE, 2]
    bits = plain(pa.array([0, 16256], pa.uint16()), "target", "bfloat16")
    with pytest.raises(ColumnError, match="target must hold class ids, got bfloat16"):
        target_ids(bits, -7, None)


def test_soft_targets() -> None:
    array = pa.array([[0.25, 0.75], None, [1.0]], pa.list_(pa.float64()))
    rows, bad = soft_rows(array, 2)
    assert rows.values[0].tolist() == [0.25, 0.75]
    assert bad == {1: "target probabilities are null", 2: "1 target probabilities where 2 are expected"}
    assert is_soft(array.type)
    assert is_soft(pa.list_(pa.float32(), 3))
    assert not is_soft(pa.int64())
    assert not is_soft(pa.string())
    assert not is_soft(pa.binary(2))
    with pytest.raises(ColumnError, match="target must hold class ids"):
        soft_rows(pa.array([["1", "0"]]), 2)


@pytest.mark.parametrize("item", [pa.int8(), pa.uint8(), pa.int64(), pa.bool_()])
@pytest.mark.parametrize("rows", [pa.list_, pa.large_list, lambda item: pa.list_(item, 2)])
def test_one_hot_targets_of_integers_and_bools(item: pa.DataType, rows: Callable[[pa.DataType], pa.DataType]) -> None:
    array = pa.array([[1, 0], None, [0, 1]], pa.list_(pa.int8())).cast(pa.list_(item)).cast(rows(item))
    assert is_soft(array.type)
    found, bad = soft_rows(array, 2)
    assert found.values[[0, 2]].tolist() == [[1, 0], [0, 1]]
    assert bad == {1: "target probabilities are null"}


def test_soft_targets_of_tagged_bits() -> None:
    bits = np.array([[0.25, 0.75]], ml_dtypes.bfloat16).view(np.uint16)
    array = plain(pa.array(bits.tolist(), pa.list_(pa.uint16())), "target", "bfloat16")
    assert is_soft(array.type)
    found, bad = soft_rows(array, 2)
    assert (found.dtype, found.values.tolist(), bad) == ("bfloat16", bits.tolist(), {})
    with pytest.raises(ColumnError, match=r"target must hold class ids.* got lists of float8_e5m2"):
        soft_rows(plain(pa.array([[1, 2]], pa.list_(pa.uint8())), "target", "float8_e5m2"), 2)


@pytest.mark.parametrize("kind", [*INTEGERS, pa.float16(), pa.float32(), pa.float64(), pa.decimal128(9, 2)])
def test_columns_of_numbers(kind: pa.DataType) -> None:
    array = pa.array([2, 0, 7], pa.int8()).cast(kind)
    got = float_column(array, "w")
    assert got.dtype == np.float64
    assert got.tolist() == [2, 0, 7]
    assert float_column(array.slice(1), "w").tolist() == [0, 7]


def test_numbers_that_are_none() -> None:
    assert float_column(pa.array([True, False]), "w").tolist() == [1, 0]
    assert float_column(pa.array([1.5, 1.5]).dictionary_encode(), "w").tolist() == [1.5, 1.5]
    with pytest.raises(ColumnError, match="column 'w' must hold numbers, got string"):
        float_column(pa.array(["a"]), "w")
    with pytest.raises(ColumnError, match="'w' must not be null, got null in row 1 of the batch"):
        float_column(pa.array([1.0, None]), "w")
    with pytest.raises(BadRowError, match="f, row group 2, row 31: column 'w' is null"):
        float_column(pa.array([1.0, None]), "w", Where("f", 2, 30))
