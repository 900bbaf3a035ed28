"""Dumps of a document per row: the same as a flat dump of their positions, to the last bit."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
from fastxent.errors import BadRowError, ColumnError, ConfigError, SourceError
from fastxent.io.documents import Sequences
from fastxent.io.layout import buckets_of
from fastxent.io.source import open_source

C = 5
OPTIONS = {
    "by": ["kind", "part", "position_bucket"],
    "cluster": "document",
    "weight": "weight",
    "n_bytes": "n_bytes",
    "where": "position != 3",
}


class Dump:
    """Random documents. ``lengths``: the number of positions of each; None for a document whose targets are null."""

    def __init__(self, lengths: list[int | None], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.docs: list[dict[str, Any]] = []
        for k, given_length in enumerate(lengths):
            n = 2 if given_length is None else given_length
            target: list[int | None] = [int(t) for t in rng.choice([-100, *range(C)], n)]
            self.docs.append({
                "logits": rng.normal(size=(n, C)).astype(np.float32).tolist(),
                "target": None if given_length is None else [None if rng.random() < 0.1 else t for t in target],
                "weight": rng.random(n).tolist(), "n_bytes": rng.integers(1, 9, n).tolist(),
                "part": [str(p) for p in rng.choice(["a", "b"], n)],
                "kind": ["x", "y", None][k % 3],
            })  # fmt: skip

    def nested(self, logits: pa.DataType | None = None) -> pa.Table:
        kinds = {
            "logits": logits or pa.list_(pa.list_(pa.float32())), "target": pa.list_(pa.int16()),
            "weight": pa.list_(pa.float64()), "n_bytes": pa.list_(pa.int32()), "part": pa.list_(pa.string()),
            "kind": pa.string(),
        }  # fmt: skip
        return pa.table({name: pa.array([doc[name] for doc in self.docs], kind) for name, kind in kinds.items()})

    def flat(self, shift: int = 0) -> pa.Table:
        """One row per position, made one by one."""
        rows: list[dict[str, Any]] = []
        for number, doc in enumerate(self.docs):
            for t in range(len(doc["logits"]) - shift):
                rows.append({"document": number, "position": t, "logits": doc["logits"][t], "kind": doc["kind"]})
                for name in ("target", "weight", "n_bytes", "part"):
                    rows[-1][name] = None if doc[name] is None else doc[name][t + shift]
        kinds = {
            "document": pa.int64(), "position": pa.int64(), "logits": pa.list_(pa.float32()), "kind": pa.string(),
            "target": pa.int16(), "weight": pa.float64(), "n_bytes": pa.int32(), "part": pa.string(),
        }  # fmt: skip
        return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})


def outcome(source: Any, **options: Any) -> str:
    """The result without what depends on the source."""
    found = fx.evaluate(source, **{**OPTIONS, **options}).to_dict()
    return json.dumps({name: value for name, value in found.items() if name not in ("config", "files", "timing")})


def written(folder: Path, table: pa.Table) -> dict[str, Path]:
    found = {form: folder / f"x.{form}" for form in ("parquet", "arrow", "stream")}
    pq.write_table(table, found["parquet"], row_group_size=2)
    with pa.ipc.new_file(found["arrow"], table.schema) as file:
        file.write_table(table, max_chunksize=3)
    with pa.ipc.new_stream(found["stream"], table.schema) as stream:
        stream.write_table(table)
    return found


@given(st.lists(st.none() | st.integers(0, 6), min_size=1, max_size=7), st.integers(0, 9), st.integers(0, 2))
def test_documents_equal_their_rows(lengths: list[int | None], seed: int, shift: int) -> None:
    dump = Dump([*lengths, 4], seed)
    assert outcome(dump.nested(), shift=shift) == outcome(dump.flat(shift))


def rows_of(source: Any, shift: int, rows: int, block_rows: int, whole: bool) -> list[dict[str, Any]]:
    """Every row, read in small batches of small blocks."""
    names = ["document", "position", "target", "kind", "part", "weight"]
    opened = open_source(source, logits="logits", columns=names, sequences=Sequences(shift=shift))
    found = []
    for unit in opened.units():
        for batch in pickle.loads(pickle.dumps(unit)).read(rows, block_rows * C * 4, whole):  # noqa: S301 - our own
            values = []
            for block in batch.blocks:
                assert not block.bad
                assert len(block.values) <= block_rows
                values += block.values.tolist()
            assert batch.rows == len(values) <= (rows if whole else 2 * rows)
            columns = {name: batch.columns[name].to_pylist() for name in names}
            for i, row in enumerate(values):
                found.append({"logits": row, **{name: columns[name][i] for name in names}})
                place = batch.where.place(i)
                assert place.spot.endswith(f"position {found[-1]['position']}")
    return found


@settings(max_examples=15)
@given(
    lengths=st.lists(st.none() | st.integers(0, 6), min_size=1, max_size=7),
    shift=st.integers(0, 2),
    rows=st.integers(1, 5),
    block_rows=st.integers(1, 4),
    whole=st.booleans(),
)
@pytest.mark.parametrize("form", ["table", "parquet", "arrow", "stream", "large", "fixed", "views"])
def test_batches_of_any_size(
    form: str, lengths: list[int | None], shift: int, rows: int, block_rows: int, whole: bool, tmp_path_factory: Any
) -> None:
    dump = Dump([*lengths, 4], 1)
    kinds = {
        "large": pa.large_list(pa.large_list(pa.float32())),
        "fixed": pa.large_list(pa.list_(pa.float32(), C)),
        "views": pa.list_view(pa.list_(pa.float32())),
    }
    source: Any = dump.nested(kinds.get(form))
    if form in ("parquet", "arrow", "stream"):
        source = written(tmp_path_factory.mktemp("x"), source)[form]
    want = [{name: row[name] for name in ("logits", "document", "position", "target", "kind", "part", "weight")}
            for row in dump.flat(shift).to_pylist()]  # fmt: skip
    assert rows_of(source, shift, rows, block_rows, whole) == want


# ---- arrays ----------------------------------------------------------------------------------------------------------

N, T = 3, 4
X = np.random.default_rng(3).normal(size=(N, T, C)).astype(np.float32)
Y = np.random.default_rng(4).choice([-100, 0, 1, 2, 3, 4], (N, T))
KIND = np.array(["x", "y", "x"])


def as_lists(shift: int, **more: Any) -> str:
    table = pa.table({"logits": X.tolist(), "target": Y.tolist(), "kind": KIND, **more})
    return outcome(
        table.cast(pa.schema([("logits", pa.list_(pa.list_(pa.float32()))), *list(table.schema)[1:]])),
        shift=shift, **ARRAYS
    )  # fmt: skip


ARRAYS: dict[str, Any] = {"by": ["kind", "position"], "cluster": "document", "weight": None, "n_bytes": None}


@pytest.mark.parametrize("shift", [0, 1])
def test_arrays_of_documents(shift: int, tmp_path: Path) -> None:
    want = as_lists(shift)
    arrays = {"logits": X, "target": Y, "kind": KIND}
    assert outcome(arrays, shift=shift, **ARRAYS) == want
    assert outcome({**arrays, "target": Y.tolist()}, shift=shift, **ARRAYS) == want
    assert outcome({**arrays, "logits": np.asfortranarray(X)}, shift=shift, **ARRAYS) == want
    numbers = {**arrays, "kind": np.array([7, 8, 7])}
    want = outcome(numbers, shift=shift, **ARRAYS)
    for name, array in numbers.items():
        np.save(tmp_path / f"{name}.npy", np.asfortranarray(array) if name == "target" else array)
    assert outcome(tmp_path / "logits.npy", shift=shift, **{**ARRAYS, "by": ["position"]})
    assert outcome(tmp_path, shift=shift, **ARRAYS) == want
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(X)
    table = pa.table({"logits": tensors, "target": Y.tolist(), "kind": KIND})
    assert outcome(table, shift=shift, **ARRAYS) == as_lists(shift)


def test_several_parts_number_their_documents_on() -> None:
    table = Dump([2, 3, 1], 5).nested()
    parts = [table.slice(0, 1), table.slice(1)]
    assert outcome(parts) == outcome(table)
    arrays = [
        {"logits": X[:1], "target": Y[:1], "kind": KIND[:1]},
        {"logits": X[1:], "target": Y[1:], "kind": KIND[1:]},
    ]
    assert outcome(arrays, **ARRAYS) == as_lists(0)
    readers = [pa.RecordBatchReader.from_batches(part.schema, part.to_batches()) for part in parts]
    with pytest.raises(SourceError, match=r"cannot number the documents of <reader>.*pass one stream"):
        outcome(readers)


def test_arrays_that_are_not_of_each_position() -> None:
    with pytest.raises(
        ColumnError, match="'target' of <arrays> must have one value per position, got one per document"
    ):
        fx.evaluate({"logits": X, "target": np.array([0, 1, 2])})
    with pytest.raises(ColumnError, match="lists of column 'target' must have 4 values, one per position"):
        fx.evaluate({"logits": X, "target": [[1], [2, 3], []]})
    assert fx.evaluate({"logits": X[:, :1], "target": Y[:, :1]}, shift=1).rows.total == 0


# ---- documents that are not sound ------------------------------------------------------------------------------------


def table_of(logits: list[Any], target: list[Any], **more: Any) -> pa.Table:
    kinds = {"logits": pa.list_(pa.list_(pa.float32())), "target": pa.list_(pa.int64())}
    return pa.table({"logits": pa.array(logits, kinds["logits"]), "target": pa.array(target, kinds["target"]), **more})


ROW = [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("logits", "target", "message", "bad", "ignored", "used"),
    [
        (
            [[ROW], [ROW, ROW]],
            [[0], [1]],
            "document 1, position 0: 'target' has 1 positions and 'logits' has 2",
            2,
            0,
            1,
        ),
        (
            [[ROW], [ROW]],
            [[0], [1, 1, 1]],
            "document 1, position 0: 'logits' has 1 positions and 'target' has 3",
            3,
            0,
            1,
        ),
        ([[ROW], []], [[0], [1, 2]], "document 1, position 0: 'logits' has 0 positions", 2, 0, 1),
        ([[ROW], None], [[0], [1, 2]], "document 1, position 0: logits are null", 2, 0, 1),
        ([[ROW], None], [[0], None], "document 1, position 0: the document is null", 1, 0, 1),
        ([[ROW], [ROW, None]], [[0], [1, 2]], "document 1, position 1: logits are null", 1, 0, 2),
        ([[ROW], [ROW, ROW[:2]]], [[0], [1, 2]], "document 1, position 1: 2 logits where 3 are expected", 1, 0, 2),
        ([[ROW], [[0.0, None, 1.0]]], [[0], [1]], "document 1, position 0: logits hold a null, at class 1", 1, 0, 1),
        ([[ROW], [ROW, ROW]], [[0], [1, 3]], "document 1, position 1: target 3 is outside", 1, 0, 2),
        ([[ROW], [ROW, ROW]], [[0], None], None, 0, 2, 1),
        ([[ROW], [ROW, ROW]], [[0], [None, -100]], None, 0, 2, 1),
        ([[ROW], []], [[0], []], None, 0, 0, 1),
        ([[ROW], []], [[0], None], None, 0, 0, 1),
    ],
)
def test_bad_documents(
    logits: list[Any], target: list[Any], message: str | None, bad: int, ignored: int, used: int, tmp_path: Path
) -> None:
    table = table_of(logits, target)
    for source in (table, *written(tmp_path, table).values()):
        rows = fx.evaluate(source, on_bad_row="skip").rows
        assert (rows.total, rows.bad, rows.ignored, rows.used) == (bad + ignored + used, bad, ignored, used)
        if message is None:
            fx.evaluate(source)
        else:
            with pytest.raises(BadRowError) as error:
                fx.evaluate(source)
            assert message in str(error.value)
            assert error.value.row == 1


def test_a_document_of_wrong_length_is_counted_whatever_the_shift() -> None:
    rows = fx.evaluate(table_of([[ROW, ROW], [ROW]], [[0, 1], []]), shift=1, on_bad_row="skip").rows
    assert (rows.total, rows.bad, rows.used) == (2, 1, 1)
    rows = fx.evaluate(table_of([[ROW, ROW], None], [[0, 1], [0, 1, 2]]), shift=1, on_bad_row="skip").rows
    assert (rows.total, rows.bad, rows.used) == (3, 2, 1)


@pytest.mark.parametrize("name", ["weight", "part"])
def test_lists_beside_the_target_must_have_its_length(name: str) -> None:
    table = table_of([[ROW], [ROW, ROW]], [[0], [1, 2]], **{name: [[1.0], [1.0]]})
    option: dict[str, Any] = {"weight": name} if name == "weight" else {"by": name}
    with pytest.raises(BadRowError, match=f"document 1, position 0: '{name}' has 1 positions and 'logits' has 2"):
        fx.evaluate(table, **option)
    assert fx.evaluate(table, **option, on_bad_row="skip").rows.bad == 2


def test_what_must_be_a_list() -> None:
    table = table_of([[ROW, ROW]], [[0, 1]], label=[1], size=[7], acc=[1.0], weight=[2.0])
    for option in ({"target": "label"}, {"n_bytes": "size"}, {"scores": "acc"}):
        (name,) = option.values()
        with pytest.raises(ColumnError, match=f"column '{name}' of <table> must hold a list per document"):
            fx.evaluate(table, **option)
    assert fx.evaluate(table, weight="weight", cluster="label").rows.used == 2


def test_shift_is_for_documents() -> None:
    flat = {"logits": [ROW, ROW], "target": [0, 1]}
    with pytest.raises(ConfigError, match="shift must be 0 for <arrays>, got 1; it is for dumps of a document per row"):
        fx.evaluate(flat, shift=1)
    with pytest.raises(ConfigError, match="shift must be an integer of at least 0, got -1"):
        fx.evaluate(flat, shift=-1)
    with pytest.raises(ConfigError, match="shift must not be given, got 1"):
        fx.evaluate({"lp": [[-1.0, -2.0]]}, target_logprob="lp", shift=1)
    mixed = [table_of([[ROW]], [[0]]), pa.table({"logits": [ROW], "target": [0]})]
    with pytest.raises(SourceError, match="a row holds a document in the first and one position in the second"):
        fx.evaluate(mixed)


def test_columns_of_the_dump_come_before_those_that_are_made() -> None:
    table = table_of([[ROW, ROW], [ROW]], [[0, 1], [2]], document=["b", "b"], position=[[5, 9], [70]])
    result = fx.evaluate(table, by=["document", "position", "position_bucket"])
    assert {name: list(slices) for name, slices in result.slices.items()} == {
        "document": ["b"], "position": [5, 9, 70], "position_bucket": [4, 8, 64]
    }  # fmt: skip


def test_buckets() -> None:
    positions = [0, 1, 2, 3, 4, 7, 8, 1 << 53, (1 << 53) - 1, (1 << 63) - 1, -1, None]
    want = [0, 1, 2, 2, 4, 4, 8, 1 << 53, 1 << 52, 1 << 62, None, None]
    assert buckets_of(pa.array(positions)).to_pylist() == want
    flat = {"logits": [ROW] * 3, "target": [0, 1, 2], "position": [3, 2, 9]}
    assert list(fx.evaluate(flat, by="position_bucket").slices["position_bucket"]) == [2, 8]
    with pytest.raises(ColumnError, match="no column 'position_bucket'"):
        fx.evaluate({"logits": [ROW], "target": [0], "position": ["a"]}, by="position_bucket")
