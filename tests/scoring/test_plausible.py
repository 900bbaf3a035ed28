"""Nonsense is told or refused: probabilities as logits, targets that are no distribution, classes in another order,
and rows of weight 0, which count for nothing."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from dumps import lists

RNG = np.random.default_rng(3)
X = RNG.normal(size=(60, 5))
Y = RNG.integers(0, 5, 60)
P = np.exp(X) / np.exp(X).sum(axis=1, keepdims=True)
W = np.where(np.arange(60) % 3 == 0, 0.0, RNG.uniform(0.5, 2.0, 60))


def figures(result: fx.EvalResult, *without: str) -> str:
    values = result.to_dict()
    return json.dumps({k: v for k, v in values.items() if k not in ("timing", "files", "versions", *without)})


# ---- probabilities ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16])
@pytest.mark.parametrize("options", [{}, {"temperature": 2.0}, {"threads": 3, "memory": "1MB"}])
def test_probabilities_as_logits_are_told(dtype, options):
    result = fx.evaluate({"logits": P.astype(dtype), "target": Y}, **options)
    assert [w for w in result.warnings if w.startswith("the scores of 60 of 60 rows lie within 0..1 and sum to 1")]
    assert "--input probs" in result.warnings[0]


def test_probabilities_of_many_classes_are_told(tmp_path):
    logits = RNG.normal(size=(200, 3000)).astype(np.float32) * 4
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = pa.table({"logits": lists(p, sized=True), "target": np.arange(200)})
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=70)
    one, two = (fx.evaluate(tmp_path / "p.parquet", threads=k) for k in (1, 2))
    assert "200 of 200 rows" in one.warnings[0]
    assert one.warnings == two.warnings
    units = fx.plan(tmp_path / "p.parquet", unit_size="1MB")
    assert len(units) > 1
    assert fx.merge_states(unit.run().to_bytes() for unit in units).to_bytes() == one.state.to_bytes()


@pytest.mark.parametrize("logits", [X, -np.abs(X), np.clip(P, 0.3, None), np.log(P), P - 0.01, 2 * P, np.zeros((60, 5)),
                                    np.tanh(X), 1 / (1 + np.exp(-X)), P[:9]])  # fmt: skip
@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_real_logits_are_not(logits, temperature):
    assert not fx.evaluate({"logits": logits, "target": Y[: len(logits)]}, temperature=temperature).warnings


def test_a_few_rows_like_probabilities_among_others_are_not_told():
    mixed = np.concatenate([P[:40], X[:20]])
    assert not fx.evaluate({"logits": mixed, "target": Y}).warnings


@pytest.mark.parametrize("clip", [None, 1e-6])
@pytest.mark.parametrize(
    ("kind", "scores", "reason"),
    [
        ("log_probs", np.log(P) + 1.0, r"log-probability 2 is 0\.5"),
        ("probs", P * 100, r"probability 2 is 150"),
        ("probs", P - 2.0, r"probability 2 is -0\.5"),
    ],
)
def test_numbers_that_cannot_be_probabilities_are_bad(clip, kind, scores, reason):
    good = np.log(P) if kind == "log_probs" else P
    scores = np.where(np.arange(60)[:, None] == 7, scores, good)
    scores[7] = np.minimum(good[7], -1e-9 if kind == "log_probs" else 0.1)
    scores[7, 2] = {"log_probs": 0.5}.get(kind, 150.0 if "150" in reason else -0.5)
    dump = {"logits": scores, "target": Y}
    with pytest.raises(fx.BadRowError, match=f"row 7: {reason}"):
        fx.evaluate(dump, input=kind, clip_eps=clip)
    result = fx.evaluate(dump, input=kind, clip_eps=clip, on_bad_row="skip")
    assert (result.rows.bad_logits, result.rows.used) == (1, 59)


def test_rounding_above_the_largest_probability_is_none_of_these():
    p = np.array([[1.0009, 0.0], [0.5, 0.5]])
    assert fx.evaluate({"logits": p, "target": [0, 0]}, input="probs").rows.used == 2
    assert fx.evaluate({"logits": np.array([[9e-4, -20.0]]), "target": [0]}, input="log_probs").rows.used == 1


# ---- soft targets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "count"),
    [(lambda q: q, 0), (lambda q: 2 * q, 60), (lambda q: 1 - q, 60), (lambda q: q * (np.arange(60) % 2)[:, None], 30)],
)
def test_soft_targets_that_do_not_sum_to_1_are_counted(change, count):
    dump = {"logits": X, "target": change(np.eye(5)[Y])}
    result = fx.evaluate(dump)
    assert result.rows.used == 60
    advice = 'if several labels of a row may hold, use task="multilabel" (--task multilabel)'
    told = f"{count} rows of soft targets do not sum to 1 within 1e-3; used as given; {advice}"
    expected = (told,) if count else ()
    assert result.warnings == expected
    assert fx.EvalState.from_bytes(result.state.to_bytes()).result().warnings == expected


# ---- class columns ---------------------------------------------------------------------------------------------------

NAMES = ["low", "medium", "high", "10 %", "5 %"]


def columns(order: list[str], prefix: str = "p_", suffix: str = "") -> dict:
    return {f"{prefix}{name}{suffix}": P[:, NAMES.index(name)] for name in order}


@pytest.mark.parametrize(("prefix", "suffix", "glob"), [("p_", "", "p_*"), ("", "_p", "*_p"), ("a_", ".b", "a_*.b")])
@pytest.mark.parametrize("order", [NAMES, NAMES[::-1], sorted(NAMES)])
def test_class_columns_of_a_glob_follow_the_classes(prefix, suffix, glob, order):
    whole = fx.evaluate({"logits": P, "target": Y}, input="probs")
    dump = {**columns(order, prefix, suffix), "label": [NAMES[y] for y in Y]}
    result = fx.evaluate(dump, logits=glob, target="label", input="probs", classes=NAMES)
    assert result.metrics == whole.metrics
    listed = [f"{prefix}{name}{suffix}" for name in NAMES]
    assert fx.evaluate(dump, logits=listed, target="label", input="probs", classes=NAMES).metrics == whole.metrics


def test_class_columns_of_a_glob_keep_the_order_of_the_file():
    whole = fx.evaluate({"logits": P, "target": Y}, input="probs")
    assert fx.evaluate({**columns(NAMES), "target": Y}, logits="p_*", input="probs").metrics == whole.metrics


def test_class_columns_in_another_order_than_the_classes_are_refused(tmp_path):
    dump = {**columns(NAMES), "target": Y}
    listed = [f"p_{name}" for name in sorted(NAMES)]
    with pytest.raises(
        fx.ColumnError, match="logits must follow the order of classes, got column 'p_10 %' for class 0"
    ):
        fx.evaluate(dump, logits=listed, input="probs", classes=NAMES)
    with pytest.raises(fx.ColumnError, match="got 'p_low' twice"):
        fx.evaluate(dump, logits=["p_low", "p_high", "p_low"])
    numbered = {"p_0": P[:, 0], "p_1": P[:, 1], "target": Y * 0}
    with pytest.raises(fx.ColumnError, match=r"cannot order the columns 'p_.' in"):
        fx.evaluate(numbered, logits="p_*", classes=["1", "0"])
    for name, order in (("a", NAMES), ("b", NAMES[::-1])):
        pq.write_table(pa.table({**columns(order), "target": Y}), tmp_path / f"{name}.parquet")
    with pytest.raises(fx.SourceError, match="together: their logits columns or the order of these differ"):
        fx.evaluate(tmp_path, logits="p_*", input="probs")
    assert fx.evaluate(tmp_path, logits="p_*", input="probs", classes=NAMES).rows.used == 120


def test_class_names_that_are_not_distinct_are_refused():
    with pytest.raises(fx.ConfigError, match="classes must differ, got 'crane' for classes 1 and 3"):
        fx.evaluate({"logits": X, "target": Y}, classes=["hen", "crane", "jay", "crane", "owl"])


# ---- weight 0 --------------------------------------------------------------------------------------------------------


def infinite(options: dict) -> tuple[dict, dict]:
    """A dump whose rows of weight 0 have an infinite loss, and the same without those rows."""
    logits = X.copy()
    logits[W == 0, Y[W == 0]] = -np.inf
    dump = {
        "logits": logits,
        "target": Y,
        "w": W,
        "b": np.arange(60) + 1,
        "k": np.arange(60) // 7,
        "d": np.arange(60) // 4,
    }
    return dump, {name: values[W != 0] for name, values in dump.items()}


@pytest.mark.parametrize("cluster", [None, "d"])
@pytest.mark.parametrize("more", [{}, {"class_weight": [1, 2, 0.5, 3, 1]}, {"label_smoothing": 0.1}])
def test_rows_of_weight_0_are_as_if_removed(cluster, more):
    dump, without = infinite(more)
    if "label_smoothing" in more:  # a masked class makes every smoothed loss infinite
        dump["logits"], without["logits"] = X, X[W != 0]
    options = {"weight": "w", "cluster": cluster, "n_bytes": "b", "by": "k", **more}
    with_, alone = fx.evaluate(dump, **options), fx.evaluate(without, **options)
    assert figures(with_, "rows", "slices") == figures(alone, "rows", "slices")
    assert (with_.rows.used, alone.rows.used) == (60, 40)
    for value, part in alone.slices["k"].items():
        assert str(with_.slices["k"][value].metrics) == str(part.metrics)
    assert with_.state.merge(with_.state).to_bytes() == fx.EvalState.from_bytes(
        with_.state.to_bytes()).merge(with_.state).to_bytes()  # fmt: skip


def test_weights_that_are_all_0_are_told():
    result = fx.evaluate({"logits": X, "target": Y, "w": W * 0}, weight="w", by=None)
    assert result.warnings == ("every used row has weight 0: every mean is undefined",)
    assert all(math.isnan(metric.value) for metric in result.metrics.values())
    assert repr(result)
    assert fx.EvalResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("weighted", [{}, {"weight": "w"}])
@pytest.mark.parametrize("cluster", [None, "d"])
def test_rows_of_a_class_of_weight_0_do_not_count_in_the_error_of_the_loss(weighted, cluster):
    dump, _ = infinite({})
    dump = {**dump, "w": np.abs(W) + 0.25, "d": np.where(Y == 2, 100 + Y, dump["d"]), "logits": X.copy()}
    dump["logits"][Y == 2, 2] = -np.inf
    without = {name: values[Y != 2] for name, values in dump.items()}
    options = {
        "class_weight": [1, 2, 0, 3, 0.5],
        "cluster": cluster,
        "metrics": ["cross_entropy", "perplexity"],
        **weighted,
    }
    with_, alone = fx.evaluate(dump, **options, by="k"), fx.evaluate(without, **options, by="k")
    assert str(with_.metrics) == str(alone.metrics)
    for value, part in alone.slices["k"].items():
        assert str(with_.slices["k"][value].metrics) == str(part.metrics)


def test_negative_weights_are_allowed_and_negative_bytes_are_bad():
    dump = {"logits": X, "target": Y, "w": np.where(np.arange(60) == 3, -0.5, 1.0), "b": np.where(Y[4] == Y, 5, -1)}
    assert fx.evaluate(dump, weight="w").rows.used == 60
    with pytest.raises(fx.BadRowError, match="column 'b' is -1"):
        fx.evaluate(dump, n_bytes="b")
    result = fx.evaluate(dump, n_bytes="b", on_bad_row="skip")
    assert result.rows.bad_target == int((Y[4] != Y).sum())


def test_weights_whose_squares_vanish_have_no_standard_error():
    for dump in ({"logits": X, "target": Y}, {"logits": X[:, 0], "target": Y % 2}):
        one, small, least = (fx.evaluate({**dump, "w": np.full(60, w)}, weight="w") for w in (1.0, 1e-140, 1e-200))
        for name in ("cross_entropy", "accuracy", "brier_score"):
            metric = least.metrics[name]
            assert metric.value == pytest.approx(one.metrics[name].value)
            assert math.isnan(metric.stderr)
            assert np.isnan(metric.ci95).all()
            assert small.metrics[name].stderr == pytest.approx(one.metrics[name].stderr)


def test_weights_whose_squares_vanish_tell_no_difference():
    dump = {"logits": X, "target": Y, "w": np.full(60, 1e-200)}
    compared = fx.compare(dump, {**dump, "logits": X[:, ::-1].copy()}, weight="w").metrics["cross_entropy"]
    assert math.isfinite(compared.difference.value)
    assert math.isnan(compared.difference.stderr)
    assert math.isnan(compared.p_value)


def test_targets_of_several_labels_are_told():
    dump = {"logits": np.eye(3), "target": [[1, 1, 0], [0, 1, 0], [0, 0, 0]]}
    (told,) = [text for text in fx.evaluate(dump).warnings if "soft targets" in text]
    assert told.startswith("2 rows of soft targets do not sum to 1")
    assert told.endswith('use task="multilabel" (--task multilabel)')
    assert not any("soft targets" in text for text in fx.evaluate(dump, task="multilabel").warnings)
