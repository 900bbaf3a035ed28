"""What is written for each row of a multilabel dump: probabilities, gradients and per-row files."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import special

import fastxent as fx
from tests.verbs.evaluated import figures
from tests.verbs.tags import KIND, ODDS, TARGET, USER, WEIGHT, C, N, P, ids, table


def written(source, dest, **options):
    result = fx.transform(source, dest, task="multilabel", **options)
    return pq.read_table(dest), result


def numbers(column):
    return np.array(column.to_pylist(), np.float64)


def test_probabilities(tmp_path):
    rows, result = written(table(), tmp_path / "p.parquet", output="softmax", keep="kind", dtype="float64")
    assert rows["kind"].to_pylist() == KIND.tolist()
    np.testing.assert_allclose(numbers(rows["softmax"]), P, rtol=1e-14)
    assert figures(result) == figures(fx.evaluate(table(), task="multilabel"))
    rows, result = written({"logits": ODDS}, tmp_path / "u.parquet", output="softmax")
    np.testing.assert_allclose(numbers(rows["softmax"]), P, rtol=2e-7)
    assert set(result.metrics) == {"entropy"}
    with pytest.raises(fx.ConfigError, match="output must be 'softmax' or 'grad' for a multilabel dump"):
        written(table(), tmp_path / "x.parquet")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", [{}, {"weight": "w", "label_smoothing": 0.2, "temperature": 2.0}])
def test_gradient_of_log_odds(tmp_path, reduction, options):
    """Ignored labels have a gradient of 0 and are not counted in the mean."""
    hidden = np.random.default_rng(4).random((N, C)) < 0.1
    labels = [[None if h else int(t) for t, h in zip(*row, strict=True)] for row in zip(TARGET, hidden, strict=True)]
    given = {"output": "grad", "reduction": reduction, "dtype": "float64", **options}
    rows, _ = written(table(target=pa.array(labels)), tmp_path / "g.parquet", **given)
    w = np.where(hidden, 0.0, (WEIGHT if options else np.ones(N))[:, None])
    t, y = (2.0, TARGET * 0.8 + 0.1) if options else (1.0, TARGET)
    expected = w * (special.expit(ODDS.astype(np.float64) / t) - y) / t
    expected = expected / w.sum() if reduction == "mean" else expected
    np.testing.assert_allclose(numbers(rows["grad"]), expected, rtol=1e-12, atol=1e-16)


def test_gradient_of_probabilities_with_lists_of_ids(tmp_path):
    dump = {"logits": list(P), "target": ids()}
    rows, _ = written(
        pa.table(dump), tmp_path / "g.parquet", output="grad", input="probs", reduction="sum", target_ids=True
    )
    _, expected = fx.binary_cross_entropy_with_grad(P, TARGET.astype(np.float64), reduction="sum")
    np.testing.assert_allclose(numbers(rows["grad"]), expected)


def test_rows_that_are_not_used(tmp_path):
    odds = [[0.0, 1.0], [math.nan, 1.0], [1.0, 1.0], [2.0, 2.0]]
    dump = pa.table({"logits": odds, "target": pa.array([[1, 0], [0, 0], None, [7, 0]])})
    options = {"on_bad_row": "skip", "reduction": "sum"}
    rows, result = written(dump, tmp_path / "g.parquet", output="grad", **options)
    nan = [math.nan, math.nan]
    np.testing.assert_allclose(numbers(rows["grad"]), [[-0.5, special.expit(1.0)], nan, [0, 0], nan])
    assert (result.rows.used, result.rows.ignored, result.rows.bad) == (1, 1, 2)
    rows, _ = written(dump, tmp_path / "p.parquet", output="softmax", on_bad_row="skip")
    np.testing.assert_allclose(numbers(rows["softmax"])[[0, 2, 3]], special.expit(np.array(odds)[[0, 2, 3]]))


def test_per_row_file(tmp_path):
    labels = [None if i % 10 == 3 else row.tolist() for i, row in enumerate(TARGET)]
    fx.evaluate(table(target=pa.array(labels)), per_row=tmp_path / "rows.parquet", id="user", task="multilabel")
    rows = pq.read_table(tmp_path / "rows.parquet")
    assert rows.column_names == ["user", "nll", "wrong", "entropy", "status"]
    assert rows["user"].to_pylist() == USER.tolist()
    used = np.arange(N) % 10 != 3
    assert rows["status"].to_pylist() == ["used" if u else "ignored" for u in used]
    nll = np.logaddexp(0, ODDS.astype(np.float64) * (1 - 2 * TARGET)).mean(axis=1)
    np.testing.assert_allclose(np.asarray(rows["nll"].drop_null()), nll[used], rtol=1e-6)
    entropy = (special.entr(P) + special.entr(1 - P)).mean(axis=1)
    np.testing.assert_allclose(np.asarray(rows["entropy"].drop_null()), entropy[used], rtol=1e-6)
    wrong = ((P >= 0.5) != TARGET).sum(axis=1)
    assert np.array_equal(np.asarray(rows["wrong"].drop_null()), wrong[used])
