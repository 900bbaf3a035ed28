"""Binary dumps: one number and one label per row."""

import itertools
import math

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import special
from sklearn import metrics as sk

import fastxent as fx
from fastxent.state.metrics import FROM_GRID
from tests.verbs.clicks import KIND, ODDS, PROBS, TARGET, WEIGHT, N, table
from tests.verbs.evaluated import figures


def values(result):
    return {name: metric.value for name, metric in result.metrics.items()}


def peers(score, positive, probability, predicted, weight):
    """The metrics that scikit-learn has."""
    w = {"sample_weight": weight}
    return {
        "cross_entropy": sk.log_loss(positive, probability, **w),
        "brier_score": sk.brier_score_loss(positive, probability, **w),
        "roc_auc": sk.roc_auc_score(positive, score, **w),
        "average_precision": sk.average_precision_score(positive, score, **w),
        "accuracy": sk.accuracy_score(positive, predicted, **w),
        "precision": sk.precision_score(positive, predicted, **w),
        "recall": sk.recall_score(positive, predicted, **w),
        "specificity": sk.recall_score(positive, predicted, pos_label=0, **w),
        "f1": sk.f1_score(positive, predicted, **w),
        "balanced_accuracy": sk.balanced_accuracy_score(positive, predicted, **w),
        "matthews_corrcoef": sk.matthews_corrcoef(positive, predicted, **w),
    }


@pytest.mark.parametrize("weight", [None, "w"])
@pytest.mark.parametrize("input", ["logits", "probs"])
@pytest.mark.parametrize("digits", [1, 7])  # ties, and next to none
def test_metrics_are_those_of_scikit_learn(input, weight, digits):
    score = np.round(ODDS if input == "logits" else PROBS, digits)
    probability = (special.expit(score) if input == "logits" else score).astype(np.float64)
    if input == "probs" and digits == 1:
        score = probability = np.clip(probability, 0.05, 0.95)
    result = fx.evaluate(table(logits=score), input=input, weight=weight)
    found, w = values(result), None if weight is None else WEIGHT
    for name, expected in peers(score, TARGET, probability, probability >= 0.5, w).items():
        assert found[name] == pytest.approx(expected, rel=1e-6), name
    base = np.average(TARGET, weights=w)
    entropy = -base * math.log(base) - (1 - base) * math.log(1 - base)
    assert found["base_rate"] == pytest.approx(base)
    assert found["normalized_entropy"] == pytest.approx(found["cross_entropy"] / entropy)
    assert found["mean_prediction"] == pytest.approx(np.average(probability, weights=w), rel=1e-6)
    assert found["calibration_ratio"] == pytest.approx(found["mean_prediction"] / base, rel=1e-6)
    assert found["cross_entropy_bits"] == pytest.approx(found["cross_entropy"] / math.log(2))
    assert result.task == "binary"


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.7, 1.0])
def test_threshold(threshold):
    for input, score in (("logits", ODDS), ("probs", np.round(PROBS, 1))):
        predicted = (special.expit(score.astype(np.float64)) if input == "logits" else score) >= score.dtype.type(
            threshold
        )
        result = fx.evaluate(table(logits=score), input=input, threshold=threshold)
        assert result.metrics["accuracy"].value == pytest.approx((predicted == TARGET).mean())
        assert result.config.threshold == threshold


# ---- what a row may hold ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        pa.array(TARGET.astype(np.uint64)),
        pa.array(TARGET == 1),
        pa.array(TARGET.astype(np.int32) * 2 - 1),
        pa.array(TARGET.astype(np.float32)),
        pa.array(TARGET.astype(np.float64) * 2 - 1),
        pa.array([["no", "yes"][y] for y in TARGET]),
        pa.array([["no", "yes"][y] for y in TARGET]).dictionary_encode(),
        pa.array(TARGET.astype(int)).cast(pa.decimal128(20, 1)),
    ],
    ids=lambda array: str(array.type)[:20],
)
def test_targets_of_any_type(target):
    classes = ("no", "yes") if "string" in str(target.type) else None
    result = fx.evaluate(table(target=target), classes=classes)
    expected = fx.evaluate(table())
    assert values(result) == values(expected)
    assert not result.warnings


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_scores_of_any_float_type(dtype, tmp_path):
    stored = ODDS.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    expected = values(fx.evaluate(table(logits=stored.astype(np.float64))))
    column = pa.array(stored.view(np.uint16) if dtype == "bfloat16" else stored)
    metadata = {"dtype": "bfloat16"} if dtype == "bfloat16" else None
    file = tmp_path / "dump.parquet"
    schema = pa.schema([pa.field("logits", column.type, metadata=metadata), pa.field("target", pa.int8())])
    pq.write_table(pa.table([column, pa.array(TARGET)], schema=schema), file)
    for source in (file, {"logits": stored, "target": TARGET}):
        found = values(fx.evaluate(source))
        for name in expected:
            assert found[name] == pytest.approx(expected[name], rel=1e-6), name
        assert found["roc_auc"] == expected["roc_auc"]


