"""Two top-k dumps: what is exact is that of the full dumps, and every bound holds the figure of the full rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
from fastxent.cli.program import run
from tests.verbs.lists import Full, options

RNG = np.random.default_rng(11)
N, C, K = 200, 12, 4
TARGET = RNG.integers(0, C, N)
A = Full.of(RNG.normal(size=(N, C)) * 2, TARGET, "float32")
B = Full.of(A.logprobs + RNG.normal(size=(N, C)) * 0.7, TARGET, "float32")
BESIDE = {
    "id": pa.array(np.arange(N)), "doc": pa.array(np.arange(N) // 9), "kind": pa.array(RNG.choice(["x", "y"], N)),
    "w": pa.array(RNG.choice([0.5, 2.0, -0.25], N)),
}  # fmt: skip


def dump(full: Full, sizes: list[int], **more: object) -> pa.Table:
    return pa.table(full.top(sizes, other=True, own=[True] * len(sizes), **more) | BESIDE)  # type: ignore[arg-type]


def divergences(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """KL both ways and JS of two rows of log-probabilities, by the book."""

    def kl(x: list[float], y: list[float]) -> float:
        return math.fsum(math.exp(u) * (u - v) if u > -math.inf else 0.0 for u, v in zip(x, y, strict=True))

    x, y = a.tolist(), b.tolist()
    middle = [
        math.log((math.exp(u) + math.exp(v)) / 2) if max(u, v) > -745 else -math.inf for u, v in zip(x, y, strict=True)
    ]
    js = (kl(x, middle) + kl(y, middle)) / 2
    return {"kl_divergence_ab": kl(x, y), "kl_divergence_ba": kl(y, x), "js_divergence": js}


@settings(max_examples=60)
@given(
    n=st.integers(1, 4), c=st.integers(1, 7), seed=st.integers(0, 2**32), spread=st.sampled_from([0.0, 1.0, 8.0]),
    given_rest=st.booleans(), masked=st.booleans(),
)  # fmt: skip
def test_bounds_hold_the_divergences_of_the_full_rows(n, c, seed, spread, given_rest, masked):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, c, n)
    logits = [rng.normal(size=(n, c)) * spread for _ in range(2)]
    if masked:
        for x in logits:
            x[:, 1:][rng.random((n, c - 1)) < 0.3] = -np.inf
    a, b = (Full.of(x, target) for x in logits)
    sizes = [rng.integers(1, c + 1, n).tolist() for _ in range(2)]
    sides = [full.top(s, other=given_rest, rng=rng) for full, s in zip((a, b), sizes, strict=True)]
    result = fx.compare(*sides, **options(sides[0], n_classes=c + seed % 2))
    truth = [divergences(x, y) for x, y in zip(a.logprobs, b.logprobs, strict=True)]
    for name, found in result.divergences.items():
        exact = sum(row[name] for row in truth) / n
        low, high = found.mean.bounds or (found.mean.value, found.mean.value)
        assert low <= exact + 1e-7, name
        assert exact <= high + 1e-7, name
    change = np.mean([math.exp(y[t]) - math.exp(x[t]) for x, y, t in zip(a.logprobs, b.logprobs, target, strict=True)])
    mean = result.target_probability.mean
    low, high = mean.bounds or (mean.value, mean.value)
    assert low - 1e-6 <= change <= high + 1e-6
    same = [x.argmax() == y.argmax() for x, y in zip(a.logprobs, b.logprobs, strict=True)]
    assert result.same_top_1.value == pytest.approx(np.mean(same))


def test_lists_of_all_classes_are_exact():
    sides = [dump(full, [C] * N) for full in (A, B)]
    result = fx.compare(*sides, **options(sides[0].to_pydict(), n_classes=C), cluster="doc")
    full = fx.compare(
        *(pa.table({**BESIDE, "logits": pa.array(list(x.logprobs)), "target": x.target}) for x in (A, B)),
        input="log_probs", cluster="doc",
    )  # fmt: skip
    for name, found in result.divergences.items():
        assert found.mean.bounds is None
        assert found.mean.value == pytest.approx(full.divergences[name].mean.value, rel=1e-5, abs=1e-7)
        assert found.mean.stderr == pytest.approx(full.divergences[name].mean.stderr, rel=1e-4)
    for name in set(result.metrics) & set(full.metrics):
        assert result.metrics[name].difference.value == pytest.approx(full.metrics[name].difference.value, abs=1e-6)


@pytest.mark.parametrize("more", [{"cluster": "doc"}, {"weight": "w"}, {}])
def test_what_is_exact_is_that_of_the_full_dumps(more):
    sides = [dump(full, [K] * N) for full in (A, B)]
    named = options(sides[0].to_pydict(), n_classes=C)
    result = fx.compare(*sides, **named, **more, by="kind")
    full = fx.compare(
        *(pa.table({**BESIDE, "logits": pa.array(list(x.logprobs)), "target": x.target}) for x in (A, B)),
        input="log_probs", by="kind", **more,
    )  # fmt: skip
    pairs = [(result, full), *((result.slices["kind"][key], full.slices["kind"][key]) for key in "xy")]
    for found, truth in pairs:
        assert found.flips == truth.flips
        assert found.same_top_1.value == pytest.approx(truth.same_top_1.value)
        for name in ("cross_entropy", "perplexity", "accuracy", "confidence"):
            a, b = found.metrics[name], truth.metrics[name]
            assert a.difference.value == pytest.approx(b.difference.value, rel=1e-4, abs=1e-7), name
            assert a.difference.stderr == pytest.approx(b.difference.stderr, rel=1e-5), name
            assert a.p_value == pytest.approx(b.p_value, rel=1e-3), name
        assert found.perplexity_ratio.value == pytest.approx(truth.perplexity_ratio.value)
        for name in ("entropy", "brier_score", "mean_reciprocal_rank"):
            low, high = found.metrics[name].difference.bounds
            assert low <= truth.metrics[name].difference.value <= high, name
    again = fx.CompareResult.from_json(result.to_json())
    assert again == result
    assert fx.CompareState.from_bytes(result.state.to_bytes()) == result.state


def test_in_any_order_and_in_parts(tmp_path):
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    order = RNG.permutation(N)
    pq.write_table(dump(A, [K] * N), paths[0], row_group_size=60)
    pq.write_table(dump(B, [K] * N), paths[1], row_group_size=77)
    pq.write_table(dump(B, [K] * N).take(pa.array(order)), tmp_path / "c.parquet")
    named = options(dump(A, [K] * N).to_pydict(), n_classes=C)
    truth = fx.compare(*paths, **named)
    matched = fx.compare(paths[0], tmp_path / "c.parquet", **named, on="id")
    for result in (matched, fx.compare(*paths, **named, threads=2, memory="2MB")):
        assert result.metrics == truth.metrics
        assert result.divergences == truth.divergences
    shards = [fx.compare(*paths, **named, shard=f"{k}/2").state for k in (1, 2)]
    assert fx.merge_states(shards).result().divergences == truth.divergences


def test_tokens_as_ids():
    sides = [dump(full, [K] * N) for full in (A, B)]
    named = options(sides[0].to_pydict(), n_classes=C)
    texts = []
    for side in sides:
        columns = {name: side[name] for name in side.column_names}
        columns["ids"] = pa.array([[f"t{j}" for j in row] for row in side["ids"].to_pylist()])
        texts.append(pa.table({**columns, "target": pa.array([f"t{j}" for j in TARGET])}))
    numbered, text = fx.compare(*sides, **named), fx.compare(*texts, **named)
    assert text.metrics == numbered.metrics
    assert text.same_top_1 == numbered.same_top_1
    for name, found in text.divergences.items():
        assert found.mean.bounds == pytest.approx(numbered.divergences[name].mean.bounds, rel=1e-12)
    other = texts[1].set_column(texts[1].schema.get_field_index("target"), "target", pa.array(["t0"] * N))
    with pytest.raises(fx.BadRowError, match=r"the target is 't0', but 't\d+' in"):
        fx.compare(texts[0], other, **named)


def test_refused():
    sides = [dump(full, [K] * N) for full in (A, B)]
    named = options(sides[0].to_pydict(), n_classes=C)
    with pytest.raises(fx.ConfigError, match="id must be None"):
        fx.compare(*sides, **named, id="id")
    with pytest.raises(fx.ColumnError, match="no column 'other'"):
        fx.compare(sides[0], sides[1].drop_columns(["other"]), **named)
    wrong = pa.table(replace(B, target=(TARGET + 1) % C).top([K] * N, other=True, own=[True] * N) | BESIDE)
    with pytest.raises(fx.BadRowError, match="the target is"):
        fx.compare(sides[0], wrong, **named)


def test_the_command_line(tmp_path, capsys):
    for name, full in (("a", A), ("b", B)):
        pq.write_table(dump(full, [K] * N), tmp_path / f"{name}.parquet")
    words = ["compare", *(str(tmp_path / f"{name}.parquet") for name in "ab"), "--logits", "lp", "--ids", "ids"]
    words += ["--other", "other", "--target-logprob", "own", "--n-classes", str(C), "--by", "kind"]
    assert run([*words, "--report", str(tmp_path / "r.html")]) == 0
    shown = capsys.readouterr().out
    assert "bounds of" in shown
    assert "mean_reciprocal_rank" in shown
    assert "… inf" in shown
    page = (tmp_path / "r.html").read_text()
    assert (
        page.index(">Bounds of<") < page.index(">Divergence, in nats<") < page.index("Change of cross entropy in each")
    )
    assert page.index(">Kind</h2>") < page.index("Change of cross entropy in each")
    assert run([*words, "--fail-if", "js_divergence.bounds.high>1"]) == 0
    assert run([*words, "--fail-if", "kl_divergence_ab.bounds.high>1"]) == 1
    assert run([*words, "--fail-if", "entropy.difference.bounds.low<9"]) == 1
