"""`compare` of dumps without logits: scores and log-probabilities that the dumps hold."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather
from scipy import stats

import fastxent as fx
from fastxent.cli.program import run
from fastxent.state.pair_scores import PairScoreTable
from tests.verbs.pairs import interval, ratio_error

N = 250
RNG = np.random.default_rng(3)
ACC = [RNG.integers(0, 2, N).astype(float) for _ in range(2)]
ACC[1] = np.where(RNG.random(N) < 0.7, ACC[0], ACC[1])
NULL = [RNG.random(N) < 0.1 for _ in range(2)]
GAIN = [RNG.normal(size=N)]
GAIN.append(GAIN[0] + RNG.normal(size=N))
LOGPROB = [-RNG.exponential(size=N)]
LOGPROB.append(LOGPROB[0] * RNG.uniform(0.5, 1.7, N))
LANG, DOC = RNG.choice(["de", "en", "fr"], N), RNG.integers(0, 30, N)
WEIGHT, BYTES = RNG.choice([0.0, 0.5, 1.0, 2.25], N), RNG.integers(1, 9, N)
ORDER = RNG.permutation(N)
SCORES = {"scores": ("acc", "gain"), "by": "lang"}
EVERYTHING = {**SCORES, "target_logprob": "p", "cluster": "doc", "weight": "w", "n_bytes": "n"}


def dumps() -> tuple[pa.Table, pa.Table]:
    """Two dumps; the columns beside are in the first."""
    a, b = (
        pa.table({"acc": pa.array(acc, mask=null), "gain": gain, "p": p, "id": np.arange(N)})
        for acc, null, gain, p in zip(ACC, NULL, GAIN, LOGPROB, strict=True)
    )
    for name, column in {"lang": LANG, "doc": DOC, "w": WEIGHT, "n": BYTES}.items():
        a = a.append_column(name, [column])
    return a, b


@pytest.fixture(scope="module")
def scored():
    return fx.compare(*dumps(), **SCORES)


@pytest.fixture(scope="module")
def everything():
    return fx.compare(*dumps(), **EVERYTHING)


def check(found, a: np.ndarray, b: np.ndarray) -> None:
    """A comparison of means of rows that are all alike."""
    test = stats.ttest_rel(b, a)
    assert (found.a.value, found.b.value) == pytest.approx((a.mean(), b.mean()), rel=1e-12)
    assert found.difference.value == pytest.approx((b - a).mean(), rel=1e-12)
    assert found.difference.stderr == pytest.approx(stats.sem(b - a), rel=1e-12)
    assert found.difference.ci95 == pytest.approx(test.confidence_interval(), rel=1e-9)
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-9)
    assert found.correlation == pytest.approx(stats.pearsonr(a, b).statistic, rel=1e-10)
    assert found.unpaired_stderr == pytest.approx(math.hypot(stats.sem(a), stats.sem(b)), rel=1e-12)
    assert found.minimum_detectable_effect == pytest.approx(2.8 * stats.sem(b - a), rel=1e-12)


def test_the_difference_of_a_score_is_that_of_paired_rows(scored):
    check(scored.metrics["gain"], *GAIN)
    both = ~(NULL[0] | NULL[1])
    check(scored.metrics["acc"], *(acc[both] for acc in ACC))
    counts = scored.score_rows["acc"]
    assert (counts.used, counts.ignored, counts.total) == (both.sum(), N - both.sum(), N)
    assert (scored.metrics["acc"].a.method, scored.metrics["gain"].a.method) == ("wilson", "t")


def test_slices_are_the_comparison_of_their_rows(scored):
    for value, part in scored.slices["lang"].items():
        alone = fx.compare(*(table.filter(pa.array(value == LANG)) for table in dumps()), scores=["acc", "gain"])
        for name, metric in part.metrics.items():
            assert (metric.difference, metric.p_value) == (alone.metrics[name].difference, alone.metrics[name].p_value)
            assert metric.adjusted_p_value >= metric.p_value


def test_log_probabilities():
    found = fx.compare(*dumps(), target_logprob="p", n_bytes="n")
    check(found.metrics["cross_entropy"], *(-p for p in LOGPROB))
    assert found.perplexity_ratio.value == pytest.approx(math.exp((LOGPROB[0] - LOGPROB[1]).mean()), rel=1e-12)
    bits = (LOGPROB[0] - LOGPROB[1]) / math.log(2)
    value, stderr, n = ratio_error(bits, BYTES)
    difference = found.metrics["bits_per_byte"].difference
    assert (difference.value, difference.stderr) == pytest.approx((value, stderr), rel=1e-10)
    assert difference.ci95 == pytest.approx(interval(value, stderr, n), rel=1e-9)
    perplexity = found.metrics["perplexity"]
    means = [math.exp(-p.mean()) for p in LOGPROB]
    assert perplexity.difference.value == pytest.approx(means[1] - means[0], rel=1e-11)
    values = found.to_dict()
    assert (values["task"], values["divergences"], values["largest"]) == ("likelihood", {}, [])
    assert {values[name] for name in ("same_top_1", "target_probability", "flips", "rank")} == {None}


@pytest.mark.parametrize("name", ["gain", "acc", "cross_entropy", "bits_per_byte"])
def test_clusters_and_weights_by_residuals(everything, name):
    a, b = {"gain": GAIN, "acc": ACC}.get(name, [-p for p in LOGPROB])
    both = WEIGHT > 0
    both &= ~(NULL[0] | NULL[1]) if name == "acc" else True
    over = WEIGHT * (BYTES * math.log(2) if name == "bits_per_byte" else 1)
    for metric, x in ((everything.metrics[name].a, a), (everything.metrics[name].difference, b - a)):
        value, stderr, n = ratio_error((WEIGHT * x)[both], over[both], DOC[both])
        assert (metric.value, metric.stderr) == pytest.approx((value, stderr), rel=1e-10)
        assert metric.method == "t" or name == "acc"
    assert metric.ci95 == pytest.approx(interval(value, stderr, n), rel=1e-8)


def flips_of(a: np.ndarray, b: np.ndarray) -> tuple[int, ...]:
    return tuple(int(((a == i) & (b == j)).sum()) for i, j in ((1, 1), (0, 0), (1, 0), (0, 1)))


def test_flips_of_a_score_of_zeros_and_ones(scored, everything):
    both = ~(NULL[0] | NULL[1])
    assert scored.metrics["gain"].flips is None
    assert "flips" not in scored.to_dict()["metrics"]["gain"]
    for result, mask in ((scored, both), (everything, both & (WEIGHT > 0))):
        flips = result.metrics["acc"].flips
        counts = flips_of(ACC[0][mask], ACC[1][mask])
        assert (flips.both_right, flips.both_wrong, flips.right_to_wrong, flips.wrong_to_right) == counts
        assert flips.p_value == pytest.approx(stats.binomtest(counts[2], counts[2] + counts[3]).pvalue)
        for value, part in result.slices["lang"].items():
            of = mask & (value == LANG)
            assert part.metrics["acc"].flips.right_to_wrong == flips_of(ACC[0][of], ACC[1][of])[2]
    changes = np.bincount(DOC[mask], (WEIGHT * (ACC[1] - ACC[0]))[mask])
    assert scored.metrics["acc"].flips.z is None
    assert flips.z == pytest.approx(changes.sum() / np.sqrt((changes**2).sum()), rel=1e-10)
    assert "Flips of acc: " in repr(scored)
    a, b = dumps()
    assert fx.compare(a, b.set_column(0, "acc", [ACC[1] * 2]), scores="acc").metrics["acc"].flips is None


def test_its_json_can_be_read(everything):
    assert fx.CompareResult.from_json(everything.to_json()) == everything
    values = json.loads(everything.to_json())
    values["metrics"]["acc"]["flips"]["both_right"] = -1
    with pytest.raises(fx.StateError, match=r"metrics\.acc\.flips must not be negative"):
        fx.CompareResult.from_dict(values)


def test_flips_that_contradict_the_rows_are_damage(scored):
    table = scored.state.first.given[0]
    arrays = table.arrays(np.arange(0))
    again = PairScoreTable(scored.config, "acc", None)
    again.load(arrays, ["whole"], 0)
    assert (again.flips.counts == arrays["flips/counts"]).all()
    with pytest.raises(ValueError, match="flips that do not add up"):
        again.load({**arrays, "flips/counts": arrays["flips/counts"] + 1}, ["whole"], 0)


def test_either_side_has_the_bits_of_evaluate(everything):
    a, b = dumps()
    for column in ("lang", "doc", "w", "n"):
        b = b.append_column(column, a[column])
    options = {**EVERYTHING, "scores": ("gain",)}
    for side, table in (("a", a), ("b", b)):
        alone = fx.evaluate(table, **options)
        assert {name: getattr(everything.metrics[name], side) for name in alone.metrics} == alone.metrics


def bits(result) -> str:
    return json.dumps({**result.to_dict(), "timing": None, "files": None})


def test_any_order_threads_and_split_give_the_same_bits(everything, tmp_path):
    a, b = dumps()
    assert bits(fx.compare(a, b.take(ORDER), on="id", **EVERYTHING)) == bits(everything)
    assert bits(fx.compare(a.take(ORDER), b, on="id", **EVERYTHING)) == bits(everything)
    pq.write_table(a, tmp_path / "a.parquet", row_group_size=33)
    pq.write_table(b.take(ORDER), tmp_path / "shuffled.parquet", row_group_size=70)
    feather.write_feather(b, tmp_path / "b.arrow", chunksize=41)
    paths = tmp_path / "a.parquet", tmp_path / "b.arrow"
    assert bits(fx.compare(*paths, **EVERYTHING, threads=3)) == bits(everything)
    found = fx.compare(paths[0], tmp_path / "shuffled.parquet", on="id", threads=3, **EVERYTHING)
    assert bits(found) == bits(everything)
    shards = [fx.compare(*paths, **EVERYTHING, shard=f"{k}/2").state for k in (2, 1)]
    merged = fx.merge_states(shards)
    assert merged.result().metrics == everything.metrics
    assert fx.CompareState.from_bytes(everything.state.to_bytes()) == everything.state
    assert everything.state.merge(fx.CompareState.empty(everything.config)) == everything.state


def test_inner_uses_the_rows_of_both():
    a, b = dumps()
    found = fx.compare(a.take(ORDER[:200]), b.slice(20), on="id", how="inner", scores="gain")
    kept = np.array([i for i in ORDER[:200] if i >= 20])
    check(found.metrics["gain"], *(gain[kept] for gain in GAIN))
    assert (found.rows.only_a, found.rows.only_b) == (200 - len(kept), N - 20 - len(kept))


def test_all_but_scores_is_of_the_first_dump():
    a, b = dumps()
    gain = GAIN[0] > 0
    found = fx.compare(a, b, scores=["gain", "p"], where="gain > 0", by="acc", weight="gain")
    assert found.rows.used == gain.sum()
    value, stderr, _ = ratio_error(((LOGPROB[1] - LOGPROB[0]) * GAIN[0])[gain], GAIN[0][gain])
    difference = found.metrics["p"].difference
    assert (difference.value, difference.stderr) == pytest.approx((value, stderr), rel=1e-10)
    right = gain & ~NULL[0] & (ACC[0] == 1)
    assert found.slices["acc"][1.0].rows.used == right.sum()


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("name", "value", "message"), [("gain", math.nan, "column 'gain' is nan"), ("p", 0.5, "the log-probability is 0.5")]
)
def test_a_bad_row_of_either_is_used_in_neither(side, name, value, message, tmp_path):
    tables = list(dumps())
    column = tables[side][name].to_numpy().copy()
    column[7] = value
    tables[side] = tables[side].set_column(tables[side].schema.get_field_index(name), name, [column])
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path, table in zip(paths, tables, strict=True):
        pq.write_table(table, path)
    options = dict(scores="gain", target_logprob="p")
    with pytest.raises(fx.BadRowError, match=f"{paths[side].name}.*row 7.*{message}"):
        fx.compare(*paths, **options)
    found = fx.compare(*paths, on_bad_row="skip", **options)
    kept = np.delete(np.arange(N), 7)
    assert (found.rows.bad, found.rows.used) == (1, N - 1)
    assert found.metrics == fx.compare(*(table.take(kept) for table in dumps()), **options).metrics


def test_json_lines_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, acc, rows in (("a", ACC[0], range(N)), ("b", ACC[1], ORDER.tolist())):
        lines = [json.dumps({"doc_id": int(i), "acc": acc[i]}) for i in rows]
        (tmp_path / f"samples_{name}.jsonl").write_text("\n".join(lines) + "\n")
    command = ["compare", "samples_a.jsonl", "samples_b.jsonl", "--scores", "acc", "--on", "doc_id", "-q"]
    assert run([*command, "--output", "r.json", "--fail-if", "acc.flips.p_value<0"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"a → b · {N} rows · {N} used\n")
    assert "KL" not in out
    assert "top" not in out
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["metrics"]["acc"]["p_value"] == pytest.approx(stats.ttest_rel(ACC[1], ACC[0]).pvalue)
    assert found["scores"]["acc"]["used"] == N
    assert run([*command, "--report", "r.html", "--by", "doc_id", "--format", "markdown"]) == 0
    assert run([*command, "--id", "doc_id"]) == 2
    assert "id must be None" in capsys.readouterr().err


def test_files_of_numbers_per_row(tmp_path):
    logits = [RNG.normal(size=(N, 5)).astype(np.float32) for _ in range(2)]
    sides = [{"logits": values, "target": DOC % 5} for values in logits]
    for name, side in zip("ab", sides, strict=True):
        fx.evaluate(side, per_row=tmp_path / f"{name}.parquet")
    found = fx.compare(tmp_path / "a.parquet", tmp_path / "b.parquet", scores=["nll", "confidence"])
    whole = fx.compare(*sides, metrics=["cross_entropy", "confidence"])
    assert found.metrics["nll"] == whole.metrics["cross_entropy"]
    assert found.metrics["confidence"] == whole.metrics["confidence"]


def test_what_cannot_be_compared():
    a, b = dumps()
    dump = {"logits": np.eye(3), "target": [0, 1, 2], "acc": [1.0, 0.0, 1.0], "p": [-1.0, -2.0, -3.0]}
    assert fx.compare(dump, dump, target_logprob="p").metrics["cross_entropy"].difference.value == 0
    with pytest.raises(fx.ColumnError, match="'lang'"):
        fx.compare(a, b, scores="lang")
    with pytest.raises(fx.SourceError, match="same number of rows"):
        fx.compare(a, b.slice(1), scores="gain")


@pytest.mark.parametrize("rows", [N - 9, N + 9])
def test_a_dump_that_changes_between_the_reads_is_refused(rows, monkeypatch):
    a, b = dumps()
    b = b.take(ORDER)
    read = iter([a.select(["id"]), b.select(["id"])])
    monkeypatch.setattr("fastxent.verbs.comparison.ids_of", lambda sides, names, memory: (next(read), next(read)))
    with pytest.raises(fx.SourceError, match=rf"cannot read .* twice: it had {N} ids, then {rows} rows"):
        fx.compare(a, pa.concat_tables([b, b]).slice(0, rows), on="id", scores="gain")


def test_details_of_lighteval(tmp_path):
    """Structs of what was asked, answered and measured, in any order: rows are matched by a field of a struct."""
    rng = np.random.default_rng(6)
    acc = rng.integers(0, 2, (2, 40)).astype(float)
    for name, scores, order in zip("ab", acc, (np.arange(40), rng.permutation(40)), strict=True):
        rows = [
            {
                "doc": {"id": f"q{k}", "choices": ["A", "B"], "gold_index": [0], "task": "mmlu" if k % 2 else "arc"},
                "model_response": {"logprobs": [-1.0, -2.0], "text": ["A"]},
                "metric": {"acc": scores[k], "em": None if k == 3 else 1.0},
            }
            for k in order.tolist()
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    dumps = tmp_path / "a.parquet", tmp_path / "b.parquet"
    found = fx.compare(*dumps, scores=["metric.acc", "metric.em"], on="doc.id", by="doc.task")
    test = stats.ttest_rel(acc[1], acc[0])
    assert found.metrics["metric.acc"].difference.value == pytest.approx((acc[1] - acc[0]).mean())
    assert found.metrics["metric.acc"].p_value == pytest.approx(test.pvalue)
    flips = found.metrics["metric.acc"].flips
    worse, better = int((acc[0] > acc[1]).sum()), int((acc[0] < acc[1]).sum())
    assert (flips.right_to_wrong, flips.wrong_to_right) == (worse, better)
    assert flips.p_value == pytest.approx(stats.binomtest(worse, worse + better).pvalue)
    assert found.score_rows["metric.em"].used == 39
    assert [part.rows.used for part in found.slices["doc.task"].values()] == [20, 20]
    many = fx.compare_many(dumps[0], {"b": dumps[1], "same": dumps[0]}, scores="metric.acc", on="doc.id")
    assert many["b"].metrics["metric.acc"].p_value == found.metrics["metric.acc"].p_value
