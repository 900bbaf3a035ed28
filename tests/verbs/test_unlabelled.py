"""Dumps without labels: what needs none is computed, the rest is refused. And results that travel between processes."""

from __future__ import annotations

import concurrent.futures
import math
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import dumps
import fastxent as fx

WITHOUT = ["entropy", "confidence", "z_loss"]
RNG = np.random.default_rng(8)
X = RNG.normal(size=(90, 6)).astype(np.float32)
DUMP = {"logits": X, "kind": np.arange(90) % 3, "w": RNG.uniform(0.1, 2.0, 90), "doc": np.arange(90) // 4}
LABELLED = {**DUMP, "target": RNG.integers(0, 6, 90)}


@pytest.mark.parametrize("options", [{}, {"by": "kind"}, {"by": "kind", "weight": "w", "cluster": "doc"},
                                     {"temperature": 2.0, "softcap": 3.0, "class_mask": [1, 1, 1, 1, 0, 1]},
                                     {"class_weight": [0, 1, 2, 3, 4, 5], "label_smoothing": 0.1}])  # fmt: skip
@pytest.mark.parametrize("dump", [DUMP, {**DUMP, "other": LABELLED["target"]}])
def test_metrics_are_those_of_the_labelled_dump(options, dump):
    expected = fx.evaluate(LABELLED, metrics=WITHOUT, **options)
    for result in (fx.evaluate(dump, metrics=WITHOUT, **options), fx.evaluate(LABELLED, target=None, **options)):
        assert result.metrics == expected.metrics
        assert str({v: part.metrics for v, part in result.slices.get("kind", {}).items()}) == str(
            {v: part.metrics for v, part in expected.slices.get("kind", {}).items()}
        )
        assert result.config.target is None
        assert (result.calibration.count, result.per_class.class_id, result.nll_histogram.counts) == ((), (), ())
        assert all(math.isnan(value) for value in result.nll_quantiles.values())
        assert result.rows.used == 90


def test_what_is_shown_has_no_figure_of_labels(tmp_path):
    result = fx.evaluate(DUMP, metrics=WITHOUT, by="kind")
    for text in (repr(result), result.to_markdown()):
        assert "entropy" in text
        assert not any(word in text for word in ("accuracy", "NLL", "perplexity", "warning"))
    result.to_html(tmp_path / "x.html")
    assert "Calibration" not in (tmp_path / "x.html").read_text()
    assert fx.EvalResult.from_json(result.to_json()) == result


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no column 'target'.*without a target there are only the metrics entropy, confidence, z_loss"),
        ({"metrics": ["entropy", "accuracy"]}, "no column 'target'.*there are only the metrics entropy"),
        (
            {"target": None, "metrics": "brier_score"},
            "metric 'brier_score' requires a target; metrics without a target: entropy",
        ),
        ({"target": "label", "metrics": "entropy"}, "no column 'label'"),
        ({"by": "target", "metrics": "entropy"}, "no column 'target'"),
        ({"id": "target", "metrics": "entropy"}, "no column 'target'"),
    ],
)
def test_what_needs_a_target_is_refused(options, message):
    with pytest.raises((fx.ColumnError, fx.ConfigError), match=message):
        fx.evaluate(DUMP, **options)


def test_one_file_without_the_target_is_not_an_unlabelled_dump(tmp_path):
    for name, dump in (("a", DUMP), ("b", LABELLED)):
        fx.convert(dump, tmp_path / f"{name}.parquet")
    with pytest.raises(fx.ColumnError, match=r"no column 'target' in .*a\.parquet"):
        fx.evaluate(tmp_path, metrics="entropy")


@pytest.mark.parametrize("output", ["softmax", "log_softmax"])
def test_transform_needs_no_target(tmp_path, output):
    result = fx.transform(DUMP, tmp_path / "x.parquet", output=output, keep="doc")
    fx.transform(LABELLED, tmp_path / "y.parquet", output=output, keep="doc")
    assert list(result.metrics) == WITHOUT
    assert pq.read_table(tmp_path / "x.parquet").equals(pq.read_table(tmp_path / "y.parquet"))
    for options in ({}, {"target": None}, {"metrics": "entropy"}):
        with pytest.raises((fx.ColumnError, fx.ConfigError), match="target"):
            fx.transform(DUMP, tmp_path / "z.parquet", output="grad", **options)


