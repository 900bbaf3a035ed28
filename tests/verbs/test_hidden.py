"""Dumps of hidden states: the metrics of the full logits, and the same bits however the dump is divided."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings, strategies as st

import fastxent as fx
from dumps import lists
from fastxent.cli.program import run
from fastxent.engine import checkpoints
from fastxent.io import heads, hidden
from tests.verbs.hidden import C, D, Model, N, parquet, safetensors, values

HALF = ("float16", "bfloat16", "float32")


def near_an_edge(logits: np.ndarray, cells: int = 4096) -> bool:
    """Whether rounding may put the confidence of a row in another cell of the grid."""
    x = logits.astype(float)
    places = cells / np.exp(x - x.max(axis=1, keepdims=True)).sum(axis=1)
    return bool(np.any(np.abs(places - np.round(places)) < 1e-5 * places))


def close(a: fx.EvalResult, b: fx.EvalResult, *, moved: bool = False) -> None:
    """All metrics, also of slices, are equal but for the rounding of float32.

    moved: bool. Rows may be in other cells. Those of one cell are ties, which decide what is a fault of calibration.
    """
    assert a.rows == b.rows
    pairs = [(a, b), *((x, b.slices[k][v]) for k, found in a.slices.items() for v, x in found.items())]
    for x, y in pairs:
        assert x.metrics.keys() == y.metrics.keys()
        for name in x.metrics:
            if moved and name in ("miscalibration", "discrimination"):
                continue
            np.testing.assert_allclose(x.metrics[name].value, y.metrics[name].value, rtol=1e-5, err_msg=name)
            if x.metrics[name].method != "jackknife":  # it draws other buckets if one row is in another cell
                np.testing.assert_allclose(x.metrics[name].stderr, y.metrics[name].stderr, rtol=1e-4, err_msg=name)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), n=st.integers(1, 200), d=st.integers(1, 90), c=st.integers(2, 300),
    types=st.tuples(st.sampled_from(HALF), st.sampled_from(HALF)), bias=st.booleans(), threads=st.integers(1, 3),
)  # fmt: skip
@example(seed=21049, n=118, d=18, c=238, types=("float32", "bfloat16"), bias=False, threads=1)
def test_every_metric_is_that_of_the_full_logits(seed, n, d, c, types, bias, threads):
    model = Model(seed, n, d, c, *types)
    found = fx.evaluate(
        model.hidden(), logits="hidden", head=model.weight, bias=model.bias if bias else None, threads=threads
    )
    close(found, fx.evaluate(model.full(bias)), moved=near_an_edge(model.logits + model.bias * bias))
    assert found.config.head == f"array of shape {(c, d)}"


@pytest.mark.parametrize("types", [("float64", "float32"), ("bfloat16", "float64")])
def test_double_precision_stays(types):
    model = Model(3, 300, 50, 70, *types)
    found = fx.evaluate(model.hidden(), logits="hidden", head=model.weight, metrics="cross_entropy")
    full = fx.evaluate(model.full(), metrics="cross_entropy")
    np.testing.assert_allclose(
        values(found.metrics)["cross_entropy"], values(full.metrics)["cross_entropy"], rtol=1e-12
    )


def test_class_weights_masks_labels_and_soft_targets():
    model = Model(1)
    mask, weight = np.arange(C) % 7 != 0, np.linspace(0.5, 2, C)
    soft = np.random.default_rng(0).dirichlet(np.ones(C), N)
    names = [f"w{i}" for i in range(C)]
    for columns, options in (
        ({}, {"class_mask": mask, "on_bad_row": "skip", "class_weight": weight, "softcap": 3.0, "temperature": 0.7}),
        ({}, {"classes": names, "by": "kind", "cluster": "doc"}),
        ({"target": lists(soft)}, {}),
        ({"target": lists((soft > 0.02).astype(np.int8))}, {"task": "multilabel"}),
    ):
        model.columns |= columns
        found = fx.evaluate(model.hidden(), logits="hidden", head=model.weight, **options)
        close(found, fx.evaluate(model.full(), **options))


# ---- bits ------------------------------------------------------------------------------------------------------------


def sources(folder: Path, model: Model) -> list[object]:
    """The same rows in many kinds of files and objects."""
    states, target = model.states, model.columns["target"]
    table = pa.table({"hidden": lists(states), "target": target})
    fixed = table.set_column(0, "hidden", lists(states, sized=True))
    binary = pa.array([row.tobytes() for row in states], pa.binary(states[0].nbytes))
    tagged = pa.field("hidden", binary.type, metadata={"dtype": "float32"})
    arrays = {"hidden": states, "target": target}
    (folder / "npy").mkdir()
    for name, array in arrays.items():
        np.save(folder / f"npy/{name}.npy", array)
    edges = [0, 1, 50, 333, len(states)]
    with ipc.new_file(folder / "a.arrow", table.schema) as writer:
        for begin, end in itertools.pairwise(edges):
            writer.write_table(table.slice(begin, end - begin))
    return [
        parquet(folder / "a.parquet", table, row_group_size=len(states)),
        parquet(folder / "b.parquet", table, row_group_size=77, compression="zstd"),
        parquet(folder / "c.parquet", fixed, row_group_size=200, data_page_size=2000),
        parquet(folder / "d.parquet", table.set_column(0, tagged, binary), row_group_size=131),
        folder / "npy/hidden.npy",
        folder / "a.arrow",
        table,
        fixed.to_reader(max_chunksize=19),
        arrays,
        safetensors(folder / "h.safetensors", arrays),
    ]


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units and products of few rows."""
    monkeypatch.setattr(hidden, "_UNIT_WORK", 1.0)
    monkeypatch.setattr(heads, "_BEST_ROWS", 96)
    monkeypatch.setattr(heads, "_TILE_BYTES", 1)


