"""Dumps without logits: the log-probability of what happened, and numbers that were computed elsewhere."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

import fastxent as fx
import mutants
from fastxent.cli.program import run
from fastxent.state import packed
from tests.state.test_damage import at_most, forged
from tests.verbs.evaluated import figures

N = 400
RNG = np.random.default_rng(11)
LOGPROB = np.where(RNG.random(N) < 0.1, -math.inf, -RNG.exponential(size=N)).clip(-60)
ACC = np.where(RNG.random(N) < 0.2, np.nan, RNG.integers(0, 2, N))
GAIN = RNG.normal(size=N) * np.exp(RNG.normal(size=N) * 5)
LANG = RNG.choice(["de", "en", "fr"], N)
DOC = RNG.integers(0, 30, N)
WEIGHT = RNG.choice([0.0, 0.5, 1.0, 2.25], N)
BYTES = RNG.integers(1, 9, N)
EVERYTHING = {"by": ("lang", "doc"), "cluster": "doc", "weight": "w", "scores": ("acc", "gain")}


def table(**columns: object) -> pa.Table:
    null = np.arange(N) % 50 == 7
    found = {
        "logprob": pa.array(LOGPROB, mask=null), "acc": pa.array(ACC, mask=np.isnan(ACC)), "gain": GAIN, "lang": LANG,
        "doc": DOC, "w": WEIGHT, "n_bytes": BYTES, "id": np.arange(N),
    } | columns  # fmt: skip
    return pa.table({name: column for name, column in found.items() if column is not None})


# ---- the numbers -----------------------------------------------------------------------------------------------------


def slow_mean(values: list, over: list, groups: list) -> tuple[float, float]:
    """Σ values / Σ over with the error of the ratio estimator, each sum by `math.fsum`."""
    total = math.fsum(over)
    if not total:
        return math.nan, math.nan
    mean = math.fsum(values) / total
    parts: dict[object, list[float]] = {}
    for value, share, group in zip(values, over, groups, strict=True):
        parts.setdefault(group, []).append(value - mean * share)
    n = len(parts)
    if n < 2:
        return mean, math.nan
    return mean, math.sqrt(n / (n - 1) * math.fsum(math.fsum(part) ** 2 for part in parts.values())) / total


VALUES = st.one_of(st.none(), st.floats(-50, 0), st.sampled_from([0.0, -0.0, -1e-300, -1e4]))
ROWS = st.lists(
    st.tuples(VALUES, VALUES, st.sampled_from([0.0, 0.25, 1.0, 3.0]), st.integers(0, 3), st.integers(1, 5)),
    min_size=1, max_size=12,
)  # fmt: skip


@settings(deadline=None)
@given(rows=ROWS, weighted=st.booleans(), clustered=st.booleans(), threads=st.integers(1, 2))
def test_means_and_errors_are_those_of_the_slow_sums(rows, weighted, clustered, threads):
    logprob, score, weight, doc, n_bytes = (list(column) for column in zip(*rows, strict=True))
    columns = {
        "p": pa.array(logprob, pa.float64()), "s": pa.array(score, pa.float64()), "w": weight, "doc": doc, "b": n_bytes
    }  # fmt: skip
    options = {"weight": "w" if weighted else None, "cluster": "doc" if clustered else None}
    result = fx.evaluate(columns, target_logprob="p", n_bytes="b", scores="s", threads=threads, **options)
    w = weight if weighted else [1.0] * len(rows)
    group = doc if clustered else list(range(len(rows)))
    used = [i for i, value in enumerate(logprob) if value is not None]
    assert (result.task, result.rows.used, result.rows.ignored) == ("likelihood", len(used), len(rows) - len(used))
    kept = [i for i in used if w[i]]
    groups = [group[i] for i in kept]
    nll, weights = [-w[i] * logprob[i] for i in kept], [w[i] for i in kept]
    close = {"rel": 1e-9, "abs": 1e-12, "nan_ok": True}
    loss = result.metrics["cross_entropy"]
    assert (loss.value, loss.stderr) == pytest.approx(slow_mean(nll, weights, groups), **close)
    bits, error = slow_mean(nll, [w[i] * n_bytes[i] for i in kept], groups)
    found = result.metrics["bits_per_byte"]
    assert (found.value, found.stderr) == pytest.approx((bits / math.log(2), error / math.log(2)), **close)
    there = [i for i in kept if score[i] is not None]
    truth = slow_mean([w[i] * score[i] for i in there], [w[i] for i in there], [group[i] for i in there])
    found = result.metrics["s"]
    assert (found.value, found.stderr) == pytest.approx(truth, **close)


def test_intervals_and_other_metrics():
    result = fx.evaluate(table(), target_logprob="logprob", scores="gain")
    nll = -LOGPROB[np.arange(N) % 50 != 7]
    loss = result.metrics["cross_entropy"]
    t = stats.t.ppf(0.975, len(nll) - 1)
    assert loss.stderr == pytest.approx(nll.std(ddof=1) / math.sqrt(len(nll)))
    assert loss.ci95 == pytest.approx((loss.value - t * loss.stderr, loss.value + t * loss.stderr))
    assert result.metrics["cross_entropy_bits"].value == pytest.approx(nll.mean() / math.log(2))
    assert result.metrics["perplexity"].value == pytest.approx(math.exp(nll.mean()))
    assert list(result.metrics) == ["cross_entropy", "cross_entropy_bits", "perplexity", "gain"]
    assert result.nll_quantiles[0.5] == pytest.approx(np.quantile(nll, 0.5, method="inverted_cdf"), rel=0.004)
    assert sum(result.nll_histogram.counts) == len(nll)
    assert result.per_class.class_id == result.calibration.count == ()


def test_scores_alone_are_a_dump_of_their_own():
    result = fx.evaluate(table(logprob=None), scores=["acc", "gain"], by="lang")
    assert (result.task, list(result.metrics), result.rows.used) == ("scores", ["acc", "gain"], N)
    assert result.score_rows["acc"].used == np.isfinite(ACC).sum()
    assert result.score_rows["acc"].ignored == np.isnan(ACC).sum()
    for lang, part in result.slices["lang"].items():
        for name, values in (("acc", ACC), ("gain", GAIN)):
            inside = values[(lang == LANG) & ~np.isnan(values)]
            assert part.metrics[name].value == pytest.approx(inside.mean())
            assert part.metrics[name].stderr == pytest.approx(inside.std(ddof=1) / math.sqrt(len(inside)))
    flags = fx.evaluate({"ok": np.array([True, False, True, True])}, scores="ok")
    assert flags.metrics["ok"].value == 0.75
    infinite = fx.evaluate({"x": [1.0, math.inf], "y": [1, 2]}, scores=["x", "y"])
    assert (infinite.metrics["x"].value, infinite.metrics["y"].value) == (math.inf, 1.5)


@pytest.mark.parametrize("options", [{}, {"weight": "w"}, {"cluster": "doc"}])
def test_a_score_of_zeros_and_ones_is_a_rate(options):
    right = np.arange(N) % 7 == 0
    result = fx.evaluate(
        table(logprob=None, right=right, half=right / 2), scores=["right", "half"], by="lang", **options
    )
    labels = {"logits": np.where(right[:, None], [[1.0, 0.0]], [[0.0, 1.0]]), "target": np.zeros(N, int)}
    accuracy = fx.evaluate(table(**{name: list(column) for name, column in labels.items()}), by="lang", **options)
    assert result.metrics["right"] == accuracy.metrics["accuracy"]
    assert result.metrics["right"].method == "wilson"
    assert result.metrics["half"].method == "t"
    for lang, part in result.slices["lang"].items():
        assert part.metrics["right"] == accuracy.slices["lang"][lang].metrics["accuracy"]
    certain = fx.evaluate({"x": np.ones(50)}, scores="x").metrics["x"]
    assert certain.ci95[0] < 0.95
    assert fx.EvalState.from_bytes(result.state.to_bytes()).result().metrics == result.metrics


def test_scores_beside_logits_leave_the_other_metrics_alone(tmp_path):
    logits = RNG.normal(size=(N, 5)).astype(np.float32)
    dump = table(logits=list(logits), target=RNG.integers(0, 5, N))
    plain = fx.evaluate(dump, by="lang", cluster="doc", weight="w")
    result = fx.evaluate(dump, by="lang", cluster="doc", weight="w", scores=["acc"])
    for name, metric in plain.metrics.items():
        assert result.metrics[name] == metric
    alone = fx.evaluate(table(), by="lang", cluster="doc", weight="w", scores=["acc"])
    assert result.metrics["acc"] == alone.metrics["acc"]
    assert result.slices["lang"]["de"].metrics["acc"] == alone.slices["lang"]["de"].metrics["acc"]
    binary = fx.evaluate(table(logits=GAIN, target=DOC % 2), by="lang", cluster="doc", weight="w", scores=["acc"])
    assert binary.metrics["acc"] == alone.metrics["acc"]


def test_per_row_files_of_an_old_run_give_its_loss_again(tmp_path):
    logits, target = RNG.normal(size=(N, 5)), RNG.integers(-1, 5, N)
    dump = table(logits=list(logits), target=target)
    old = fx.evaluate(dump, ignore_index=-1, id="doc", per_row=tmp_path / "rows.parquet")
    again = fx.evaluate(tmp_path / "rows.parquet", scores=["nll", "confidence"], logits="logits")
    assert again.metrics["nll"] == old.metrics["cross_entropy"]
    assert again.metrics["confidence"] == old.metrics["confidence"]
    assert again.score_rows["nll"].used == old.rows.used
    rows = pq.read_table(tmp_path / "rows.parquet")
    logprob = pa.compute.negate(rows["nll"])
    likelihood = fx.evaluate({"p": logprob, "doc": rows["doc"]}, target_logprob="p", per_row=tmp_path / "again.parquet")
    for name in likelihood.metrics:
        assert likelihood.metrics[name] == old.metrics[name]
    assert likelihood.nll_quantiles == old.nll_quantiles
    written = pq.read_table(tmp_path / "again.parquet")
    assert written.column_names == ["nll", "status"]
    assert written["nll"].equals(rows["nll"])


# ---- the bits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["likelihood", "scores"])
def test_no_split_of_the_work_changes_a_bit(task, tmp_path):
    options = EVERYTHING | ({"target_logprob": "logprob", "n_bytes": "n_bytes"} if task == "likelihood" else {})
    rows = table()
    paths = [tmp_path / f"{k}.parquet" for k in range(4)]
    for k, path in enumerate(paths):
        pq.write_table(rows.slice(100 * k, 100), path, row_group_size=9)
    whole = fx.evaluate(rows, **options).state
    assert fx.EvalState.from_bytes(whole.to_bytes()) == whole
    assert whole.merge(fx.EvalState.empty(whole.config)) == whole
    for how in ({"threads": 3}, {"memory": "1MB"}, {"resume": tmp_path / "progress"}):
        assert fx.evaluate(paths[::-1], **options, **how).state == whole
    shards = [fx.evaluate(paths, **options, shard=f"{k}/3").state for k in (3, 1, 2)]
    assert figures(fx.merge_states(shards).result()) == figures(whole.result())
    assert fx.EvalState.empty(whole.config).update(rows) == whole
    pa.ipc.new_file(tmp_path / "x.arrow", rows.schema).close()
    with pa.ipc.new_file(tmp_path / "x.arrow", rows.schema) as out:
        out.write_table(rows, 37)
    assert fx.evaluate(tmp_path / "x.arrow", **options).state == whole
    result = whole.result()
    assert fx.EvalResult.from_json(result.to_json()) == result


def test_the_order_of_rows_changes_no_bit():
    rows = table()
    order = np.random.default_rng(0).permutation(N)
    options = EVERYTHING | {"target_logprob": "logprob"}
    assert fx.evaluate(rows.take(order), **options).state == fx.evaluate(rows, **options).state


def test_damaged_states_are_refused_or_are_states():
    state = fx.evaluate(table(), target_logprob="logprob", **EVERYTHING | {"by": "lang"}).state
    header, arrays = packed.unpack(state.to_bytes())
    rng = random.Random(4)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(120):
        text = rng.random() < 0.3
        try:
            changed = mutants.changed(header, rng) if text else header
            data = forged(changed, arrays if text else mutants.changed_arrays(arrays, rng))
        except (LookupError, TypeError):
            continue
        with at_most(50e6):
            try:
                found = fx.EvalState.from_bytes(data)
            except fx.StateError as error:
                outcomes["refused"] += "\n" not in str(error)
                continue
            found.merge(fx.EvalState.empty(found.config)).result().to_json()
        outcomes["read"] += 1
    assert outcomes["refused"] > 60


# ---- rows and options that are refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"logprob": [-1.0, math.nan]}, "row 1: the log-probability is nan"),
        ({"logprob": [-1.0, 0.5]}, "row 1: the log-probability is 0.5"),
        ({"logprob": [-1.0, math.inf]}, "row 1: the log-probability is inf"),
        ({"s": [1.0, math.nan]}, "row 1: column 's' is nan"),
        ({"w": [1.0, math.nan]}, "row 1: column 'w' is nan"),
    ],
)
def test_bad_rows(columns, message):
    given = {"logprob": [-1.0, -2.0], "s": [1.0, 3.0], "w": [1.0, 2.0]} | columns
    dump = {name: np.array(values) for name, values in given.items()}  # NaN is no null
    options = {"target_logprob": "logprob", "scores": "s", "weight": "w"}
    with pytest.raises(fx.BadRowError, match=message):
        fx.evaluate(dump, **options)
    result = fx.evaluate(dump, **options, on_bad_row="skip")
    assert (result.rows.used, result.rows.bad) == (1, 1)
    assert (result.metrics["cross_entropy"].value, result.metrics["s"].value) == (1.0, 1.0)


def test_true_and_false_are_not_log_probabilities():
    with pytest.raises(fx.ColumnError, match="column 'p' must hold log-probabilities, got bool"):
        fx.evaluate({"p": [False, True]}, target_logprob="p")


def test_infinite_losses_and_no_rows():
    result = fx.evaluate({"p": [-math.inf, -1.0]}, target_logprob="p")
    assert result.metrics["cross_entropy"].value == result.metrics["perplexity"].value == math.inf
    assert result.nll_histogram.infinite == 1
    empty = fx.evaluate({"p": np.zeros(0)}, target_logprob="p", scores="p")
    assert math.isnan(empty.metrics["cross_entropy"].value)
    assert math.isnan(empty.metrics["p"].value)
    assert fx.evaluate({"p": pa.nulls(3, pa.float32())}, target_logprob="p").rows.ignored == 3
    certain = fx.evaluate({"p": np.zeros(3, np.float16)}, target_logprob="p").metrics["cross_entropy"]
    assert math.copysign(1.0, certain.value) == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_logprob": "p", "logits": "x"}, "logits cannot be combined with target_logprob"),
        ({"target_logprob": "p", "target": "x"}, "target cannot be combined with target_logprob"),
        ({"target_logprob": "p", "temperature": 2.0}, "temperature must not be given, got 2.0"),
        ({"target_logprob": "p", "class_weight": [1, 2]}, "class_weight must not be given, got"),
        ({"target_logprob": "q"}, "no column 'q'"),
        ({"target_logprob": "t"}, "column 't' must hold numbers, got string"),
        ({"scores": "q"}, "no column 'q'"),
        ({"scores": ["p", "p"]}, "scores must name each column once"),
        ({"scores": "p", "target": "x"}, "target cannot be combined with scores alone"),
        ({"scores": "p", "n_bytes": "x"}, "n_bytes must not be given"),
        ({"scores": "p", "logits": "logit"}, "no column 'logit'"),
        ({"scores": "p", "metrics": "accuracy"}, "unknown metric 'accuracy'"),
        ({"target_logprob": "p", "metrics": "accuracy"}, "unknown metric 'accuracy'"),
        ({"target_logprob": "p", "scores": "perplexity"}, "scores must not name a metric, got 'perplexity'"),
        ({"scores": "p", "per_row": "x.parquet"}, "per_row requires logits or target_logprob"),
    ],
)
def test_options_that_do_not_fit(options, message):
    dump = {"p": [-1.0, -2.0], "x": [1, 2], "t": ["a", "b"], "perplexity": [1.0, 2.0]}
    with pytest.raises(fx.FastxentError, match=message) as error:
        fx.evaluate(dump, **options)
    assert "\n" not in str(error.value)


def test_transform_needs_logits(tmp_path):
    with pytest.raises(fx.ConfigError, match="cannot transform a dump without logits"):
        fx.transform({"p": [-1.0]}, tmp_path / "x.parquet", target_logprob="p")


# ---- the command line ------------------------------------------------------------------------------------------------


def test_the_command_line(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pq.write_table(table(metric=pa.StructArray.from_arrays([pa.array(ACC, mask=np.isnan(ACC))], ["em"])), "x.parquet")
    dump = ["x.parquet", "--target-logprob", "logprob", "--scores", "acc,gain", "--scores", "metric.em", "--by", "lang"]
    files = ["--report", "r.html", "--output", "r.json", "--state", "s", "--per-row", "rows.parquet"]
    assert run(["eval", *dump, *files]) == 0
    shown = capsys.readouterr().out
    missing = int(np.isnan(ACC[np.arange(N) % 50 != 7]).sum())
    assert f"acc: {392 - missing} rows, {missing} without a value" in shown
    result = fx.EvalResult.from_json(Path("r.json").read_text(encoding="utf-8"))
    assert (result.task, result.metrics["metric.em"]) == ("likelihood", result.metrics["acc"])
    page = Path("r.html").read_text(encoding="utf-8")
    assert "Calibration" not in page
    assert "metric.em" in page
    assert run(["merge", "s", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == result.to_dict()["metrics"]
    for condition, code in {"metric.em>2": 0, "metric.em.stderr<9": 1, "perplexity>1": 1, "accuracy>0": 2}.items():
        assert run(["eval", *dump, "--quiet", "--format", "none", "--fail-if", condition]) == code, condition
    assert run(["eval", "x.parquet", "--scores", "acc", "--format", "markdown"]) == 0
    assert "without a value" in capsys.readouterr().out


def test_scores_beside_labels():
    labels = RNG.integers(0, 2, (N, 3))
    dump = table(logits=list(RNG.normal(size=(N, 3))), target=list(labels))
    result = fx.evaluate(dump, task="multilabel", scores=["acc"], by="lang")
    assert result.metrics["acc"] == fx.evaluate(table(), scores=["acc"]).metrics["acc"]
