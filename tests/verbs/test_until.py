"""`evaluate(until=)`: units in random order until a condition holds, the same for any threads, and said so."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dumps
import fastxent as fx
from fastxent.cli.program import run
from fastxent.engine.rounds import ends
from fastxent.state.sequence import METHOD


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("until")
    pq.write_table(dumps.table(1200), folder / "rows.parquet", row_group_size=12)
    return folder / "rows.parquet"


def test_a_run_stops_and_says_what_it_read(path):
    options = {"until": "accuracy.width<20%", "by": "kind", "top_k": (1,)}
    found = fx.evaluate(path, **options)
    until = found.until
    assert until is not None
    assert (until.held, until.units, until.rows) == (True, 100, 1200)
    assert until.units_read in list(ends(100))[:-1]
    assert until.rows_read == found.rows.total == 12 * until.units_read
    low, high = found.metrics["accuracy"].ci95
    assert high - low < 0.2
    methods = {metric.method for metric in found.metrics.values()}
    methods |= {metric.method for part in found.slices["kind"].values() for metric in part.metrics.values()}
    assert methods <= {METHOD, None}
    assert f"Stopped after {until.rows_read} of 1,200 rows, because accuracy.width<20% held." in repr(found)
    assert found.state is None
    assert fx.EvalResult.from_json(found.to_json()) == found
    for how in ({"threads": 1}, {"threads": 3, "memory": "1MB"}):
        again = fx.evaluate(path, **options, **how)
        assert (again.metrics, again.slices, again.until) == (found.metrics, found.slices, found.until)
    other = fx.evaluate(path, **options, seed=1)
    assert other.metrics["cross_entropy"] != found.metrics["cross_entropy"]


def test_the_rows_are_those_of_the_units_in_the_order_of_the_seed(path):
    found = fx.evaluate(path, until="cross_entropy.stderr<100", seed=5)
    chosen = np.random.RandomState(5).permutation(100)[:10]
    rows = fx.evaluate(pa.concat_tables([dumps.table(1200).slice(12 * k, 12) for k in sorted(chosen)]))
    assert found.metrics["cross_entropy"].value == rows.metrics["cross_entropy"].value
    assert found.until.checks == 1
    assert found.metrics["cross_entropy"].stderr >= rows.metrics["cross_entropy"].stderr


def test_a_condition_that_never_holds_reads_everything(path):
    found, plain = fx.evaluate(path, until="perplexity.width<1e-9"), fx.evaluate(path)
    assert found.rows == plain.rows
    assert all(found.metrics[name].value == m.value for name, m in plain.metrics.items() if m.value == m.value)
    assert not found.until.held
    assert "All 1,200 rows were read" in repr(found)
    one = {"logits": np.eye(4), "target": [0, 1, 2, 2]}  # one unit: no look before the end
    assert fx.evaluate(one, until="accuracy.stderr<1e-9").metrics == fx.evaluate(one).metrics


def test_rows_of_a_unit_that_are_alike_do_not_stop_it_early(path, tmp_path):
    pq.write_table(dumps.table(1200).sort_by("target"), tmp_path / "sorted.parquet", row_group_size=12)
    rows = pq.read_table(path)
    hard = np.repeat(np.arange(100) % 2, 12)  # every second unit is wrong throughout
    logits = np.array(rows["logits"].to_pylist(), np.float32)
    target = np.where(hard, (logits.argmax(axis=1) + 1) % dumps.CLASSES, logits.argmax(axis=1))
    table = rows.set_column(1, "target", pa.array(target))
    pq.write_table(table, tmp_path / "alike.parquet", row_group_size=12)
    until = fx.evaluate(tmp_path / "alike.parquet", until="accuracy.stderr<5%").until
    assert until.inflation > 2.5  # √12 where rows of a unit are equal
    assert until.units_read > 50
    of_rows = fx.evaluate(tmp_path / "alike.parquet", until="accuracy.stderr<5%", cluster="doc").until
    assert of_rows.inflation == 1.0


def test_rows_that_a_filter_excludes_were_read(path):
    found = fx.evaluate(path, until="accuracy.width<30%", where="kind == 'a'")
    assert found.until is not None
    assert found.until.units_read < found.until.units
    assert found.until.rows_read == 12 * found.until.units_read > found.rows.total
    assert f"Stopped after {found.until.rows_read} of {found.until.rows:,} rows" in found.until.sentence


def test_other_tasks(tmp_path):
    rng = np.random.default_rng(2)
    p = rng.random(600).astype(np.float32)
    rows = pa.table({"p": p, "target": (rng.random(600) < p).astype(np.int8), "acc": rng.random(600)})
    pq.write_table(rows, tmp_path / "binary.parquet", row_group_size=10)
    options = {"logits": "p", "input": "probs", "scores": "acc"}
    for until in ("f1.width<30%", "acc.stderr<2%", "recall.ci95.low>0.1"):
        found = fx.evaluate(tmp_path / "binary.parquet", until=until, **options)
        assert found.until.held, until
        assert found.metrics[until.partition(".")[0]].method == METHOD
    with pytest.raises(fx.ConfigError, match=r"until must name a mean, got 'roc_auc\.stderr<1'"):
        fx.evaluate(tmp_path / "binary.parquet", until="roc_auc.stderr<1", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"until": "accuracy.stderr<1", "resume": "x"}, "until cannot be combined with resume, because"),
        ({"until": "accuracy.stderr<1", "shard": "1/2"}, "until cannot be combined with shard, because each shard"),
        ({"until": "accuracy.stderr<1", "per_row": "x.parquet"}, "until cannot be combined with per_row, because"),
        ({"until": "accuracy.stderr<1", "engine": "ray"}, "until cannot be combined with engine='ray', because"),
        ({"until": "acuracy.stderr<1"}, r"cannot check until 'acuracy.stderr<1': .* did you mean 'accuracy'\?"),
        ({"until": "accuracy<0.9"}, "until must compare a standard error or an interval, got 'accuracy<0.9'"),
        ({"until": "accuracy.stderr>0.9"}, "until must compare stderr with <, got 'accuracy.stderr>0.9'"),
        ({"until": "accuracy.width<0"}, "until must have a bound above 0, got 'accuracy.width<0'"),
        ({"until": "kind=a:accuracy.width<1"}, "until must not name a slice, got 'kind=a:accuracy.width<1'"),
        ({"until": "accuracy"}, "until: invalid condition 'accuracy'"),
        ({"until": 3}, "until must be a condition such as 'cross_entropy.stderr<0.001', got 3"),
        ({"seed": -1}, "seed must be an integer from 0 to 4294967295, got -1"),
    ],
)
def test_refusals(path, options, message):
    with pytest.raises(fx.ConfigError, match=message):
        fx.evaluate(path, **options)


def test_streams_are_refused_and_bad_rows_are_errors(path, tmp_path):
    table = dumps.table(50)
    with pytest.raises(fx.ConfigError, match="until cannot be combined with <reader>, because its rows come in one"):
        fx.evaluate(table.to_reader(5), until="accuracy.stderr<1")
    logits = np.array(table["logits"].to_pylist(), np.float32)
    logits[33, 2] = np.nan
    bad = table.set_column(0, "logits", dumps.lists(logits))
    pq.write_table(bad, tmp_path / "bad.parquet", row_group_size=2)
    with pytest.raises(fx.BadRowError, match="row group 16, row 33"):
        fx.evaluate(tmp_path / "bad.parquet", until="accuracy.stderr<1e-9")


def test_the_command_line(path, tmp_path, capsys):
    words = ["eval", str(path), "--until", "cross_entropy.stderr<0.5", "--seed", "3", "--format", "json", "--quiet"]
    assert run([*words, "--fail-if", "accuracy.width>0.9"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["until"]["rows_read"] == shown["rows"]["total"] < 1200
    assert shown["metrics"]["accuracy"]["method"] == METHOD
    assert run([*words, "--report", str(tmp_path / "r.html")]) == 0
    assert "Stopped after" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert run([*words, "--state", str(tmp_path / "s.state")]) == 2
    assert "--until cannot be combined with --state" in capsys.readouterr().err
