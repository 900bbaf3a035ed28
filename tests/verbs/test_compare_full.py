"""A top-k dump and a full one: bounds hold the figures of two full dumps; those of complete lists are the figures."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
from fastxent.cli.program import run
from tests.verbs.lists import Full, options

RNG = np.random.default_rng(5)
N, C, K = 150, 11, 4
TARGET = RNG.integers(0, C, N)
A = Full.of(RNG.normal(size=(N, C)) * 2, TARGET, "float32")
B = Full.of(A.logprobs + RNG.normal(size=(N, C)) * 0.7, TARGET, "float32")
BESIDE = {"id": pa.array(np.arange(N)), "kind": pa.array(RNG.choice(["x", "y"], N))}
DIVERGENCES = ("kl_divergence_ab", "kl_divergence_ba", "js_divergence")


def lists(full: Full, sizes: list[int], **more: object) -> pa.Table:
    return pa.table(full.top(sizes, **more) | BESIDE)  # type: ignore[arg-type]


def whole(full: Full, shift: float = 0.0, **more: object) -> pa.Table:
    """The same rows with all classes."""
    return pa.table({"all": list(full.logprobs + shift), "target": full.target, **BESIDE, **more})


def ends(metric: fx.Metric) -> tuple[float, float]:
    return metric.bounds or (metric.value, metric.value)


@settings(max_examples=15)
@given(
    n=st.integers(1, 4), c=st.integers(1, 7), seed=st.integers(0, 2**32), spread=st.sampled_from([0.0, 1.0, 8.0]),
    form=st.sampled_from(["", "other", "own", "added"]), masked=st.booleans(),
)  # fmt: skip
def test_bounds_hold_the_figures_of_two_full_dumps(n, c, seed, spread, form, masked):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, c, n)
    logits = [rng.normal(size=(n, c)) * spread for _ in range(2)]
    if masked:
        for x in logits:
            x[:, 1:][rng.random((n, c - 1)) < 0.3] = -np.inf
    a, b = (Full.of(x, target) for x in logits)
    top = a.top(
        rng.integers(1, c + 1, n).tolist(), rng=rng, other=form == "other", added=form == "added",
        own=[True] * n if form == "own" else None,
    )  # fmt: skip
    beside = [{"all": list(x.logprobs), "target": target} for x in (a, b)]
    truth = fx.compare(*beside, logits="all", input="log_probs")
    named = options(top, full_logits="all", input="log_probs")
    result, back = fx.compare(top, beside[1], **named), fx.compare(beside[1], top, **named)
    for mine, turned in (DIVERGENCES[:2], DIVERGENCES[1::-1], DIVERGENCES[2:] * 2):
        low, high = ends(result.divergences[mine].mean)
        assert low - 1e-7 <= truth.divergences[mine].mean.value <= high + 1e-7, mine
        assert ends(back.divergences[turned].mean) == (low, high)
    for name in ("cross_entropy", "entropy", "brier_score", "accuracy", "mean_reciprocal_rank"):
        wanted, (low, high) = truth.metrics[name].difference.value, ends(result.metrics[name].difference)
        assert np.isnan(wanted) or np.isnan(low) or low - 1e-6 <= wanted <= high + 1e-6, name
    low, high = ends(result.target_probability.mean)
    assert low - 1e-6 <= truth.target_probability.mean.value <= high + 1e-6
    assert result.same_top_1 == truth.same_top_1
    assert result.flips == truth.flips or form == "added"


@pytest.mark.parametrize("given", ["logits", "log_probs", "probs"])
def test_lists_of_all_classes_are_exact(given):
    other = {"logits": whole(B, 3.0), "log_probs": whole(B), "probs": whole(B).set_column(0, "all", pa.array(
        list(np.exp(B.logprobs))
    ))}[given]  # fmt: skip
    top = lists(A, [C] * N)
    result = fx.compare(top, other, **options(top.to_pydict()), full_logits="all", input=given, by="kind")
    full = fx.compare(whole(A), whole(B), logits="all", input="log_probs", by="kind")
    for found, truth in [(result, full), *((result.slices["kind"][k], full.slices["kind"][k]) for k in "xy")]:
        assert found.flips == truth.flips
        assert found.rows == truth.rows
        for name in DIVERGENCES:
            assert found.divergences[name].mean.bounds is None
            assert found.divergences[name].mean.value == pytest.approx(truth.divergences[name].mean.value, rel=1e-6)
            assert found.divergences[name].mean.stderr == pytest.approx(truth.divergences[name].mean.stderr, rel=1e-6)
        for name in set(found.metrics) & set(truth.metrics):
            assert found.metrics[name].difference.value == pytest.approx(
                truth.metrics[name].difference.value, rel=1e-5, abs=1e-9
            ), name  # fmt: skip


def test_bounds_are_closer_than_those_of_two_lists():
    tops = [lists(full, [K] * N, other=True) for full in (A, B)]
    named = options(tops[0].to_pydict(), n_classes=C)
    two, one = fx.compare(*tops, **named), fx.compare(tops[0], whole(B), **named, full_logits="all")
    assert two.divergences["kl_divergence_ab"].mean.bounds[1] == np.inf
    for name in DIVERGENCES:
        (low, high), (least, most) = (ends(found.divergences[name].mean) for found in (one, two))
        assert least < low
        assert high < most or name == "kl_divergence_ba"
    assert one.metrics["accuracy"].difference == two.metrics["accuracy"].difference


def test_in_any_order_and_in_parts(tmp_path):
    order = RNG.permutation(N)
    top, paths = lists(A, [K] * N, other=True), [tmp_path / f"{name}.parquet" for name in "abcd"]
    pq.write_table(top, paths[0], row_group_size=40)
    pq.write_table(whole(B), paths[1], row_group_size=33)
    pq.write_table(whole(B).take(pa.array(order)), paths[2])
    pq.write_table(top.take(pa.array(order)), paths[3])
    named = {**options(top.to_pydict()), "full_logits": "all", "where": "kind == 'x'"}
    truth = fx.compare(*paths[:2], **named)
    assert truth.rows.used == (np.array(BESIDE["kind"].to_pylist()) == "x").sum()
    for result in (fx.compare(paths[0], paths[2], **named, on="id"), fx.compare(*paths[:2], **named, memory="2MB")):
        assert (result.metrics, result.divergences, result.flips) == (truth.metrics, truth.divergences, truth.flips)
    back, turned = fx.compare(paths[1], paths[0], **named), fx.compare(paths[1], paths[3], **named, on="id")
    assert (back.metrics, back.divergences) == (turned.metrics, turned.divergences)
    shards = [fx.compare(*paths[:2], **named, shard=f"{k}/2").state for k in (1, 2)]
    assert fx.merge_states(shards).result().divergences == truth.divergences
    many = fx.compare_many(paths[1], {"p": paths[0], "q": paths[0]}, **named)
    assert [many[name].divergences for name in "pq"] == [back.divergences] * 2
    assert fx.CompareResult.from_json(truth.to_json()) == truth


def test_bad_rows_of_either_are_counted():
    top, full = lists(A, [K] * N), whole(B)
    broken = [None if i == 3 else [0.1] * K if i == 5 else row for i, row in enumerate(top["lp"].to_pylist())]
    top = top.set_column(1, "lp", pa.array(broken))
    values = [[np.nan] * C if i in (5, 9) else row for i, row in enumerate(full["all"].to_pylist())]
    full = full.set_column(0, "all", pa.array(values))
    named = {**options(top.to_pydict()), "full_logits": "all"}
    result = fx.compare(top, full, **named, on_bad_row="skip")
    assert (result.rows.bad, result.rows.used) == (3, N - 3)
    assert np.isfinite(result.divergences["js_divergence"].mean.bounds).all()
    with pytest.raises(fx.BadRowError, match="row 3: its list is null"):
        fx.compare(top, full, **named)
    with pytest.raises(fx.BadRowError, match="row 5"):
        fx.compare(lists(A, [K] * N), full, **named)


def test_refused():
    top, full = lists(A, [K] * N), whole(B)
    named, narrow = options(top.to_pydict()), whole(Full.of(B.logprobs[:, :2], TARGET)).drop_columns("target")
    for sides, more, message in [
        ((top, full), {}, "no column 'ids'"),
        ((top, full), {"full_logits": "nope"}, "no column 'nope'"),
        ((top, top), {"full_logits": "all"}, "got a top-k dump twice"),
        ((full, full), {"full_logits": "all"}, "got a full one twice"),
        ((top, full), {"full_logits": "all", "ids": None, "logits": "all"}, r"full_logits requires ids \(--ids\)"),
        ((top, full), {"full_logits": "all", "n_classes": 12}, "n_classes must be 11 as in <table>, got 12"),
        ((top, full), {"full_logits": "all", "temperature": 2.0}, "temperature must not be given"),
        ((top, full), {"full_logits": "all", "renormalize": False}, "renormalize must be True"),
        ((top, full), {"full_logits": "id"}, "must be"),
        ((top, pa.table({"all": np.zeros(N), "target": TARGET})), {"full_logits": "all"}, "one score per class"),
        ((top, narrow), {"full_logits": "all"}, "outside the 2 classes"),
    ]:
        with pytest.raises(fx.FastxentError, match=message) as caught:
            fx.compare(*sides, **{**named, **more})
        assert "\n" not in str(caught.value)
    texts = top.set_column(0, "ids", pa.array([[f"t{j}" for j in row] for row in top["ids"].to_pylist()]))
    with pytest.raises(fx.ColumnError, match="classes must be given, because column 'ids' of <table> holds strings"):
        fx.compare(texts, full, **named, full_logits="all")
    classes = [f"t{j}" for j in range(C)]
    assert (
        fx.compare(texts, full, **named, full_logits="all", classes=classes).divergences
        == fx.compare(top, full, **named, full_logits="all").divergences
    )


def test_the_command_line(tmp_path, capsys):
    pq.write_table(lists(A, [K] * N), tmp_path / "a.parquet")
    pq.write_table(whole(B), tmp_path / "b.parquet")
    words = ["compare", *(str(tmp_path / f"{name}.parquet") for name in "ab"), "--logits", "lp", "--ids", "ids"]
    assert run([*words, "--full-logits", "all"]) == 0
    assert "KL(a‖b)" in capsys.readouterr().out
    assert run([*words, "--full-logits", "all", "--fail-if", "kl_divergence_ab.bounds.high>9"]) == 0
