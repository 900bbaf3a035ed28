"""What is written for each row of a binary dump: probabilities, gradients and per-row files."""

import math

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import special

import fastxent as fx
from tests.verbs.clicks import KIND, ODDS, PROBS, TARGET, WEIGHT, N, table
from tests.verbs.evaluated import figures

P = special.expit(ODDS.astype(np.float64))


def written(source, dest, **options):
    result = fx.transform(source, dest, **options)
    return pq.read_table(dest), result


@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16", "float64"])
def test_probabilities(tmp_path, dtype):
    rows, result = written(table(), tmp_path / "p.parquet", output="softmax", dtype=dtype, keep="kind")
    assert rows.column_names == ["kind", "softmax"]
    assert rows["kind"].to_pylist() == KIND.tolist()
    found = np.asarray(rows["softmax"])
    if dtype == "bfloat16":
        assert rows.schema.field("softmax").metadata == {b"dtype": b"bfloat16"}
        found = found.view(ml_dtypes.bfloat16)
    eps = {None: 2e-7, "float16": 2**-11, "bfloat16": 2**-8, "float64": 1e-15}[dtype]
    np.testing.assert_allclose(found.astype(np.float64), P, rtol=1.01 * eps, atol=1e-7 if dtype == "float16" else 0)
    assert figures(result) == figures(fx.evaluate(table()))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", [{}, {"weight": "w", "label_smoothing": 0.2, "temperature": 2.0}])
def test_gradient_of_log_odds(tmp_path, reduction, options):
    rows, _ = written(table(), tmp_path / "g.parquet", output="grad", reduction=reduction, dtype="float64", **options)
    w = WEIGHT if options else np.ones(N)
    t, y = (2.0, TARGET * 0.8 + 0.1) if options else (1.0, TARGET)
    expected = w * (special.expit(ODDS.astype(np.float64) / t) - y) / t
    expected = expected / w.sum() if reduction == "mean" else expected
    np.testing.assert_allclose(np.asarray(rows["grad"]), expected, rtol=1e-12, atol=1e-16)


def test_gradient_of_probabilities(tmp_path):
    p = np.array([0.25, 0.5, 0.05, 1.0])
    dump = {"logits": p, "target": np.array([1, 0, 1, 1])}
    rows, _ = written(dump, tmp_path / "g.parquet", output="grad", input="probs", reduction="sum")
    _, expected = fx.binary_cross_entropy_with_grad(p, dump["target"], reduction="sum")
    np.testing.assert_allclose(np.asarray(rows["grad"]), expected)
    rows, _ = written(dump, tmp_path / "c.parquet", output="grad", input="probs", reduction="sum", clip_eps=0.1)
    np.testing.assert_allclose(np.asarray(rows["grad"]), [-4.0, 2.0, 0.0, 0.0])


def test_rows_that_are_not_used(tmp_path):
    odds = np.array([0.0, math.nan, 1.0, 2.0, math.nan])
    dump = pa.table({"logits": odds, "target": pa.array([1, 0, None, 7, None])})
    options = {"on_bad_row": "skip", "reduction": "sum"}
    rows, result = written(dump, tmp_path / "g.parquet", output="grad", **options)
    np.testing.assert_array_equal(np.asarray(rows["grad"]), [-0.5, np.nan, 0.0, np.nan, 0.0])
    assert (result.rows.used, result.rows.ignored, result.rows.bad) == (1, 2, 2)
    rows, _ = written(dump, tmp_path / "p.parquet", output="softmax", on_bad_row="skip")
    np.testing.assert_allclose(np.asarray(rows["softmax"]), special.expit(odds))


def test_probabilities_without_labels(tmp_path):
    rows, result = written({"logits": ODDS}, tmp_path / "p.parquet", output="softmax")
    np.testing.assert_allclose(np.asarray(rows["softmax"]), P, rtol=2e-7)
    assert set(result.metrics) == {"entropy", "mean_prediction"}
    with pytest.raises(fx.ColumnError, match="no column 'target'"):
        fx.transform({"logits": ODDS}, tmp_path / "g.parquet", output="grad")


def test_outputs_that_do_not_fit(tmp_path):
    with pytest.raises(fx.ConfigError, match="output must be 'softmax' or 'grad' for a binary dump"):
        fx.transform(table(), tmp_path / "x.parquet")
    with pytest.raises(fx.ColumnError, match="cannot convert column 'logits' of <table>: it holds one number per row"):
        fx.convert(table(), tmp_path / "x.parquet", dtype="float16")
    assert not list(tmp_path.iterdir())


def test_per_row_file(tmp_path):
    target = pa.array(TARGET, mask=np.arange(N) % 10 == 3)
    fx.evaluate(table(target=target), per_row=tmp_path / "rows.parquet", id="user")
    rows = pq.read_table(tmp_path / "rows.parquet")
    assert rows.column_names == ["user", "nll", "predicted", "probability", "entropy", "status"]
    used = np.arange(N) % 10 != 3
    assert rows["status"].to_pylist() == ["used" if u else "ignored" for u in used]
    nll = np.logaddexp(0, -ODDS.astype(np.float64) * (2 * TARGET - 1.0))
    np.testing.assert_allclose(np.asarray(rows["nll"].drop_null()), nll[used], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(rows["probability"].drop_null()), P[used], rtol=1e-6)
    assert np.array_equal(np.asarray(rows["predicted"].drop_null()), (PROBS >= 0.5)[used])
