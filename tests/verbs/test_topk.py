"""Top-k dumps: every bound holds the exact figure of the full rows, and what the list determines is exact."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
from fastxent.options.config import EvalConfig
from fastxent.scoring.task import score_batch
from tests.verbs.evaluated import figures
from tests.verbs.lists import FIELDS, Full, options

N, C, K = 300, 40, 5
RNG = np.random.default_rng(5)
LOGITS = RNG.normal(size=(N, C)) * np.exp(RNG.normal(size=(N, 1)))
TARGET = np.where(RNG.random(N) < 0.4, LOGITS.argmax(axis=1), RNG.integers(0, C, N))
FULL = Full.of(LOGITS, TARGET, "float32")
BESIDE = {
    "id": pa.array(np.arange(N)), "lang": pa.array(RNG.choice(["en", "de", None], N)),
    "doc": pa.array(np.arange(N) // 7), "w": pa.array(RNG.choice([0.5, 2.0, -0.25], N)),
    "b": pa.array(RNG.integers(1, 9, N)),
}  # fmt: skip
DUMP = FULL.top([K] * N, other=True, dtype="float32") | BESIDE
OPTIONS = {"logits": "lp", "ids": "ids", "n_classes": C}
HIGH = {"nll": "nll_high", "rank": "rank_high", "entropy": "entropy_high", "brier": "brier_high"}


def row_bounds(dump: dict, n_classes: int, **more) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The least and the most of every row, by field."""
    config = EvalConfig(n_classes=n_classes, input="log_probs", **options(dump, **more))
    (rows,) = score_batch(dump, config)
    assert not rows.status.any()
    low = {name: getattr(rows, name) for name in FIELDS} | {"nll": rows.nll_low}
    return {name: (low[name], getattr(rows, HIGH[name])) for name in FIELDS} | {"confidence": (rows.confidence,) * 2}


# ---- bounds of rows --------------------------------------------------------------------------------------------------

SPREADS = st.sampled_from([0.0, 0.3, 3.0, 30.0])


@st.composite
def dumps(draw):
    n, c = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = rng.normal(size=(n, c)) * draw(SPREADS)
    if draw(st.booleans()):
        logits = np.round(logits)  # equal ones
    if draw(st.booleans()):
        logits[rng.random((n, c)) < 0.2] = -np.inf
        logits[:, 0] = np.where(np.isneginf(logits).all(axis=1), 0.0, logits[:, 0])
    dtype = draw(st.sampled_from(["float64", "float32"]))
    full = Full.of(logits, rng.integers(0, c, n), dtype)
    kinds = draw(st.sampled_from(["plain", "own", "added"]))
    own = rng.random(n) < 0.7 if kinds == "own" else None
    sizes = rng.integers(1, c + 1, n).tolist()
    return full, full.top(
        sizes, other=draw(st.booleans()), own=own, added=kinds == "added", dtype=dtype, rng=rng
    ), dtype, sizes  # fmt: skip


