"""The rows of largest loss: which they are, their place and id, and that no split changes them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dumps
import fastxent as fx
from fastxent.cli.program import run


@pytest.fixture
def dump(tmp_path):
    """Files of odd row groups with equal rows among them; their losses by file and row."""
    rows = dumps.table(120)
    rows = pa.concat_tables([rows, rows.slice(40, 30)]).append_column("name", pa.array([f"r{i}" for i in range(150)]))
    return dumps.files(tmp_path, rows)


def sorted_rows(paths):
    """(loss, file, row group, row, name) of all rows by loss, from the largest."""
    found = []
    for path in paths:
        file, begin = pq.ParquetFile(path), 0
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group)
            logits = np.array(rows["logits"].to_pylist()).reshape(-1, dumps.CLASSES)
            nll = fx.cross_entropy(logits, rows["target"].to_numpy(), reduction="none")
            for i, loss in enumerate(nll.tolist()):
                found.append((-loss, str(path), begin + i, group, rows["name"][i].as_py()))
            begin += len(rows)
    return [(-loss, file, group, row, name) for loss, file, row, group, name in sorted(found)]


def check(result, expected):
    """The same rows in the same order; the kernels compute in float32, the expected losses are float64."""
    places = [(row.file, row.row_group, row.row, row.id) for row in result.worst]
    assert places == [tuple(place) for _, *place in expected]
    assert [row.loss for row in result.worst] == pytest.approx([loss for loss, *_ in expected], rel=1e-6)


def test_they_are_the_rows_of_largest_loss(dump):
    expected = sorted_rows(dump)
    result = fx.evaluate(dump, worst=12, id="name")
    check(result, expected[:12])
    assert len({row.loss for row in result.worst}) < 12  # equal rows are listed by place
    state = result.state
    assert fx.EvalState.from_bytes(state.to_bytes()).result().worst == result.worst
    assert fx.EvalResult.from_json(result.to_json()).worst == result.worst
    assert [row.target for row in result.worst] != [row.predicted for row in result.worst]
    check(fx.evaluate(dump, worst=10_000, id="name"), expected)


def test_no_split_changes_them(dump, tmp_path):
    whole = fx.evaluate(dump, worst=9, id="name").worst
    assert fx.evaluate(dump[::-1], worst=9, id="name", threads=1, memory="1MB").worst == whole
    units = fx.plan(dump, unit_size=10**6, worst=9, id="name")
    assert fx.merge_states(unit.run() for unit in units[::-1]).result().worst == whole
    shards = [fx.evaluate(dump, worst=9, id="name", shard=f"{k}/3").state for k in (3, 1, 2)]
    assert fx.merge_states(shards).result().worst == whole
    for _ in range(2):
        assert fx.evaluate(dump, worst=9, id="name", resume=tmp_path / "progress").worst == whole
    with pytest.raises(fx.StateError, match="worst=9 there, 8 here"):
        fx.evaluate(dump, worst=8, id="name", resume=tmp_path / "progress")
    with pytest.raises(fx.StateError, match="worst=9 here, 0 there"):
        shards[0].merge(fx.EvalState.empty(shards[0].config))


def test_filtered_and_unused_rows_keep_their_place(dump):
    expected = [row for row in sorted_rows(dump) if row[4].endswith("3")]
    names = [row[4] for row in expected]
    result = fx.evaluate(dump, worst=4, id="name", where=f"name in {names}")
    check(result, expected[:4])


def test_other_dumps():
    scores = np.array([3.0, -2.0, 1.0], np.float32)
    (row,) = fx.evaluate({"logits": scores, "target": [0, 0, 1]}, worst=1).worst
    assert (row.row, row.id, row.row_group, row.target, row.predicted) == (0, None, None, 0, 1)
    assert row.loss == pytest.approx(3.0485873, rel=1e-6)
    (row,) = fx.evaluate({"logprob": [-1.0, -4.0, 0.0]}, target_logprob="logprob", worst=1).worst
    assert (row.row, row.loss, row.target, row.predicted) == (1, 4.0, None, None)
    both = {"logits": [[1.0, -1.0], [5.0, 5.0]], "target": [[1, 0], [0, 0]]}
    assert fx.evaluate(both, task="multilabel", worst=1).worst[0].row == 1
    sure = fx.evaluate({"logits": np.eye(2) * 1e4, "target": [0, 1]}, worst=5).worst
    assert [(row.row, row.loss) for row in sure] == [(0, 0.0), (1, 0.0)]
    endless = fx.evaluate({"logits": [[0.0, -np.inf]] * 5, "target": [1] * 5}, worst=2)
    assert [(row.row, row.loss) for row in endless.worst] == [(0, np.inf), (1, np.inf)]
    assert fx.EvalResult.from_json(endless.to_json()) == endless


def test_rows_of_lists_by_the_least_that_their_loss_can_be():
    options = {"logits": "lp", "ids": "ids", "n_classes": 9, "worst": 3, "id": "token"}
    half = float(np.log(0.5))
    rows = {"ids": [[0, 1]] * 4, "lp": [[half, -2.0]] * 4, "target": [0, 1, 5, None], "token": ["a", "b", "c", "d"]}
    result = fx.evaluate(pa.table(rows), **options)
    assert [(row.id, row.target, row.predicted) for row in result.worst] == [("b", 1, 0), ("c", 5, 0), ("a", 0, 0)]
    rest = 0.5 - np.exp(-2.0)  # of all other classes, none of which exceeds exp(-2)
    assert [row.loss for row in result.worst] == pytest.approx([2.0, -np.log(min(rest, np.exp(-2.0))), -half])
    own = {**rows, "own": [half, -2.0, -4.5, None]}
    result = fx.evaluate(pa.table(own), **options, target_logprob="own")
    assert [(row.id, row.loss) for row in result.worst] == [("c", 4.5), ("b", 2.0), ("a", -half)]
    assert fx.EvalState.from_bytes(result.state.to_bytes()).result().worst == result.worst
    texts = {**rows, "ids": [["x", "y"]] * 4, "target": ["x", "y", "z", None]}
    result = fx.evaluate(pa.table(texts), **options)
    assert {(row.target, row.predicted) for row in result.worst} == {(None, None)}
    assert "c" in repr(result)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ({"logits": np.eye(2)}, {"metrics": "entropy"}, "worst must be 0 for a dump without targets"),
        ({"topk_ids": [[0]], "lp": [[-0.5]]}, {"logits": "lp", "ids": "topk_ids", "metrics": "entropy"},
         "worst must be 0 for a dump without targets"),
        ({"s": [1.0]}, {"scores": "s"}, "worst must be 0 for a dump without targets"),
    ],
)  # fmt: skip
def test_dumps_without_losses(rows, options, message):
    with pytest.raises(fx.ConfigError, match=message):
        fx.evaluate(rows, worst=3, **options)


def test_the_command_line(dump, tmp_path, capsys):
    names = list(map(str, dump))
    assert run(["eval", *names, "--worst", "25", "--id", "name", "--report", str(tmp_path / "r.html")]) == 0
    shown = capsys.readouterr().out
    rows = sorted_rows(dump)
    assert rows[0][4] in shown
    assert rows[19][4] in shown
    assert "… and 5 more rows" in shown
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Rows of largest loss" in page
    assert "Most confused classes" in page
    assert run(["eval", *names, "--worst", "-1"]) == 2
    assert "worst must be an integer from 0 to 10000" in capsys.readouterr().err