def test_the_same_bits_however_the_dump_is_divided(tmp_path, monkeypatch):
    model = Model(2, d=400)
    head = safetensors(tmp_path / "head.safetensors", {"weight": model.weight})

    def bits(source: object, **options: object) -> bytes:
        return fx.evaluate(source, logits="hidden", head=head, **options).state.to_bytes()

    dumps = sources(tmp_path, model)
    first = bits(dumps[0], threads=1)
    assert [bits(dump, threads=2) == first for dump in dumps[1:]] == [True] * (len(dumps) - 1)
    small(monkeypatch)
    dumps[7] = dumps[6].to_reader(max_chunksize=19)
    assert [bits(dump, threads=3) == first for dump in dumps] == [True] * len(dumps)
    assert bits(dumps[1], memory="1MB") == first
    assert bits(dumps[0], where="target >= 0") != first, "the configuration is another"


# ---- other verbs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """(hidden states, their head, the full logits) of one model."""
    model = Model()
    return (
        parquet(tmp_path / "hidden.parquet", model.hidden(), row_group_size=130),
        safetensors(tmp_path / "head.safetensors", {"lm_head.weight": model.weight}),
        parquet(tmp_path / "full.parquet", model.full(), row_group_size=77),
    )


def test_comparison_with_the_full_logits(files):
    states, head, full = files
    for a, b, options in (
        (states, full, {"logits": "hidden", "head": head, "logits_b": "logits"}),
        (full, states, {"logits_b": "hidden", "head_b": head}),
    ):
        result = fx.compare(a, b, **options)
        assert result.divergences["kl_divergence_ab"].mean.value < 1e-9
        assert abs(result.metrics["cross_entropy"].difference.value) < 1e-6
        assert (result.rows.used, result.flips.right_to_wrong) == (N, 0)
    assert result.config.to_dict()["head_b"] == str(head)


def test_comparison_of_two_heads(files):
    states, head, full = files
    model, other = Model(), Model(seed=9)
    tuned = other.hidden().set_column(1, "target", pa.array(model.columns["target"]))
    given = {"logits": "hidden", "head": head}
    for head_b, weight in ((other.weight, other.weight), (None, model.weight)):
        logits = other.states @ weight.T
        found = fx.compare(states, tuned, head_b=head_b, **given)
        truth = fx.compare(full, {"logits": logits, "target": model.columns["target"]})
        for name in ("kl_divergence_ab", "js_divergence"):
            pair = [result.divergences[name].mean.value for result in (found, truth)]
            np.testing.assert_allclose(*pair, rtol=1e-5)
    many = fx.compare_many(states, {"x": tuned, "y": states}, **given)
    distances = [result.divergences["js_divergence"].mean.value for result in many.comparisons.values()]
    assert distances[0] > 1e-3 > 1e-9 > distances[1]


def test_rows_in_another_order(files, tmp_path):
    states, head, full = files
    order = np.random.default_rng(3).permutation(N)
    shuffled = parquet(tmp_path / "shuffled.parquet", pq.read_table(states).take(order))
    for options in ({}, {"memory": "1MB"}):
        found = fx.compare(full, shuffled, on="id", logits_b="hidden", head_b=head, **options)
        assert found.rows.used == N
        assert found.divergences["js_divergence"].mean.value < 1e-9