def roomy(low: np.ndarray, high: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Bounds with room for the rounding of the dump's own numbers."""
    room = {"float64": 1e-9, "float32": 4e-6}[dtype]
    slack = [room * (1 + np.where(np.isfinite(end), np.abs(end), 0.0)) for end in (low, high)]
    return low - slack[0], high + slack[1]


@settings(max_examples=300)
@given(case=dumps())
def test_bounds_hold_the_figures_of_the_full_rows(case):
    full, dump, dtype, sizes = case
    c = full.logprobs.shape[1]
    truth = full.figures()
    for n_classes in (c, c + 3):
        for name, (low, high) in row_bounds(dump, n_classes).items():
            first, last = roomy(low, high, dtype)
            with np.errstate(invalid="ignore"):
                assert ((first <= truth[name]) & (truth[name] <= last)).all(), (name, low, truth[name], high)
                assert (low <= high).all()
    bounds = row_bounds(dump, c)
    for i, size in enumerate(sizes):
        if size == c:  # the whole row
            for name, (low, high) in bounds.items():
                assert low[i] == high[i] or name == "rank", (name, i)
                assert low[i] == pytest.approx(truth[name][i], rel=1e-5, abs=1e-6), name


@settings(max_examples=60)
@given(spread=SPREADS, c=st.integers(2, 7), seed=st.integers(0, 2**32))
def test_a_list_of_all_classes_is_exact(spread, c, seed):
    rng = np.random.default_rng(seed)
    full = Full.of(rng.normal(size=(9, c)) * spread, rng.integers(0, c, 9))
    truth = full.figures()
    dump = full.top([c] * 9, own=[True] * 9, rng=rng)
    metrics = fx.evaluate(dump, **options(dump, n_classes=c)).metrics
    assert all(metric.bounds is None for metric in metrics.values())
    means = {"cross_entropy": truth["nll"], "entropy": truth["entropy"], "brier_score": truth["brier"]}
    means |= {"accuracy": truth["rank"] == 0, "mean_reciprocal_rank": 1 / (truth["rank"] + 1)}
    means |= {"confidence": truth["confidence"], "coverage": np.ones(9), "covered_mass": np.ones(9)}
    for name, values in means.items():
        assert metrics[name].value == pytest.approx(values.mean(), rel=1e-9, abs=1e-12), name
        if name not in ("accuracy", "coverage"):
            assert metrics[name].stderr == pytest.approx(values.std(ddof=1) / 3, rel=1e-6, abs=1e-9), name


def test_bounds_are_reached():
    """By hand: 0.6 and 0.2 of four classes are listed; 0.2 is left for two, of which each has at most 0.2."""
    dump = {"ids": pa.array([[2, 0]]), "lp": pa.array([np.log([0.6, 0.2])]), "target": [1]}
    found = {name: (low[0], high[0]) for name, (low, high) in row_bounds(dump, 4).items()}
    spread, packed = -0.2 * math.log(0.1), -0.2 * math.log(0.2)
    listed = -0.6 * math.log(0.6) - 0.2 * math.log(0.2)
    assert found["entropy"] == pytest.approx((listed + packed, listed + spread), abs=1e-5)
    assert found["nll"] == pytest.approx((-math.log(0.2), math.inf), abs=1e-5)
    assert found["rank"] == (2, 3)
    assert found["brier"] == pytest.approx((0.4 + 0.64, 0.4 + 1 + 0.04), abs=1e-5)
    three = {name: (low[0], high[0]) for name, (low, high) in row_bounds(dump, 3).items()}
    assert three["nll"] == pytest.approx((-math.log(0.2), -math.log(0.2)), abs=1e-5)  # the only class left
    assert three["rank"] == (2, 2)


def test_a_target_that_may_have_been_added():
    """A target that is listed last leaves open how likely the classes before it are, unless its own column is given."""
    logprobs = np.log([0.4, 0.2, 0.1])
    dump = {"ids": pa.array([[0, 1, 2]]), "lp": pa.array([logprobs]), "target": [2]}
    open_, closed = row_bounds(dump, 9), row_bounds(dump | {"own": logprobs[2:]}, 9)
    assert (open_["rank"][0][0], open_["rank"][1][0]) == (2, 5)
    assert (closed["rank"][0][0], closed["rank"][1][0]) == (2, 2)
    assert open_["entropy"][0][0] < closed["entropy"][0][0]
    unknown = row_bounds(dump | {"own": pa.array([None], pa.float64())}, 9)  # a row without it in a dump that has it
    assert unknown == open_


# ---- the metrics -----------------------------------------------------------------------------------------------------


def test_metrics_hold_those_of_the_full_dump():
    whole = {**BESIDE, "logits": pa.array(list(FULL.logprobs)), "target": DUMP["target"]}
    more = {"by": "lang", "cluster": "doc", "n_bytes": "b", "top_k": (1, 3, 9)}
    full = fx.evaluate(whole, input="log_probs", **more)
    result = fx.evaluate(DUMP, **OPTIONS, other="other", **more)
    pairs = [(result.metrics, full.metrics)]
    pairs += [(part.metrics, full.slices["lang"][key].metrics) for key, part in result.slices["lang"].items()]
    assert result.task == "multiclass"
    for found, truth in pairs:
        for name in set(found) - {"coverage", "covered_mass"}:
            a, b = found[name], truth[name]
            if a.bounds is None:
                assert a.value == pytest.approx(b.value, rel=1e-6), name
                assert a.stderr == pytest.approx(b.stderr, rel=1e-6, nan_ok=True), name
            else:
                low, high = a.bounds
                assert math.isnan(a.value)
                assert math.isnan(a.stderr)
                assert low * (1 - 1e-6) <= b.value <= high * (1 + 1e-6), name
                assert a.ci95[0] <= b.ci95[0] + 1e-6, name
                assert b.ci95[1] <= a.ci95[1] + 1e-6, name
    exact = {name for name, metric in result.metrics.items() if metric.bounds is None}
    assert exact == {
        "accuracy", "top_3_accuracy", "confidence", "expected_calibration_error", "maximum_calibration_error",
        "coverage", "covered_mass",
    }  # fmt: skip
    listed = [t in FULL.likeliest(i, K) for i, t in enumerate(TARGET)]
    assert result.metrics["coverage"].value == pytest.approx(np.mean(listed))
    assert result.metrics["covered_mass"].value == pytest.approx(np.exp(np.sort(FULL.logprobs)[:, -K:]).sum(1).mean())
    known = {q for q, value in result.nll_quantiles.items() if not math.isnan(value)}
    assert {0.0, 0.05} <= known
    assert all(result.nll_quantiles[q] == pytest.approx(full.nll_quantiles[q], rel=1e-5) for q in known)
    assert result.nll_histogram.infinite == N - sum(listed)
    for name in ("support", "predicted", "correct", "precision", "recall"):
        a, b = getattr(result.per_class, name), getattr(full.per_class, name)
        assert a == pytest.approx(b, nan_ok=True), name
    classes = zip(result.per_class.class_id, result.per_class.nll, full.per_class.nll, strict=True)
    for label, value, truth in classes:
        known = all(np.array(listed)[label == TARGET]) if (label == TARGET).any() else None
        assert math.isnan(value) if not known else value == pytest.approx(truth, rel=1e-6), label


def test_weights_of_either_sign():
    whole = {**BESIDE, "logits": pa.array(list(FULL.logprobs)), "target": DUMP["target"]}
    full = fx.evaluate(whole, input="log_probs", weight="w").metrics
    rows = DUMP | {"own": pa.array(-FULL.figures()["nll"])}
    result = fx.evaluate(rows, **OPTIONS, target_logprob="own", weight="w").metrics
    for name in ("entropy", "mean_reciprocal_rank", "brier_score"):
        low, high = result[name].bounds
        assert low < full[name].value < high, name
    assert result["cross_entropy"].value == pytest.approx(full["cross_entropy"].value)
    assert result["cross_entropy"].stderr == pytest.approx(full["cross_entropy"].stderr)
    assert result["cross_entropy"].bounds is None


def test_infinite_rows_that_leave_an_end_undefined():
    """The second row costs an infinite amount, and so may the third, whose weight is negative."""
    rows = small(ids=pa.array([[0, 1]] * 3), lp=pa.array([[-0.5, -1.5], [-0.5, -math.inf], [-0.4, -1.6]]))
    rows |= {"target": [1, 1, 2], "w": pa.array([1.0, 1.0, -0.5])}
    metrics = fx.evaluate(rows, **OPTIONS | {"n_classes": 4}, weight="w").metrics
    assert metrics["cross_entropy"].bounds == (-math.inf, math.inf)
    assert metrics["perplexity"].bounds == (0.0, math.inf)
    other = rows | {"lp": pa.array([[-0.5, -1.5], [-0.5, -1.5], [-0.4, -1.6]])}
    change = fx.compare(other, rows, **OPTIONS | {"n_classes": 4}).metrics["cross_entropy"].difference
    assert change.bounds == (-math.inf, math.inf)


def test_without_targets_there_are_the_metrics_that_need_none():
    rows = {name: column for name, column in DUMP.items() if name != "target"}
    result = fx.evaluate(rows, **OPTIONS, metrics=["entropy", "confidence", "covered_mass"])
    assert result.metrics["entropy"].bounds is not None
    whole = fx.evaluate(rows, **OPTIONS, target=None)
    assert set(whole.metrics) == {"entropy", "confidence", "covered_mass"}
    with pytest.raises(fx.ColumnError, match="no column 'target'"):
        fx.evaluate(rows, **OPTIONS)


# ---- the same bits ---------------------------------------------------------------------------------------------------


def test_no_split_changes_a_bit(tmp_path):
    path = tmp_path / "topk.parquet"
    pq.write_table(pa.table(DUMP), path, row_group_size=37)
    more = {**OPTIONS, "other": "other", "by": "lang", "cluster": "doc", "weight": "w"}
    truth = fx.evaluate(path, **more, threads=1)
    for how in ({"threads": 2}, {"memory": "1MB"}, {"resume": tmp_path / "progress"}):
        assert figures(fx.evaluate(path, **more, **how)) == figures(truth), how
    assert figures(fx.evaluate(path, **more, resume=tmp_path / "progress")) == figures(truth)
    shards = [fx.evaluate(path, **more, shard=f"{k}/3").state for k in (1, 2, 3)]
    assert figures(fx.merge_states(shards).result()) == figures(truth)
    units = fx.plan(path, **more, unit_size="1MB")
    assert figures(fx.merge_states(unit.run().to_bytes() for unit in units).result()) == figures(truth)
    arrow = tmp_path / "topk.arrow"
    with pa.ipc.new_file(arrow, pa.table(DUMP).schema) as writer:
        writer.write_table(pa.table(DUMP), max_chunksize=11)
    assert figures(fx.evaluate(arrow, **more)) == figures(truth)


def test_a_state_is_a_value():
    state = fx.evaluate(DUMP, **OPTIONS, by="lang").state
    again = fx.EvalState.from_bytes(state.to_bytes())
    assert again == state
    assert figures(again.result()) == figures(state.result())
    empty = fx.EvalState.empty(state.config)
    assert empty.merge(state) == state.merge(empty) == state
    parts = [pa.record_batch({k: v[i : i + 60] for k, v in DUMP.items()}) for i in range(0, N, 60)]
    grown = fx.EvalState.empty(state.config)
    for part in reversed(parts):
        grown.update(part)
    assert grown == state
    result = state.result()
    assert fx.EvalResult.from_json(result.to_json()) == result
    table = result.to_arrow().to_pylist()
    row = next(row for row in table if row["metric"] == "entropy" and row["column"] is None)
    assert (row["bounds_low"], row["bounds_high"]) == result.metrics["entropy"].bounds


# ---- what lists may be -----------------------------------------------------------------------------------------------


def small(**columns: object) -> dict[str, object]:
    return {
        "ids": pa.array([[3, 1], [0, 2]]), "lp": pa.array([[-0.5, -1.5], [-0.25, -2.0]]), "target": [1, 2]
    } | columns  # fmt: skip


@pytest.mark.parametrize(
    "columns",
    [
        {"ids": pa.array([[1, 3], [0, 2]]), "lp": pa.array([[-1.5, -0.5], [-0.25, -2.0]])},
        {"ids": np.array([[3, 1], [0, 2]]), "lp": np.array([[-0.5, -1.5], [-0.25, -2.0]])},
        {"ids": pa.array([[3, 1, -1], [0, None, 2]]), "lp": pa.array([[-0.5, -1.5, -9999.0], [-0.25, None, -2.0]])},
        {"ids": pa.array([[3, 1, 9], [0, 2]], pa.large_list(pa.uint16())),
         "lp": pa.array([[-0.5, -1.5, None], [-0.25, -2.0]])},
        {"lp": pa.array([[-0.5, -1.5], [-0.25, -2.0]], pa.list_(pa.float16()))},
        {"lp": pa.array([[-0.5, -1.5], [-0.25, -2.0]], pa.list_(pa.float32(), 2))},
        {"target": pa.array([1.0, 2.0])},
        {"target": pa.array(["b", "c"]), "classes": "abcde"},
        {"ids": pa.array([["d", "b"], ["a", "c"]]), "target": pa.array(["b", "c"]), "classes": "abcde"},
        {"ids": pa.array([["d", "b"], ["a", "c"]]), "target": pa.array(["b", "c"])},
        {"ids": pa.array([["d", "b"], ["a", "c"]]), "target": pa.array(["b", "c"]).dictionary_encode()},
    ],
)  # fmt: skip
def test_lists_of_many_forms(columns):
    classes = columns.pop("classes", None)
    truth = fx.evaluate(small(), **OPTIONS | {"n_classes": 5})
    found = fx.evaluate(small(**columns), **OPTIONS | {"n_classes": 5}, classes=classes and list(classes))
    for name in ("cross_entropy", "accuracy", "coverage", "mean_reciprocal_rank", "covered_mass"):
        assert found.metrics[name] == truth.metrics[name], name
    low, high = found.metrics["entropy"].bounds
    assert low <= truth.metrics["entropy"].bounds[1]
    assert truth.metrics["entropy"].bounds[0] <= high
    assert bool(found.per_class.class_id) == (
        classes is not None or "string" not in str(getattr(columns.get("ids"), "type", ""))
    )


def test_strings_without_class_names(tmp_path):
    """Tokens have no numbers: which of two that tie is listed first decides, and no class has counts of its own."""
    tokens = [[f"<{j}>" for j in ids] for ids in DUMP["ids"].to_pylist()]
    rows = DUMP | {"ids": pa.array(tokens), "target": pa.array([f"<{t}>" for t in TARGET])}
    numbered = fx.evaluate(DUMP, **OPTIONS, by="lang")
    result = fx.evaluate(rows, **OPTIONS, by="lang", per_row=tmp_path / "rows.parquet", id="id")
    assert result.metrics == numbered.metrics
    assert result.per_class.class_id == ()
    written = pq.read_table(tmp_path / "rows.parquet")
    assert written["predicted"].to_pylist() == [f"<{FULL.likeliest(i, 1)[0]}>" for i in range(N)]
    shuffled = pa.table(rows).take(pa.array(RNG.permutation(N)))
    assert figures(fx.evaluate(shuffled, **OPTIONS, by="lang", memory="1MB")) == figures(result)


def test_rows_of_the_per_row_file(tmp_path):
    dump = DUMP | {"target": pa.array(TARGET, mask=np.arange(N) == 3)}
    fx.evaluate(dump, **OPTIONS, per_row=tmp_path / "rows.parquet", id="id", where="id != 5")
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert len(rows) == N - 1
    assert (rows[3]["status"], rows[3]["nll"], rows[3]["entropy_low"]) == ("ignored", None, None)
    truth = FULL.figures()
    for row in rows:
        i = row["id"]
        if i == 3:
            continue
        known = TARGET[i] in FULL.likeliest(i, K)
        assert row["nll"] == (pytest.approx(truth["nll"][i]) if known else None)
        assert row["nll_low"] <= truth["nll"][i] * (1 + 1e-6)
        assert row["rank_low"] <= truth["rank"][i] <= row["rank_high"]
        assert row["predicted"] == FULL.likeliest(i, 1)[0]


def test_an_unknown_number_of_classes():
    known, unknown = (fx.evaluate(DUMP, **OPTIONS | {"n_classes": n}) for n in (C, None))
    assert unknown.metrics["accuracy"] == known.metrics["accuracy"]
    assert unknown.metrics["entropy"].bounds[0] == known.metrics["entropy"].bounds[0]
    assert unknown.metrics["entropy"].bounds[1] > known.metrics["entropy"].bounds[1]
    assert unknown.per_class.class_id == ()
    assert "number of classes unknown" in str(unknown)


# ---- what is refused -------------------------------------------------------------------------------------------------

BAD = [
    ({"ids": pa.array([[3, 3], [0, 2]])}, "row 0: id 3 is listed twice"),
    ({"ids": pa.array([[3, 5], [0, 2]])}, r"row 0: id 5 is outside the 5 classes 0\.\.4"),
    ({"ids": pa.array([[3, 1], [0, None]])}, "row 1: id null is outside"),
    ({"ids": pa.array([[3, 1], [0]])}, "row 1: it lists 1 ids and 2 log-probabilities"),
    ({"ids": pa.array([[3, 1], None])}, "row 1: its list is null"),
    ({"ids": pa.array([[3, 1], []]), "lp": pa.array([[-0.5, -1.5], []])}, "row 1: it lists no class above the cut"),
    ({"lp": pa.array([[-0.5, -1.5], [-9999.0, None]])}, "row 1: it lists no class above the cut"),
    ({"lp": pa.array([[-0.5, math.nan], [-0.25, -2.0]])}, "row 0: log-probability 1 is nan"),
    ({"lp": pa.array([[0.5, -1.5], [-0.25, -2.0]])}, "row 0: log-probability 0 is 0.5"),
    ({"target": [1, 5]}, r"row 1: target 5 is outside the 5 classes"),
    ({"other": [math.nan, -1.0]}, "row 0: column 'other' is nan"),
    ({"own": [-1.0, 0.5]}, "row 1: column 'own' is 0.5"),
]


@pytest.mark.parametrize(("columns", "message"), BAD)
def test_bad_rows(columns, message):
    rows = small(**columns)
    more = options(rows, n_classes=5)
    with pytest.raises(fx.BadRowError, match=message):
        fx.evaluate(rows, **more)
    result = fx.evaluate(rows, **more, on_bad_row="skip")
    assert (result.rows.used, result.rows.bad) == (1, 1)


@pytest.mark.parametrize(
    ("columns", "more", "message"),
    [
        ({}, {"ids": None}, "n_classes must not be given without ids"),
        ({}, {"ids": None, "n_classes": None, "other": "other"}, "other must not be given without ids"),
        ({}, {"label_smoothing": 0.1}, "label_smoothing must not be given"),
        ({}, {"temperature": 2.0}, "temperature"),
        ({}, {"input": "probs"}, "input must be 'log_probs' for a top-k dump"),
        ({}, {"task": "binary"}, "ids cannot be combined with task='binary'"),
        ({}, {"logits_dtype": "float16"}, "logits_dtype must not be given beside ids"),
        ({}, {"n_classes": 0}, "n_classes must be an integer from 1"),
        ({}, {"n_classes": 4, "classes": list("abc")}, "classes must have 4 entries"),
        ({}, {"logits": ["lp", "lp2"]}, "logits must name one column of lists"),
        ({}, {"metrics": "z_loss"}, "unknown metric 'z_loss'"),
        ({"ids": pa.array([1, 2])}, {}, "ids column 'ids' must hold lists of integers or strings"),
        ({"lp": pa.array([[1, 2], [1, 2]])}, {}, "logits column 'lp' must hold lists of floats"),
        ({"target": pa.array(["a", "b"])}, {}, "target must hold integers like the ids"),
        ({"ids": pa.array([["a", "b"], ["c", "d"]])}, {}, "must hold strings like the ids"),
        ({"target": pa.array([[0.5, 0.5], [1.0, 0.0]])}, {}, "target must hold one class per row"),
    ],
)
def test_refused(columns, more, message):
    with pytest.raises(fx.FastxentError, match=message) as caught:
        fx.evaluate(small(**columns), **OPTIONS | {"n_classes": 5} | more)
    assert "\n" not in str(caught.value)


def test_more_strings_than_classes():
    rows = small(ids=pa.array([["d", "b"], ["a", "c"]]), target=pa.array(["x", "c"]))
    with pytest.raises(fx.BadRowError, match=r"row 0: its list and its target are more than the 2 classes"):
        fx.evaluate(rows, **OPTIONS | {"n_classes": 2})
    counts = [fx.evaluate(rows, **OPTIONS | {"n_classes": n}, on_bad_row="skip").rows.bad for n in (1, 2, 3)]
    assert counts == [2, 1, 0]


def test_transform_refuses_lists():
    with pytest.raises(fx.ConfigError, match="transform needs a score for each class"):
        fx.transform(DUMP, "x.parquet", output="grad", **OPTIONS)


def test_sums_that_are_not_1_are_counted():
    rows = small(lp=pa.array([[-0.1, -0.2], [-0.25, -2.0]]))
    result = fx.evaluate(rows, **OPTIONS | {"n_classes": 5})
    assert "1 rows of probabilities do not sum to 1" in result.warnings[0]
    rows = small(other=[-3.0, math.log(1 - math.exp(-0.25) - math.exp(-2))])
    assert "1 rows" in fx.evaluate(rows, **options(rows, n_classes=5)).warnings[0]
    assert not fx.evaluate(DUMP, **OPTIONS).warnings
    rows = small(own=[-1.5, -9.0])
    assert "1 rows of" in (told := fx.evaluate(rows, **options(rows, n_classes=5)).warnings[0])
    assert "their target_logprob is not that of the target in their list" in told


# ---- the command line ------------------------------------------------------------------------------------------------


def test_the_command_line(tmp_path, capsys):
    from fastxent.cli.program import run

    path, report, output = tmp_path / "topk.parquet", tmp_path / "r.html", tmp_path / "r.json"
    pq.write_table(pa.table(DUMP), path)
    words = [
        "eval",
        str(path),
        "--logits",
        "lp",
        "--ids",
        "ids",
        "--other",
        "other",
        "--n-classes",
        str(C),
        "--by",
        "lang",
    ]
    assert run([*words, "--report", str(report), "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    assert "A range in place of a value holds the exact value." in shown
    result = fx.EvalResult.from_json(output.read_text())
    low, high = result.metrics["entropy"].bounds
    assert f"{low:.4g} … {high:.4g}" in shown
    assert json.loads(output.read_text())["metrics"]["entropy"]["value"] is None
    page = report.read_text()
    assert f"{low:.4g} … {high:.4g}" in page
    assert "wide bar holds the exact value" in page
    assert run([*words, "--fail-if", f"entropy.bounds.low>{low + 1}"]) == 0
    assert run([*words, "--fail-if", f"entropy.bounds.high>{low}"]) == 1
    assert run([*words, "--fail-if", "entropy>0"]) == 1  # not known
