"""Top-k lists as fields of lists of structs, and side by side in numbered columns: the figures of plain lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.cli.program import run
from tests.verbs.evaluated import figures

N, C, K = 60, 40, 5
RNG = np.random.default_rng(3)
IDS = np.argsort(RNG.random((N, C)))[:, :K]
LOGPROBS = np.log(-np.sort(-RNG.dirichlet(np.ones(C), N))[:, :K])
TARGET = pa.array(RNG.integers(0, C, N))
SIZES = RNG.integers(1, K + 1, N)
PLAIN = {"ids": [IDS[i, :k] for i, k in enumerate(SIZES)], "lp": [LOGPROBS[i, :k] for i, k in enumerate(SIZES)]}
OF_FIELDS = {"logits": "top.logprob", "ids": "top.id", "n_classes": C}
OF_COLUMNS = {"logits": "logprob_*", "ids": "token_id_*", "n_classes": C}
STRUCT = pa.struct([("id", pa.int32()), ("logprob", pa.float64()), ("token", pa.string())])


def plain() -> fx.EvalResult:
    return fx.evaluate(pa.table({**PLAIN, "target": TARGET}), logits="lp", ids="ids", n_classes=C)


def structs(kind: pa.DataType | None = None) -> pa.Table:
    rows = [
        [{"id": int(IDS[i, j]), "logprob": float(LOGPROBS[i, j]), "token": "x"} for j in range(k)]
        for i, k in enumerate(SIZES)
    ]
    return pa.table({"top": pa.array(rows, kind or pa.list_(STRUCT)), "target": TARGET})


def columns() -> pa.Table:
    held = np.arange(K) < SIZES[:, None]
    found: dict[str, pa.Array] = {}
    for j in range(K):
        found[f"token_id_{j + 1}"] = pa.array(IDS[:, j], mask=~held[:, j])
        found[f"logprob_{j + 1}"] = pa.array(LOGPROBS[:, j], mask=~held[:, j])
    return pa.table({**found, "target": TARGET})


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_fields_of_lists_of_structs(tmp_path: Path, kind):
    table = structs(kind(STRUCT))
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=17)
    with ipc.new_file(tmp_path / "x.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=7)
    want = figures(plain())
    for source in (table, tmp_path / "x.parquet", tmp_path / "x.arrow", pa.concat_tables([table[:9], table[9:]])):
        assert figures(fx.evaluate(source, **OF_FIELDS)) == want


def test_numbered_columns(tmp_path: Path):
    table = columns()
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=17)
    csv.write_csv(table, tmp_path / "x.csv")
    want = figures(plain())
    for source in (table, tmp_path / "x.parquet", tmp_path / "x.csv"):
        assert figures(fx.evaluate(source, **OF_COLUMNS)) == want
    whole = {name: np.full(N, 0.0) for name in ("logprob_1", "logprob_2")} | {"target": np.zeros(N, int)}
    result = fx.evaluate(whole, logits="logprob_*")  # without ids, one column per class
    assert result.metrics["cross_entropy"].value == pytest.approx(np.log(2))


def test_the_other_verbs(tmp_path: Path):
    pq.write_table(structs(), tmp_path / "x.parquet", row_group_size=17)
    fx.evaluate(tmp_path / "x.parquet", **OF_FIELDS, per_row=tmp_path / "rows.parquet")
    assert len(pq.read_table(tmp_path / "rows.parquet")) == N
    same = fx.compare(tmp_path / "x.parquet", structs(), **OF_FIELDS)
    assert same.same_top_1.value == 1.0


def test_nulls_are_bad_rows():
    rows = structs()["top"].to_pylist()
    rows[3], rows[4], rows[5] = None, [None], [{"id": None, "logprob": -0.1, "token": "x"}]
    table = pa.table({"top": pa.array(rows, pa.list_(STRUCT)), "target": TARGET})
    with pytest.raises(fx.BadRowError, match="row 3: its list is null"):
        fx.evaluate(table, **OF_FIELDS)
    assert fx.evaluate(table, **OF_FIELDS, on_bad_row="skip").rows.bad == 3
    table = columns()
    at = table.schema.get_field_index("logprob_1")
    table = table.set_column(at, "logprob_1", pa.array([None, *table["logprob_1"].to_pylist()[1:]], pa.float64()))
    with pytest.raises(fx.BadRowError, match=f"row 0: it lists {SIZES[0]} ids and {SIZES[0] - 1} log-probabilities"):
        fx.evaluate(table, **OF_COLUMNS)


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (structs(), {**OF_FIELDS, "ids": "top.ids"}, "no column 'top.ids'"),
        (columns(), {**OF_COLUMNS, "ids": "id_*"}, "no column 'id_\\*'"),
        (columns().drop_columns("token_id_2"), OF_COLUMNS, "must be numbered"),
        (
            columns().append_column("token_id_6", pa.array(["x"] * N)),
            OF_COLUMNS,
            "must have one type, got int64 for 'token_id_1' and string for 'token_id_6'",
        ),
    ],
)
def test_columns_that_are_no_lists(table, options, message):
    with pytest.raises(fx.ColumnError, match=message):
        fx.evaluate(table, **options)


def test_inspect_ends_in_a_line_that_runs(tmp_path: Path, capsys):
    for table, names in ((structs(), "top.logprob --ids top.id"), (columns(), "'logprob_*' --ids 'token_id_*'")):
        path = tmp_path / "x.parquet"
        pq.write_table(table, path)
        assert run(["inspect", str(path)]) == 0
        line = capsys.readouterr().out.splitlines()[-1].strip()
        assert line.endswith(f"--logits {names}")
        assert run([*line.replace("'", "").split()[1:], "-q"]) == 0
        assert "coverage" in capsys.readouterr().out


def test_inspect_of_columns_named_after_classes(tmp_path: Path, capsys):
    path = tmp_path / "x.csv"
    path.write_text("id,label,prob_cat,prob_dog\n1,cat,0.75,0.25\n2,dog,0.5,0.5\n")
    assert run(["inspect", str(path)]) == 0
    line = capsys.readouterr().out.splitlines()[-1].strip()
    assert line.endswith("--logits 'prob_*' --input probs --target label --classes cat,dog")
    assert run([*line.replace("'", "").split()[1:], "-q", "--format", "json"]) == 0
