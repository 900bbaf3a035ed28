"""Multilabel dumps: rows of one number per label, of which any may hold."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st
from scipy import special
from sklearn import metrics as sk

import fastxent as fx
from fastxent.state.metrics import CALIBRATION, FROM_GRID
from tests.verbs.evaluated import figures
from tests.verbs.tags import KIND, ODDS, TARGET, USER, WEIGHT, C, N, P, ids, oracle, table


def evaluate(source, **options):
    return fx.evaluate(source, task="multilabel", **options)


def values(result):
    return {name: metric.value for name, metric in result.metrics.items()}


def agree(result, expected, rel=1e-6):
    found = values(result)
    assert set(expected) | {"entropy", *FROM_GRID} == set(found)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=rel, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("weight", [None, "w"])
@pytest.mark.parametrize("input", ["logits", "probs"])
def test_metrics_are_those_of_scikit_learn(input, weight):
    """Scores of one decimal have ties."""
    score = np.round(ODDS, 1) if input == "logits" else np.clip(np.round(P, 1), 0.05, 0.95).astype(np.float32)
    p = special.expit(score.astype(np.float64)) if input == "logits" else score.astype(np.float64)
    result = evaluate(table(logits=list(score)), input=input, weight=weight)
    called, w = p >= 0.5, {"sample_weight": None if weight is None else WEIGHT}
    assert result.task == "multilabel"
    expected = {
        "exact_match": sk.accuracy_score(TARGET, called, **w),
        "macro_roc_auc": sk.roc_auc_score(TARGET, score, average="macro", **w),
        "mean_average_precision": sk.average_precision_score(TARGET, score, average="macro", **w),
        "cross_entropy": np.mean([sk.log_loss(TARGET[:, j], p[:, j], **w) for j in range(C)]),
        "brier_score": np.mean([sk.brier_score_loss(TARGET[:, j], p[:, j], **w) for j in range(C)]),
        "accuracy": 1 - sk.hamming_loss(TARGET, called, **w),
    }
    for average in ("micro", "macro"):
        for name in ("precision", "recall", "f1"):
            expected[f"{average}_{name}"] = getattr(sk, f"{name}_score")(TARGET, called, average=average, **w)
    for name, value in expected.items():
        assert result.metrics[name].value == pytest.approx(value, rel=1e-6), name
    agree(result, oracle(p, TARGET, w["sample_weight"], score=score))
    each = result.per_class
    assert each.class_id == tuple(range(C))
    np.testing.assert_allclose(each.f1, sk.f1_score(TARGET, called, average=None, **w))
    np.testing.assert_allclose(each.precision, sk.precision_score(TARGET, called, average=None, **w))
    np.testing.assert_allclose(each.recall, sk.recall_score(TARGET, called, average=None, **w))
    np.testing.assert_allclose(each.nll, [sk.log_loss(TARGET[:, j], p[:, j], **w) for j in range(C)], rtol=1e-6)
    some = slice(None) if weight is None else WEIGHT > 0
    assert each.support == tuple(TARGET[some].sum(axis=0))
    assert each.predicted == tuple(called[some].sum(axis=0))
    assert each.correct == tuple((called & (TARGET == 1))[some].sum(axis=0))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_threshold(threshold):
    agree(evaluate(table(), threshold=threshold), oracle(P, TARGET, threshold=threshold, score=ODDS))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_labels(data):
    """Soft, hard and ignored labels, weights, ties, and scores at the ends."""
    n, c = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    odds = np.array(data.draw(st.lists(st.sampled_from([-80.0, -2.0, 0.0, 0.5, 3.0, 90.0]), min_size=n * c,
                                       max_size=n * c))).reshape(n, c)  # fmt: skip
    kinds = st.sampled_from([0.0, 1.0, 1.0, 0.25, math.nan])
    target = np.array(data.draw(st.lists(kinds, min_size=n * c, max_size=n * c))).reshape(n, c)
    weight = data.draw(st.none() | st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=n, max_size=n))
    dump = {"logits": odds, "target": target} | ({} if weight is None else {"w": np.array(weight)})
    result = evaluate(dump, weight=None if weight is None else "w")
    used = ~np.isnan(target).all(axis=1)
    assert (result.rows.used, result.rows.ignored) == (used.sum(), n - used.sum())
    heavy = used & (True if weight is None else np.array(weight) > 0)
    if not heavy.any():
        assert all(math.isnan(value) for value in values(result).values())
        return
    p = special.expit(odds)
    target = np.where(used[:, None], target, np.nan)
    expected = oracle(p, target, weight, score=odds)
    t = np.where(np.isnan(target), 0.0, target)  # the loss of odds, where that of their probability is infinite
    w = np.ones(n) if weight is None else np.array(weight)
    loss = np.logaddexp(0, -odds) * t + np.logaddexp(0, odds) * (1 - t)
    mass = w[:, None] * ~np.isnan(target)
    expected["cross_entropy"] = (mass * loss).sum() / mass.sum()
    expected["cross_entropy_bits"] = expected["cross_entropy"] / math.log(2)
    agree(result, expected, rel=1e-9)


# ---- what a row may hold ---------------------------------------------------------------------------------------------


def flags(kind):
    return pa.array([row.tolist() for row in TARGET], kind)


@pytest.mark.parametrize(
    "target",
    [
        flags(pa.list_(pa.int64())),
        flags(pa.large_list(pa.uint8())),
        flags(pa.list_(pa.int16(), C)),
        pa.array([(row == 1).tolist() for row in TARGET], pa.list_(pa.bool_())),
        flags(pa.list_(pa.float32())),
        flags(pa.list_(pa.float64(), C)),
        pa.array([np.float16(row) for row in TARGET], pa.list_(pa.float16())),
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(TARGET, np.int32)),
        pa.concat_arrays([flags(pa.list_(pa.int8()))[:7], flags(pa.list_(pa.int8()))])[7:],
    ],
    ids=lambda array: str(array.type)[:30],
)
def test_flags_of_any_type(target):
    assert values(evaluate(table(target=target))) == values(evaluate(table()))


def test_arrays_and_class_columns():
    expected = values(evaluate(table()))
    assert values(evaluate({"logits": ODDS, "target": TARGET})) == expected
    columns = {f"logit_{j}": ODDS[:, j] for j in range(C)}
    assert values(evaluate({**columns, "target": TARGET}, logits="logit_*")) == expected


@pytest.mark.parametrize("kind", ["int", "text", "padded", "array"])
def test_lists_of_ids(kind):
    names = [f"tag {j}" for j in range(C)]
    target = ids()
    if kind == "text":
        target = [[names[j] for j in row] for row in target]
    if kind in ("padded", "array"):
        target = np.array([[*row, *[-100] * (C - len(row))] for row in target])
        target = list(target) if kind == "padded" else target
    source = {"logits": ODDS, "target": target} if kind == "array" else table(target=target)
    result = evaluate(source, target_ids=True, classes=names)
    assert values(result) == values(evaluate(table()))
    assert result.per_class.name == tuple(names)


def test_ignored_labels_and_rows():
    target = pa.array([[1, None], None, [None, None], [0, 1], [-100, 1]])
    odds = np.float64([[1, 2], [3, np.nan], [np.nan, 0], [0.5, -1], [2, 2]])
    result = evaluate(pa.table({"logits": list(odds), "target": target}))
    assert (result.rows.used, result.rows.ignored) == (3, 2)
    nan = math.nan
    known = np.float64([[1, nan], [0, 1], [nan, 1]])
    agree(result, oracle(special.expit(odds[[0, 3, 4]]), known), rel=1e-12)
    floats = pa.table({"logits": list(odds), "target": [[1.0, nan], [nan, nan], [nan, nan], [0.0, 1.0], [nan, 1.0]]})
    assert figures(evaluate(floats)) == figures(result)
    result = evaluate(pa.table({"logits": list(odds[:1]), "target": [[1, -1]]}), ignore_index=-1)
    assert result.per_class.class_id == (0,)
    empty = evaluate(pa.table({"logits": list(odds[[0, 3]]), "target": [[], None]}), target_ids=True)
    assert (empty.rows.used, empty.rows.ignored, empty.per_class.support) == (1, 1, (0, 0))


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"logits": [[0.5, 1.0], [0.5, math.nan]]}, {}, "row 1: the log-odds of label 1 is nan"),
        ({"logits": [[0.5, 1.0], [1.25, 1.0]]}, {"input": "probs"}, "row 1: the probability of label 0 is 1.25"),
        ({"logits": [[0.5, 1.0], [0.25]]}, {}, "row 1: 1 logits where 2 are expected"),
        ({"target": [[0, 1], [0, 1, 1]]}, {}, r"row 1: the target has 3 entries, but there are 2 labels; .*target_ids"),
        ({"target": [[0, 1], [0, 2]]}, {}, "row 1: the target of label 1 is 2, not 0, 1 or a probability"),
        ({"target": [[0.0, 1.0], [-0.5, 0.0]]}, {}, "row 1: the target of label 0 is -0.5, not"),
        ({"target": [[0, 1], [0, 2]]}, {"target_ids": True}, r"row 1: target 2 is not among the 2 labels 0..1"),
        ({"target": [[0, 1], [1, 1]]}, {"target_ids": True}, "row 1: label 1 is there twice; for lists of 0 and 1"),
        ({"w": [1.0, -1.0]}, {}, "row 1: column 'w' is -1.0"),
    ],
)
def test_bad_rows(columns, options, message):
    rows = pa.table({"logits": [[0.5, 0.25], [0.5, 0.75]], "target": [[0, 1], [1, 0]], "w": [1.0, 2.0]} | columns)
    if options.get("target_ids") and "target" not in columns:
        rows = rows.set_column(1, "target", [[0], []])
    with pytest.raises(fx.BadRowError, match=message):
        evaluate(rows, weight="w", **options)
    result = evaluate(rows, weight="w", on_bad_row="skip", **options)
    assert (result.rows.used, result.rows.bad) == (1, 1)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"target": [0, 1]}, {}, "target must hold lists of 0 and 1"),
        ({"target": [["a"], ["b"]]}, {}, "target must hold lists of 0 and 1"),
        ({"target": [["a"], ["b"]]}, {"target_ids": True}, "classes must be given"),
        ({"logits": [0.5, 1.0]}, {}, "task must be 'binary' for a dump of one score per row, got 'multilabel'"),
        ({}, {"task": "binary"}, "task must be 'multiclass' for a dump of rows of several scores, got 'binary'"),
        ({}, {"task": "tags"}, "task must be one of 'multiclass', 'binary', 'multilabel', got 'tags'"),
        ({}, {"class_weight": [1, 2]}, "class_weight must not be given"),
        ({}, {"top_k": (1, 2)}, "top_k must not be given"),
        ({}, {"input": "log_probs"}, "input must be 'logits' or 'probs' for a multilabel dump"),
        ({}, {"metrics": "roc_auc"}, "unknown metric 'roc_auc'; did you mean 'macro_roc_auc'"),
        ({}, {"target_ids": 1}, "target_ids must be True or False, got 1"),
        ({}, {"task": None, "target_ids": True}, "target_ids must not be given, got True; it is for task='multilabel'"),
    ],
)
def test_refused(columns, options, message):
    dump = pa.table({"logits": [[0.5, 0.25], [0.5, 0.75]], "target": [[0, 1], [1, 0]]} | columns)
    with pytest.raises(fx.FastxentError, match=message):
        fx.evaluate(dump, **{"task": "multilabel", **options})


def test_no_targets():
    result = evaluate({"logits": ODDS}, metrics="entropy")
    entropy = special.entr(P) + special.entr(1 - P)
    assert result.metrics["entropy"].value == pytest.approx(entropy.mean(), rel=1e-6)
    with pytest.raises(fx.ColumnError, match="without a target there are only the metrics entropy"):
        evaluate({"logits": ODDS})


def test_no_rows():
    result = evaluate({"logits": np.empty((0, 3)), "target": np.empty((0, 3), np.int8)})
    assert all(math.isnan(value) for value in values(result).values())
    assert result.per_class.class_id == ()


# ---- groups, errors, bits --------------------------------------------------------------------------------------------


def test_slices_are_the_rows_alone():
    result = evaluate(table(), by="kind", weight="w")
    for kind, part in result.slices["kind"].items():
        alone = evaluate(table(), where=f"kind == '{kind}'", weight="w")
        for name, metric in part.metrics.items():
            if name in (*CALIBRATION, *FROM_GRID):  # a slice has fewer cells, and no buckets
                tolerance = 0.0 if name in CALIBRATION else 4e-3
                assert metric.value == pytest.approx(alone.metrics[name].value, abs=tolerance), name
            elif metric.bounds is None:
                assert metric == alone.metrics[name], name
            else:
                low, high = metric.bounds
                assert low <= alone.metrics[name].value <= high
                assert high - low < 0.2


def test_standard_errors_are_those_of_ratios_of_rows_or_clusters():
    known = np.where(RNG_MASK, TARGET, np.nan)
    target = pa.array([[None if math.isnan(t) else int(t) for t in row] for row in known])
    held = ~np.isnan(known)
    loss = (np.logaddexp(0, ODDS.astype(np.float64) * (1 - 2 * TARGET)) * held).sum(axis=1)
    mean = loss.sum() / held.sum()
    rest = loss - mean * held.sum(axis=1)
    plain = evaluate(table(target=target)).metrics["cross_entropy"]
    assert plain.stderr == pytest.approx(math.sqrt(N / (N - 1) * (rest**2).sum()) / held.sum(), rel=1e-6)
    users = np.bincount(USER, weights=rest)[np.unique(USER)]
    clustered = evaluate(table(target=target), cluster="user").metrics["cross_entropy"]
    g = len(users)
    assert clustered.value == plain.value
    assert clustered.stderr == pytest.approx(math.sqrt(g / (g - 1) * (users**2).sum()) / held.sum(), rel=1e-6)
    assert evaluate(table()).metrics["exact_match"].method == "wilson"


RNG_MASK = np.random.default_rng(8).random((N, C)) < 0.8


def test_the_same_bits_in_any_order_and_split(tmp_path):
    order = np.random.default_rng(2).permutation(N)
    options = {"by": "kind", "weight": "w", "cluster": "user", "task": "multilabel"}
    pq.write_table(table(), tmp_path / "one.parquet")
    pq.write_table(table().take(order), tmp_path / "rows.parquet", row_group_size=37)
    expected = figures(fx.evaluate(tmp_path / "one.parquet", **options))
    for threads, memory in ((1, "512MB"), (3, "1MB")):
        found = fx.evaluate(tmp_path / "rows.parquet", threads=threads, memory=memory, **options)
        assert figures(found) == expected
    shards = [fx.evaluate(tmp_path / "rows.parquet", shard=f"{k}/3", **options).state.to_bytes() for k in (3, 1, 2)]
    assert figures(fx.merge_states(shards).result()) == expected
    (unit,) = fx.plan(tmp_path / "rows.parquet", **options)
    assert figures(unit.run().result()) == expected
    whole = fx.evaluate(tmp_path / "rows.parquet", resume=tmp_path / "progress", **options)
    assert figures(whole) == expected


def test_many_scores_are_ranked_within_bounds():
    """More different scores than a label has cells for."""
    rng = np.random.default_rng(3)
    odds = rng.normal(size=(3000, 2))
    target = rng.random(odds.shape) < special.expit(odds)
    kind = np.repeat(["a", "b"], 1500)
    result = evaluate({"logits": odds, "target": target, "kind": kind}, by="kind")
    assert result.metrics["macro_roc_auc"].bounds is None
    for name, rows in (("a", slice(0, 1500)), ("b", slice(1500, 3000))):
        for metric, figure in (("macro_roc_auc", sk.roc_auc_score), ("mean_average_precision",
                                                                     sk.average_precision_score)):  # fmt: skip
            found, exact = result.slices["kind"][name].metrics[metric], figure(target[rows], odds[rows])
            assert found.bounds[0] <= exact <= found.bounds[1]
            assert found.bounds[0] <= found.value <= found.bounds[1]
            assert found.bounds[1] - found.bounds[0] < 0.1


def test_slices_are_bounded_by_the_number_of_labels():
    n, c = 40, 2000
    dump = {"logits": np.zeros((n, c)), "target": np.zeros((n, c), np.int8), "user": np.arange(n)}
    for metric in ("macro_f1", "macro_roc_auc", "expected_calibration_error"):
        with pytest.raises(fx.ConfigError, match="more than 16 distinct values, which is the most for macro metrics"):
            evaluate(dump, by="user", metrics=metric)
    result = evaluate(dump, by="user", metrics=["cross_entropy", "micro_f1"])
    assert len(result.slices["user"]) == n
    for part in result.slices["user"].values():
        assert part.metrics["cross_entropy"].value == pytest.approx(math.log(2), rel=1e-15)


def test_probabilities_given_as_log_odds_are_a_warning():
    assert 'use input="probs"' in evaluate({"logits": P, "target": TARGET}).warnings[0]
    assert not evaluate({"logits": ODDS, "target": TARGET}).warnings


def test_update_and_pickle_of_a_state():
    import pickle

    config = fx.EvalConfig(n_classes=C, task="multilabel", by=("kind",))
    state = fx.EvalState.empty(config)
    for rows in np.array_split(np.arange(N), 3):
        state.update({"logits": ODDS[rows], "target": TARGET[rows], "kind": KIND[rows]})
    assert figures(state.result()) == figures(evaluate(table(), by="kind"))
    assert pickle.loads(pickle.dumps(state)) == state  # noqa: S301
    halves = [fx.EvalState.empty(config) for _ in range(2)]
    for half, rows in zip(halves, (slice(0, 100), slice(100, N)), strict=True):
        half.update({"logits": ODDS[rows], "target": TARGET[rows], "kind": KIND[rows]})
    for one, other in itertools.permutations(halves):
        assert one.merge(other) == state
    with pytest.raises(fx.ConfigError, match="the batch must have 5 classes like the state, got 2"):
        state.update({"logits": np.zeros((1, 2)), "target": [[0, 1]], "kind": ["a"]})