def test_files_that_are_written(files, tmp_path):
    states, head, full = files
    given = {"logits": "hidden", "head": head}
    for name, write in {
        "logits": lambda path: fx.convert(states, path, **given),
        "log_softmax": lambda path: fx.transform(states, path, **given),
        "grad": lambda path: fx.transform(states, path, output="grad", **given),
    }.items():
        path = tmp_path / f"{name}.parquet"
        write(path)
        column = pq.read_table(path)[name]
        found = np.frombuffer(b"".join(column.to_pylist()), np.float32) if name == "logits" else None
        if found is None:
            found = column.combine_chunks().flatten().to_numpy()
            fx.transform(full, tmp_path / "full-rows.parquet", output=name)
            truth = pq.read_table(tmp_path / "full-rows.parquet")[name].combine_chunks().flatten().to_numpy()
        else:
            truth = Model().logits.reshape(-1)
            assert "hidden" not in pq.read_schema(path).names
        np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-5)
    fx.evaluate(states, **given, per_row=tmp_path / "rows.parquet", id="id")
    fx.evaluate(full, per_row=tmp_path / "full-rows.parquet", id="id")
    rows, truth = (pq.read_table(tmp_path / name) for name in ("rows.parquet", "full-rows.parquet"))
    assert rows["id"] == truth["id"]
    assert rows["rank"] == truth["rank"]


def test_temperature(files):
    states, head, full = files
    fits = [fx.fit_temperature(states, logits="hidden", head=head), fx.fit_temperature(full)]
    assert fits[0].temperature.value == pytest.approx(fits[1].temperature.value, rel=1e-5)


def test_runs_in_parts(files, tmp_path, monkeypatch):
    states, head, _ = files
    small(monkeypatch)
    given = {"logits": "hidden", "head": str(head), "by": "kind"}
    whole = fx.evaluate(states, **given).state
    parts = [fx.evaluate(states, **given, shard=f"{k}/3").state for k in (1, 2, 3)]
    assert values(fx.merge_states(parts).result().metrics) == values(whole.result().metrics)
    units = fx.plan(states, **given, unit_size="1MB")
    merged = fx.merge_states(pickle.loads(pickle.dumps(unit)).run() for unit in units)  # noqa: S301
    assert values(merged.result().metrics) == values(whole.result().metrics)

    def stop(rows, *_):
        if rows > 200:
            raise KeyboardInterrupt

    folder = tmp_path / "checkpoints"
    monkeypatch.setattr(checkpoints, "_EVERY", 0.0)
    monkeypatch.setattr(checkpoints, "_SHARE", 0.0)
    with pytest.raises(KeyboardInterrupt):
        fx.evaluate(states, **given, resume=folder, threads=1, progress=stop)
    resumed = fx.evaluate(states, **given, resume=folder, threads=2, memory="1MB")
    assert resumed.state.to_bytes() == whole.to_bytes()
    assert 0 < resumed.timing["resumed_rows"] < N
    safetensors(head, {"lm_head.weight": Model(5).weight})
    with pytest.raises(fx.StateError, match=r"head.safetensors"):
        fx.evaluate(states, **given, resume=folder)
    with pytest.raises(fx.SourceError, match=r"head.safetensors has changed since the plan was made"):
        units[0].run()
    with pytest.raises(fx.ConfigError, match=r"^resume needs files, but the head is in memory"):
        fx.evaluate(states, logits="hidden", head=Model().weight, resume=folder)


# ---- rows and options that are invalid -------------------------------------------------------------------------------


def test_bad_rows():
    model = Model()
    model.states[7, 3], model.states[9, 0], model.states[300, 1] = np.nan, np.inf, 3e38
    rows = [None if k == 11 else row for k, row in enumerate(model.states.tolist())]
    rows[12] = rows[12][:5]
    table = pa.table({"hidden": pa.array(rows, pa.list_(pa.float32())), **model.columns})
    weight = model.weight * 3e5
    result = fx.evaluate(table, logits="hidden", head=weight, on_bad_row="skip")
    assert (result.rows.bad, result.rows.used) == (5, N - 5)
    for rows, message in (
        (range(N), "row 7: number 3 of the hidden state is nan"),
        (range(8, N), "row 1: number 0 of the hidden state is inf"),
        (range(10, N), "row 1: hidden states are null"),
        ((10, 12), f"row 1: 5 hidden states where {D} are expected"),
        (range(13, N), r"row 287: logit \d+ is \+inf"),
    ):
        with pytest.raises(fx.BadRowError, match=message):
            fx.evaluate(table.take(list(rows)), logits="hidden", head=weight)


