"""Converted dumps: the same rows bit for bit where the dtype stays, and where it does not, what that costs."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from fractions import Fraction

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
import reference as ref
from fastxent.io import batch
from fastxent.io.parquet.pages import PageReader
from fastxent.io.source import open_source
from fastxent.io.storage.local import LocalRanges
from fastxent.scoring.conversion import Rounded
from fastxent.scoring.rounding import round_to
from fastxent.state.conversion import Cost

N, C = 400, 12
X = (np.random.default_rng(3).normal(size=(N, C)) * 5).astype(np.float32)
Y = np.random.default_rng(4).integers(0, C, N)


def fixed(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def tagged(name: str, rows: pa.Array, dtype: str) -> pa.Table:
    field = pa.field(name, rows.type, metadata={"dtype": dtype})
    return pa.table([rows, pa.array(Y)], schema=pa.schema([field, ("target", pa.int64())]))


def blobs(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    return pa.array([row.tobytes() for row in values], kind)


HALF = X.astype(ml_dtypes.bfloat16)
TABLES = {
    "list": pa.table({"logits": list(X), "target": Y}),
    "large list": pa.table({"logits": pa.array(list(X), pa.large_list(pa.float32())), "target": Y}),
    "fixed list": pa.table({"logits": fixed(X), "target": Y}),
    "float64": pa.table({"logits": list(X.astype(np.float64) / 3), "target": Y}),
    "float16": pa.table({"logits": list(X.astype(np.float16)), "target": Y}),
    "bfloat16": tagged("logits", fixed(HALF.view(np.uint16)), "bfloat16"),
    "blob": tagged("logits", blobs(X, pa.binary(4 * C)), "float32"),
    "blob bfloat16": tagged("logits", blobs(HALF, pa.binary(2 * C)), "bfloat16"),
    "long blob": tagged("logits", blobs(X, pa.large_binary()), "float32"),
    "tensor": pa.table(
        {"logits": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (C,)), fixed(X)), "target": Y}
    ),
    "struct": pa.table({"out": pa.array([{"logits": row, "n": i} for i, row in enumerate(X)]), "target": Y}),
    "columns": pa.table({**{f"logit_{j}": X[:, j] for j in reversed(range(C))}, "target": Y}),
}
NAME = {"columns": "logit_*", "struct": "out.logits"}


def logits_of(path, name="logits") -> np.ndarray:
    """The bits of a converted column, read by pyarrow alone."""
    table = pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path).read_all()
    column = table[name].combine_chunks()
    tag = (table.schema.field(name).metadata or {}).get(b"dtype", b"").decode()
    if pa.types.is_fixed_size_binary(column.type):
        assert tag
        values = np.frombuffer(b"".join(column.to_pylist()), ref.DTYPES[tag])
    else:
        values = np.asarray(column.values)
        values = values.view(ml_dtypes.bfloat16) if tag else values
    return values.reshape(len(column), -1)


def mean(values: np.ndarray) -> float:
    """Rounded once."""
    return float(sum(map(Fraction, values.tolist())) / len(values))


def same_figures(a: fx.EvalResult, b: fx.EvalResult) -> None:
    left, right = (
        {key: value for key, value in json.loads(result.to_json()).items() if key in ("rows", "metrics", "calibration")}
        for result in (a, b)
    )
    assert json.dumps(left) == json.dumps(right)


# ---- the same dtype --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dest", ["o.parquet", "o.arrow"])
@pytest.mark.parametrize("layout", ["binary", "list"])
@pytest.mark.parametrize("given", TABLES)
def test_figures_are_byte_identical_whatever_the_layout(tmp_path, given, layout, dest):
    pq.write_table(TABLES[given], tmp_path / "in.parquet", row_group_size=90)
    name = NAME.get(given, "logits")
    before = fx.evaluate(tmp_path / "in.parquet", logits=name)
    for source in (tmp_path / "in.parquet", TABLES[given]):
        done = fx.convert(source, tmp_path / dest, logits=name, layout=layout, threads=2)
        assert (done.rows, done.n_classes, done.rounding, done.layout) == (N, C, None, layout)
        assert done.size == (tmp_path / dest).stat().st_size
        same_figures(before, fx.evaluate(tmp_path / dest, logits=done.logits))
    again = fx.convert(tmp_path / dest, tmp_path / "again.parquet", logits=done.logits)
    np.testing.assert_array_equal(
        ref.bits_of(logits_of(tmp_path / dest, done.logits)),
        ref.bits_of(logits_of(tmp_path / "again.parquet", again.logits)),
    )


def test_the_layout_is_what_reads_fastest_unless_said(tmp_path):
    assert fx.convert(TABLES["list"], tmp_path / "o.parquet").layout == "binary"
    assert fx.convert(TABLES["list"], tmp_path / "o.arrow").layout == "list"
    schema = pq.read_schema(tmp_path / "o.parquet")
    assert schema.field("logits").type == pa.binary(4 * C)
    assert schema.field("logits").metadata == {b"dtype": b"float32"}
    assert fx.convert(tmp_path / "o.parquet", tmp_path / "p.arrow").layout == "list"
    np.testing.assert_array_equal(logits_of(tmp_path / "p.arrow"), X)


@pytest.mark.parametrize("dtype", ref.DTYPES)
@pytest.mark.parametrize("layout", ["binary", "list"])
def test_every_bit_of_what_is_no_number_passes(tmp_path, dtype, layout):
    kind = np.dtype(ref.DTYPES[dtype])
    bits = np.random.default_rng(0).integers(0, 256, 64 * C * kind.itemsize, dtype=np.uint8)
    x = np.frombuffer(bits.tobytes(), kind).reshape(64, C).copy()  # NaN of every payload among them
    x[0, :3] = np.inf, -np.inf, np.nan
    done = fx.convert({"logits": x}, tmp_path / "o.parquet", layout=layout)
    assert (done.dtype_before, done.dtype, done.rounding) == (dtype, dtype, None)
    assert logits_of(tmp_path / "o.parquet").tobytes() == x.tobytes()


def test_pages_of_a_whole_vocabulary_stay_small(tmp_path):
    x = np.zeros((40, 100_000), np.float32)
    fx.convert({"logits": x}, tmp_path / "o.parquet")
    unit = next(open_source(tmp_path / "o.parquet", logits="logits").units())
    with closing(LocalRanges(str(tmp_path / "o.parquet"))) as source:
        rows = [page.entries for page in iter(PageReader(unit.chunk, source, 1 << 30).next, None)]
    assert sum(rows) == 40
    assert max(rows) * x.itemsize * 100_000 < 2 << 20


# ---- other columns ---------------------------------------------------------------------------------------------------


def many_files(folder) -> None:
    for k, a in enumerate(range(0, N, 70)):
        part = pa.table(
            {
                "logits": fixed(X)[a : a + 70],
                "target": pa.array(Y[a : a + 70], pa.int32() if k % 2 else pa.int64()),
                "id": np.arange(a, min(a + 70, N)),
                "word": pa.array([f"w{i % (k + 2)}" for i in range(min(70, N - a))]).dictionary_encode(),
                "tokens": [[i] * (i % 4) for i in range(min(70, N - a))],
            }
        ).replace_schema_metadata({"model": "m", "pandas": "{}"})
        (folder / f"part={k}").mkdir(parents=True)
        pq.write_table(part, folder / f"part={k}" / "a.parquet", row_group_size=9)


@pytest.mark.parametrize("dest", ["o.parquet", "o.arrow"])
@pytest.mark.parametrize("threads", [1, 3])
def test_all_columns_and_the_order_of_rows(tmp_path, dest, threads):
    many_files(tmp_path / "in")
    calls: list[int] = []
    fx.convert(tmp_path / "in", tmp_path / dest, threads=threads, memory="1MB", progress=lambda n, *_: calls.append(n))
    assert calls[-1] == N
    path = tmp_path / dest
    table = pq.read_table(path) if dest.endswith("parquet") else pa.ipc.open_file(path).read_all()
    assert table.column_names == ["target", "id", "word", "tokens", "part", "logits"]
    assert table["id"].to_pylist() == list(range(N))
    assert table["target"].to_pylist() == Y.tolist()
    assert table["word"].to_pylist() == [f"w{i % 70 % (i // 70 + 2)}" for i in range(N)]
    assert table["tokens"].to_pylist() == [[i % 70] * (i % 70 % 4) for i in range(N)]
    assert table["part"].to_pylist() == [i // 70 for i in range(N)]
    metadata = table.schema.metadata
    assert metadata[b"model"] == b"m"
    assert b"pandas" not in metadata
    np.testing.assert_array_equal(logits_of(path), X)
    same_figures(fx.evaluate(tmp_path / "in", by="part"), fx.evaluate(path, by="part"))


def test_columns_can_be_chosen(tmp_path):
    path = tmp_path / "o.parquet"
    table = TABLES["list"].append_column("id", pa.array(range(N)))
    for keep, names in ((None, ["target", "id"]), ("id", ["id"]), ([], []), (["id", "target", "id"], ["id", "target"])):
        fx.convert(table, path, keep=keep)
        assert pq.read_schema(path).names == [*names, "logits"]
    with pytest.raises(fx.ColumnError, match=r"no column 'idd'.*did you mean 'id'"):
        fx.convert(table, path, keep="idd")
    with pytest.raises(fx.ConfigError, match="keep must not name"):
        fx.convert(table, path, keep="logits")


def test_fields_beside_the_logits_in_a_struct_are_not_lost(tmp_path):
    fx.convert(TABLES["struct"], tmp_path / "o.parquet", logits="out.logits")
    table = pq.read_table(tmp_path / "o.parquet")
    assert table.column_names == ["out.n", "target", "out.logits"]
    assert table["out.n"].to_pylist() == list(range(N))


def test_a_second_column_of_tagged_logits_keeps_its_tag(tmp_path):
    table = TABLES["bfloat16"].rename_columns(["other", "target"]).append_column("logits", fixed(X))
    fx.convert(table, tmp_path / "o.parquet")
    same_figures(fx.evaluate(TABLES["bfloat16"]), fx.evaluate(tmp_path / "o.parquet", logits="other"))


def test_a_reader_that_can_be_read_once(tmp_path):
    fx.convert(TABLES["list"].to_reader(max_chunksize=33), tmp_path / "o.parquet", dtype="float16")
    np.testing.assert_array_equal(logits_of(tmp_path / "o.parquet"), X.astype(np.float16))


# ---- another dtype ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ref.DTYPES)
@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_dtypes_and_what_they_cost(tmp_path, given, dtype, monkeypatch):
    layout = ["binary", "list"][(list(ref.DTYPES).index(given) + list(ref.DTYPES).index(dtype)) % 2]
    monkeypatch.setattr(batch, "_BATCH_BYTES", 900)
    x = (X / 3).astype(ref.DTYPES[given])
    target = np.where(np.arange(N) % 7 == 0, -100, Y)
    dump = {"logits": x, "target": target, "id": np.arange(N)}
    done = fx.convert(dump, tmp_path / "o.parquet", dtype=dtype, layout=layout, threads=2, memory="1MB")
    new = x.astype(ref.DTYPES[dtype])
    np.testing.assert_array_equal(ref.bits_of(logits_of(tmp_path / "o.parquet")), ref.bits_of(new))
    if given == dtype:
        assert done.rounding is None
        return
    cost = done.rounding
    fx.evaluate(dump, id="id", per_row=tmp_path / "a.parquet")
    fx.evaluate(tmp_path / "o.parquet", id="id", per_row=tmp_path / "b.parquet")
    before, after = (pq.read_table(tmp_path / f"{name}.parquet") for name in "ab")
    used = target != -100
    left, right = (t["nll"].to_numpy()[used] for t in (before, after))
    assert cost.max_logit_error == np.abs(x.astype(np.float64) - new.astype(np.float64)).max()
    assert (cost.overflowed, cost.broken, cost.compared) == (0, 0, used.sum())
    assert cost.nll_before == mean(left)
    assert cost.nll_after == mean(right)
    assert cost.nll_mean_change == mean(np.abs(right - left))
    assert cost.nll_max_change == np.abs(right - left).max()
    assert cost.argmax_changed == (x.astype(np.float64).argmax(1) != new.astype(np.float64).argmax(1)).sum()
    one = fx.convert(dump, tmp_path / "p.parquet", dtype=dtype, layout=layout, threads=1).rounding
    assert one == cost
    assert (tmp_path / "p.parquet").exists()


def test_a_changed_argmax_is_counted(tmp_path):
    x = np.float32([[1.0, 1.0001, 0.0], [3.0, 2.0, 1.0], [2.0, 2.0001, 1.0]])
    cost = fx.convert({"logits": x, "target": [0, 0, -100]}, tmp_path / "o.parquet", dtype="float16").rounding
    assert (cost.argmax_changed, cost.compared) == (2, 2)  # of an ignored row too
    assert cost.nll_max_change > 0


def test_float64_is_rounded_once():
    rng = np.random.default_rng(0)
    halves = rng.integers(0, 0x7F00, 3000).astype(np.uint16)
    low, high = (halves.view(ml_dtypes.bfloat16), (halves + np.uint16(1)).view(ml_dtypes.bfloat16))
    middle = (low.astype(np.float64) + high.astype(np.float64)) / 2
    x = np.concatenate([middle, np.nextafter(middle, np.inf), np.nextafter(middle, 0), middle * (1 + 1e-9)])
    x = np.concatenate([x, -x, [0.0, -0.0, 1e-320, -1e-60, 3.4e38, 3.5e38, -1e300, np.inf, -np.inf]])
    got = round_to(x, "bfloat16").view(ml_dtypes.bfloat16).astype(np.float64)
    for value, rounded in zip(x.tolist(), got.tolist(), strict=True):
        if not np.isfinite(rounded):
            assert abs(value) >= float(Fraction(2) ** 128 - Fraction(2) ** 119)
            continue
        bits = int(np.array(abs(rounded)).astype(ml_dtypes.bfloat16).view(np.uint16))
        around = [float(np.uint16(b).view(ml_dtypes.bfloat16)) for b in (bits - 1, bits + 1) if 0 <= b < 0x7F80]
        mine = abs(Fraction(abs(value)) - Fraction(abs(rounded)))
        for other in around:
            distance = abs(Fraction(abs(value)) - Fraction(other))
            assert mine < distance or (mine == distance and bits % 2 == 0), value
        assert np.signbit(value) == np.signbit(rounded)
    assert np.isnan(round_to(np.array([np.nan]), "bfloat16").view(ml_dtypes.bfloat16).astype(float)).all()


def test_what_is_too_large_stops_the_run_or_is_counted(tmp_path):
    x = X.copy()
    x[50, 4], x[60, 1], x[61, 2], x[70, 0] = 7e4, -1e6, np.inf, np.nan
    dump = {"logits": x, "target": Y}
    with pytest.raises(
        fx.BadRowError, match=r"row 50: logit 4 is 70000, too large for float16; take dtype=\"bfloat16\""
    ):
        fx.convert(dump, tmp_path / "o.parquet", dtype="float16", memory="1MB", threads=2)
    assert list(tmp_path.iterdir()) == []
    done = fx.convert(dump, tmp_path / "o.parquet", dtype="float16", on_overflow="inf")
    cost = done.rounding
    assert (cost.overflowed, cost.broken, cost.compared) == (2, 1, N - 3)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(logits_of(tmp_path / "o.parquet"), x.astype(np.float16))
    assert 0 < cost.max_logit_error < 0.02
    assert "overflowed      2 logits; 1 row without a loss" in repr(done)
    assert fx.convert(dump, tmp_path / "o.parquet", dtype="bfloat16").rounding.overflowed == 0
    huge = {"logits": np.array([[3.4e38, 0.0]], np.float32)}
    with pytest.raises(fx.BadRowError, match='too large for bfloat16; take dtype="float32" or "float64", or'):
        fx.convert(huge, tmp_path / "p.parquet", dtype="bfloat16")
    huge = {"logits": np.array([[1e300, 0.0]])}
    with pytest.raises(fx.BadRowError, match='too large for float32; take dtype="float64", or'):
        fx.convert(huge, tmp_path / "p.parquet", dtype="float32")


def test_a_loss_that_becomes_infinite_is_a_change_and_one_that_was_is_none(tmp_path):
    x = np.float32([[-np.inf, 0.0], [-1e6, 0.0]])
    dump = {"logits": x, "target": [0, 0]}
    cost = fx.convert(dump, tmp_path / "o.parquet", dtype="float16", on_overflow="inf").rounding
    assert cost.nll_max_change == np.inf
    assert (
        json.loads(fx.convert(dump, tmp_path / "o.parquet", dtype="float16", on_overflow="inf").to_json())["rounding"][
            "nll_max_change"
        ]
        == "inf"
    )
    cost = fx.convert({"logits": x[:1], "target": [0]}, tmp_path / "o.parquet", dtype="float16").rounding
    assert (cost.nll_max_change, cost.nll_mean_change, cost.nll_before) == (0, 0, np.inf)


@pytest.mark.parametrize(
    ("target", "compared"),
    [
        (None, 0), (["a"] * N, 0), (list(np.full((N, C), 1 / C)), 0), (pa.array(Y).dictionary_encode(), N),
        (np.full(N, 99), 0), (pa.array([None, *Y[1:]]), N - 1), (Y % 2 == 0, N),
    ],
)  # fmt: skip
def test_targets_that_are_no_class_ids_are_carried_and_not_compared(tmp_path, target, compared):
    dump = {"logits": X} if target is None else {"logits": X, "target": target}
    done = fx.convert(dump, tmp_path / "o.parquet", dtype="float16")
    assert done.rounding.compared == compared
    assert np.isnan(done.rounding.nll_mean_change) == (compared == 0)
    assert ("not compared" in repr(done)) == (compared == 0)
    assert json.loads(done.to_json())["rounding"]["compared"] == compared
    assert pq.read_table(tmp_path / "o.parquet").num_rows == N


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1.0] * 11, "11 logits where 12 are expected"),
        (None, "logits are null"),
        ([None, *[1.0] * 11], "hold a null, at class 0"),
    ],
)
def test_rows_that_are_none(tmp_path, row, reason):
    rows = [r.tolist() for r in X]
    rows[123] = row
    table = pa.table({"logits": pa.array(rows, pa.list_(pa.float32())), "target": Y})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=50)
    for source in (table, tmp_path / "in.parquet"):
        for dtype in (None, "float16"):
            with pytest.raises(
                fx.BadRowError, match=f"row 123: .*{reason}; fix the dump, or leave that row out"
            ) as got:
                fx.convert(source, tmp_path / "o.parquet", dtype=dtype, threads=2)
            assert got.value.row == 123
    assert [p.name for p in tmp_path.iterdir()] == ["in.parquet"]


def test_what_cannot_be_is_refused_before_any_work(tmp_path):
    path = tmp_path / "in.parquet"
    pq.write_table(TABLES["list"], path)
    before = path.read_bytes()
    for options, dest, error in (
        ({"layout": "tensor"}, "o.parquet", "layout must be one of .* got 'tensor'"),
        ({"dtype": "int8"}, "o.parquet", "dtype must be one of .* got 'int8'"),
        ({"on_overflow": "skip"}, "o.parquet", "on_overflow must be one of .* got 'skip'"),
        ({"target": "label"}, "o.parquet", "no column 'label'"),
        ({}, "o.txt", "expected a name that ends in .parquet or .arrow"),
        ({}, "in.parquet", "it is an input file"),
        ({}, "no/o.parquet", "does not exist"),
    ):
        with pytest.raises(fx.FastxentError, match=error):
            fx.convert(path, tmp_path / dest, **options)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["in.parquet"]


def test_no_rows(tmp_path):
    for name in ("o.parquet", "o.arrow"):
        done = fx.convert(TABLES["fixed list"].slice(0, 0), tmp_path / name, dtype="float16")
        assert (done.rows, done.rounding.compared, done.rounding.max_logit_error) == (0, 0, 0)
        assert fx.evaluate(tmp_path / name).rows.total == 0


PEAK = """
import sys, fastxent as fx
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
fx.convert(sys.argv[1], sys.argv[2], keep=[], dtype="float16", memory="4MB")  # kernels compiled, libraries loaded
before = peak()
fx.convert(sys.argv[1], sys.argv[2], dtype="float16", memory="32MB", threads=2)
print((peak() - before) >> 10)
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    x = np.random.default_rng(0).normal(size=(50_000, 1000)).astype(np.float32)  # 200 MB, one row group
    pq.write_table(
        pa.table({"logits": fixed(x), "target": np.zeros(50_000, np.int64)}), tmp_path / "in.parquet",
        row_group_size=50_000, use_dictionary=False, compression="none",
    )  # fmt: skip
    command = [sys.executable, "-c", PEAK, str(tmp_path / "in.parquet"), str(tmp_path / "o.parquet")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert int(done.stdout) < 60
    np.testing.assert_array_equal(logits_of(tmp_path / "o.parquet")[-100:], x[-100:].astype(np.float16))


def test_costs_merge_and_are_stored():
    rng = np.random.default_rng(5)
    before, after = rng.normal(size=(2, 100)) ** 2
    parts = [
        Rounded(np.empty((50, 2)), {}, before[k : k + 50], after[k : k + 50], error=0.1 * k, overflowed=k, moved=1)
        for k in (0, 50)
    ]
    whole = Cost().add(parts[0]).add(parts[1])
    merged = Cost().absorb(Cost().add(parts[1])).absorb(Cost.from_bytes(Cost().add(parts[0]).to_bytes()))
    assert merged.result() == whole.result()
    assert (merged.result().nll_before, merged.result().overflowed) == (mean(before), 50)
    with pytest.raises(fx.StateError, match="does not hold the cost of a conversion"):
        Cost.from_bytes(fx.EvalState.empty(fx.EvalConfig(2)).to_bytes())
