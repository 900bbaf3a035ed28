"""Rows by score: cells follow from the rows alone, and ranking metrics equal their definitions."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import metrics as sk

import fastxent as fx
import reference as ref
from fastxent.state import counted, scores as module
from fastxent.state.cells import LONGEST, WIDTH, keys_of, score_of

RNG = np.random.default_rng(11)
N = 3000
ODDS = RNG.normal(size=N) * 2
POSITIVE = (RNG.random(N) < 1 / (1 + np.exp(-ODDS))).astype(np.int64)


def evaluated(score, target, **options):
    return fx.evaluate({"logits": np.asarray(score), "target": np.asarray(target)} | options.pop("more", {}), **options)


@pytest.fixture
def few_pages(monkeypatch):
    """Limits that a small dump reaches."""
    for name, limit in {"COUNTED_WHOLE": 40, "COUNTED_SLICE": 17, "WEIGHED_WHOLE": 24, "WEIGHED_SLICE": 16}.items():
        monkeypatch.setattr(module, f"_{name}", limit)


def test_keys_are_ordered_as_scores_are():
    values = np.array([-np.inf, -1e308, -1.5, -1.0, -5e-324, 0.0, 5e-324, 1e-300, 0.5, 1.0, np.inf])
    keys = keys_of(values)
    assert (keys[1:] > keys[:-1]).all()
    assert score_of(keys).tolist() == values.tolist()
    assert keys_of(np.array([-0.0])) == keys_of(np.array([0.0]))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_few_scores_are_ranked_exactly(dtype):
    score = np.round(ODDS, 1).astype(dtype)
    metrics = evaluated(score, POSITIVE).metrics
    assert metrics["roc_auc"].value == pytest.approx(ref.pairs_auc(score, POSITIVE), rel=1e-14)
    assert metrics["roc_auc"].stderr == pytest.approx(ref.delong_stderr(score, POSITIVE), abs=1e-12)
    assert metrics["average_precision"].value == pytest.approx(sk.average_precision_score(POSITIVE, score), rel=1e-13)
    assert metrics["roc_auc"].bounds is None
    assert metrics["roc_auc"].method == "delong"


def test_bounds_hold_the_exact_figures(few_pages):
    result = evaluated(ODDS, POSITIVE)
    area, precision = result.metrics["roc_auc"], result.metrics["average_precision"]
    low, high = area.bounds
    assert low < sk.roc_auc_score(POSITIVE, ODDS) < high
    assert area.value == pytest.approx((low + high) / 2, abs=1e-15)
    assert high - low < 0.05
    low, high = precision.bounds
    assert low < sk.average_precision_score(POSITIVE, ODDS) < high
    assert low <= precision.value <= high
    assert area.stderr == pytest.approx(ref.delong_stderr(ODDS, POSITIVE), rel=0.02)


def expected_length(scores, limit):
    """The rule, by counting prefixes of each length."""
    keys = [int(key) for key in keys_of(np.asarray(scores, np.float64))]
    return max(n for n in range(1, LONGEST + 1) if len({key >> (WIDTH - n) for key in keys}) <= limit)


def test_the_length_is_the_longest_that_fits(few_pages):
    state = evaluated(ODDS, POSITIVE, by="kind", more={"kind": np.arange(N) % 3}).state
    assert state.scores[None].counted.cells.lengths.tolist() == [expected_length(ODDS, 40)]
    names = state.slices["kind"].keys.names
    for name, length in zip(names, state.scores["kind"].counted.cells.lengths.tolist(), strict=True):
        assert length == expected_length(ODDS[int(name[4:]) :: 3], 17)


def state_of(columns, config):
    return fx.EvalState.empty(config).update(columns)


@pytest.mark.parametrize("weighted", [False, True])
def test_any_order_and_grouping_gives_the_same_bytes(few_pages, weighted):
    columns = {
        "logits": ODDS,
        "target": np.where(np.arange(N) % 7 == 0, 0.25, POSITIVE),  # some belong to both classes
        "kind": np.array(["a", "b", "c"])[np.arange(N) % 3],
        "w": RNG.choice([0.0, 0.5, 1.0, 3.0], N),
    }
    config = fx.EvalConfig(n_classes=2, task="binary", by=("kind",), weight="w" if weighted else None)
    whole = state_of(columns, config)
    order = RNG.permutation(N)
    mixed = fx.EvalState.empty(config)
    for part in np.array_split(order, 37):
        mixed.update({name: column[part] for name, column in columns.items()})
    assert mixed.to_bytes() == whole.to_bytes()
    parts = [state_of({n: c[part] for n, c in columns.items()}, config) for part in np.array_split(order, 5)]
    parts[2] = fx.EvalState.from_bytes(parts[2].to_bytes())
    merged = parts[3]
    for k in (0, 4, 2, 1):
        merged = merged.merge(parts[k])
    assert merged.to_bytes() == whole.to_bytes()
    assert merged.merge(fx.EvalState.empty(config)).to_bytes() == whole.to_bytes()
    assert fx.EvalState.from_bytes(whole.to_bytes()).result() == whole.result()


def test_weights_are_ranked_as_scikit_learn_does():
    weight = RNG.random(N)
    score = np.round(ODDS, 2)
    metrics = evaluated(score, POSITIVE, weight="w", more={"w": weight}).metrics
    expected = sk.roc_auc_score(POSITIVE, score, sample_weight=weight)
    assert metrics["roc_auc"].value == pytest.approx(expected, rel=1e-12)
    expected = sk.average_precision_score(POSITIVE, score, sample_weight=weight)
    assert metrics["average_precision"].value == pytest.approx(expected, rel=1e-12)
    assert metrics["roc_auc"].bounds is None
    assert metrics["roc_auc"].method == "jackknife"


def test_a_row_of_both_classes_is_two_rows_with_its_shares_as_weights():
    score, share = np.round(ODDS, 1), RNG.random(N)
    soft = evaluated(score, share).metrics
    twice = evaluated(
        np.tile(score, 2), np.repeat([1, 0], N), weight="w", more={"w": np.concatenate([share, 1 - share])}
    ).metrics
    for name in ("roc_auc", "average_precision", "precision", "recall", "f1", "matthews_corrcoef", "cross_entropy"):
        assert soft[name].value == pytest.approx(twice[name].value, rel=1e-12)


@pytest.mark.parametrize("target", [0, 1])
def test_one_class_has_no_ranking(target):
    result = evaluated([0.5, 1.0, 2.0], [target] * 3)
    assert np.isnan(result.metrics["roc_auc"].value)
    assert result.curves is None


def test_curves():
    score = np.round(ODDS, 1)
    curves = evaluated(score, POSITIVE).curves
    false, true, threshold = sk.roc_curve(POSITIVE, score, drop_intermediate=False)
    np.testing.assert_allclose(curves.roc.threshold, threshold)
    np.testing.assert_allclose(curves.roc.false_positive_rate, false, atol=1e-15)
    np.testing.assert_allclose(curves.roc.true_positive_rate, true, atol=1e-15)
    precision, recall, threshold = sk.precision_recall_curve(POSITIVE, score)
    np.testing.assert_allclose(curves.precision_recall.threshold, threshold[::-1])
    np.testing.assert_allclose(curves.precision_recall.precision, precision[-2::-1])
    np.testing.assert_allclose(curves.precision_recall.recall, recall[-2::-1])


@pytest.mark.parametrize("weighted", [False, True])
def test_gains_and_chosen_thresholds(weighted):
    """Every threshold, written out."""
    score, weight = np.round(ODDS, 1), RNG.random(N) if weighted else np.ones(N)
    curves = evaluated(score, POSITIVE, more={"w": weight}, **({"weight": "w"} if weighted else {})).curves
    levels = np.unique(score)[::-1]
    positives = (weight * POSITIVE).sum()
    points = []
    for level in levels:
        hat = score >= level
        true, false = (weight * POSITIVE)[hat].sum(), (weight * (1 - POSITIVE))[hat].sum()
        precision, recall = true / (true + false), true / positives
        alarm, miss = false / (weight.sum() - positives), 1 - recall
        points.append((level, precision, recall, 2 * precision * recall / (precision + recall), alarm, miss))
    points = np.array(points)
    share = [(weight[score >= level]).sum() / weight.sum() for level in levels]
    np.testing.assert_allclose(curves.gains.threshold, levels)
    np.testing.assert_allclose(curves.gains.share, share)
    np.testing.assert_allclose(curves.gains.gain, points[:, 2])
    np.testing.assert_allclose(curves.gains.lift, points[:, 2] / share)
    for found, place in (
        (curves.best_f1, points[:, 3].argmax()),
        (curves.equal_error, abs(points[:, 4] - points[:, 5]).argmin()),
    ):
        np.testing.assert_allclose(dataclasses.astuple(found), points[place], rtol=1e-12)


def test_a_curve_has_few_points_whose_thresholds_are_true(few_pages):
    for score in (ODDS, np.where(np.arange(N) % 50 == 0, -np.inf, ODDS)):
        roc = evaluated(score, POSITIVE).curves.roc
        assert 10 < len(roc.threshold) <= 512
        for least, share in list(zip(roc.threshold, roc.true_positive_rate, strict=True))[::25]:
            assert share == pytest.approx((score[POSITIVE == 1] >= least).mean())
    roc = evaluated(ODDS, POSITIVE).curves.roc
    assert (roc.false_positive_rate[-1], roc.true_positive_rate[-1]) == (1.0, 1.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(allow_nan=False), st.booleans()), min_size=4, max_size=60))
def test_any_scores(rows):
    score, positive = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = evaluated(score, positive).metrics["roc_auc"]
    if 0 < positive.sum() < len(rows):
        assert found.value == pytest.approx(ref.pairs_auc(score, positive), abs=1e-13)
    else:
        assert np.isnan(found.value)
    if 2 <= positive.sum() <= len(rows) - 2:
        assert found.stderr == pytest.approx(ref.delong_stderr(score, positive), abs=1e-9)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_weights_of_any_size(scale):
    score, weight = np.round(ODDS, 1), RNG.random(N)
    found = evaluated(score, POSITIVE, weight="w", more={"w": weight * scale})
    expected = evaluated(score, POSITIVE, weight="w", more={"w": weight})
    for name in ("roc_auc", "average_precision", "accuracy", "matthews_corrcoef", "f1", "normalized_entropy"):
        assert found.metrics[name].value == pytest.approx(expected.metrics[name].value, rel=1e-12), name
    for name in ("true_positive_rate", "false_positive_rate"):
        np.testing.assert_allclose(getattr(found.curves.roc, name), getattr(expected.curves.roc, name))


def test_counts_that_outgrow_32_bits(monkeypatch):
    score = np.round(ODDS, 1)
    expected = evaluated(score, POSITIVE).state
    monkeypatch.setattr(counted, "_MOST_NARROW", N // 2)
    config = fx.EvalConfig(n_classes=2, task="binary")
    state = fx.EvalState.empty(config)
    for part in np.array_split(np.arange(N), 5):
        state.update({"logits": score[part], "target": POSITIVE[part]})
    assert state.to_bytes() == expected.to_bytes()
    assert state.scores[None].counted.counts.high.dtype == np.int64
    monkeypatch.undo()
    narrow = fx.EvalState.from_bytes(state.to_bytes())
    assert narrow.scores[None].counted.counts.high.dtype == np.uint32
    assert state.merge(narrow).result().metrics["roc_auc"].value == expected.result().metrics["roc_auc"].value
