"""`compare` of binary and multilabel dumps: each difference as residuals of both sides have it, the slow way."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
from hypothesis import given, settings, strategies as st
from scipy import special
from sklearn import metrics as sk

import fastxent as fx
import reference as ref
from tests.verbs import clicks, tags

RNG = np.random.default_rng(5)
CLOSE = dict(rel=3e-5, abs=1e-8)
ODDS_B = (clicks.ODDS + RNG.normal(size=clicks.N) * 0.6).astype(np.float32)
TAGS_B = (tags.ODDS + RNG.normal(size=tags.ODDS.shape) * 0.6).astype(np.float32)
TAGS = tags.TARGET.astype(np.float32)
TAGS[::17, 2] = np.nan
TAGS[40] = np.nan
RATES = ("accuracy", "precision", "recall", "specificity", "f1", "brier_score", "entropy", "mean_prediction",
         "base_rate", "calibration_ratio", "cross_entropy")  # fmt: skip


def bits(result):
    return json.dumps({**result.to_dict(), "timing": None, "files": None, "largest": None, "versions": None})


@pytest.fixture(scope="module")
def binary():
    return fx.compare(clicks.table(), clicks.table(logits=ODDS_B), by="kind", cluster="user", weight="w", largest=4)


@pytest.fixture(scope="module")
def multilabel():
    sides = (tags.table(logits=list(odds), target=list(TAGS)) for odds in (tags.ODDS, TAGS_B))
    return fx.compare(*sides, task="multilabel", by="kind")


def ratio(p, y, name):
    """(numerator, denominator) of each row."""
    q, one = (p >= 0.5).astype(float), np.ones(len(p))
    return {
        "accuracy": (y * q + (1 - y) * (1 - q), one), "precision": (y * q, q), "recall": (y * q, y),
        "specificity": ((1 - y) * (1 - q), 1 - y), "f1": (2 * y * q, y + q), "brier_score": ((p - y) ** 2, one),
        "entropy": (-special.xlogy(p, p) - special.xlogy(1 - p, 1 - p), one), "mean_prediction": (p, one),
        "base_rate": (y, one), "calibration_ratio": (p, y), "cross_entropy": (-np.log(np.where(y == 1, p, 1 - p)), one),
    }[name]  # fmt: skip


def residuals(u, d, w, clusters):
    """(ratio of sums, what each cluster adds to it)."""
    value = (w * u).sum() / (w * d).sum()
    each = w * (u - value * d) / (w * d).sum()
    return value, np.bincount(np.unique(clusters, return_inverse=True)[1], each)


def check(found, a, b):
    """a, b: (value, influences) of either dump."""
    n = len(a[1])
    apart = b[1] - a[1]
    stderr = math.sqrt(n / (n - 1) * (apart**2).sum())
    assert found.difference.value == pytest.approx(b[0] - a[0], **CLOSE)
    assert found.difference.stderr == pytest.approx(stderr, **CLOSE)
    half = scipy.stats.t.ppf(0.975, n - 1) * stderr
    assert found.difference.ci95 == pytest.approx((b[0] - a[0] - half, b[0] - a[0] + half), rel=1e-4, abs=1e-7)
    if stderr > 1e-12:
        p_value = 2 * scipy.stats.t.sf(abs(b[0] - a[0]) / stderr, n - 1)
        assert found.p_value == pytest.approx(p_value, rel=1e-3, abs=1e-9)
        assert found.correlation == pytest.approx((a[1] @ b[1]) / math.sqrt((a[1] @ a[1]) * (b[1] @ b[1])), **CLOSE)
        unpaired = math.sqrt(n / (n - 1) * (a[1] @ a[1] + b[1] @ b[1]))
        assert found.unpaired_stderr == pytest.approx(unpaired, **CLOSE)


@pytest.mark.parametrize("name", RATES)
def test_binary_differences(binary, name):
    kept = clicks.WEIGHT > 0
    y, w, user = clicks.TARGET[kept].astype(float), clicks.WEIGHT[kept], clicks.USER[kept]
    sides = [special.expit(odds[kept].astype(float)) for odds in (clicks.ODDS, ODDS_B)]
    check(binary.metrics[name], *(residuals(*ratio(p, y, name), w, user) for p in sides))


def test_plain_binary_means_are_those_of_a_paired_t_test():
    found = fx.compare(clicks.table(), clicks.table(logits=ODDS_B), by="kind")
    y = clicks.TARGET.astype(float)
    for part, rows in ((found, slice(None)), (found.slices["kind"]["web"], clicks.KIND == "web")):
        sides = [special.expit(odds.astype(float))[rows] for odds in (clicks.ODDS, ODDS_B)]
        for name in ("cross_entropy", "accuracy", "brier_score"):
            a, b = (ratio(p, y[rows], name)[0] for p in sides)
            test = scipy.stats.ttest_rel(b, a)
            assert part.metrics[name].p_value == pytest.approx(test.pvalue, rel=1e-3)
            assert part.metrics[name].difference.ci95 == pytest.approx(
                test.confidence_interval(0.95), rel=1e-3, abs=1e-7
            )
        for name in ("precision", "recall", "f1"):
            ones = np.ones(len(sides[0]))
            check(part.metrics[name], *(residuals(*ratio(p, y[rows], name), ones, np.arange(len(ones))) for p in sides))
        right = [(p >= 0.5) == (y[rows] == 1) for p in sides]
        flips = part.flips
        only = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
        assert (flips.right_to_wrong, flips.wrong_to_right) == only
        assert (flips.both_right, flips.both_wrong) == ((right[0] & right[1]).sum(), (~right[0] & ~right[1]).sum())
        assert flips.p_value == pytest.approx(scipy.stats.binomtest(only[0], sum(only)).pvalue)
    assert found.rank is None
    assert found.perplexity_ratio is None


def test_normalized_entropy_by_the_delta_method():
    found = fx.compare(clicks.table(), clicks.table(logits=ODDS_B)).metrics["normalized_entropy"]
    y = clicks.TARGET.astype(float)
    base = y.mean()
    entropy = -base * math.log(base) - (1 - base) * math.log(1 - base)
    sides = []
    for odds in (clicks.ODDS, ODDS_B):
        loss = ratio(special.expit(odds.astype(float)), y, "cross_entropy")[0]
        value = loss.mean() / entropy
        slope = -value * math.log((1 - base) / base) / entropy
        sides.append((value, ((loss - loss.mean()) / entropy + slope * (y - base)) / len(y)))
    check(found, *sides)


def test_means_over_labels_have_no_error(multilabel):
    for name in ("macro_f1", "macro_roc_auc", "mean_average_precision"):
        found = multilabel.metrics[name]
        assert found.difference.value == pytest.approx(found.b.value - found.a.value)
        assert math.isnan(found.p_value)
        assert math.isnan(found.difference.stderr)


def test_the_difference_of_bounded_metrics_is_bounded():
    n = 400_000  # more scores than are ranked exactly
    rng = np.random.default_rng(3)
    y, z = rng.integers(0, 2, n), rng.normal(size=n)
    sides = [z + y, z + 0.9 * y + rng.normal(size=n) * 0.1]
    options = dict(metrics=["roc_auc"])
    found = fx.compare(*({"logits": odds, "target": y} for odds in sides), **options).metrics["roc_auc"]
    exact = [sk.roc_auc_score(y, odds) for odds in sides]
    low, high = found.difference.bounds
    assert low <= exact[1] - exact[0] <= high
    assert high - low < 1e-4
    assert low <= found.difference.value <= high


def test_either_side_has_the_bits_of_evaluate(binary, multilabel):
    other = clicks.table(logits=ODDS_B)
    for side, table in (("a", clicks.table()), ("b", other)):
        alone = fx.evaluate(table, by="kind", cluster="user", weight="w")
        assert {name: getattr(m, side) for name, m in binary.metrics.items()} == alone.metrics
        for value, part in alone.slices["kind"].items():
            mine = binary.slices["kind"][value].metrics
            assert {name: getattr(m, side) for name, m in mine.items()} == part.metrics
    for side, odds in (("a", tags.ODDS), ("b", TAGS_B)):
        alone = fx.evaluate(tags.table(logits=list(odds), target=list(TAGS)), task="multilabel", by="kind")
        for name, metric in multilabel.metrics.items():  # buckets of pairs are others than those of rows
            mine = getattr(metric, side)
            assert mine.value == alone.metrics[name].value or math.isnan(mine.value), name
            assert mine == alone.metrics[name] or mine.method == "jackknife"


def bernoulli(a, b):
    """Divergences of Bernoulli distributions of these log-odds, by the oracle of rows of two classes."""
    pair = [np.stack([-np.maximum(z, 0.0), np.minimum(z, 0.0)], axis=-1).astype(np.longdouble) for z in (a, b)]
    kl_ab, kl_ba = (ref.kl_divergence(*p, reduction="none") for p in (pair, pair[::-1]))
    return [np.asarray(x, float) for x in (kl_ab, kl_ba, ref.js_divergence(*pair, reduction="none"))]


def test_divergences():
    found = fx.compare(clicks.table(), clicks.table(logits=ODDS_B))
    n = clicks.N
    for name, rows in zip(found.divergences, bernoulli(clicks.ODDS, ODDS_B), strict=True):
        divergence = found.divergences[name]
        assert divergence.mean.value == pytest.approx(rows.mean(), rel=1e-9)
        assert divergence.mean.stderr == pytest.approx(rows.std(ddof=1) / math.sqrt(n), rel=1e-9)
        assert divergence.max == pytest.approx(rows.max(), rel=1e-9)
        assert divergence.quantiles[0.9] == pytest.approx(np.quantile(rows, 0.9), rel=0.004)
        p = special.expit(clicks.ODDS.astype(float))
        for bucket in divergence.by_confidence:
            inside = (p > bucket.lower) & (p <= bucket.upper)
            assert bucket.rows == inside.sum()
    p, q = (special.expit(odds.astype(float)) for odds in (clicks.ODDS, ODDS_B))
    change = np.where(clicks.TARGET == 1, q - p, p - q)
    target = found.target_probability
    assert target.mean.value == pytest.approx(change.mean(), **CLOSE)
    assert target.rms.value == pytest.approx(math.sqrt((change**2).mean()), **CLOSE)
    assert target.max == pytest.approx(np.abs(change).max(), **CLOSE)
    assert found.same_top_1.value == pytest.approx(((p >= 0.5) == (q >= 0.5)).mean())


def test_divergences_per_label(multilabel):
    known = ~np.isnan(TAGS)
    used = known.any(axis=1)
    for name, each in zip(multilabel.divergences, bernoulli(tags.ODDS, TAGS_B), strict=True):
        rows = np.where(known, each, 0).sum(axis=1)[used] / known.sum(axis=1)[used]
        found = multilabel.divergences[name]
        assert found.mean.value == pytest.approx(rows.mean(), rel=1e-9)
        assert found.max == pytest.approx(rows.max(), rel=1e-9)
        assert found.by_confidence == ()
    p, q = (special.expit(odds.astype(float)) for odds in (tags.ODDS, TAGS_B))
    change = np.where(known, np.where(TAGS == 1, q - p, p - q), 0).sum(axis=1)[used] / known.sum(axis=1)[used]
    assert multilabel.target_probability.mean.value == pytest.approx(change.mean(), **CLOSE)
    same = (((p >= 0.5) == (q >= 0.5)) | ~known).all(axis=1)[used]
    assert multilabel.same_top_1.value == pytest.approx(same.mean())
    right = [(((x >= 0.5) == (TAGS == 1)) | ~known).all(axis=1)[used] for x in (p, q)]
    assert multilabel.flips.right_to_wrong == (right[0] & ~right[1]).sum()
    assert multilabel.flips.wrong_to_right == (~right[0] & right[1]).sum()


def test_multilabel_differences(multilabel):
    known = ~np.isnan(TAGS)
    used = known.any(axis=1)
    y = np.where(known, TAGS, 0)
    sides = {name: [] for name in ("cross_entropy", "accuracy", "micro_precision", "micro_recall", "micro_f1")}
    for odds in (tags.ODDS, TAGS_B):
        p = special.expit(odds.astype(float))
        q = (p >= 0.5) & known
        loss = np.where(known, -np.log(np.where(TAGS == 1, p, 1 - p)), 0)
        counted, held, called = (x.sum(axis=1)[used].astype(float) for x in (known, y, q))
        both, right = (y * q).sum(axis=1)[used], (known & (q == (y == 1))).sum(axis=1)[used]
        pairs = {
            "cross_entropy": (loss.sum(axis=1)[used], counted), "accuracy": (right, counted),
            "micro_precision": (both, called), "micro_recall": (both, held), "micro_f1": (2 * both, held + called),
        }  # fmt: skip
        for name, pair in pairs.items():
            sides[name].append(residuals(*pair, np.ones(used.sum()), np.arange(used.sum())))
    for name, pair in sides.items():
        check(multilabel.metrics[name], *pair)


@settings(max_examples=25)
@given(st.lists(st.tuples(*[st.floats(-1e4, 1e4) | st.sampled_from([-math.inf, math.inf, 0.0, 5e-324, -1e-30])] * 2),
                min_size=1, max_size=40))  # fmt: skip
def test_any_log_odds_have_divergences_of_at_least_0(rows):
    a, b = np.array(rows).T
    found = fx.compare({"logits": a, "target": np.ones(len(a))}, {"logits": b, "target": np.ones(len(a))})
    with np.errstate(invalid="ignore", over="ignore"):
        oracle = bernoulli(a, b)
    for divergence, each in zip(found.divergences.values(), oracle, strict=True):
        assert divergence.max >= 0
        assert divergence.max == pytest.approx(each.max(), rel=1e-6, abs=1e-8)
        if (a == b).all():
            assert divergence.mean.value == divergence.max == 0


def test_a_dump_and_itself_do_not_differ():
    for table, options in ((clicks.table(), {}), (tags.table(), {"task": "multilabel"})):
        found = fx.compare(table, table, by="kind", cluster="user", weight="w", **options)
        for part in (found, *found.slices["kind"].values()):
            for name, metric in part.metrics.items():
                assert metric.difference.value == 0, name
                if metric.difference.stderr == metric.difference.stderr:
                    assert (metric.difference.stderr, metric.p_value) == (0, 1), name
            assert all(d.mean.value == d.mean.stderr == 0 for d in part.divergences.values())
            assert (part.flips.right_to_wrong, part.flips.wrong_to_right, part.same_top_1.value) == (0, 0, 1)
        assert found.largest == ()


def test_any_split_and_order_has_the_same_bits(binary, tmp_path):
    options = dict(by="kind", cluster="user", weight="w", largest=4)
    other = clicks.table(logits=ODDS_B)
    pq.write_table(clicks.table(), tmp_path / "a.parquet", row_group_size=170)
    pq.write_table(other, tmp_path / "b.parquet", row_group_size=210)
    found = fx.compare(tmp_path / "a.parquet", tmp_path / "b.parquet", threads=2, memory="1MB", **options)
    assert bits(found) == bits(binary)
    states = [
        fx.compare(tmp_path / "a.parquet", tmp_path / "b.parquet", shard=f"{k}/2", **options).state for k in (1, 2)
    ]
    assert bits(states[1].merge(states[0]).result()) == bits(binary)
    again = fx.CompareState.from_bytes(binary.state.to_bytes())
    assert again == binary.state
    assert fx.CompareResult.from_json(found.to_json()) == found
    order = np.random.default_rng(1).permutation(clicks.N)
    named = pa.array(np.arange(clicks.N))
    shuffled = other.append_column("id", named).take(order)
    assert bits(fx.compare(clicks.table(id=named), shuffled, on="id", **options)) == bits(binary)


def test_multilabel_dumps_in_another_order_and_split(multilabel, tmp_path):
    sides = [tags.table(logits=list(odds), target=list(TAGS), id=np.arange(tags.N)) for odds in (tags.ODDS, TAGS_B)]
    order = np.random.default_rng(1).permutation(tags.N)
    options = dict(task="multilabel", by="kind")
    assert bits(fx.compare(sides[0], sides[1].take(order), on="id", **options)) == bits(multilabel)
    for name, table, rows in zip("ab", sides, (33, 50), strict=True):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=rows)
    found = fx.compare(tmp_path / "a.parquet", tmp_path / "b.parquet", threads=2, memory="1MB", **options)
    assert bits(found) == bits(multilabel)
    assert fx.CompareState.from_bytes(multilabel.state.to_bytes()) == multilabel.state
    assert fx.CompareResult.from_json(found.to_json()) == found
    assert all(row.target is None for row in found.largest)


def test_probabilities_and_float_types():
    p, q = (special.expit(odds.astype(float)) for odds in (clicks.ODDS, ODDS_B))
    odds = fx.compare(clicks.table(logits=np.log(p / (1 - p))), clicks.table(logits=np.log(q / (1 - q))))
    found = fx.compare(clicks.table(logits=p), clicks.table(logits=q), input="probs")
    for name, divergence in found.divergences.items():
        assert divergence.mean.value == pytest.approx(odds.divergences[name].mean.value, rel=1e-8)
    half = fx.compare(clicks.table(logits=p), clicks.table(logits=q.astype(np.float32)), input="probs")
    assert half.divergences["js_divergence"].mean.value == pytest.approx(
        odds.divergences["js_divergence"].mean.value, rel=1e-5
    )
    certain = fx.compare(*({"logits": [x, 0.5], "target": [1, 0]} for x in (0.25, 0.0)), input="probs")
    assert certain.divergences["kl_divergence_ab"].max == math.inf
    assert certain.divergences["kl_divergence_ba"].max == pytest.approx(math.log(4 / 3))


def test_targets_agree_whatever_their_type():
    a = clicks.table()
    want = bits(fx.compare(a, clicks.table(logits=ODDS_B)))
    for target in (clicks.TARGET.astype(bool), clicks.TARGET * 2 - 1, clicks.TARGET.astype(float)):
        found = fx.compare(a, clicks.table(logits=ODDS_B, target=target))
        assert bits(found) == want
    wrong = clicks.TARGET.copy()
    wrong[70] = 1 - wrong[70]
    with pytest.raises(fx.BadRowError, match="row 70: the target is"):
        fx.compare(a, clicks.table(logits=ODDS_B, target=wrong))
    other = TAGS.copy()
    other[8, 1] = 1 - other[8, 1]
    with pytest.raises(fx.BadRowError, match="row 8: the target is not that of"):
        fx.compare(tags.table(target=list(TAGS)), tags.table(target=list(other)), task="multilabel")
    with pytest.raises(fx.SourceError, match="same classes, got one number per row"):
        fx.compare(a, tags.table())
    nan = ODDS_B.copy()
    nan[9] = np.nan
    with pytest.raises(fx.BadRowError, match="row 9: the log-odds is nan"):
        fx.compare(a, clicks.table(logits=nan))
    assert fx.compare(a, clicks.table(logits=nan), on_bad_row="skip").rows.bad == 1


def test_without_targets():
    sides = [clicks.table(logits=odds, target=None) for odds in (clicks.ODDS, ODDS_B)]
    found = fx.compare(*sides)
    assert list(found.metrics) == ["entropy", "mean_prediction"]
    assert found.flips is found.target_probability is None
    assert found.divergences["js_divergence"].mean.value > 0
    assert fx.compare(*(tags.table(target=None) for _ in "ab"), task="multilabel").same_top_1.value == 1


def test_scores_beside_logits():
    rng = np.random.default_rng(8)
    scores = [
        [None if k % 7 == side else float(v) for k, v in enumerate(rng.integers(0, 2, clicks.N))] for side in (0, 1)
    ]
    a, b = clicks.table(acc=scores[0]), clicks.table(logits=ODDS_B, acc=scores[1])
    found = fx.compare(a, b, scores="acc")
    kept = [x is not None and y is not None for x, y in zip(*scores, strict=True)]
    first, second = (np.array([x for x, k in zip(side, kept, strict=True) if k]) for side in scores)
    test = scipy.stats.ttest_rel(second, first)
    assert found.metrics["acc"].p_value == pytest.approx(test.pvalue)
    assert found.metrics["acc"].difference.value == pytest.approx((second - first).mean())
    assert found.metrics["acc"].flips.right_to_wrong == ((first == 1) & (second == 0)).sum()
    assert found.score_rows["acc"].used == sum(kept)
    plain = fx.compare(clicks.table(), clicks.table(logits=ODDS_B))
    assert {**found.metrics, "acc": None} == {**plain.metrics, "acc": None}
    two = [{"logits": np.eye(3) * k, "target": [0, 1, 2], "gain": [1.0, 2.0, 4.0 * k]} for k in (1, 2)]
    assert fx.compare(*two, scores="gain").metrics["gain"].difference.value == pytest.approx(4 / 3)
    with pytest.raises(fx.ColumnError, match="'gain'"):
        fx.compare(two[0], {**two[1], "gain": ["x"] * 3}, scores="gain")
    with pytest.raises(fx.BadRowError, match="row 1"):
        fx.compare(two[0], {**two[1], "gain": [1.0, math.nan, 2.0]}, scores="gain")
