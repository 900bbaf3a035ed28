"""Every verb over dumps of a document per row, against the same verb over the flat dump."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.errors import BadRowError, ConfigError
from tests.io.test_sequences import C, Dump, written

LENGTHS = [3, 0, 5, 1, 4]
SHIFTS = pytest.mark.parametrize("shift", [0, 1])


def same(a: Any, b: Any) -> None:
    """Two results are equal but for what depends on the source."""
    left, right = (json.loads(result.to_json()) for result in (a, b))
    for found in (left, right):
        for name in ("config", "files", "timing", "warnings"):
            found.pop(name, None)
    assert left == right


@SHIFTS
def test_compare_by_position_and_by_id(shift: int, tmp_path: Path) -> None:
    a, b = Dump(LENGTHS, 1), Dump(LENGTHS, 2)
    for mine, theirs in zip(a.docs, b.docs, strict=True):
        theirs["target"] = mine["target"]
    options: dict[str, Any] = {"by": ["kind", "position_bucket"], "cluster": "document", "largest": 0}
    want = fx.compare(a.flat(shift), b.flat(shift), **options)
    for path in written(tmp_path, b.nested()).values():
        same(fx.compare(a.nested(), path, shift=shift, **options), want)
        same(fx.compare(a.nested(), path, shift=shift, on=["document", "position"], **options), want)
    backwards = pa.table({**dict(zip(b.nested().column_names, b.nested().columns, strict=True)), "document": range(5)})
    found = fx.compare(a.nested(), backwards.take([4, 3, 2, 1, 0]), shift=shift, on=["document", "position"], **options)
    same(found, want)
    row = fx.compare(a.nested(), b.nested(), shift=shift, id="position").largest[0]
    assert row.row in (0, 2, 3, 4)
    assert 0 <= int(row.id) < LENGTHS[row.row] - shift
    place = fx.compare(a.nested(), b.nested(), shift=shift).largest[0]
    assert place.id == f"document {row.row}, position {row.id}"


def test_compare_with_the_plain_rows_that_convert_wrote(tmp_path: Path) -> None:
    a, b = Dump(LENGTHS, 1), Dump(LENGTHS, 2)
    for mine, theirs in zip(a.docs, b.docs, strict=True):
        theirs["target"] = mine["target"]
    fx.convert(b.nested(), tmp_path / "b.parquet", shift=1)
    want = fx.compare(a.nested(), b.nested(), shift=1, largest=0)
    same(fx.compare(a.nested(), tmp_path / "b.parquet", shift=1, largest=0), want)
    same(fx.compare(a.nested(), tmp_path / "b.parquet", shift=1, on=["document", "position"], largest=0), want)
    with pytest.raises(ConfigError, match=r"shift must be 0 for .*b\.parquet, got 1; it is for dumps of a document"):
        fx.compare(tmp_path / "b.parquet", a.nested(), shift=1, on=["document", "position"])


def test_compare_of_documents_that_differ() -> None:
    a, b = Dump([2, 3], 1), Dump([2, 3], 1)
    b.docs[1]["target"] = [0 if t != 0 else 1 for t in a.docs[1]["target"]]
    with pytest.raises(BadRowError, match=r"document 1, position 0: the target is .*, document 1, position 0"):
        fx.compare(a.nested(), b.nested())
    b.docs[1]["target"] = b.docs[1]["target"][:2]
    with pytest.raises(BadRowError, match=r"document 1, position 0: 'target' has 2 positions and 'logits' has 3"):
        fx.compare(a.nested(), b.nested())
    for pair in ((a, b), (b, a)):
        rows = fx.compare(*(dump.nested() for dump in pair), on_bad_row="skip").rows
        assert (rows.total, rows.bad) == (5, 3)


@SHIFTS
def test_convert_writes_plain_rows(shift: int, tmp_path: Path) -> None:
    dump = Dump(LENGTHS, 3)
    fx.convert(dump.nested(), tmp_path / "x.parquet", layout="list", shift=shift)
    found = pq.read_table(tmp_path / "x.parquet")
    want = dump.flat(shift)
    assert set(found.column_names) == set(want.column_names)
    assert found.select(want.column_names).to_pylist() == want.to_pylist()
    same(fx.evaluate(tmp_path / "x.parquet", cluster="document"), fx.evaluate(want, cluster="document"))
    fx.convert(dump.nested(), tmp_path / "y.parquet", dtype="bfloat16", keep=["position", "target"], shift=shift)
    assert fx.evaluate(tmp_path / "y.parquet", by="position").rows.total == len(want)


@SHIFTS
@pytest.mark.parametrize("output", ["log_softmax", "grad"])
def test_transform(output: str, shift: int, tmp_path: Path) -> None:
    dump, keep = Dump(LENGTHS, 4), ["document", "position", "position_bucket", "kind", "part"]
    options: dict[str, Any] = {"output": output, "weight": "weight"}
    got = fx.transform(dump.nested(), tmp_path / "a.parquet", shift=shift, keep=keep, **options)
    want = fx.transform(dump.flat(shift), tmp_path / "b.parquet", keep=keep, **options)
    same(got, want)
    assert pq.read_table(tmp_path / "a.parquet").equals(pq.read_table(tmp_path / "b.parquet"))


def test_per_row_resume_shards_and_plan(tmp_path: Path) -> None:
    dump, options = Dump([*LENGTHS, *LENGTHS], 5), {"shift": 1, "cluster": "document"}
    want = fx.evaluate(dump.flat(1), cluster="document")
    path = written(tmp_path, dump.nested())["parquet"]
    same(fx.evaluate(path, per_row=tmp_path / "rows.parquet", id="position", **options), want)
    rows = pq.read_table(tmp_path / "rows.parquet")
    assert rows["position"].to_pylist() == dump.flat(1)["position"].to_pylist()
    for _ in range(2):
        same(fx.evaluate(path, resume=tmp_path / "run", **options), want)
    states = [fx.evaluate(path, shard=f"{k}/3", **options).state for k in (1, 2, 3)]
    same(fx.merge_states(states).result(), want)
    same(fx.merge_states([unit.run() for unit in fx.plan(path, unit_size="1MB", **options)]).result(), want)
    state = fx.EvalState.empty(want.state.config)
    same(state.update(dump.flat(1)).result(), want)


@SHIFTS
def test_lists_of_the_likeliest_classes(shift: int, tmp_path: Path) -> None:
    dump, ids, logprobs = Dump(LENGTHS, 6), [], []
    for doc in dump.docs:
        logits = np.array(doc["logits"], np.float64).reshape(-1, C)
        order = np.argsort(-logits, axis=1)[:, :3]
        ids.append(order.tolist())
        scaled = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        logprobs.append(np.take_along_axis(scaled, order, axis=1).tolist())
    lists = pa.table({
        "topk_ids": pa.array(ids, pa.list_(pa.list_(pa.int32()))),
        "topk_logprobs": pa.array(logprobs, pa.list_(pa.list_(pa.float64()))),
        "target": dump.nested()["target"],
    })  # fmt: skip
    positions = [(d, t) for d, doc in enumerate(dump.docs) for t in range(len(doc["logits"]) - shift)]
    flat = pa.table({
        "topk_ids": [ids[d][t] for d, t in positions], "topk_logprobs": [logprobs[d][t] for d, t in positions],
        "target": pa.array([dump.docs[d]["target"][t + shift] for d, t in positions], pa.int16()),
        "document": [d for d, _ in positions],
    })  # fmt: skip
    options: dict[str, Any] = {"logits": "topk_logprobs", "ids": "topk_ids", "n_classes": C, "cluster": "document"}
    want = fx.evaluate(flat, **options)
    for path in written(tmp_path, lists).values():
        same(fx.evaluate(path, shift=shift, **options), want)
    short = lists.set_column(0, "topk_ids", pa.array([ids[0][:1], *ids[1:]], pa.list_(pa.list_(pa.int32()))))
    with pytest.raises(
        BadRowError, match="document 0, position 0: 'topk_ids' has 1 positions and 'topk_logprobs' has 3"
    ):
        fx.evaluate(short, shift=shift, **options)
    assert fx.evaluate(short, shift=shift, on_bad_row="skip", **options).rows.bad == 3 - shift


def test_the_worst_rows_have_a_place() -> None:
    dump = Dump(LENGTHS, 8)
    worst = fx.evaluate(dump.nested(), shift=1, worst=3).worst
    rows = dump.flat(1)
    assert [row.id for row in worst] == [
        f"document {rows['document'][row.row]}, position {rows['position'][row.row]}"
        for row in fx.evaluate(rows, worst=3).worst
    ]


def test_a_number_per_position(tmp_path: Path) -> None:
    logprobs = [[None, -1.0, -0.5], [], [-2.0], [None, -0.25]]
    n_bytes, kind = [[1, 2, 3], [], [4], [5, 6]], ["x", "x", "y", "z"]
    table = pa.table({"logprob": logprobs, "n_bytes": n_bytes, "kind": kind})
    flat = pa.table({
        "logprob": [None, -1.0, -0.5, -2.0, None, -0.25], "n_bytes": [1, 2, 3, 4, 5, 6],
        "kind": ["x", "x", "x", "y", "z", "z"], "document": [0, 0, 0, 2, 3, 3],
    })  # fmt: skip
    options: dict[str, Any] = {"by": "kind", "cluster": "document"}
    given = {**options, "target_logprob": "logprob", "n_bytes": "n_bytes"}
    want = fx.evaluate(flat, **given)
    for path in written(tmp_path, table).values():
        same(fx.evaluate(path, **given), want)
    same(fx.evaluate(table, scores="logprob", **options), fx.evaluate(flat, scores="logprob", **options))
    same(fx.compare(table, table, **given), fx.compare(flat, flat, **given))
    broken = table.set_column(1, "n_bytes", pa.array([[1, 2], [], [4], [5, 6]]))
    with pytest.raises(BadRowError, match="document 0, position 0: 'n_bytes' has 2 positions and 'logprob' has 3"):
        fx.evaluate(broken, **given)
    rows = fx.evaluate(broken, on_bad_row="skip", **given).rows
    assert (rows.total, rows.bad, rows.ignored, rows.used) == (6, 3, 1, 2)


@pytest.mark.parametrize("target", ["labels", "target"])
def test_inspect_ends_in_a_line_that_runs(target: str, tmp_path: Path, cli: Any) -> None:
    path = written(tmp_path, Dump(LENGTHS, 7).nested().rename_columns({"target": target}))["parquet"]
    code, out, _ = cli("inspect", path)
    assert code == 0
    assert "documents  5 in 3 row groups; each position is a row" in out
    line = out.strip().splitlines()[-1].strip()
    assert ("--shift 1" in line) == (target == "labels")
    assert "--cluster document" in line
    assert cli(*shlex.split(line)[1:])[0] == 0


def test_targets_of_another_source_are_those_of_documents() -> None:
    table = Dump(LENGTHS, 9).nested().append_column("name", pa.array(list("abcde")))
    labels = table.select(["name", "target"]).take([3, 1, 4, 0, 2])
    want = fx.evaluate(table, shift=1, cluster="document")
    same(fx.evaluate(table.drop_columns("target"), targets=labels, on="name", shift=1, cluster="document"), want)