def test_options_that_do_not_fit(files, tmp_path):
    states, head, full = files
    model = Model()
    given = {"logits": "hidden", "head": head}
    nan = model.weight.copy()
    nan[4, 2] = np.nan
    ids = {"ids": [[0]], "logprobs": [[-0.1]], "target": [0]}
    odds = {"odds": [0.5, 1.5], "target": [0, 1]}
    for source, options, message in (
        (
            states,
            {**given, "head": model.weight[:, 1:]},
            "head must have 40 numbers per class, like the rows of 'hidden'",
        ),
        (states, {**given, "head": model.weight.T.copy()}, r"shape \(40, 70\); transpose head$"),
        (states, {**given, "head": model.weight[0]}, r"head must be \(C, d\)"),
        (states, {**given, "head": nan}, "head must hold finite numbers, got nan in row 4, column 2 of head"),
        (states, {**given, "head": nan.astype(np.float16)}, "got nan in row 4, column 2"),
        (states, {**given, "head": model.weight.astype(np.int32)}, "head must hold float16, .*, got int32"),
        (states, {**given, "head": "nowhere.safetensors"}, "cannot read nowhere.safetensors"),
        (states, {**given, "head": "s3://bucket/head.safetensors"}, "download it first"),
        (states, {**given, "head": f"{head}:x"}, "there is no tensor 'x'; it holds 'lm_head.weight'"),
        (states, {**given, "head": states}, "it must be a .safetensors or .npy file"),
        (states, {**given, "head": 3}, "head must be an array, or a file"),
        (states, {**given, "bias": model.bias[1:]}, r"bias must have 70 numbers, one per class, got \(69,\)"),
        (states, {**given, "bias": np.where(np.arange(C) == 3, np.inf, 0)}, "got inf for class 3"),
        (states, {**given, "input": "probs"}, "head requires input='logits', got head="),
        (states, {"logits": "hidden", "bias": model.bias}, "bias must not be given without head"),
        (full, {"target_logprob": "target", "target": None, "head": head}, "head must not be given"),
        (ids, {"logits": "logprobs", "ids": "ids", "head": head}, "head must not be given"),
        (odds, {"logits": "odds", "head": head}, "head requires lists of numbers, got one number per row in 'odds'"),
    ):
        with pytest.raises(fx.FastxentError, match=message) as error:
            fx.evaluate(source, **{"target": "target"} | options)
        assert "\n" not in str(error.value)
    with pytest.raises(fx.ConfigError, match=r"^bias_b must not be given without head_b"):
        fx.compare(full, full, bias_b=model.bias)
    with pytest.raises(fx.ConfigError, match=r"^head_b requires input='logits'"):
        fx.compare(full, states, head_b=head, logits_b="hidden", input="log_probs")
    state = fx.evaluate(states, **given).state
    with pytest.raises(fx.ConfigError, match="give update the logits"):
        state.update({"hidden": model.states, "target": model.columns["target"]})
    masked = np.where(np.arange(C) % 2, -np.inf, 0.0).astype(np.float32)
    assert fx.evaluate(states, **given, bias=masked, on_bad_row="skip").rows.bad == 0, "-inf excludes a class"


# ---- command line ----------------------------------------------------------------------------------------------------


def test_the_command_line(files, capsys):
    states, head, full = files
    assert run(["inspect", str(states)]) == 0
    advice = "Column 'hidden' looks like hidden states; run, with a file of the head as HEAD: fastxent inspect"
    assert capsys.readouterr().out.endswith(f"{advice} {states} --head HEAD\n")
    assert run(["inspect", str(states), "--head", str(head)]) == 0
    text = capsys.readouterr().out
    assert f"hidden: {D} numbers, which the head makes {C} classes of float32" in text
    line = text.splitlines()[-1].strip()
    assert line == f"fastxent eval {states} --logits hidden --head {head} --by kind --cluster doc"
    assert run([*line.split()[1:], "--format", "json"]) == 0
    found = fx.EvalResult.from_json(capsys.readouterr().out)
    close(found, fx.evaluate(full, by="kind", cluster="doc"))
    assert found.config.head == str(head)
    assert run(["inspect", str(full), "--head", str(head)]) == 2
    assert f"holds lists of {D} numbers" in capsys.readouterr().err
    line = f"compare {states} {full} --logits hidden --head {head} --logits-b logits"
    assert run(line.split()) == 0
    assert run(["eval", str(full), "--head", str(head)]) == 2
    assert f"head must have {C} numbers per class" in capsys.readouterr().err
