"""Averages over classes and confusion against scikit-learn; states of any split are the state of the whole."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import metrics as sk

import fastxent as fx
from fastxent.options.config import EvalConfig
from fastxent.scoring.rows import USED
from fastxent.state import class_table, confusion
from fastxent.state.averages import AVERAGES, MACRO, ClassSums, averages
from fastxent.state.evaluation import EvalState
from scored_cases import CLASSES, CONFIGS, case, config, take


def peer(target, predicted, weight=None):
    """The averages of scikit-learn, without its warnings of single classes and of classes that are no target."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _peer(target, predicted, weight)


def _peer(target, predicted, weight):
    options = {"sample_weight": weight}
    balanced = sk.balanced_accuracy_score(target, predicted, **options)
    macro = sk.precision_recall_fscore_support(target, predicted, average="macro", zero_division=0, **options)
    return {
        "balanced_accuracy": balanced,
        **dict(zip(("macro_precision", "macro_recall", "macro_f1"), macro, strict=False)),
        "weighted_f1": sk.f1_score(target, predicted, average="weighted", zero_division=0, **options),
        "matthews_corrcoef": sk.matthews_corrcoef(target, predicted, **options),
    }


def values(metrics, names=MACRO):
    return {name: metrics[name].value for name in names}


@pytest.mark.parametrize("name", ["by", "weight", "class_weight"])
def test_averages_are_those_of_scikit_learn(name):
    cfg, rows = case(name)
    result = EvalState.empty(cfg).add(rows).result()
    used = take(rows, np.flatnonzero(rows.status == USED))
    assert values(result.metrics) == pytest.approx(peer(used.target, used.predicted, used.weight), rel=1e-13)
    share = np.bincount(used.target, used.weight, CLASSES) * np.array(cfg.class_weight or [1.0] * CLASSES)
    share /= share.sum()
    entropy = -(share * np.log(share)).sum()
    found = result.metrics["normalized_entropy"].value
    assert found == pytest.approx(result.metrics["cross_entropy"].value / entropy, rel=1e-13)
    if cfg.class_weight is None:
        probabilities = np.full((len(used.nll), CLASSES), 0.0)  # of which only that of the target counts
        of_target = np.exp(-used.nll)
        probabilities[:] = ((1 - of_target) / (CLASSES - 1))[:, None]
        probabilities[np.arange(len(used.nll)), used.target] = of_target
        score = sk.d2_log_loss_score(used.target, probabilities, sample_weight=used.weight, labels=range(CLASSES))
        assert found == pytest.approx(1 - score, rel=1e-12)
    for column, parts in result.slices.items():
        kinds = np.array(used.by[column].to_pylist(), object)
        for value, part in parts.items():
            mine = take(used, np.flatnonzero(kinds == value))
            assert values(part.metrics) == pytest.approx(peer(mine.target, mine.predicted, mine.weight), rel=1e-13)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None)
def test_any_few_rows(rows):
    target, predicted, weight = np.array(rows).T
    for given_weight, factor in ((None, np.ones(len(target), int)), (weight, weight)):
        count = [np.bincount(ids, factor, 4).astype(int) for ids in (target, predicted)]
        right = np.bincount(target, factor * (target == predicted), 4).astype(int)
        seen = np.bincount(target, minlength=4) + np.bincount(predicted, minlength=4)
        found = averages(ClassSums(np.arange(4), seen, *count, right))
        assert found == pytest.approx(peer(target, predicted, given_weight), rel=1e-13, abs=1e-15)
        scaled = averages(ClassSums(np.arange(4), seen, *(x.astype(object) << 70 for x in (*count, right))))
        assert scaled == found


def test_no_rows_and_one_class():
    empty = EvalState.empty(config("plain")).result()
    assert all(np.isnan(empty.metrics[name].value) for name in AVERAGES)
    assert empty.confusion is None
    one = fx.evaluate({"logits": np.eye(3, dtype=np.float32)[[1, 1]], "target": [1, 1]}).metrics
    assert np.isnan(one["normalized_entropy"].value)  # no prediction is needed
    assert one["matthews_corrcoef"].value == 0.0
    assert one["macro_f1"].value == one["balanced_accuracy"].value == 1.0


def test_counts_beyond_32_bits():
    count = np.array([3_000_000_000, 5_000_000_000])
    right = np.array([2_000_000_000, 4_000_000_000])
    found = averages(ClassSums(np.arange(2), 2 * count, count, count, right))
    assert found == averages(ClassSums(np.arange(2), 2 * count, *(x.astype(object) for x in (count, count, right))))
    assert found["matthews_corrcoef"] == pytest.approx(2 / 3 + 4 / 5 - 1, rel=1e-13)


def test_a_metric_alone():
    rows = {"logits": np.eye(3, dtype=np.float32), "target": [0, 1, 1]}
    every = fx.evaluate(rows).metrics
    for name in AVERAGES:
        assert fx.evaluate(rows, metrics=name).metrics == {name: every[name]}


