"""Transformed dumps: bit for bit what the array functions give, in order, whole or not there."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
import reference as ref
from dumps import lists
from fastxent.io import batch
from fastxent.scoring.scorer import Scorer

N = 157
OUTPUTS = ("log_softmax", "softmax", "grad")


def source(classes: int, dtype: str = "float32", seed: int = 0) -> dict:
    rng = np.random.default_rng([seed, classes])
    x = (rng.normal(size=(N, classes)) * 4).astype(ref.DTYPES[dtype])
    target = rng.integers(0, classes, N)
    weight = rng.choice([0.5, 1.0, -2.0], N)
    return {"logits": x, "target": target, "id": np.arange(N), "w": weight}


def table_of(path) -> pa.Table:
    return pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path).read_all()


def read(path, name: str, dtype: str | None = None) -> np.ndarray:
    table = table_of(path)
    column = table[name].combine_chunks()
    values = np.asarray(column.values).reshape(len(column), -1)
    tag = (table.schema.field(name).metadata or {}).get(b"dtype", b"").decode()
    assert tag == ("bfloat16" if dtype == "bfloat16" else "")
    return values.view(ml_dtypes.bfloat16) if tag else values


def same(a: np.ndarray, b: np.ndarray) -> None:
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(ref.bits_of(a), ref.bits_of(b))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("classes", [1, 10, 48, 49, 300])
@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_rows_are_those_of_the_array_functions(tmp_path, output, classes, dtype):
    dump = source(classes, dtype)
    path = tmp_path / "out.parquet"
    result = fx.transform(dump, path, output=output, keep="id", threads=2)
    got = read(path, output, dtype)
    if output == "grad":
        loss, expected = fx.cross_entropy_with_grad(dump["logits"], dump["target"])
        assert result.metrics["cross_entropy"].value == pytest.approx(loss, rel=1e-6, abs=1e-12)
    else:
        expected = getattr(fx, output)(dump["logits"])
    same(got, expected)
    assert pq.read_table(path)["id"].to_pylist() == list(range(N))
    assert result.metrics == fx.evaluate(dump).metrics


GRADIENTS = [
    {"reduction": "sum"}, {"reduction": "none"}, {"label_smoothing": 0.2}, {"softcap": 3.0, "temperature": 2.0},
    {"class_weight": True, "label_smoothing": 0.1}, {"class_mask": True}, {"weight": True},
    {"weight": True, "class_weight": True, "reduction": "sum"},
]  # fmt: skip


@pytest.mark.parametrize("options", GRADIENTS, ids=str)
@pytest.mark.parametrize("classes", [7, 130])
@pytest.mark.parametrize("soft", [False, True])
def test_gradients_under_every_option(tmp_path, options, classes, soft):
    dump = source(classes)
    if soft:
        dump["target"] = np.random.default_rng(classes).dirichlet(np.ones(classes), N)
    options = dict(options)
    mine, theirs = dict(options), dict(options)
    if "class_weight" in options:
        mine["class_weight"] = theirs["weight"] = np.arange(1, classes + 1) / 4
        del theirs["class_weight"]
    if "weight" in options:
        mine["weight"] = "w"
        if "class_weight" not in options:
            del theirs["weight"]
        theirs["sample_weight"] = dump["w"]
    if "class_mask" in options:
        mine["class_mask"] = theirs["class_mask"] = np.arange(classes) % 3 != 2
        if not soft:
            dump["target"] = dump["target"] // 3 * 3
    path = tmp_path / "grad.arrow"
    fx.transform(dump, path, output="grad", threads=2, **mine)
    same(read(path, "grad"), fx.cross_entropy_with_grad(dump["logits"], dump["target"], **theirs).grad)


@pytest.mark.parametrize("input", ["probs", "log_probs"])
def test_gradients_of_clipped_probabilities_stop_at_the_bounds(tmp_path, input):
    dump = source(6)
    dump["logits"] = getattr(fx, "softmax" if input == "probs" else "log_softmax")(dump["logits"])
    path = tmp_path / "grad.parquet"
    fx.transform(dump, path, output="grad", input=input, clip_eps=1e-2)
    expected = fx.cross_entropy_with_grad(dump["logits"], dump["target"], input=input, clip_eps=1e-2).grad
    np.testing.assert_array_equal(read(path, "grad"), expected)
    assert ((expected == 0).sum(axis=1) < 6).any()


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("given", ref.DTYPES)
@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_dtypes(tmp_path, output, given, dtype):
    dump = source(60, given)
    fx.transform(dump, tmp_path / "out.parquet", output=output, dtype=dtype, reduction="sum")
    got = read(tmp_path / "out.parquet", output, dtype)
    order = ["bfloat16", "float16", "float32", "float64"]
    half = {"bfloat16", "float16"}
    wide = given if given == dtype else max(given, dtype, key=order.index)
    if given != dtype and {given, dtype} <= half:
        wide = "float32"
    x = dump["logits"].astype(ref.DTYPES[wide])
    if output == "grad":
        expected = fx.cross_entropy_with_grad(x, dump["target"], reduction="sum").grad
    else:
        expected = getattr(fx, output)(x)
    if dtype == "bfloat16":
        expected = expected.astype(np.float32)
    same(got, expected.astype(ref.DTYPES[dtype]))
    assert fx.evaluate(dump).metrics == fx.transform(dump, tmp_path / "o.parquet", output=output, dtype=dtype).metrics


def test_ignored_and_bad_rows(tmp_path):
    dump = source(5)
    target = pa.array([None if i % 4 == 1 else 9 if i == 6 else int(t) for i, t in enumerate(dump["target"])])
    x = dump["logits"].copy()
    x[3, 2] = math.nan
    dump |= {"target": target, "logits": x}
    for output in ("softmax", "log_softmax"):
        result = fx.transform(dump, tmp_path / "o.parquet", output=output, on_bad_row="skip")
        same(read(tmp_path / "o.parquet", output), getattr(fx, output)(x))  # whatever the target
        assert (result.rows.bad, result.rows.ignored) == (2, (np.arange(N) % 4 == 1).sum())
    fx.transform(dump, tmp_path / "o.parquet", output="grad", reduction="sum", on_bad_row="skip")
    grad = read(tmp_path / "o.parquet", "grad")
    assert np.isnan(grad[[3, 6]]).all()
    assert (grad[1::4] == 0).all()
    assert not np.isnan(np.delete(grad, [3, 6], axis=0)).any()
    with pytest.raises(fx.ConfigError, match="use reduction='sum'"):
        fx.transform(dump, tmp_path / "p.parquet", output="grad", on_bad_row="skip")
    for output in OUTPUTS:
        with pytest.raises(fx.BadRowError, match="row 3"):
            fx.transform(dump, tmp_path / "p.parquet", output=output)
    assert [p.name for p in tmp_path.iterdir()] == ["o.parquet"]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_gradients_of_negative_probabilities_are_nan(tmp_path, dtype):
    """Such a row is skipped as bad by the evaluation, although slopes, -1/p of the target, are numbers."""
    p = np.array([[0.5, 0.5, 0.0], [0.5, -0.25, 0.75]]).astype(ref.DTYPES[dtype])
    options = {"output": "grad", "input": "probs", "reduction": "sum", "on_bad_row": "skip", "dtype": "float64"}
    result = fx.transform({"logits": p, "target": [0, 0]}, tmp_path / "o.parquet", **options)
    assert (result.rows.used, result.rows.bad_logits) == (1, 1)
    assert str(pq.read_table(tmp_path / "o.parquet")["grad"].to_pylist()) == "[[-2.0, 0.0, 0.0], [nan, nan, nan]]"
    fx.transform({"logits": p, "target": [0, 0]}, tmp_path / "o.parquet", **{**options, "dtype": None})
    rows = np.array(pq.read_table(tmp_path / "o.parquet")["grad"].to_pylist())
    np.testing.assert_array_equal(rows, [[-2, 0, 0], [math.nan] * 3])


def test_all_rows_ignored_or_none_at_all(tmp_path):
    dump = source(5)
    fx.transform({**dump, "target": np.full(N, -100)}, tmp_path / "a.parquet", output="grad")
    assert (read(tmp_path / "a.parquet", "grad") == 0).all()
    for name in ("b.parquet", "b.arrow"):
        for options in ({"where": "id > 1000"}, {}):
            rows = slice(0, N if options else 0)
            cut = {key: value[rows] for key, value in dump.items()}
            result = fx.transform(cut, tmp_path / name, output="grad", keep=["id", "w"], **options)
            assert result.rows.total == 0
            table = table_of(tmp_path / name)
            assert table.schema.names == ["id", "w", "grad"]
            assert table.schema.field("grad").type.list_size == 5
            assert len(table) == 0
    assert fx.evaluate(tmp_path / "b.parquet", logits="grad", target="id").rows.total == 0


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow"])
@pytest.mark.parametrize("size", [8 << 20, 200])
def test_order_and_columns_over_many_units(tmp_path, name, size, monkeypatch):
    monkeypatch.setattr(batch, "_BATCH_BYTES", size)
    dump = source(11)
    flat = lists(dump["logits"], sized=True)
    for k, a in enumerate(range(0, N, 30)):  # each with dictionaries, and an id type, of its own
        ids = pa.array(np.arange(a, min(a + 30, N)), pa.int32() if k % 2 else pa.int64())
        word = pa.array([f"w{i % (k + 2)}" for i in range(len(ids))]).dictionary_encode()
        part = pa.table({"logits": flat[a : a + 30], "target": dump["target"][a : a + 30], "id": ids, "word": word})
        folder = tmp_path / "in" / f"part={k}"
        folder.mkdir(parents=True)
        pq.write_table(part, folder / "a.parquet", row_group_size=4)
    calls: list[int] = []
    fx.transform(
        tmp_path / "in", tmp_path / name, output="softmax", keep=["id", "word", "part", "id"], where="id != 50",
        threads=2, progress=lambda rows, *_: calls.append(rows),
    )  # fmt: skip
    assert calls[-1] == N
    assert calls == sorted(calls)
    out = table_of(tmp_path / name)
    assert out.column_names == ["id", "word", "part", "softmax"]
    left = [i for i in range(N) if i != 50]
    assert out["id"].to_pylist() == left
    assert out["part"].to_pylist() == [i // 30 for i in left]
    assert out["word"].to_pylist() == [f"w{i % 30 % (i // 30 + 2)}" for i in left]
    same(read(tmp_path / name, "softmax"), fx.softmax(dump["logits"][left]))


def test_results_are_dumps_again(tmp_path):
    dump = source(10, "bfloat16")
    first = fx.transform(dump, tmp_path / "a.parquet", keep="target", dtype="float32")
    again = fx.evaluate(tmp_path / "a.parquet", logits="log_softmax", input="log_probs")
    for name in ("cross_entropy", "accuracy", "entropy", "brier_score"):
        assert again.metrics[name].value == pytest.approx(first.metrics[name].value, rel=1e-6)
    fx.transform(dump, tmp_path / "b.parquet", keep="target")
    assert fx.evaluate(tmp_path / "b.parquet", logits="log_softmax", input="log_probs").rows.used == N


def test_what_cannot_be_is_refused_before_any_work(tmp_path):
    dump = source(4)
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"logits": pa.array(dump["logits"].tolist()), "target": dump["target"]}), path)
    before = path.read_bytes()
    for options, dest, error in (
        ({"output": "gradient"}, "o.parquet", "output must be one of .* got 'gradient'"),
        ({"reduction": "avg"}, "o.parquet", "reduction must be one of .* got 'avg'"),
        ({"dtype": "int8"}, "o.parquet", "dtype must be one of .* got 'int8'"),
        ({"input": "probs"}, "o.parquet", "requires input='logits'"),
        ({"keep": "log_softmax"}, "o.parquet", "the name of the new column"),
        ({"keep": "targt"}, "o.parquet", "did you mean 'target'"),
        ({}, "o.txt", "expected a name that ends in .parquet or .arrow"),
        ({}, "in.parquet", "it is an input file"),
        ({}, "no/o.parquet", "does not exist"),
        ({"metrics": "perplexty"}, "o.parquet", "did you mean 'perplexity'"),
    ):
        with pytest.raises(fx.FastxentError, match=error):
            fx.transform(path, tmp_path / dest, **options)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["in.parquet"]
    with pytest.raises(fx.SourceError, match="twice: it is a stream"):
        fx.transform(pq.read_table(path).to_reader(), tmp_path / "o.parquet", output="grad")
    fx.transform(pq.read_table(path).to_reader(), tmp_path / "o.parquet", output="grad", reduction="sum")


def test_soft_targets_of_many_classes_are_not_looked_at_all_at_once(tmp_path, monkeypatch):
    sizes = []
    shares = Scorer.shares

    def counted(self, batch):
        sizes.append(batch.rows)
        return shares(self, batch)

    monkeypatch.setattr(Scorer, "shares", counted)
    x = np.zeros((500, 2000), np.float32)
    fx.transform({"logits": x, "target": x}, tmp_path / "o.parquet", output="grad", memory="1MiB")
    assert sum(sizes) == 500
    assert max(sizes) * 2000 * 8 <= 1 << 20


def test_killed_half_way_it_leaves_nothing_under_its_name(tmp_path):
    script = """
        import sys, time
        import numpy as np, fastxent as fx
        def progress(rows, *rest):
            print(rows, flush=True)
            if rows > 1000:
                time.sleep(600)
        dump = {"logits": np.zeros((50_000, 100), np.float32), "target": np.zeros(50_000, int)}
        fx.transform(dump, sys.argv[1], memory="2MiB", threads=2, progress=progress)
    """
    path = tmp_path / "out.parquet"
    path.write_text("what was there before")
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert any(int(line) > 1000 for line in process.stdout), "it ended by itself"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert path.read_text() == "what was there before"


@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16"])
@pytest.mark.parametrize("mask", [None, [1, 1, 0]])
def test_the_gradient_of_an_undefined_mean_is_nan(tmp_path, dtype, mask):
    dump = {"logits": np.eye(3), "target": [0, 1, -100], "w": [1.0, -1.0, 5.0]}
    path = tmp_path / "x.parquet"
    fx.transform(dump, path, output="grad", weight="w", class_mask=mask, dtype=dtype)
    rows = np.array(pq.read_table(path)["grad"].to_pylist())
    assert ((rows[:2] == 0x7FC0) if dtype == "bfloat16" else np.isnan(rows[:2])).all()
    assert (rows[2] == 0).all(), "an ignored row"