def test_ignored_rows():
    odds, target = np.float64([0.5, 1.5, np.nan, -1.0, 2.0]), pa.array([1, None, None, -100, 0])
    result = fx.evaluate(pa.table({"logits": odds, "target": target}))
    assert (result.rows.used, result.rows.ignored) == (2, 3)
    target = [1.0, math.nan, math.nan, -100.0, 0.0]
    assert values(fx.evaluate(pa.table({"logits": odds, "target": target}))) == values(result)
    result = fx.evaluate(pa.table({"logits": odds[:2], "target": [1, -1]}), ignore_index=-1)
    assert (result.rows.used, result.rows.ignored) == (1, 1)


def test_minus_one_and_zero_together_are_a_warning():
    result = fx.evaluate({"logits": np.float64([1, 2, 3]), "target": [1, 0, -1]})
    assert "1 targets are -1 and 1 are 0" in result.warnings[0]
    assert result.rows.used == 3


@pytest.mark.parametrize(
    ("columns", "input", "message"),
    [
        ({"logits": [0.5, math.nan]}, "logits", "row 1: the log-odds is nan"),
        ({"logits": [0.5, 1.25]}, "probs", "row 1: the probability is 1.25"),
        ({"logits": [0.5, -0.25]}, "probs", "row 1: the probability is -0.25"),
        ({"logits": [0.5, None]}, "probs", "row 1: logits hold a null"),
        ({"target": [0, 2]}, "logits", "row 1: target 2 is not 0, 1, -1 or a probability"),
        ({"target": [0.0, 1.5]}, "logits", "row 1: target 1.5 is not 0, 1, -1 or a probability"),
        ({"w": [1.0, -1.0]}, "logits", "row 1: column 'w' is -1.0"),
        ({"w": [1.0, math.inf]}, "logits", "row 1: column 'w' is inf"),
    ],
)
def test_bad_rows(columns, input, message):
    rows = pa.table({"logits": [0.5, 0.25], "target": [0, 1], "w": [1.0, 2.0]} | columns)
    with pytest.raises(fx.BadRowError, match=message):
        fx.evaluate(rows, input=input, weight="w")
    result = fx.evaluate(rows, input=input, weight="w", on_bad_row="skip")
    assert (result.rows.used, result.rows.bad) == (1, 1)
    clipped = {"clip_eps": 0.125} if input == "probs" else {}
    assert fx.evaluate(rows, input=input, weight="w", on_bad_row="skip", **clipped).rows.bad == 1


