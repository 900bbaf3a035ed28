"""`compare`: every figure as scipy and the definitions have it, and the same bits however the work is split."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import scipy.stats

import fastxent as fx
from fastxent.options.option import declarations
from fastxent.options.runs import CompareOptions
from fastxent.state.averages import AVERAGES
from fastxent.state.comparison import CompareState
from fastxent.state.metrics import CALIBRATION, FROM_GRID
from fastxent.verbs.comparison import Comparison
from tests.verbs import pairs
from tests.verbs.pairs import MEANS, ROWS, Paired

DEFAULTS = {name: option.check(name, option.default) for name, option in declarations(CompareOptions).items()}
CLOSE = dict(rel=2e-5, abs=1e-9)


@pytest.fixture(scope="module")
def result():
    a, b = pairs.both()
    return fx.compare(a, b, by="kind", id="id", largest=7)


@pytest.fixture(scope="module")
def paired():
    return Paired()


def bits(result):
    found = result.to_dict()
    return json.dumps({name: found[name] for name in found if name not in ("timing", "files", "largest", "versions")})


# ---- the figures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEANS)
def test_a_difference_is_that_of_paired_rows(result, paired, name):
    a, b = paired.numbers(name)
    found, test = result.metrics[name], scipy.stats.ttest_rel(b, a)
    n = len(a)
    assert found.difference.value == pytest.approx((b - a).mean(), **CLOSE)
    assert found.difference.stderr == pytest.approx((b - a).std(ddof=1) / math.sqrt(n), **CLOSE)
    assert found.difference.ci95 == pytest.approx(test.confidence_interval(0.95), rel=1e-4, abs=1e-8)
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-3, abs=1e-12)
    assert found.correlation == pytest.approx(np.corrcoef(a, b)[0, 1], **CLOSE)
    assert found.unpaired_stderr == pytest.approx(math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / n), **CLOSE)
    assert found.minimum_detectable_effect == pytest.approx(2.8 * found.difference.stderr)
    assert found.difference.method == "t"


def without_averages(metrics: dict[str, fx.Metric]) -> dict[str, fx.Metric | float]:
    """Metrics of one dump, of averages over classes their value: comparisons give them no interval."""
    return {name: metric.value if name in AVERAGES else metric for name, metric in metrics.items()}


def one_side(metrics: dict[str, Any], side: str) -> dict[str, fx.Metric | float]:
    return without_averages({name: getattr(metric, side) for name, metric in metrics.items()})


def test_either_side_has_the_bits_of_evaluate(result):
    a, b = pairs.both()
    b = b.append_column("kind", a["kind"])
    for side, table in (("a", a), ("b", b)):
        alone = fx.evaluate(table, by="kind")
        assert one_side(result.metrics, side) == without_averages(alone.metrics)
        for value, part in alone.slices["kind"].items():
            assert one_side(result.slices["kind"][value].metrics, side) == without_averages(part.metrics)
    assert result.rows.used == alone.rows.used


def test_perplexities(result, paired):
    a, b = paired.numbers("cross_entropy")
    found, ratio = result.metrics["perplexity"], result.perplexity_ratio
    mean, stderr = (b - a).mean(), (b - a).std(ddof=1) / math.sqrt(len(a))
    assert found.difference.value == pytest.approx(math.exp(b.mean()) - math.exp(a.mean()), **CLOSE)
    slopes = math.exp(b.mean()) * (b - b.mean()) - math.exp(a.mean()) * (a - a.mean())
    assert found.difference.stderr == pytest.approx(slopes.std(ddof=1) / math.sqrt(len(a)), **CLOSE)
    assert found.p_value == result.metrics["cross_entropy"].p_value
    assert ratio.value == pytest.approx(math.exp(mean), **CLOSE)
    ends = [math.exp(end) for end in pairs.interval(mean, stderr, len(a))]
    assert ratio.ci95 == pytest.approx(ends, **CLOSE)
    assert ratio.stderr == pytest.approx(math.exp(mean) * stderr, **CLOSE)
    assert ratio.method == "exp-t"


@pytest.mark.parametrize(("name", "of"), [("kl_divergence_ab", "kl_ab"), ("kl_divergence_ba", "kl_ba"),
                                          ("js_divergence", "js")])  # fmt: skip
def test_divergences(result, paired, name, of):
    rows, found = getattr(paired, of), result.divergences[name]
    assert found.mean.value == pytest.approx(rows.mean(), rel=1e-5)
    assert found.mean.stderr == pytest.approx(rows.std(ddof=1) / math.sqrt(len(rows)), rel=1e-5)
    assert found.max == pytest.approx(rows.max(), rel=1e-5)
    for q, value in found.quantiles.items():
        assert value == pytest.approx(np.quantile(rows, q), rel=0.004), q
    confidence = np.asarray(paired.a.confidence, float)
    for bucket in found.by_confidence:
        inside = (confidence > bucket.lower) & (confidence <= bucket.upper)
        assert bucket.rows == inside.sum()
        if bucket.rows:
            assert bucket.mean.value == pytest.approx(rows[inside].mean(), rel=1e-5)
    assert sum(bucket.rows for bucket in found.by_confidence) == len(rows)


def test_quantiles_of_slices(result):
    a, b = pairs.both()
    for value, part in result.slices["kind"].items():
        inside = pa.array([kind == value for kind in a["kind"].to_pylist()])
        alone = fx.compare(a.filter(inside), b.filter(inside))
        for name, found in {**part.divergences, "target_probability": part.target_probability}.items():
            want = alone.divergences.get(name, alone.target_probability)
            assert found.max == want.max
            for q, number in found.quantiles.items():
                assert number == pytest.approx(want.quantiles[q], rel=0.011, abs=1e-9), (value, name, q)
            assert len(found.quantiles) == len(want.quantiles)


def test_states_before_quantiles_of_slices_have_none(result, monkeypatch):
    monkeypatch.setattr("fastxent.state.quantities.SliceQuantities.arrays", lambda self, clusters: {})
    old = result.state.to_bytes()
    monkeypatch.undo()
    part = next(iter(CompareState.from_bytes(old).merge(result.state).result().slices["kind"].values()))
    assert part.divergences["js_divergence"].quantiles == {}
    assert math.isnan(part.target_probability.max)


def test_the_target_and_its_rank(result, paired):
    change = np.asarray(np.exp(-paired.b.nll) - np.exp(-paired.a.nll), float)
    found, n = result.target_probability, len(change)
    assert found.mean.value == pytest.approx(change.mean(), **CLOSE)
    assert found.rms.value == pytest.approx(math.sqrt((change**2).mean()), **CLOSE)
    error = (change**2).std(ddof=1) / math.sqrt(n) / (2 * found.rms.value)
    assert found.rms.stderr == pytest.approx(error, **CLOSE)
    assert found.max == pytest.approx(np.abs(change).max(), **CLOSE)
    for q, value in found.quantiles.items():
        assert value == pytest.approx(np.quantile(change, q), rel=0.004, abs=1e-6), q
    assert sum(found.histogram[1]) == n
    moved = np.asarray(paired.b.rank - paired.a.rank, float)
    assert result.rank.mean.value == pytest.approx(moved.mean())
    assert result.rank.changed.value == pytest.approx((moved != 0).mean())


def test_flips_and_agreement(result, paired):
    right_a, right_b = paired.a.rank == 0, paired.b.rank == 0
    to_wrong, to_right = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    found = result.flips
    assert (found.both_right, found.both_wrong) == ((right_a & right_b).sum(), (~right_a & ~right_b).sum())
    assert (found.right_to_wrong, found.wrong_to_right) == (to_wrong, to_right)
    assert found.p_value == pytest.approx(scipy.stats.binomtest(to_wrong, to_wrong + to_right).pvalue)
    same = (paired.a.predicted == paired.b.predicted).mean()
    assert result.same_top_1.value == pytest.approx(same)
    low, high = scipy.stats.binomtest(round(same * len(right_a)), len(right_a)).proportion_ci(method="wilson")
    assert result.same_top_1.ci95 == pytest.approx((low, high))


def test_slices_are_the_comparison_of_their_rows(result):
    a, b = pairs.both()
    p_values = []
    for value, part in result.slices["kind"].items():
        chosen = np.array([kind == value for kind in pairs.COLUMNS["kind"]])
        alone = fx.compare(a.filter(chosen), b.filter(chosen))
        assert part.rows == alone.rows
        assert part.flips == alone.flips
        assert {n: d.mean for n, d in part.divergences.items()} == {n: d.mean for n, d in alone.divergences.items()}
        for name, metric in part.metrics.items():
            other = alone.metrics[name]
            for side in ("a", "b", "difference"):
                one, two = getattr(metric, side), getattr(other, side)
                if name in FROM_GRID:  # of a slice, from wider cells
                    assert one.value == pytest.approx(two.value, abs=4e-3, nan_ok=True), name
                elif name in (*CALIBRATION, *AVERAGES):  # whose intervals draw other buckets from other cells
                    assert one.value == pytest.approx(two.value, rel=0, abs=0, nan_ok=True), name
                else:
                    assert one == two, name
        p_values.append(part.metrics["cross_entropy"].p_value)
    adjusted = [part.metrics["cross_entropy"].adjusted_p_value for part in result.slices["kind"].values()]
    order = np.argsort(p_values)
    holm = np.minimum(1, np.maximum.accumulate(np.array(p_values)[order] * np.arange(len(order), 0, -1)))
    assert np.array(adjusted)[order] == pytest.approx(holm)


def test_the_rows_that_changed_most(result, paired):
    change = np.abs(np.asarray(paired.b.nll - paired.a.nll, float))
    places = np.flatnonzero(paired.used)[np.argsort(-change)][:7]
    assert [row.row for row in result.largest] == places.tolist()
    assert [row.id for row in result.largest] == [f"row {i}" for i in places]
    first = result.largest[0]
    assert first.size == abs(first.nll_b - first.nll_a) == pytest.approx(change.max(), rel=1e-5)
    assert (first.target, first.predicted_a) == (pairs.TARGET[first.row], pairs.A[first.row].argmax())


@pytest.mark.parametrize(("cluster", "weight"), [("doc", None), (None, "weight"), ("doc", "weight")])
def test_clusters_and_weights(paired, cluster, weight):
    a, b = pairs.both()
    found = fx.compare(a, b, cluster=cluster, weight=weight, n_bytes="n_bytes")
    w = pairs.COLUMNS["weight"][paired.used] if weight else np.ones(paired.used.sum())
    docs = pairs.COLUMNS["doc"][paired.used] if cluster else np.arange(len(w))
    kept = w > 0
    w, docs = w[kept], docs[kept]
    for name in MEANS:
        first, second = (values[kept] for values in paired.numbers(name))
        value, stderr, n = pairs.ratio_error(w * (second - first), w, docs)
        difference = found.metrics[name].difference
        assert difference.value == pytest.approx(value, **CLOSE)
        assert difference.stderr == pytest.approx(stderr, **CLOSE)
        assert difference.ci95 == pytest.approx(pairs.interval(value, stderr, n), rel=1e-4, abs=1e-8)
    nll = [values[kept] for values in paired.numbers("cross_entropy")]
    size = pairs.COLUMNS["n_bytes"][paired.used][kept]
    value, stderr, _ = pairs.ratio_error(w * (nll[1] - nll[0]) / math.log(2), w * size, docs)
    assert found.metrics["bits_per_byte"].difference.value == pytest.approx(value, **CLOSE)
    assert found.metrics["bits_per_byte"].difference.stderr == pytest.approx(stderr, **CLOSE)
    value, stderr, _ = pairs.ratio_error(w * paired.kl_ab[kept], w, docs)
    assert found.divergences["kl_divergence_ab"].mean.stderr == pytest.approx(stderr, **CLOSE)
    if cluster:
        flips = w * ((paired.b.rank == 0).astype(float) - (paired.a.rank == 0))[kept]
        each = np.bincount(docs, flips)
        assert found.flips.z == pytest.approx(each.sum() / math.sqrt((each**2).sum()))


def test_a_dump_and_itself_do_not_differ():
    a, _ = pairs.both()
    found = fx.compare(a, a, by="kind", cluster="doc", weight="weight")
    for part in (found, *found.slices["kind"].values()):
        for name, metric in part.metrics.items():
            assert metric.difference.value == 0, name
            if name not in (*AVERAGES, *CALIBRATION, *FROM_GRID):  # which have no standard error here
                assert (metric.difference.stderr, metric.p_value) == (0, 1), name
        assert all(d.mean.value == d.mean.stderr == 0 for d in part.divergences.values())
        assert (part.flips.right_to_wrong, part.flips.wrong_to_right, part.flips.p_value) == (0, 0, 1)
        assert part.same_top_1.value == 1
        assert part.perplexity_ratio.value == 1
    assert all(d.max == 0 for d in found.divergences.values())
    assert found.largest == ()


def test_other_losses_and_targets():
    a, b = pairs.both()
    soft = np.random.default_rng(2).dirichlet(np.ones(pairs.CLASSES), ROWS).astype(np.float32)
    weights = np.linspace(0, 2, pairs.CLASSES)
    for options, tables in (
        (dict(label_smoothing=0.1, class_weight=weights, temperature=1.5, softcap=20.0), (a, b)),
        ({}, (pairs.dump(pairs.A, list(soft)), pairs.dump(pairs.B, list(soft)))),
    ):
        found = fx.compare(*tables, **options)
        for side, table in zip("ab", tables, strict=True):
            alone = fx.evaluate(table, **options)
            assert one_side(found.metrics, side) == without_averages(alone.metrics)
        metric = found.metrics["cross_entropy"]
        assert metric.difference.value == pytest.approx(metric.b.value - metric.a.value)
    logs = [pairs.dump(np.log(np.exp(x) / np.exp(x).sum(axis=1, keepdims=True))) for x in (pairs.A, pairs.B)]
    plain, given = fx.compare(a, b), fx.compare(*logs, input="log_probs")
    mean = plain.divergences["js_divergence"].mean.value
    assert given.divergences["js_divergence"].mean.value == pytest.approx(mean, rel=1e-5)
    probs = [pairs.dump(np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)) for x in (pairs.A, pairs.B)]
    assert fx.compare(*probs, input="probs").divergences["js_divergence"].mean.value == pytest.approx(mean, rel=1e-4)


def test_a_dump_without_targets():
    tables = [t.drop_columns("target") for t in pairs.both()]
    found = fx.compare(*tables)
    assert list(found.metrics) == ["entropy", "confidence", "z_loss"]
    assert found.target_probability is found.flips is found.rank is found.perplexity_ratio is None
    assert found.divergences["kl_divergence_ab"].mean.value > 0
    assert found.largest[0].size == found.divergences["kl_divergence_ab"].max
    a, b = pairs.both()
    assert bits(fx.compare(a, b.drop_columns("target"))) == bits(fx.compare(a, b))


# ---- the same bits ---------------------------------------------------------------------------------------------------


def test_in_any_order_and_split(result, tmp_path):
    a, b = pairs.both()
    options = dict(by="kind", id="id", largest=7)
    want, largest = bits(result), [row.id for row in result.largest]
    order = np.random.default_rng(1).permutation(ROWS)
    for threads, memory, table in ((1, "1MB", a), (3, "1GB", a), (2, "2MB", a.take(order))):
        other = b.take(order) if table is not a else b
        found = fx.compare(table, other, threads=threads, memory=memory, **options)
        assert bits(found) == want
        assert [row.id for row in found.largest] == largest
    for k, table in enumerate((a, b)):
        (tmp_path / "ab"[k]).mkdir()
        for part, begin in enumerate(range(0, ROWS, 97 + 31 * k)):  # files, row groups and pages of other sizes
            rows = table.slice(begin, 97 + 31 * k)
            pq.write_table(rows, tmp_path / "ab"[k] / f"{part}.parquet", row_group_size=17 + 6 * k, data_page_size=900)
    assert bits(fx.compare(tmp_path / "a", tmp_path / "b", threads=2, memory="1MB", **options)) == want
    pyarrow.feather.write_feather(b, tmp_path / "b.arrow", compression="uncompressed", chunksize=50)
    assert bits(fx.compare(tmp_path / "a", tmp_path / "b.arrow", **options)) == want
    arrays = {"logits": pairs.B, "target": pairs.TARGET}
    assert bits(fx.compare(tmp_path / "a", arrays, **options)) == want
    stream = pa.RecordBatchReader.from_batches(b.schema, b.to_batches(max_chunksize=23))
    assert bits(fx.compare(a, stream, **options)) == want


@pytest.mark.parametrize("codec", ["none", "snappy"])
def test_units_that_have_to_be_read_twice(result, tmp_path, monkeypatch, codec):
    monkeypatch.setattr("fastxent.io.lockstep._ENOUGH", 1)  # cut at every end of a row group
    for name, table, rows in zip("ab", pairs.both(), (40, 25), strict=True):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=rows, compression=codec, data_page_size=500)
    dumps = tmp_path / "a.parquet", tmp_path / "b.parquet"
    for given in (dumps, dumps[::-1]):
        with Comparison.open(*given, DEFAULTS) as opened:
            ends = np.cumsum([unit.rows for unit in opened.job.source.units()])
        assert set(ends) == {*range(40, ROWS, 40), *range(25, ROWS, 25), ROWS}
    for threads in (1, 3):
        assert bits(fx.compare(*dumps, by="kind", id="id", largest=7, threads=threads)) == bits(result)


def test_resumed_and_in_shards(result, tmp_path):
    for name, table in zip("ab", pairs.both(), strict=True):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=40 if name == "a" else 25)
    dumps = tmp_path / "a.parquet", tmp_path / "b.parquet"
    options = dict(by="kind", id="id", largest=7)
    whole = fx.compare(*dumps, **options)
    assert bits(whole) == bits(result)
    states = [fx.compare(*dumps, shard=f"{k}/3", **options).state for k in (3, 1, 2)]
    merged = fx.merge_states(state.to_bytes() for state in states)
    assert bits(merged.result()) == bits(whole)
    assert merged.to_bytes() == states[0].merge(states[1]).merge(states[2]).to_bytes()
    with pytest.raises(fx.StateError, match="twice"):
        fx.merge_states([states[0], states[0]])
    first = fx.compare(*dumps, resume=tmp_path / "progress", **options)
    again = fx.compare(*dumps, resume=tmp_path / "progress", **options)
    assert bits(first) == bits(again) == bits(whole)
    assert again.timing["resumed_rows"] == ROWS
    with pytest.raises(fx.StateError, match="largest=7 there, 8 here"):
        fx.compare(*dumps, resume=tmp_path / "progress", **{**options, "largest": 8})


def test_dumps_of_different_float_types():
    a, _ = pairs.both()
    rounded = pairs.B.astype(np.float16)
    wide = fx.compare(a, pairs.dump(rounded.astype(np.float64)))
    for other in (pairs.dump(rounded), pairs.dump(rounded.astype(np.float32))):
        found = fx.compare(a, other)
        for name, divergence in found.divergences.items():
            assert divergence.mean.value == pytest.approx(wide.divergences[name].mean.value, rel=1e-5)
    alone = fx.evaluate(a).metrics
    assert one_side(wide.metrics, "a") == without_averages(alone)


def test_the_state_is_a_value(result):
    state = result.state
    data = state.to_bytes()
    back = fx.CompareState.from_bytes(data)
    assert back.to_bytes() == data
    assert bits(back.result()) == bits(result)
    empty = state.emptied()
    assert empty.merge(state) == state.merge(empty) == state
    assert state != empty
    with pytest.raises(fx.StateError, match="largest"):
        state.merge(fx.CompareState.empty(state.config, 3))
    with pytest.raises(fx.StateError, match="not of a comparison"):
        fx.CompareState.from_bytes(state.second.to_bytes())
    with pytest.raises(fx.StateError, match="cannot be merged"):
        fx.merge_states([state, state.second])


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_other_targets_are_an_error(tmp_path):
    a, _ = pairs.both()
    target = pairs.TARGET.copy()
    target[217] += 1
    pq.write_table(pairs.dump(pairs.B, target), tmp_path / "b.parquet", row_group_size=100)
    with pytest.raises(fx.BadRowError, match=r"b\.parquet, row group 2, row 217: the target is \d+, but \d+ in .*217"):
        fx.compare(a, tmp_path / "b.parquet")
    assert fx.compare(a, tmp_path / "b.parquet", where="id != 'row 217'").rows.total == ROWS - 1


def test_other_numbers_of_rows_or_classes_are_an_error():
    a, b = pairs.both()
    with pytest.raises(fx.SourceError, match=r"same number of rows: got 331 in .* and 330"):
        fx.compare(a, b.slice(0, ROWS - 1))
    for first, second in ((b, b.slice(0, ROWS - 1)), (b.slice(0, ROWS - 1), b)):
        stream = pa.RecordBatchReader.from_batches(b.schema, second.to_batches(max_chunksize=50))
        with pytest.raises(fx.SourceError, match=r"has a row 330 where .* ends"):
            fx.compare(first, stream)
    with pytest.raises(fx.SourceError, match=r"same classes, got 23 in .* and 22"):
        fx.compare(a, pairs.dump(pairs.B[:, 1:], np.minimum(pairs.TARGET, 21)))


def test_a_bad_row_of_either_is_used_in_neither():
    logits = [pairs.A.copy(), pairs.B.copy()]
    logits[0][5, 3] = np.nan
    logits[1][7, 3] = np.inf
    tables = [pairs.dump(x) for x in logits]
    for bad, row in ((0, 5), (1, 7)):
        given = [tables[k] if k == bad else pairs.both()[k] for k in (0, 1)]
        with pytest.raises(fx.BadRowError, match=f"row {row}: logit 3"):
            fx.compare(*given)
    found = fx.compare(*tables, on_bad_row="skip")
    assert (found.rows.bad, found.rows.used) == (2, (pairs.TARGET != -100).sum() - 2)
    kept = np.delete(np.arange(ROWS), [5, 7])
    clean = fx.compare(*(table.take(kept) for table in pairs.both()))
    assert found.metrics == clean.metrics
    assert found.divergences == clean.divergences
    assert fx.CompareState.from_bytes(found.state.to_bytes()) == found.state


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(names=("a", "a")), "names must be two different"), (dict(names="ab"), "names must"),
     (dict(largest=-1), "largest must"), (dict(id="ids"), "no column 'ids'"), (dict(by="kinds"), "no column 'kinds'"),
     (dict(metrics="acuracy"), "did you mean 'accuracy'")],
)  # fmt: skip
def test_invalid_options(options, message):
    with pytest.raises(fx.FastxentError, match=message):
        fx.compare(*pairs.both(), **options)
