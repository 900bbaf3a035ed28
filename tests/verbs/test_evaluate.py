"""The streaming evaluation against NumPy over the same dump: sources, options, rows that are bad."""

from __future__ import annotations

import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
import reference as ref
from fastxent.io import batch
from tests.verbs.evaluated import (
    BYTES,
    DOC,
    KIND,
    LOGITS,
    RNG,
    TARGET,
    WEIGHT,
    C,
    N,
    dump,
    figures,
    rounded,
    with_bad,
)

# ---- the figures -----------------------------------------------------------------------------------------------------


def oracle(x: np.ndarray, target: np.ndarray, keep: np.ndarray | None = None) -> dict[str, float]:
    """Means of the rows kept, from the definitions."""
    keep = np.ones(len(x), bool) if keep is None else keep
    s = ref.row_statistics(x[keep], target[keep])
    nll = s.nll.mean()
    bins = np.clip(np.ceil(s.confidence.astype(float) * 15).astype(int) - 1, 0, 14)
    gaps = [abs((s.confidence - (s.rank == 0))[bins == b].sum()) for b in range(15)]
    return {
        "cross_entropy": nll, "cross_entropy_bits": nll / np.log(ref.WIDE(2)), "perplexity": np.exp(nll),
        "accuracy": (s.rank == 0).mean(), "top_5_accuracy": (s.rank < 5).mean(),
        "mean_reciprocal_rank": (1 / (s.rank + ref.WIDE(1))).mean(), "brier_score": s.brier.mean(),
        "entropy": s.entropy.mean(), "confidence": s.confidence.mean(), "z_loss": (s.lse**2).mean(),
        "expected_calibration_error": sum(gaps) / keep.sum(),
    }  # fmt: skip


def check(metrics: dict[str, fx.Metric], truth: dict[str, float], rel: float) -> None:
    for name, value in truth.items():
        assert metrics[name].value == pytest.approx(float(value), rel=rel), name


TOLERANCE = {"float16": 2e-6, "bfloat16": 2e-6, "float32": 2e-6, "float64": 1e-12}


def _per_class(table: pa.Table) -> pa.Table:
    values = table["logits"].combine_chunks()
    matrix = np.asarray(values.values).reshape(N, C)
    for c in range(C):
        table = table.append_column(f"logit_{c}", pa.array(np.ascontiguousarray(matrix[:, c])))
    return table.drop_columns(["logits"])


LAYOUTS = {
    "list": lambda t: t,
    "large_list": lambda t: _recast(t, lambda k: pa.large_list(k)),
    "fixed_size_list": lambda t: _recast(t, lambda k: pa.list_(k, C)),
    "binary": lambda t: _blob(t, -1),
    "fixed_size_binary": lambda t: _blob(t, None),
    "per class": _per_class,
}


def _recast(table: pa.Table, kind) -> pa.Table:
    at = table.schema.get_field_index("logits")
    column = table["logits"].combine_chunks()
    field = table.schema.field("logits")
    to = kind(column.type.value_type)
    return table.set_column(at, pa.field("logits", to, metadata=field.metadata), column.cast(to))


def _blob(table: pa.Table, width: int | None) -> pa.Table:
    values = np.asarray(table["logits"].combine_chunks().values).reshape(N, C)
    kind = pa.binary(width if width is not None else C * values.itemsize)
    at = table.schema.get_field_index("logits")
    return table.set_column(at, pa.field("logits", kind), pa.array([row.tobytes() for row in values], kind))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_every_layout_and_dtype(tmp_path, layout, dtype):
    if layout == "per class" and dtype in ("float16", "bfloat16"):
        dtype = "float32"  # what tools write a column a class in
    table = LAYOUTS[layout](dump(dtype))
    path = tmp_path / "dump.parquet"
    pq.write_table(table, path, row_group_size=100)
    logits = "logit_*" if layout == "per class" else "logits"
    given = dtype if "binary" in layout else None
    result = fx.evaluate(path, logits=logits, by="kind", logits_dtype=given, threads=2)
    x = rounded(dtype)
    check(result.metrics, oracle(x, TARGET), TOLERANCE[dtype])
    for kind in ("a", "b", None):
        part = result.slices["kind"][kind]
        keep = np.array([k == kind for k in KIND])
        assert part.rows.used == keep.sum()
        check(part.metrics, oracle(x, TARGET, keep), TOLERANCE[dtype])
    assert result.rows == fx.EvalResult.from_dict(result.to_dict()).rows
    assert (result.rows.total, result.rows.used, result.rows.bad) == (N, N, 0)


