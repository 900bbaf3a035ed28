"""Targets from another source, matched by ids or by position."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import fastxent as fx
from fastxent.cli.program import run
from tests.fuzzing import short_run

RNG = np.random.default_rng(0)
N = 300
X, Y, G, W = RNG.normal(size=(N, 4)).astype(np.float32), RNG.integers(0, 4, N), RNG.integers(0, 3, N), RNG.random(N)
NAMES = np.array([f"img {k}.png" for k in range(N)])
OPTIONS: dict[str, Any] = {"by": "g", "weight": "w", "where": "w > 0.1"}
ORDER = RNG.permutation(N)


@functools.cache
def expected() -> fx.EvalResult:
    return fx.evaluate({"logits": X, "target": Y, "g": G, "w": W}, **OPTIONS)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """Three shards without targets."""
    folder = tmp_path / "dump"
    folder.mkdir()
    for k, rows in enumerate(np.split(np.arange(N), [90, 200])):
        table = pa.table({"logits": list(X[rows]), "file": NAMES[rows], "part": np.full(len(rows), k)})
        pq.write_table(table, folder / f"{k}.parquet", row_group_size=40)
    return folder


def labels(tmp_path: Path, form: str) -> Any:
    """The targets in another order, in some format."""
    table = pa.table({"file": NAMES[ORDER], "target": Y[ORDER].astype(np.int8), "g": G[ORDER], "w": W[ORDER]})
    path = tmp_path / f"labels.{form}"
    if form == "csv":
        table.to_pandas().to_csv(path, index=False)
    elif form == "jsonl":
        table.to_pandas().to_json(path, orient="records", lines=True, double_precision=15)
    elif form == "parquet":
        encoded = table.set_column(0, "file", table["file"].dictionary_encode())
        pq.write_table(encoded, path, row_group_size=70)
    else:
        return table
    return path


def same(found: fx.EvalResult, truth: fx.EvalResult | None = None) -> None:
    truth = truth or expected()
    assert found.rows == truth.rows
    assert found.metrics == truth.metrics
    for value, slice_ in truth.slices["g"].items():
        assert found.slices["g"][value].metrics == slice_.metrics


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "table"])
def test_by_id_from_any_format(form: str, dump: Path, tmp_path: Path) -> None:
    targets = labels(tmp_path, form)
    for how in ({}, {"threads": 3}, {"memory": "1MB"}):
        if form == "jsonl":  # numbers of 15 digits
            assert fx.evaluate(dump, targets=targets, on="file", **OPTIONS, **how).rows == expected().rows
        else:
            same(fx.evaluate(dump, targets=targets, on=["file"], **OPTIONS, **how))


def test_by_position_and_by_several_columns(dump: Path, tmp_path: Path) -> None:
    table = pd.DataFrame({"target": Y, "g": G, "w": W})
    table.to_csv(tmp_path / "p.csv.gz", index=False)
    same(fx.evaluate(dump, targets=tmp_path / "p.csv.gz", **OPTIONS))
    same(fx.evaluate({"logits": X}, targets=table, **OPTIONS))
    source = {"logits": X, "a": np.arange(N) // 7, "b": np.arange(N) % 7}
    both = table.assign(a=np.arange(N) // 7, b=np.arange(N) % 7).iloc[ORDER]
    same(fx.evaluate(source, targets=both, on=["a", "b"], **OPTIONS))


def test_sources_that_do_not_tell_their_rows(dump: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    pd.DataFrame(X.astype(float)).assign(file=NAMES).to_csv(path, index=False)
    targets, expected = (
        labels(tmp_path, "csv"),
        fx.evaluate({"logits": X.astype(float), "target": Y, "g": G, "w": W}, **OPTIONS),
    )
    same(fx.evaluate(path, logits="[0-9]*", targets=targets, on="file", **OPTIONS), expected)
    same(fx.evaluate([path], logits="[0-9]*", targets=pd.DataFrame({"target": Y, "g": G, "w": W}), **OPTIONS), expected)
    with pytest.raises(fx.SourceError, match="cannot read <reader> twice"):
        reader = pa.table({"logits": list(X), "file": NAMES}).to_reader()
        fx.evaluate(reader, targets=targets, on="file")


def test_every_verb(dump: Path, tmp_path: Path) -> None:
    targets = labels(tmp_path, "parquet")
    by_id: dict[str, Any] = {"targets": targets, "on": "file"}
    units = fx.plan(dump, **by_id, **OPTIONS)
    data = pickle.dumps(units)
    assert len(data) < 30_000
    same(fx.merge_states([unit.run() for unit in pickle.loads(data)]).result())  # noqa: S301 - our own
    same(fx.evaluate(dump, **by_id, **OPTIONS, resume=tmp_path / "progress", per_row=None))
    arrays = {"logits": X, "target": Y}
    found = fx.compare(dump, {"logits": X[::-1] * 2, "file": NAMES[::-1]}, **by_id)
    assert found.metrics == fx.compare(arrays, {"logits": X * 2}).metrics
    assert fx.compare(dump, dump, **by_id, by="g").rows.used == N
    fx.convert(dump, tmp_path / "c.parquet", **by_id)
    same(fx.evaluate(tmp_path / "c.parquet", **OPTIONS))
    fx.transform(dump, tmp_path / "t.parquet", output="grad", keep="g", **by_id)
    fx.transform(arrays, tmp_path / "u.parquet", output="grad")
    assert pq.read_table(tmp_path / "t.parquet")["grad"].equals(pq.read_table(tmp_path / "u.parquet")["grad"])
    fit = fx.fit_temperature(dump, **by_id)
    assert fit.reads == fx.fit_temperature(arrays).reads


def test_floats_that_are_kept_as_bits(tmp_path: Path) -> None:
    bits = (np.float32([0.5, 1.0, 2.0]).view(np.uint32) >> 16).astype(np.uint16)
    fields = [pa.field("target", pa.int64()), pa.field("w", pa.uint16(), metadata={"dtype": "bfloat16"})]
    table = pa.table([pa.array([0, 1, 2]), pa.array(bits)], schema=pa.schema(fields))
    expected = fx.evaluate({"logits": X[:3], "target": [0, 1, 2], "w": [0.5, 1.0, 2.0]}, weight="w")
    assert fx.evaluate({"logits": X[:3]}, targets=table, weight="w").metrics == expected.metrics


IDS = st.lists(st.integers(0, 6), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(own=IDS, other=IDS)
def test_ids_are_those_of_a_dictionary(own: list[int], other: list[int]) -> None:
    """Against the slow obvious way."""
    target = [k % 4 for k in range(len(other))]
    table = {"id": np.array(other), "target": np.array(target)}
    known = dict(zip(other, target, strict=True))
    sound = len(known) == len(other) and len(set(own)) == len(own) and set(own) <= set(known)
    try:
        found = fx.evaluate({"logits": X[: len(own)], "id": np.array(own)}, targets=table, on="id")
    except fx.SourceError:
        assert not sound
        return
    assert sound
    expected = fx.evaluate({"logits": X[: len(own)], "target": [known[k] for k in own]})
    assert found.metrics == expected.metrics
    assert len(found.warnings) - len(expected.warnings) == (len(other) > len(own))


TABLE = pd.DataFrame({"file": NAMES, "target": Y})


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (None, {"on": "file"}, "on requires targets"),
        (TABLE[3:], {"on": "file"}, r"got 3 in .*0\.parquet that are not in .*, the first 'img 0\.png' in row 0"),
        (TABLE[3:], {}, r"got 297 in .* and 300 in .*; name the columns that identify a row with on \(--on\)"),
        (pd.concat([TABLE, TABLE[:2]]), {"on": "file"}, "got 2 rows in .* whose id an earlier row has, the first with"),
        (TABLE.assign(file=None), {"on": "file"}, "ids must not be null, got 300 nulls in column 'file'"),
        (TABLE, {"on": "name"}, "no column 'name'"),
        (
            TABLE.assign(file=range(N)),
            {"on": "file"},
            r"'file' of type .*string in .*0\.parquet and int64 in <DataFrame>",
        ),
        (TABLE.assign(part=1), {"on": "file", "by": "part"}, "column 'part' is both in .* and in <DataFrame>"),
        (TABLE.assign(p=0.5), {"on": "file", "logits": "p"}, "logits must be in .*, got column 'p' of <DataFrame>"),
        (TABLE.drop(columns="target"), {"on": "file"}, "no column 'target'"),
        (3, {}, "invalid source of type int"),
    ],
)
def test_targets_that_do_not_fit(targets: Any, options: Any, message: str, dump: Path) -> None:
    with pytest.raises(fx.FastxentError, match=message) as error:
        fx.evaluate(dump, targets=targets, metrics="accuracy", **options)
    assert "\n" not in str(error.value)


def test_arrays_of_documents_have_targets_per_position() -> None:
    x, y = X.reshape(100, 3, 4), Y.reshape(100, 3)
    expected = fx.evaluate({"logits": x, "target": y})
    assert fx.evaluate({"logits": x}, targets={"target": Y}).metrics == expected.metrics
    kinds = np.arange(100) % 2
    for targets in ({"target": y, "kind": kinds}, pd.DataFrame({"target": list(y), "kind": kinds})):
        result = fx.evaluate({"logits": x}, targets=targets, by="kind")
        assert result.metrics == expected.metrics
        assert [part.rows.total for part in result.slices["kind"].values()] == [150, 150]
        with pytest.raises(fx.SourceError, match=r"one row for each position of .*, got 100 .*put targets of shape"):
            fx.evaluate({"logits": x}, targets=targets, shift=1)
    short = pa.table({"target": [None, *y[1:-1].tolist(), y[-1, :2].tolist()]})
    with pytest.raises(fx.ColumnError, match="must have 3 values, one per position of a document, got 2 in row 99"):
        fx.evaluate({"logits": x}, targets=short)
    result = fx.evaluate({"logits": x[:-1]}, targets=short[:-1])
    assert (result.rows.used, result.rows.ignored) == (294, 3)


def test_rows_of_the_table_that_the_dump_does_not_have(dump: Path) -> None:
    more = pd.concat([TABLE, pd.DataFrame({"file": ["x", "y"], "target": [1, 2]})])
    found = fx.evaluate(dump, targets=more, on="file")
    assert found.warnings == ("2 of 302 rows of <DataFrame> have an id that no row of the dump has",)


def test_the_command_line(dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = labels(tmp_path, "csv")
    assert run(["eval", str(dump), "--targets", str(targets), "--on", "file", "--by", "g", "--quiet"]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert run(["eval", str(dump), "--targets", str(targets), "--on", "file", "--output", str(targets)]) == 2
    assert "input file" in capsys.readouterr().err


def test_mutated_tables_are_refused_or_give_each_row_its_target() -> None:
    counts = short_run("tests.verbs.fuzz_targets", 300, bounds=False)
    assert min(counts["refused"], counts["read"]) > 50
