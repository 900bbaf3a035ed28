"""Columns beside the logits: any Arrow type as plain values, and what cannot be one refused in a line."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.errors import ColumnError, FastxentError, Where
from fastxent.io.values import FloatBits, decimal_floats, numbers, plain, plain_type, tag_of

N = 4
X = np.random.default_rng(0).normal(size=(N, 3))
Y = np.array([0, 1, 2, 0])
TAGGED = {
    "bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}  # fmt: skip
NOT_UTF8 = pa.StringArray.from_buffers(
    3, pa.py_buffer(np.array([0, 3, 7, 10], np.int32)), pa.py_buffer(b"teacaf\xe9tea")
)


def table(**columns: Any) -> pa.Table:
    return pa.table({"logits": list(X), "target": Y, **columns})


# ---- types -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.string_view(), pa.large_string()),
        (pa.binary_view(), pa.large_binary()),
        (pa.dictionary(pa.int8(), pa.string_view()), pa.dictionary(pa.int8(), pa.large_string())),
        (pa.list_(pa.string_view()), pa.list_(pa.large_string())),
        (pa.list_(pa.binary_view(), 2), pa.list_(pa.large_binary(), 2)),
        (pa.struct([("a", pa.string_view())]), pa.struct([("a", pa.large_string())])),
        (pa.map_(pa.string_view(), pa.int8()), pa.map_(pa.large_string(), pa.int8())),
        (pa.run_end_encoded(pa.int32(), pa.string_view()), pa.large_string()),
        *((kind, kind) for kind in (pa.string(), pa.int8(), pa.list_(pa.string()), pa.struct([("a", pa.date32())]))),
    ],
)
def test_views_are_resolved_wherever_they_are(kind: pa.DataType, expected: pa.DataType) -> None:
    assert plain_type(kind) == expected


@pytest.mark.parametrize("kind", [pa.string_view(), pa.dictionary(pa.uint8(), pa.string_view())])
def test_columns_of_views_can_be_taken_from(kind: pa.DataType) -> None:
    array = pa.array(["a", "b", None, "a"], pa.string()).cast(pa.string_view())
    column = array if kind == pa.string_view() else array.dictionary_encode().cast(kind)
    assert plain(column.slice(1), "c").take(pa.array([1, 2, 0])).to_pylist() == [None, "a", "b"]


@pytest.mark.parametrize("dest", ["out.parquet", "out.arrow"])
def test_views_are_kept_as_what_they_hold(tmp_path: Any, dest: str) -> None:
    long = ["more than the twelve bytes of a view", "b", None, ""]
    texts = pa.array(long, pa.string_view())
    columns = {
        "text": texts,
        "blob": texts.cast(pa.binary_view()),
        "coded": pa.array(long).dictionary_encode().cast(pa.dictionary(pa.uint32(), pa.string_view())),
        "inner": pa.StructArray.from_arrays(
            [texts, pa.array([[t] for t in long], pa.list_(pa.string_view()))], ["a", "b"]
        ),
        "runs": pa.RunEndEncodedArray.from_arrays([1, 4], pa.array(["a", "b"])),
    }
    source = table(**columns)
    expected = {**{name: column.to_pylist() for name, column in columns.items()}, "blob": [*map(_encoded, long)]}
    reader = pq.read_table if dest.endswith("parquet") else lambda path: pa.ipc.open_file(str(path)).read_all()
    fx.convert(source, tmp_path / dest)
    assert {name: reader(tmp_path / dest)[name].to_pylist() for name in columns} == expected
    fx.transform(source, tmp_path / dest, keep=list(columns), where="target != 1")
    assert reader(tmp_path / dest)["coded"].to_pylist() == [long[0], *long[2:]]
    fx.evaluate(source, id="blob", per_row=tmp_path / "rows.parquet", where="target != 1")
    assert pq.read_table(tmp_path / "rows.parquet")["blob"].to_pylist() == [*map(_encoded, [long[0], *long[2:]])]


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def test_run_ends_and_dictionaries_with_nulls() -> None:
    runs = pa.RunEndEncodedArray.from_arrays([2, 4], pa.array(["a", None]))
    assert plain(runs.slice(1), "c").to_pylist() == ["a", None, None]
    holes = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 1]), pa.array([1.0, None]))
    assert plain(holes, "c").null_count == 3
    assert fx.evaluate(table(w=holes), weight="w", on_bad_row="skip").rows.bad == 3


@pytest.mark.parametrize("index", [-1, 2, 2**31 - 1])
@pytest.mark.parametrize(
    "options", [{"by": "c"}, {"cluster": "c"}, {"target": "c", "classes": ["a", "b", "c"]}, {"where": "c == 'a'"}]
)
def test_an_index_outside_its_dictionary_is_refused(index: int, options: dict[str, Any]) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, index, None, 1], pa.int32()), pa.array(["a", "b"]), safe=False)
    with pytest.raises(ColumnError, match=f"'c': index {index} is outside its dictionary of 2 values"):
        fx.evaluate(table(c=column), **options)


def test_extension_types() -> None:
    flags = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None, 2], pa.int8()))
    assert numbers(plain(flags, "c"), "c").to_pylist() == [True, False, None, True]
    assert set(fx.evaluate(table(c=flags), by="c").slices["c"]) == {True, False, None}
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, b"1" * 16, None, b"0" * 16], pa.binary(16)))
    assert set(fx.evaluate(table(c=uuids), by="c").slices["c"]) == {"30" * 16, "31" * 16, None}


# ---- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"by": "c"},
        {"cluster": "c"},
        {"target": "c", "classes": ["tea", "b", "c"]},
        {"where": "c == 'tea'"},
        {"id": "c"},
    ],
)
@pytest.mark.parametrize("coded", [False, True])
def test_text_that_is_not_utf8_is_refused_with_its_row(tmp_path: Any, options: dict[str, Any], coded: bool) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 2, 1]), NOT_UTF8) if coded else NOT_UTF8
    assert plain(column.slice(0, 1), "c").to_pylist() == ["tea"]  # what is not used does no harm
    rows = pa.table({"logits": list(X[:3]), "target": Y[:3], "c": column})
    if "id" in options:
        options = {**options, "per_row": tmp_path / "rows.parquet"}
    with pytest.raises(ColumnError) as error:
        fx.evaluate(rows, **options)
    place = 2 if coded else 1
    assert str(error.value) == (
        rf"cannot read column 'c': text in <table>, row {place} is not UTF-8: b'caf\xe9'; write UTF-8 text or binary"
    )


def test_the_row_of_a_text_is_that_of_the_file(tmp_path: Any) -> None:
    path = tmp_path / "dump.parquet"
    whole = pa.concat_arrays([pa.array(["tea"] * 5), NOT_UTF8])
    pq.write_table(pa.table({"logits": list(np.eye(8)), "target": list(range(8)), "c": whole}), path, row_group_size=5)
    with pytest.raises(ColumnError, match=r"dump.parquet, row group 1, row 6 is not UTF-8: b'caf"):
        fx.evaluate(path, by="c")
    with pytest.raises(ColumnError, match=r"row 4 is not UTF-8: b'caf"):
        plain(NOT_UTF8.slice(1).cast(pa.large_string()), "c", where=Where("f", None, 4))


# ---- decimals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [pa.decimal128(9, 2), pa.decimal128(18, 6), pa.decimal128(38, 30), pa.decimal256(70, 20), pa.decimal128(3, -2)],
)
def test_decimals_become_the_nearest_floats(kind: pa.DataType) -> None:
    rng = np.random.default_rng(0)
    digits = min(kind.precision, 18)
    whole = [int(rng.integers(-(10**digits) + 1, 10**digits)) for _ in range(300)]
    values = [Decimal(w).scaleb(-kind.scale) for w in [*whole, *(w // 10**6 for w in whole), 0]]
    array = pa.array([*values, None, *values[:5]], kind)
    found = decimal_floats(array.slice(3))
    assert found.to_pylist() == [None if v is None else float(v) for v in array.slice(3).to_pylist()]
    assert decimal_floats(array.slice(0, 0)).to_pylist() == []


def test_decimal_weights_weigh_as_much_as_doubles() -> None:
    weights = ["0.07", "1.13", "2.91", "8.77"]
    found = fx.evaluate(table(w=[Decimal(w) for w in weights]), weight="w", where="w < 100")
    doubles = fx.evaluate(table(w=[float(w) for w in weights]), weight="w", where="w < 100")
    assert found.state.to_bytes() == doubles.state.to_bytes()


# ---- bits of floats --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TAGGED)
def test_every_bit_pattern_is_the_number_it_stands_for(name: str) -> None:
    dtype = np.dtype(TAGGED[name])
    bits = np.arange(256**dtype.itemsize).astype(f"u{dtype.itemsize}")
    found = np.asarray(numbers(plain(pa.array(bits), "w", name), "w"))
    expected = bits.view(dtype).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    assert (np.signbit(found) == np.signbit(expected))[~np.isnan(expected)].all()


def test_marks_come_from_metadata() -> None:
    def field(kind: pa.DataType, tag: str | None) -> pa.Field:
        return pa.field("w", kind, metadata=None if tag is None else {"dtype": tag})

    assert tag_of(field(pa.uint16(), "bfloat16")) == tag_of(field(pa.int16(), "bfloat16")) == "bfloat16"
    assert tag_of(field(pa.dictionary(pa.int8(), pa.uint8()), "float8_e5m2")) == "float8_e5m2"
    assert tag_of(field(pa.list_(pa.uint16()), "bfloat16")) == "bfloat16"
    assert tag_of(pa.field("w", pa.list_(field(pa.uint16(), "bfloat16")))) == "bfloat16"
    for kind, tag in ((pa.uint16(), None), (pa.uint16(), "uint16"), (pa.int64(), "float32"), (pa.float32(), "float32")):
        assert tag_of(field(kind, tag)) is None


@pytest.mark.parametrize(
    ("kind", "tag"), [(pa.uint8(), "bfloat16"), (pa.uint16(), "float8_e5m2"), (pa.int8(), "float7")]
)
def test_marks_that_cannot_be_are_refused_where_numbers_are_needed(kind: pa.DataType, tag: str) -> None:
    column = plain(pa.array([1, None], kind), "w", tag)
    assert isinstance(column.type, FloatBits)
    with pytest.raises(ColumnError, match=f"'w': {kind} tagged '{tag}' is not supported; supported tags are bfloat16"):
        numbers(column, "w")


def tagged_table(name: str) -> tuple[pa.Table, pa.Table]:
    """Weights as bits with their tag, and the same weights as doubles."""
    weights = np.array([1, 2, 0.5, 8])
    bits = weights.astype(TAGGED[name])
    bits = bits.view(f"u{bits.itemsize}")
    schema = table().schema.append(pa.field("w", pa.array(bits).type, metadata={"dtype": name}))
    return pa.Table.from_arrays([*table().columns, pa.array(bits)], schema=schema), table(w=weights)


@pytest.mark.parametrize("name", TAGGED)
@pytest.mark.parametrize("form", ["table", "arrow", "parquet"])
def test_tagged_columns_are_numbers_for_every_option(tmp_path: Any, name: str, form: str) -> None:
    tagged, plainly = tagged_table(name)
    source: Any = tagged
    if form == "parquet":
        pq.write_table(tagged, source := tmp_path / "dump.parquet")
    elif form == "arrow":
        source = tmp_path / "dump.arrow"
        with pa.ipc.new_file(str(source), tagged.schema) as writer:
            writer.write_table(tagged)
    for options in ({"weight": "w"}, {"n_bytes": "w"}, {"by": "w"}, {"cluster": "w"}, {"where": "w >= 2"}):
        found, expected = fx.evaluate(source, **options), fx.evaluate(plainly, **options)
        assert found.state.to_bytes() == expected.state.to_bytes()
    with pytest.raises(ColumnError, match=f"target must hold class ids, got {name}"):
        fx.evaluate(source, target="w")
    fx.transform(source, tmp_path / "kept.parquet", keep="w", where="w >= 2")
    kept = pq.read_table(tmp_path / "kept.parquet")
    assert kept["w"].to_pylist() == tagged["w"].take([1, 3]).to_pylist()
    assert tag_of(kept.schema.field("w")) == name
    fx.convert(source, tmp_path / "converted.arrow")
    found, expected = (fx.evaluate(dump, by="w").state.to_bytes() for dump in (tmp_path / "converted.arrow", plainly))
    assert found == expected


def test_kept_columns_of_which_only_one_file_has_bits(tmp_path: Any) -> None:
    tagged, plainly = tagged_table("bfloat16")
    fx.convert([plainly, tagged], tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["w"].to_pylist() == plainly["w"].to_pylist() * 2
    with pytest.raises(
        ColumnError, match="column 'w' must have one type in all files, got bfloat16 in the first and double in another"
    ):
        fx.convert([tagged, plainly], tmp_path / "out.parquet")


# ---- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz"])
def test_arrays_of_ml_dtypes_are_the_numbers_they_are(name: str) -> None:
    weights = np.array([1, 2, 0.5, 8], getattr(ml_dtypes, name))
    dump = {"logits": X, "target": Y}
    found, expected = (fx.evaluate({**dump, "w": w}, weight="w", by="w") for w in (weights, weights.astype(float)))
    assert found.state.to_bytes() == expected.state.to_bytes()
    ids = fx.evaluate({"logits": X, "target": Y.astype(ml_dtypes.int4)})
    assert ids.state.to_bytes() == fx.evaluate(dump).state.to_bytes()


def test_two_bytes_that_nothing_names_are_no_integers(tmp_path: Any) -> None:
    np.save(tmp_path / "w.npy", np.ones(N, ml_dtypes.bfloat16))
    for w in (str(tmp_path / "w.npy"), np.load(tmp_path / "w.npy")):
        for option in ("weight", "by"):
            with pytest.raises(ColumnError, match="'w': uint16 tagged 'float of 2 bytes' is not supported"):
                fx.evaluate({"logits": X, "target": Y, "w": w}, **{option: "w"})


@pytest.mark.parametrize("dtype", ["i8", ">i2", "f8", "u1"])
def test_masked_targets_are_ignored_and_masked_weights_are_bad(dtype: str) -> None:
    mask = [False, True, False, False]
    masked = np.ma.masked_array(Y.astype(dtype), mask)
    assert fx.evaluate({"logits": X, "target": masked}).rows.ignored == 1
    assert fx.evaluate({"logits": X.reshape(2, 2, 3), "target": masked.reshape(2, 2)}).rows.ignored == 1
    dump = {"logits": X, "target": Y, "w": masked}
    assert fx.evaluate(dump, weight="w", on_bad_row="skip").rows.bad == 1
    assert fx.evaluate(dump, where="w is None").rows.total == 1
    assert fx.evaluate(dump, by="w").slices["w"][None].rows.total == 1


def test_masked_logits_and_masked_soft_targets_are_bad_rows() -> None:
    masked = np.ma.masked_array(X, np.arange(12).reshape(4, 3) == 4)
    for dtype in (float, ml_dtypes.bfloat16):
        with pytest.raises(fx.BadRowError, match="row 1: logits hold a null, at class 1"):
            fx.evaluate({"logits": masked.astype(dtype), "target": Y})
    soft = np.ma.masked_array(np.eye(3)[Y], masked.mask)
    assert fx.evaluate({"logits": X, "target": soft}, on_bad_row="skip").rows.bad_target == 1


def test_doubles_with_nan_are_class_ids_and_ignored_rows() -> None:
    rows = fx.evaluate({"logits": X, "target": np.array([0, np.nan, 2, 1.5])}, on_bad_row="skip").rows
    assert (rows.used, rows.ignored, rows.bad_target) == (2, 1, 1)
    with pytest.raises(fx.BadRowError, match=r"row 3: target 1\.5 is not a whole number"):
        fx.evaluate({"logits": X, "target": np.array([0, np.nan, 2, 1.5])})


@pytest.mark.parametrize(
    "options", [{"by": 5}, {"by": [5]}, {"cluster": ["a", "b"]}, {"weight": 5}, {"id": ["a"]}, {"logits": [0, 1]}]
)
def test_names_of_columns_are_text(options: dict[str, Any]) -> None:
    with pytest.raises(FastxentError, match="column"):
        fx.evaluate({"logits": X, "target": Y}, **options)


@pytest.mark.parametrize("scale", [39, 200, -39, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("coded", [False, True])
def test_decimals_of_a_scale_outside_their_digits_are_refused(scale: int, coded: bool) -> None:
    kind = pa.decimal128(38, scale)
    array = pa.Array.from_buffers(kind, 1, [None, pa.py_buffer((123456).to_bytes(16, "little"))])
    if coded:
        array = pa.DictionaryArray.from_arrays(pa.array([0]), array)
    with pytest.raises(ColumnError, match=r"cannot read column 'd' of .*: its scale is outside its digits"):
        plain(array, "d")