class Stream:
    """Speaks only the Arrow stream interface."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def test_every_source_gives_the_same_bits(tmp_path):
    table = dump()
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=50)
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=77)
    with pa.ipc.new_stream(tmp_path / "a.stream", table.schema) as writer:
        writer.write_table(table, max_chunksize=77)
    values = LOGITS.astype(np.float32)
    arrays = {"logits": values, "target": TARGET, "kind": table["kind"]}
    for name in ("logits", "target"):
        np.save(tmp_path / f"{name}.npy", arrays[name])
    sources = {
        "parquet": tmp_path / "a.parquet", "ipc": tmp_path / "a.arrow", "stream": tmp_path / "a.stream",
        "table": table, "reader": table.to_reader(60), "c stream": Stream(table), "arrays": arrays,
        "fortran": {**arrays, "logits": np.asfortranarray(values)},
        "strided": {**arrays, "logits": np.repeat(values, 2, axis=0)[::2]},
    }  # fmt: skip
    found = {name: figures(fx.evaluate(source, by="kind", threads=2)) for name, source in sources.items()}
    assert set(found.values()) == {found["table"]}
    npy = fx.evaluate({"logits": str(tmp_path / "logits.npy"), "target": str(tmp_path / "target.npy")})
    assert npy.metrics == fx.evaluate(table).metrics


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_targets_of_every_width(kind):
    assert fx.evaluate(dump(target=pa.array(TARGET.astype(kind)))).metrics == fx.evaluate(dump()).metrics


def test_targets_with_names_and_nulls():
    names = [f"class {c}" for c in range(C)]
    whole = fx.evaluate(dump())
    strings = pa.array([names[t] for t in TARGET])
    for target in (strings, strings.cast(pa.large_string()), strings.dictionary_encode()):
        assert fx.evaluate(dump(target=target), classes=names).metrics == whole.metrics
    gaps = RNG.random(N) < 0.3
    result = fx.evaluate(dump(target=pa.array(TARGET, mask=gaps)))
    assert (result.rows.used, result.rows.ignored) == (N - gaps.sum(), gaps.sum())
    check(result.metrics, oracle(rounded("float32"), TARGET, ~gaps), 2e-6)
    for value in (-100, 3):
        marked = pa.array(np.where(gaps, value, TARGET))
        again = fx.evaluate(dump(target=marked), ignore_index=value)
        assert again.rows.ignored == (np.asarray(marked) == value).sum()
    with pytest.raises(fx.BadRowError, match="'class 99' is not among the classes"):
        fx.evaluate(dump(target=pa.array(["class 99"] * N)), classes=names)


@pytest.mark.parametrize("value", [-1, C, 2**31, -(2**31), -(2**63), -(2**63) + 1, 2**63 - 1, 2**63 - 2, 2**64 - 1])
def test_targets_out_of_range_at_every_edge_of_the_integers(value):
    target = pa.array([*TARGET[:20].tolist(), value], pa.uint64() if value >= 2**63 else pa.int64())
    source = {"logits": LOGITS[:21], "target": target}
    with pytest.raises(fx.BadRowError, match=f"row 20: target {value} is outside the {C} classes"):
        fx.evaluate(source)
    rows = fx.evaluate(source, on_bad_row="skip").rows
    assert (rows.used, rows.bad_target, rows.total) == (20, 1, 21)
    if value < 2**63:
        ignored = fx.evaluate(source, ignore_index=value).rows
        assert (ignored.used, ignored.ignored) == (20, 1)


@pytest.mark.parametrize(
    ("dtype", "classes"), [("float32", C), ("float64", C), ("float16", C), ("float32", 200), ("bfloat16", 200)]
)
def test_soft_targets(dtype, classes):
    rng = np.random.default_rng(classes)
    x = (rng.normal(size=(50, classes)) * 3).astype(ref.DTYPES[dtype])
    soft = rng.dirichlet(np.ones(classes), 50)
    rows = [None if i % 7 == 3 else soft[i].tolist() for i in range(50)]
    keep = np.array([row is not None for row in rows])
    log_p = ref.log_softmax(x)
    nll = -(soft * log_p).sum(axis=1)
    brier = ((np.exp(log_p) - soft) ** 2).sum(axis=1)
    weight = rng.integers(1, 9, classes) / 4
    source = {"logits": x, "target": pa.array(rows)}
    result = fx.evaluate(source)
    assert (result.rows.used, result.rows.ignored) == (keep.sum(), 50 - keep.sum())
    check(result.metrics, {"cross_entropy": nll[keep].mean(), "brier_score": brier[keep].mean()}, TOLERANCE[dtype])
    options = {"class_weight": weight, "label_smoothing": 0.1}
    result = fx.evaluate(source, **options)
    truth = ref.cross_entropy(x[keep], soft[keep], weight=weight, label_smoothing=0.1)
    check(result.metrics, {"cross_entropy": truth, "brier_score": brier[keep].mean()}, TOLERANCE[dtype])
    assert result.nll_quantiles[1.0] == pytest.approx(float(nll[keep].max()), rel=TOLERANCE[dtype])


@pytest.mark.parametrize("row", [[0.5, math.nan, 0.5], [1.5, -0.5, 0.0], [math.inf, 0.0, 0.0], [1.0], [0.5, None, 0.5]])
def test_soft_targets_that_are_no_distribution(row):
    source = {"logits": np.zeros((2, 3), np.float32), "target": pa.array([[1.0, 0.0, 0.0], row])}
    with pytest.raises(fx.BadRowError, match="row 1: the target is not a list of 3 probabilities"):
        fx.evaluate(source)
    assert fx.evaluate(source, on_bad_row="skip").rows.bad_target == 1


OPTIONS = [
    {"label_smoothing": 0.1}, {"label_smoothing": 1.0}, {"class_weight": np.arange(C) / 4}, {"temperature": 2.5},
    {"softcap": 5.0}, {"class_mask": np.arange(C) % 5 != 4, "ignore_index": 4},
    {"label_smoothing": 0.2, "class_weight": np.arange(C) / 4, "temperature": 0.5, "softcap": 20.0},
]  # fmt: skip


@pytest.mark.parametrize(  # all at once: in float32 and float64
    ("dtype", "options"),
    [("float32", o) for o in OPTIONS] + [("float64", o) for o in OPTIONS] + [("float16", o) for o in OPTIONS[2:-1]],
    ids=str,
)
def test_loss_options(dtype, options):
    x, keep = rounded(dtype), np.ones(N, bool)
    if "class_mask" in options:
        keep = TARGET % 5 != 4
    target = np.where(keep, TARGET, 4)
    given = {"weight" if k == "class_weight" else k: v for k, v in options.items() if k != "ignore_index"}
    truth = ref.cross_entropy(x[keep], target[keep], **given)
    result = fx.evaluate(dump(dtype, target=pa.array(target)), **options)
    assert result.rows.used == keep.sum() - ("ignore_index" in options) * (target[keep] == 4).sum()
    shaping = {k: v for k, v in given.items() if k in ("temperature", "softcap", "class_mask")}
    s = ref.row_statistics(x[keep], target[keep], **shaping)
    check(result.metrics, {"cross_entropy": truth, "accuracy": (s.rank == 0).mean(), "entropy": s.entropy.mean(),
                           "brier_score": s.brier.mean()}, 10 * TOLERANCE[dtype])  # fmt: skip


def test_weights_clusters_and_bytes():
    result = fx.evaluate(dump("float64"), weight="weight", n_bytes="n_bytes", cluster="doc")
    s = ref.row_statistics(rounded("float64"), TARGET)
    w = ref.wide(WEIGHT)
    mean = (w * s.nll).sum() / w.sum()
    per_byte = (w * s.nll).sum() / (w * BYTES).sum() / np.log(ref.WIDE(2))
    check(result.metrics, {"cross_entropy": mean, "bits_per_byte": per_byte}, 1e-12)
    sums = np.array([(w * (s.nll - mean))[d == DOC].sum() for d in np.unique(DOC)])
    g = len(sums)
    assert result.clusters == g
    stderr = np.sqrt(g / (g - 1) * (sums**2).sum()) / abs(w.sum())
    assert result.metrics["cross_entropy"].stderr == pytest.approx(float(stderr), rel=1e-11)


@pytest.mark.parametrize("column", ["weight", "n_bytes"])
@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_rows_without_a_weight_are_bad_unless_ignored(column, value):
    numbers = [1.0] * 9
    numbers[2] = numbers[7] = value
    source = {
        "logits": LOGITS[:9], "target": [*TARGET[:7].tolist(), None, 0], column: pa.array(numbers)
    }  # fmt: skip
    with pytest.raises(fx.BadRowError, match=f"row 2: column {column!r} is {'null' if value is None else value}"):
        fx.evaluate(source, **{column: column})
    rows = fx.evaluate(source, on_bad_row="skip", **{column: column}).rows
    assert (rows.used, rows.ignored, rows.bad) == (7, 1, 1)


@pytest.mark.parametrize("classes", [3, 48, 49, 1500])
@pytest.mark.parametrize("kind", ["probs", "log_probs"])
def test_rows_that_do_not_add_up_to_1_are_told_and_no_others(classes, kind):
    p = np.random.default_rng(classes).dirichlet(np.ones(classes), size=20)
    for factor, told in ((1.0, 0), (1.01, 20), (0.99, 20)):
        rows = factor * p if kind == "probs" else np.log(factor * p)
        result = fx.evaluate({"p": rows, "target": np.zeros(20, int)}, logits="p", input=kind)
        assert [w for w in result.warnings if "do not sum to 1" in w][:1] == (
            [f"{told} rows of probabilities do not sum to 1 within 1e-3; used as given"] if told else []
        )


def test_probabilities():
    p = np.exp(ref.log_softmax(rounded("float64"))).astype(np.float64)
    p[5] *= 1.01
    p[9, TARGET[9]] = 0.0
    source = {"p": p, "target": TARGET}
    result = fx.evaluate(source, logits="p", input="probs")
    assert result.metrics["cross_entropy"].value == math.inf
    assert any(line.startswith("2 rows of probabilities do not sum to 1") for line in result.warnings) == bool(
        abs(p[9].sum() - 1) > 1e-3
    )
    for eps in (1e-6, 0.0):
        clipped = fx.evaluate(source, logits="p", input="probs", clip_eps=eps)
        truth = ref.cross_entropy(p, TARGET, input="probs", clip_eps=eps) if eps else math.inf
        check(clipped.metrics, {"cross_entropy": truth}, 1e-12)
    with np.errstate(divide="ignore"):
        logs = fx.evaluate({"p": np.log(p), "target": TARGET}, logits="p", input="log_probs", clip_eps=1e-6)
    check(logs.metrics, {"cross_entropy": ref.cross_entropy(p, TARGET, input="probs", clip_eps=1e-6)}, 1e-12)
    p[3, 0] = -0.25
    with pytest.raises(fx.BadRowError, match=r"row 3: probability 0 is -0\.25"):
        fx.evaluate(source, logits="p", input="probs")
    assert fx.evaluate(source, logits="p", input="probs", on_bad_row="skip").rows.bad_logits == 1


def test_top_k_and_bins():
    result = fx.evaluate(dump(), top_k=(1, 2, 9), bins=4)
    s = ref.row_statistics(rounded("float32"), TARGET)
    check(result.metrics, {f"top_{k}_accuracy": (s.rank < k).mean() for k in (2, 9)}, 1e-15)
    assert result.calibration.upper == (0.25, 0.5, 0.75, 1.0)
    assert sum(result.calibration.count) == N
    assert "top_7_accuracy" in fx.evaluate(dump(), top_k=7).metrics


# ---- no rows, odd sizes ----------------------------------------------------------------------------------------------


def test_no_rows_and_all_ignored(tmp_path):
    empty = dump().slice(0, 0)
    at = empty.schema.get_field_index("logits")
    fixed = empty.set_column(at, "logits", pa.array([], pa.list_(pa.float32(), C)))
    for source in (fixed, {"logits": np.zeros((0, C)), "target": np.zeros(0, int)}):
        result = fx.evaluate(source, threads=2)
        assert (result.rows.total, math.isnan(result.metrics["accuracy"].value)) == (0, True)
        assert result.config.n_classes == C
    with pytest.raises(fx.SourceError, match="no rows"):
        fx.evaluate(empty)
    ignored = fx.evaluate(dump(target=pa.nulls(N, pa.int32())), per_row=tmp_path / "rows.parquet")
    assert ignored.rows.ignored == N
    assert pq.read_table(tmp_path / "rows.parquet")["status"].to_pylist() == ["ignored"] * N
    assert ignored.warnings == ("no row was used: every mean is undefined",)


@pytest.mark.parametrize("dtype", ref.DTYPES)
@pytest.mark.parametrize("classes", [1, 23, 300])
def test_filters_that_leave_batches_without_rows(dtype, classes, monkeypatch, tmp_path):
    monkeypatch.setattr(batch, "_BATCH_BYTES", 1)
    x = np.arange(7 * classes).reshape(7, classes).astype(ref.DTYPES[dtype])
    soft = np.full((7, classes), 1 / classes)
    for target in (np.zeros(7, int), soft):
        source = {"logits": x, "target": target, "n": np.arange(7)}
        result = fx.evaluate(source, where="n in (2, 5)", per_row=tmp_path / "r.parquet", id="n", threads=2)
        assert result.rows.total == 2
        assert pq.read_table(tmp_path / "r.parquet")["n"].to_pylist() == [2, 5]
        assert fx.evaluate(source, where="n > 100", weight="n").rows.total == 0


def test_a_million_classes_in_little_memory():
    x = np.zeros((3, 1_000_000), np.float32)
    x[1, 999_999] = 50.0
    result = fx.evaluate({"logits": x, "target": [0, 999_999, 5]}, memory="1MiB", threads=2)
    assert result.metrics["accuracy"].value == pytest.approx(2 / 3)
    assert result.metrics["entropy"].value == pytest.approx(2 / 3 * math.log(1e6), rel=1e-6)


def test_more_threads_than_units_and_progress():
    calls: list[tuple] = []
    result = fx.evaluate(dump().to_reader(10), threads=16, progress=lambda *told: calls.append(told))
    assert result.timing["threads"] == 16
    assert [rows for rows, *_ in calls] == sorted(rows for rows, *_ in calls)
    assert calls[-1] == (N, None, N * C * 4, None)
    calls.clear()
    fx.evaluate(dump(), where="kind == 'a'", threads=2, progress=lambda *told: calls.append(told))
    assert calls[-1] == (N, N, N * C * 4, N * C * 4)


def test_readers_are_read_once():
    reader = dump().to_reader(60)
    fx.evaluate(reader)
    with pytest.raises(fx.FastxentError, match="<reader>"):
        fx.evaluate(reader)


# ---- bad rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("size", [8 << 20, 1])
def test_the_first_bad_row_is_named_whatever_the_threads(tmp_path, threads, size, monkeypatch):
    monkeypatch.setattr(batch, "_BATCH_BYTES", size)
    table = with_bad({222: math.nan, 97: math.inf, 300: math.nan}, n=pa.array(np.arange(N)))
    pq.write_table(table.slice(0, 150), tmp_path / "a.parquet", row_group_size=40)
    pq.write_table(table.slice(150), tmp_path / "b.parquet", row_group_size=40)
    sources = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    with pytest.raises(fx.BadRowError, match=r"logit 7 is \+inf") as error:
        fx.evaluate(sources, threads=threads)
    assert (error.value.file, error.value.row_group, error.value.row) == (str(sources[0]), 2, 97)
    with pytest.raises(fx.BadRowError, match="logit 7 is NaN") as error:
        fx.evaluate(sources, threads=threads, where="n > 97")
    assert (error.value.file, error.value.row_group, error.value.row) == (str(sources[1]), 1, 222 - 150)
    rows = fx.evaluate(sources, threads=threads, where="n > 97", on_bad_row="skip").rows
    assert (rows.total, rows.used, rows.bad_logits) == (N - 98, N - 100, 2)


def test_rows_of_every_kind_of_badness():
    rows = [row.tolist() for row in LOGITS[:8].astype(np.float32)]
    rows[1], rows[2], rows[4] = None, rows[2][:-1], [-math.inf] * C
    rows[5][3] = None
    target = TARGET[:8].copy()
    target[6] = 99
    source = pa.table({"logits": pa.array(rows, pa.list_(pa.float32())), "target": target})
    expected = ["null", f"{C - 1} logits where {C}", "no logit is finite", "hold a null, at class 3", "target 99"]
    for row, reason in zip((1, 2, 4, 5, 6), expected, strict=True):
        with pytest.raises(fx.BadRowError, match=reason) as error:
            fx.evaluate(source.append_column("n", pa.array(np.arange(8))), where=f"n >= {row}")
        assert error.value.row == row
    rows = fx.evaluate(source, on_bad_row="skip").rows
    assert (rows.used, rows.bad_logits, rows.bad_target) == (3, 4, 1)
    ignored = fx.evaluate(source.set_column(1, "target", pa.nulls(8, pa.int64())))
    assert ignored.rows.ignored == 8


def test_clusters_beyond_the_memory_limit():
    rows = {"logits": np.zeros((9000, 3), np.float32), "target": np.zeros(9000, int), "id": np.arange(9000)}
    (warning,) = fx.evaluate(rows, cluster="id", memory="1MB").warnings
    assert re.match(r"the sums of 9000 clusters took \d MB beside the memory limit of 1 MB; choose ", warning)
    assert not fx.evaluate(rows, cluster="id").warnings