def test_rows_states_and_units(tmp_path):
    fx.convert(DUMP, tmp_path / "x.parquet")
    source = tmp_path / "x.parquet"
    result = fx.evaluate(source, metrics=WITHOUT, per_row=tmp_path / "rows.parquet")
    rows = pq.read_table(tmp_path / "rows.parquet")
    assert (rows["nll"].null_count, rows["rank"].null_count, rows["entropy"].null_count) == (90, 90, 0)
    assert rows["predicted"].to_pylist() == X.argmax(axis=1).tolist()
    for folder in ("c", "c"):
        again = fx.evaluate(source, metrics=WITHOUT, resume=tmp_path / folder)
        assert again.state.to_bytes() == result.state.to_bytes()
    assert again.timing["resumed_rows"] == 90
    assert fx.merge_states(unit.run() for unit in fx.plan(source, metrics=WITHOUT)) == result.state
    state = fx.EvalState.empty(result.config).update({"logits": X[:40]}).update({"logits": X[40:]})
    assert state == result.state


@pytest.mark.parametrize(("dtype", "scale", "count"), [("float16", 1e6, 1), ("float16", 1.0, 0), ("bfloat16", 1e6, 0),
                                                       ("float32", 1e6, 0), (None, 1e6, 0)])  # fmt: skip
def test_transformed_numbers_that_overflow_are_told(tmp_path, dtype, scale, count):
    logits = np.float32([[scale, 0.0], [1.0, -np.inf]])
    result = fx.transform({"logits": logits, "target": [0, 0]}, tmp_path / "x.parquet", dtype=dtype)
    told = [w for w in result.warnings if "too large" in w]
    message = f"1 numbers of log_softmax are too large for {dtype} and became infinite; choose a wider dtype"
    assert told == [message] * count


@pytest.mark.parametrize("options", [{}, {"class_mask": [1, 0]}, {"input": "probs", "output": "grad"}])
def test_infinities_that_any_type_has_are_not_overflow(tmp_path, options):
    logits = np.float16([[0.0, 1.0], [1.0, 0.0]] if options.get("input") else [[60000.0, 0.0], [1.0, -np.inf]])
    result = fx.transform({"logits": logits, "target": [0, 0]}, tmp_path / "x.parquet", **options)
    assert not result.warnings
    widest = np.float16([[60000.0, -60000.0]])
    told = fx.transform({"logits": widest, "target": [0]}, tmp_path / "x.parquet").warnings
    assert told == ("1 numbers of log_softmax are too large for float16 and became infinite; choose a wider dtype",)


# ---- between processes -----------------------------------------------------------------------------------------------

ERRORS = [
    fx.SourceError("a"), fx.ColumnError.missing("x", ["y"], "f"), fx.ConfigError("b"), fx.StateError("c"),
    fx.EngineError("d"), fx.OutputError("e"),
    fx.BadRowError(fx.errors.Where("f.parquet", 3, 7), 2, "logit 1 is NaN"),
]  # fmt: skip


def same(value: object) -> object:
    """What a worker hands back."""
    return value


def run(unit: fx.WorkUnit) -> fx.EvalState:
    return unit.run()


def test_results_states_units_and_errors_travel(tmp_path):
    paths = [str(path) for path in dumps.files(tmp_path)]
    result = fx.evaluate(paths, **dumps.OPTIONS)
    units = fx.plan(paths, unit_size="1MB", **dumps.OPTIONS)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        back = pool.submit(same, result).result()
        assert back == result
        assert back.state == result.state
        assert (back.to_json(), back.versions) == (result.to_json(), result.versions)
        assert fx.merge_states(pool.map(run, units)) == result.state
        for error in ERRORS:
            again = pool.submit(same, error).result()
            assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("unit", [0, -1])
def test_a_copy_of_a_unit_is_that_unit(tmp_path: Path, unit):
    units = fx.plan([str(path) for path in dumps.files(tmp_path)], unit_size="1MB", **dumps.OPTIONS)
    again = pickle.loads(pickle.dumps(units[unit]))  # noqa: S301 - made in this test
    assert (again.index, again.of, again.files, again.recipe, again.rows) == (
        units[unit].index, units[unit].of, units[unit].files, units[unit].recipe, units[unit].rows)  # fmt: skip
    assert again.run() == units[unit].run()