def test_texts_need_the_names_of_both_classes():
    with pytest.raises(fx.ColumnError, match="the target column holds strings; name both classes"):
        fx.evaluate(table(target=pa.array(["no", "yes"] * (N // 2))))


def test_a_dump_without_labels():
    result = fx.evaluate({"logits": ODDS}, metrics=("entropy", "mean_prediction"))
    assert set(result.metrics) == {"entropy", "mean_prediction"}
    assert result.metrics["mean_prediction"].value == pytest.approx(PROBS.mean(), rel=1e-6)
    with pytest.raises(fx.ColumnError, match="without a target there are only the metrics entropy, mean_prediction"):
        fx.evaluate({"logits": ODDS})


# ---- options ---------------------------------------------------------------------------------------------------------


def test_temperature_divides_log_odds():
    found, expected = fx.evaluate(table(), temperature=2.0), fx.evaluate(table(logits=ODDS / 2))
    assert values(found) == values(expected)


def test_label_smoothing_and_clip_eps():
    smoothed = fx.evaluate(table(), label_smoothing=0.2).metrics
    soft = fx.binary_cross_entropy_with_logits(ODDS, TARGET.astype(np.float32), label_smoothing=0.2)
    assert smoothed["cross_entropy"].value == pytest.approx(soft, rel=1e-6)
    assert smoothed["brier_score"] == fx.evaluate(table()).metrics["brier_score"]
    found = fx.evaluate({"logits": [0.0, 1.0], "target": [1, 1]}, input="probs", clip_eps=0.125)
    assert found.metrics["cross_entropy"].value == pytest.approx(-(math.log(0.125) + math.log(0.875)) / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 3}, "top_k must not be given, got .*it is for rows of one score per class"),
        ({"softcap": 30.0}, "softcap must not be given, got 30.0"),
        ({"class_weight": [1.0, 2.0]}, "class_weight must not be given"),
        ({"class_mask": [1, 1]}, "class_mask must not be given"),
        ({"n_bytes": "user"}, "n_bytes must not be given"),
        ({"input": "log_probs"}, "input must be 'logits' or 'probs' for a binary dump"),
        (
            {"input": "probs", "temperature": 2.0},
            "temperature requires input='logits'",
        ),
        ({"clip_eps": 0.1}, "clip_eps requires input='probs'"),
        ({"classes": ["a", "b", "c"]}, "classes must have 2 entries"),
        ({"threshold": 1.5}, "threshold must be a number from 0 to 1, got 1.5"),
        ({"metrics": "perplexity"}, "unknown metric 'perplexity'"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(fx.ConfigError, match=message):
        fx.evaluate(table(), **options)


def test_threshold_is_for_binary_dumps():
    with pytest.raises(fx.ConfigError, match=r"threshold must not be given, got 0\.25; it is for binary dumps"):
        fx.evaluate({"logits": np.eye(3), "target": [0, 1, 2]}, threshold=0.25)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1, 2]).cast(pa.decimal128(25, 2)), "must hold floats, got decimal128.*; cast the column"),
        (pa.array([1, 2]), "must be a list.* got int64"),
        (pa.array(["a", "b"]), "must be a list.* got string"),
        (pa.array([1, 2], pa.uint16()), "does not tell the float type"),
    ],
)
def test_columns_that_are_no_scores(column, message):
    with pytest.raises(fx.ColumnError, match=message):
        fx.evaluate(pa.table({"logits": column, "target": [0, 1]}))


def test_files_of_different_kinds(tmp_path):
    pq.write_table(table(), tmp_path / "a.parquet")
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(ODDS, 2)), 2)
    pq.write_table(table(logits=lists), tmp_path / "b.parquet")
    with pytest.raises(
        fx.SourceError, match=r"a\.parquet and .*b\.parquet together: a row holds one number in the first"
    ):
        fx.evaluate(tmp_path)


# ---- the same bits ---------------------------------------------------------------------------------------------------

