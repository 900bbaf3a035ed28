"""Row groups that statistics exclude: none that a filter keeps a row of, and none of their logits are read."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

import dumps
import fastxent as fx
from fastxent.errors import ConfigError
from fastxent.io.parquet.part import ParquetPart
from fastxent.io.source import OpenSource, open_source
from fastxent.io.storage.files import find_files
from fastxent.scoring.filter import Filter

DAY = datetime.date(2024, 2, 27)
FLOATS = [float("nan"), -0.0, 0.0, 1.5, -2.25, float("inf"), -float("inf"), 1e-320, 3.4e38]
VALUES = {
    "i8": (pa.int8(), [-128, -1, 0, 1, 5, 127]),
    "u8": (pa.uint8(), [0, 1, 127, 128, 255]),
    "i64": (pa.int64(), [-(2**63), -1, 0, 2**53 + 1, 2**63 - 1]),
    "u64": (pa.uint64(), [0, 1, 2**63 - 1, 2**63, 2**64 - 1]),
    "f32": (pa.float32(), [float(np.float32(x)) for x in FLOATS]),
    "f64": (pa.float64(), FLOATS),
    "text": (pa.string(), ["", "a", "ab", "b" * 200, "é", "\U0001f600", "Z"]),
    "kind": (pa.dictionary(pa.int32(), pa.string()), ["a", "b", "c"]),
    "flag": (pa.bool_(), [False, True]),
    "day": (pa.date32(), [DAY, DAY + datetime.timedelta(1), datetime.date(1969, 1, 1)]),
    "price": (pa.decimal128(9, 2), [Decimal("-1.50"), Decimal("0.00"), Decimal("3.25")]),
    "when": (pa.timestamp("ns", "UTC"), [0, 1000, 10**18]),
}
LITERALS = [-129, -1, 0, 0.0, 1, 1.5, 5, 127.5, 128, 2**53, 2**53 + 1, 2**63, 2**64, 1e300, "", "a", "ab", "b" * 200,
            "c", "é", True, False, "2024-02-27", "2024-02-28 12:00:00"]  # fmt: skip
OPERATORS = ["==", "!=", "<", "<=", ">", ">="]


def column(draw, name, rows):
    """A column that is constant, null or mixed within groups of four rows."""
    kind, values = VALUES[name]
    found = []
    for _ in range(rows // 4):
        some = draw(st.lists(st.sampled_from([*values, None]), min_size=1, max_size=2))
        found += [some[k % len(some)] for k in range(4)]
    return pa.array(found, kind)


@st.composite
def tables(draw):
    names = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=3, unique=True))
    return pa.table({name: column(draw, name, 16) for name in names})


def conditions(names):
    name, literal = st.sampled_from(names), st.sampled_from(LITERALS).map(repr)
    compared = st.one_of(
        st.tuples(name, st.sampled_from(OPERATORS), literal).map(" ".join),
        st.tuples(literal, st.sampled_from(OPERATORS), name, st.sampled_from(OPERATORS), literal).map(" ".join),
        st.tuples(name, st.sampled_from(["in", "not in"]), st.lists(literal | st.just("None"), max_size=3)).map(
            lambda part: f"{part[0]} {part[1]} [{', '.join(part[2])}]"
        ),
        st.tuples(name, st.sampled_from(["is None", "is not None"])).map(" ".join),
        st.tuples(name, st.sampled_from(OPERATORS), name).map(" ".join),
        name,
    )
    return st.recursive(
        compared,
        lambda inner: st.one_of(
            inner.map(lambda part: f"not ({part})"),
            st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda p: f"({p[0]}) {p[1]} ({p[2]})"),
        ),
        max_leaves=4,
    )


def pruned(path, chosen):
    """The row groups of a file that the filter leaves out."""
    (part,) = (ParquetPart(file) for file in find_files(str(path)))
    opened = open_source(str(path), logits=None, columns=chosen.columns)
    part.prune(opened.parts[0][1], chosen.columns, chosen.may_hold)
    return part._left_out


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_no_row_that_is_kept_is_left_out(tmp_path_factory, data):
    table = data.draw(tables())
    text = data.draw(conditions(table.column_names))
    path = tmp_path_factory.mktemp("pruning") / "rows.parquet"
    pq.write_table(table, path, row_group_size=4, version=data.draw(st.sampled_from(["1.0", "2.6"])))
    try:
        chosen = Filter(text)
    except ConfigError:
        return  # lists of several kinds
    left_out = pruned(path, chosen)
    for group in range(4):
        rows = table.slice(4 * group, 4)
        columns = {name: rows[name].combine_chunks() for name in table.column_names}
        try:
            kept = len(chosen.rows(columns))
        except ConfigError:
            kept = 1  # the error must be raised
        assert not (kept and group in left_out), (text, group, rows.to_pydict())


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("n < 8", [0, 1]),
        ("n >= 12 or n == 1", [0, 3]),
        ("not (n < 8) and name != 'g2'", [2, 3]),  # texts of a row group differ
        ("name == 'g2b'", [2]),
        ("name > 'g2d'", [3]),
        ("5 < n <= 9", [1, 2]),
        ("n in [0, 15]", [0, 3]),
        ("gap is None", [1, 2]),
        ("gap is not None", [0, 1, 3]),
        ("gap != 7", [0, 1, 3]),
        ("flag", [3]),
        ("not flag", [0, 1, 2]),
        ("x > 100", []),
        ("x <= 100", [0, 1, 2, 3]),
        ("x != 0", [0, 1, 2, 3]),
        ("not (x < 100)", [0, 1, 2, 3]),  # NaN is not below 100, and statistics leave it out
    ],
)
def test_what_is_left(tmp_path, text, left):
    n = np.arange(16)
    gap = [None if i // 4 == 2 or i == 4 else int(i) for i in n]
    table = pa.table({
        "n": n, "name": [f"g{i // 4}{'abcd'[i % 4]}" for i in n], "flag": n >= 12,
        "gap": gap, "x": np.where(n == 3, np.nan, n).astype(np.float32),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    assert sorted({0, 1, 2, 3} - pruned(tmp_path / "a.parquet", Filter(text))) == left


def damaged_groups(path, groups):
    """Overwrite the pages of the logits of row groups: an error if they are read."""
    data, footer = bytearray(path.read_bytes()), pq.read_metadata(path)
    for group in groups:
        chunk = footer.row_group(group).column(0)
        assert chunk.path_in_schema.startswith("logits")
        begin = min(x for x in (chunk.data_page_offset, chunk.dictionary_page_offset) if x)
        data[begin : begin + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)


def test_a_run_is_the_same_and_reads_no_logits_of_what_is_left_out(tmp_path, monkeypatch):
    rows = dumps.table(300).append_column("step", pa.array(np.arange(300) // 50))
    path = tmp_path / "a.parquet"
    pq.write_table(rows, path, row_group_size=50)
    options = {"where": "step in [1, 4] and kind != 'a'", "by": "kind"}
    with monkeypatch.context() as patch:
        patch.setattr(OpenSource, "prune", lambda *_: None)
        whole = fx.evaluate(path, **options)
    damaged_groups(path, [2, 3, 5])  # the first rows of the file tell the number of classes
    result = fx.evaluate(path, **options)
    assert result.timing["row_groups_skipped"] == 4
    assert result.state.to_bytes() == whole.state.to_bytes()
    assert result.rows == whole.rows
    assert (
        fx.evaluate(path, **options, shard="1/2")
        .state.merge(fx.evaluate(path, **options, shard="2/2").state)
        .result()
        .metrics
        == result.metrics
    )
    for _ in range(2):
        assert fx.evaluate(path, **options, resume=tmp_path / "progress").metrics == result.metrics
    units = fx.plan(path, **options)
    assert fx.merge_states(unit.run() for unit in units).result().metrics == result.metrics


def test_no_row_group_is_left_out_of_a_comparison(tmp_path):
    """Rows belong to each other by their place, or by ids that both dumps must have."""
    rows, n = dumps.table(120), pa.array(np.arange(120))
    a, b = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(rows.append_column("n", n), a, row_group_size=20)
    pq.write_table(rows.append_column("n", n), b, row_group_size=30)
    for on in (None, "n"):
        found = fx.compare(a, b, where="55 <= n < 65", on=on)
        assert (found.rows.used, found.metrics["cross_entropy"].difference.value) == (10, 0.0)
        assert fx.compare_many(a, {"b": b}, where="55 <= n < 65", on=on).comparisons["b"].rows.used == 10
    pq.write_table(rows.slice(0, 20), b)
    with pytest.raises(fx.SourceError, match=r"got 120 in .* and 20 in"):
        fx.compare(a, b, where="55 <= n < 60")


def test_the_rows_that_are_transformed(tmp_path):
    pq.write_table(
        dumps.table(40).append_column("n", pa.array(np.arange(40))), tmp_path / "a.parquet", row_group_size=10
    )
    result = fx.transform(tmp_path / "a.parquet", tmp_path / "b.parquet", where="n > 35", keep=["n"])
    assert result.timing["row_groups_skipped"] == 3
    assert pq.read_table(tmp_path / "b.parquet")["n"].to_pylist() == [36, 37, 38, 39]


def test_nothing_is_left(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(dumps.table(40).append_column("n", pa.array(np.arange(40))), path, row_group_size=10)
    result = fx.evaluate(path, where="n > 39")
    assert (result.rows.total, result.timing["row_groups_skipped"]) == (0, 4)
    assert "no row was used" in result.warnings[0]
    assert fx.merge_states(unit.run() for unit in fx.plan(path, where="n > 39")).result().rows.total == 0
    with pytest.raises(ConfigError, match="cannot apply where"):
        fx.evaluate(path, where="n > 39 and kind == 1")


def test_folders(tmp_path):
    for lang in ("de", "en"):
        (tmp_path / f"lang={lang}").mkdir()
        pq.write_table(dumps.table(20), tmp_path / f"lang={lang}" / "a.parquet")
    damaged_groups(tmp_path / "lang=en" / "a.parquet", [0])
    result = fx.evaluate(tmp_path, where="lang == 'de'")
    assert (result.rows.used, result.timing["row_groups_skipped"]) == (20, 1)