@pytest.mark.parametrize("name", CONFIGS)
def test_splits_merge_to_the_same_state(name):
    cfg, rows = case(name, n=90)
    whole = EvalState.empty(cfg).add(rows)
    parts = [EvalState.empty(cfg).add(take(rows, np.arange(k, 90, 3))) for k in (2, 0, 1)]
    merged = parts[0].merge(parts[1].merge(parts[2]))
    assert merged == whole
    assert EvalState.from_bytes(merged.to_bytes()) == whole
    assert merged.result() == whole.result()
    assert merged.merge(EvalState.empty(cfg)) == whole


def test_confusion_is_that_of_scikit_learn():
    for name in ("plain", "weight"):  # rows are counted, whatever their weight
        cfg, rows = case(name)
        used = take(rows, np.flatnonzero(rows.status == USED))
        expected = sk.confusion_matrix(used.target, used.predicted, labels=range(CLASSES))
        result = EvalState.empty(cfg).add(rows).result()
        assert (result.confusion.matrix() == expected).all()
        assert fx.EvalResult.from_json(result.to_json()).confusion == result.confusion
        np.fill_diagonal(expected, 0)
        listed = result.most_confused
        assert (listed.count[0], listed.pairs) == (expected.max(), np.count_nonzero(expected))
        order = [(-expected[t, p], t, p) for t, p in zip(*np.nonzero(expected), strict=True)]
        assert list(zip(listed.target, listed.predicted, strict=True)) == [(t, p) for _, t, p in sorted(order)][:100]


def test_binary_confusion_by_both_roads():
    rng = np.random.default_rng(5)
    rows = {"logits": rng.normal(size=500).astype(np.float32), "target": rng.integers(0, 2, 500)}
    summed = fx.evaluate(rows).confusion
    by_row = fx.evaluate({**rows, "kind": np.zeros(500, int)}, by="kind").confusion
    assert summed == by_row
    assert (summed.matrix() == sk.confusion_matrix(rows["target"], rows["logits"] >= 0)).all()


def many_rows(n, classes=2000, seed=3):
    """Rows of many classes, of which few are predicted."""
    cfg = EvalConfig(n_classes=classes)
    _, rows = case("plain", n=n)
    rng = np.random.default_rng(seed)
    target, predicted = rng.integers(0, classes, n), rng.integers(0, 5, n)
    rank = (target != predicted).astype(np.int64)
    return cfg, replace(rows, target=target, predicted=predicted, rank=rank, status=np.zeros(n, np.int8))


def test_pairs_of_many_classes(monkeypatch):
    cfg, rows = many_rows(3000)
    exact = {}
    for t, p in zip(rows.target.tolist(), rows.predicted.tolist(), strict=True):
        exact[(t, p)] = exact.get((t, p), 0) + (t != p)
    exact = {pair: n for pair, n in exact.items() if n}
    found = EvalState.empty(cfg).add(rows).result().most_confused
    assert (found.pairs, found.share) == (len(exact), 1.0)
    assert (
        list(zip(found.count, found.target, found.predicted, strict=True))
        == [(n, *pair) for pair, n in sorted(exact.items(), key=lambda item: (-item[1], item[0]))][:100]
    )

    monkeypatch.setattr(confusion, "MOST_PAIRS", 400)
    whole = EvalState.empty(cfg).add(rows)
    some = whole.result().most_confused
    assert some.pairs <= 400 < len(exact)
    assert some.share == 0.5 ** round(np.log2(1 / some.share)) < 1
    assert some.share * len(exact) == pytest.approx(some.pairs, rel=0.25)
    for t, p, n in zip(some.target, some.predicted, some.count, strict=True):
        assert exact[(t, p)] == n
    for order in ((0, 1, 2, 3, 4), (3, 1, 4, 0, 2)):  # the same pairs, whatever the order and the split
        state = EvalState.empty(cfg)
        for k in order:
            state.absorb(EvalState.empty(cfg).add(take(rows, np.arange(k, 3000, 5))))
        assert state == whole
        assert EvalState.from_bytes(state.to_bytes()) == whole


def test_too_many_slices_leave_their_averages_unknown(monkeypatch):
    cfg, rows = case("by")
    whole = EvalState.empty(cfg).add(rows).result()
    monkeypatch.setattr(class_table, "MOST_BYTES", 24 * CLASSES * 4)  # three kinds fit, five folds do not
    halves = [EvalState.empty(cfg).add(take(rows, np.arange(k, len(rows.status), 2))) for k in (0, 1)]
    state = halves[0].merge(halves[1])
    assert state == EvalState.empty(cfg).add(rows)
    result = EvalState.from_bytes(state.to_bytes()).result()
    assert result.slices["kind"] == whole.slices["kind"]
    for value, part in result.slices["fold"].items():
        assert all(np.isnan(part.metrics[name].value) for name in AVERAGES)
        assert part.metrics["accuracy"] == whole.slices["fold"][value].metrics["accuracy"]
    assert [w for w in result.warnings if "averages over classes" in w] == [
        "averages over classes are not known for slices of 'fold': there are too many pairs of a slice and a class"
    ]
    assert values(result.metrics) == values(whole.metrics)