OPTIONS = dict(by=("kind", "user"), cluster="user", weight="w")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The rows in files of odd sizes, an empty one among them."""
    folder, rows = tmp_path_factory.mktemp("binary"), table()
    edges = [0, 1, 400, 401, 900, 900, N]
    for k, (a, b) in enumerate(itertools.pairwise(edges)):
        pq.write_table(rows.slice(a, b - a), folder / f"part-{k}.parquet", row_group_size=7 + 60 * k)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "grouped"])
def test_no_split_changes_a_bit(files, tmp_path, options):
    whole = fx.evaluate(table(), **options)
    expected = whole.state.to_bytes()
    for threads in (1, 3):
        found = fx.evaluate(files[::-1], threads=threads, memory="1MB", **options)
        assert found.state.to_bytes() == expected
    assert figures(found) == figures(whole)
    shards = [fx.evaluate(files, shard=f"{k}/3", **options).state for k in (3, 1, 2)]
    assert fx.merge_states(shards).to_bytes() == expected
    units = fx.plan(files, unit_size="1MB", **options)
    assert fx.merge_states(unit.run() for unit in units).to_bytes() == expected
    assert fx.evaluate(files, resume=tmp_path / "progress", **options).state.to_bytes() == expected
    again = fx.evaluate(files, resume=tmp_path / "progress", **options)
    assert again.timing["resumed_rows"] == N
    assert again.state.to_bytes() == expected
    assert figures(fx.EvalState.from_bytes(expected).result()) == figures(whole)


def test_slices_are_the_figures_of_their_rows():
    result = fx.evaluate(table(), by="kind")
    for kind, part in result.slices["kind"].items():
        rows = kind == KIND
        alone = fx.evaluate(table(logits=ODDS[rows], target=TARGET[rows], w=None, kind=None, user=None))
        assert part.rows == alone.rows
        for name, metric in alone.metrics.items():
            tolerance = 2e-3 if name in ("roc_auc", "average_precision", *FROM_GRID) else 0.0
            assert part.metrics[name].value == pytest.approx(metric.value, abs=tolerance), name
            low, high = part.metrics[name].bounds or (metric.value, metric.value)
            assert low - 1e-15 <= metric.value <= high + 1e-15


def test_a_result_is_read_back(tmp_path):
    result = fx.evaluate(table(), by="kind")
    again = fx.EvalResult.from_json(result.to_json())
    assert again == result
    assert again.task == "binary"
    assert again.curves == result.curves
    assert result.to_dict()["task"] == "binary"
    assert result.metrics["accuracy"].method == again.metrics["accuracy"].method == "wilson"
    assert result.to_arrow().num_rows == 4 * len(result.metrics)


def test_a_filter_chooses_rows():
    odds = ODDS.copy()
    odds[KIND == "web"] = np.nan
    found = fx.evaluate(table(logits=odds), where="kind != 'web'")
    keep = KIND != "web"
    assert found.metrics["roc_auc"].value == pytest.approx(sk.roc_auc_score(TARGET[keep], ODDS[keep]))


def test_a_state_takes_batches():
    config = fx.EvalConfig(n_classes=2, task="binary")
    state = fx.EvalState.empty(config).update({"logits": ODDS, "target": TARGET})
    assert state == fx.evaluate({"logits": ODDS, "target": TARGET}).state
    with pytest.raises(fx.ConfigError, match="got a multiclass dump"):
        state.update({"logits": np.eye(2), "target": [0, 1]})


@pytest.mark.parametrize("form", ["npy", "arrow", "stream", "table", "reader", "struct"])
def test_every_kind_of_source(tmp_path, form):
    rows, file, logits = pa.table({"logits": ODDS, "target": TARGET}), tmp_path / "dump.arrow", "logits"
    source = file
    if form == "npy":
        np.save(tmp_path / "logits.npy", ODDS)
        np.save(tmp_path / "target.npy", TARGET)
        source = tmp_path
    elif form in ("arrow", "stream"):
        new = pa.ipc.new_file if form == "arrow" else pa.ipc.new_stream
        with pa.OSFile(str(file), "wb") as out, new(out, rows.schema) as writer:
            for batch in rows.to_batches(max_chunksize=100):
                writer.write_batch(batch)
    elif form == "struct":
        logits, source = "out.logits", pa.table({"out": rows.select(["logits"]).to_struct_array(), "target": TARGET})
    else:
        source = rows if form == "table" else pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches())
    result = fx.evaluate(source, logits=logits, threads=2, memory="1MB")
    assert figures(result) == figures(fx.evaluate({"logits": ODDS, "target": TARGET}))


def test_two_classes_are_the_same_dump():
    pairs = np.stack([np.zeros(N, np.float32), ODDS], axis=1)
    two, one = fx.evaluate(table(logits=pa.FixedSizeListArray.from_arrays(pairs.reshape(-1), 2))), fx.evaluate(table())
    for name in ("cross_entropy", "accuracy", "entropy"):
        assert one.metrics[name].value == pytest.approx(two.metrics[name].value, rel=1e-6)
        assert one.metrics[name].stderr == pytest.approx(two.metrics[name].stderr, rel=1e-5)
    assert one.metrics["brier_score"].value == pytest.approx(two.metrics["brier_score"].value / 2, rel=1e-6)
    assert one.per_class.support == two.per_class.support
    assert one.per_class.correct == two.per_class.correct
    assert one.nll_quantiles[1.0] == pytest.approx(two.nll_quantiles[1.0], rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"weight": "w", "cluster": "user"}], ids=["plain", "weighted"])
def test_each_metric_alone(options):
    for name, metric in fx.evaluate(table(), **options).metrics.items():
        alone = fx.evaluate(table(), metrics=name, **options)
        assert list(alone.metrics) == [name]
        assert repr(alone.metrics[name]) == repr(metric)
        assert (alone.curves is None) == (name not in ("roc_auc", "average_precision"))


def test_probabilities_that_are_read_as_log_odds_are_told():
    (warning,) = fx.evaluate(table(logits=PROBS)).warnings
    assert warning == (
        f"the scores of {N} of {N} rows lie within 0..1; if they are probabilities and not log-odds, "
        'use input="probs" (--input probs)'
    )
    assert fx.evaluate(table(logits=PROBS), input="probs").warnings == ()
    assert fx.evaluate(table(logits=np.append(PROBS[:-1], 1.5))).warnings == ()
    some = fx.evaluate(table(logits=PROBS).slice(0, 60)).state
    others = fx.evaluate(table(logits=PROBS).slice(60)).state
    assert some.merge(others).result().warnings == (warning,)
