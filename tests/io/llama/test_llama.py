"""llama.cpp's log-probability files: every number against a slow reader, and files that are not what they say."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import fastxent as fx
from fastxent.io.inspect import describe
from fastxent.io.source import open_source
from tests.cli.running import check_failure, process
from tests.io.llama import handmade

BESIDE = ["target", "token", "position", "chunk"]
DATA = handmade.example()
ROWS = handmade.read(DATA)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "base.kld"
    found.write_bytes(DATA)
    return found


def parts_of(path: Path, rows: int, block_bytes: int, whole: bool) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {name: [] for name in ["logits", *BESIDE]}
    for unit in open_source(path, logits="logits", columns=BESIDE).units():
        for batch in pickle.loads(pickle.dumps(unit)).read(rows, block_bytes, whole):  # noqa: S301
            found["logits"] += [block.values.copy() for block in batch.blocks]
            for name in BESIDE:
                found[name].append(np.asarray(batch.columns[name]))
    return {name: np.concatenate(values) for name, values in found.items()}


# ---- the numbers -----------------------------------------------------------------------------------------------------


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chunks=st.integers(1, 5), context=st.integers(3, 9), classes=st.integers(1, 9), seed=st.integers(0, 9),
    rows=st.integers(1, 9), block_bytes=st.integers(1, 200), whole=st.booleans(),
)  # fmt: skip
def test_rows_are_those_of_the_slow_reader(tmp_path, chunks, context, classes, seed, rows, block_bytes, whole):
    data = handmade.example(chunks, context, classes, seed)
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    truth, found = handmade.read(data), parts_of(path, rows, block_bytes, whole)
    for name, values in truth.items():
        np.testing.assert_array_equal(found[name], values, name)


@pytest.mark.parametrize("kind", ["logits", "log_probs"])
def test_metrics_are_those_of_the_decoded_rows(path, kind):
    options = {"input": kind, "by": "position", "cluster": "chunk", "top_k": 2}
    truth = fx.evaluate(ROWS, **options)
    for how in ({}, {"threads": 3, "memory": "1MB"}):
        found = fx.evaluate(path, **options, **how)
        assert found.state == truth.state
    nll = -ROWS["logits"][np.arange(len(ROWS["target"])), ROWS["target"]].astype(np.float64)
    if kind == "logits":
        nll += np.log(np.exp(ROWS["logits"].astype(np.float64)).sum(axis=1))
    assert found.metrics["cross_entropy"].value == pytest.approx(nll.mean(), rel=1e-6)
    assert found.clusters == 5


def test_what_the_format_adds_to_a_row_is_no_warning(tmp_path):
    """All but one of many classes lie below the floor, and each counts e⁻¹⁶ there: 1.1 % in all."""
    logits = np.full((2, 2, 100_000), -50.0)
    logits[:, :, 3] = 0.0
    data = handmade.write(np.full((2, 6), 3), logits)
    (tmp_path / "x.kld").write_bytes(data)
    result = fx.evaluate(tmp_path / "x.kld", input="log_probs")
    assert result.warnings == ()
    assert result.metrics["cross_entropy"].value == 0.0
    assert fx.evaluate(tmp_path / "x.kld").metrics["cross_entropy"].value == pytest.approx(0.0112, rel=0.01)
    assert "2 rows of probabilities do not sum to 1" in fx.evaluate(
        {**handmade.read(handmade.write(np.full((1, 6), 3), logits[:1])), "chunk": [0, 0]}, input="log_probs"
    ).warnings[0]  # fmt: skip


def test_convert_and_transform_keep_rows_and_columns(path, tmp_path):
    fx.convert(path, tmp_path / "x.parquet", layout="list")
    table = pq.read_table(tmp_path / "x.parquet")
    assert sorted(table.column_names) == sorted(["logits", *BESIDE])
    for name in BESIDE:
        np.testing.assert_array_equal(table[name], ROWS[name])
    np.testing.assert_array_equal(np.stack(table["logits"].to_numpy()), ROWS["logits"])
    for output in ("log_softmax", "grad"):
        ours, theirs = (
            fx.transform(source, tmp_path / f"{k}.parquet", output=output, keep=["chunk"])
            for k, source in enumerate([path, ROWS])
        )
        assert ours.metrics == theirs.metrics
        assert pq.read_table(tmp_path / "0.parquet").equals(pq.read_table(tmp_path / "1.parquet"))


def test_shards_resumed_runs_and_work_units_are_the_whole(path, tmp_path):
    other = tmp_path / "more.kld"
    other.write_bytes(handmade.example(seed=3))
    sources, options = [path, other], {"cluster": "chunk", "by": "position"}
    whole = fx.evaluate(sources, **options).state
    shards = [fx.evaluate(sources, shard=f"{k}/2", **options).state for k in (1, 2)]
    assert fx.merge_states(shards) == whole
    assert fx.evaluate(sources, resume=tmp_path / "progress", **options).state == whole
    assert fx.evaluate(sources, resume=tmp_path / "progress", **options).state == whole
    states = [pickle.loads(pickle.dumps(unit)).run() for unit in fx.plan(sources, **options)]  # noqa: S301
    assert fx.merge_states(states) == whole


def test_inspect_names_the_columns(path):
    found = describe(path)
    assert (found.formats, found.rows) == (["llama.cpp log-probabilities"], len(ROWS["target"]))
    assert (found.logits[0].name, found.logits[0].n_classes) == ("logits", 7)
    assert (found.roles["target"][0], found.roles["cluster"]) == ("target", ["chunk"])


def test_two_files_are_compared_as_their_rows_are(path, tmp_path):
    other = tmp_path / "quantized.kld"
    head = 20 + 4 * 60  # with the tokens, which must agree
    other.write_bytes(DATA[:head] + handmade.example(seed=5)[head:])
    rows = handmade.read(other.read_bytes())
    options = {"by": "position", "cluster": "chunk"}
    found, truth = fx.compare(path, other, **options), fx.compare(ROWS, rows, **options)
    assert found.metrics == truth.metrics
    assert found.divergences == truth.divergences
    assert found.divergences["kl_divergence_ab"].mean.value > 0.0


def test_some_rows_of_a_unit(path):
    (unit,) = open_source(path, logits="logits", columns=BESIDE).units()
    for begin, end in [(0, 25), (0, 1), (7, 19), (24, 25)]:
        batches = unit.slice(begin, end).read(100, 1 << 20, True)
        batch = next(batches)
        assert batch.where.first_row == begin
        np.testing.assert_array_equal(batch.whole().values, ROWS["logits"][begin:end])
        for name in BESIDE:
            np.testing.assert_array_equal(batch.columns[name], ROWS[name][begin:end])
        assert next(batches, None) is None


# ---- files that are not what they say --------------------------------------------------------------------------------


def test_a_file_cut_short_is_told_and_its_rows_are_counted(path):
    row = 2 * (8 + 4)
    path.write_bytes(DATA[: -3 * row - 5])
    why = "the file is cut short: 21 of its 25 rows are whole"
    done = process("eval", str(path), stdout=-1)
    check_failure(done.returncode, done.stdout, done.stderr, rf"{path}: {why}; .*--on-bad-row skip")
    result = fx.evaluate(path, on_bad_row="skip")
    assert (result.rows.total, result.rows.used, result.rows.bad_logits) == (25, 21, 4)
    assert result.warnings == (f"{path}: {why}",)
    truth = fx.evaluate({name: values[:21] for name, values in ROWS.items()})
    assert result.metrics == truth.metrics
    assert describe(path).warnings == [f"{path}: {why}"]
    with pytest.raises(fx.BadRowError, match=r"row 21: .*21 of its 25 rows are whole"):
        fx.convert(path, path.with_suffix(".parquet"))


@pytest.mark.parametrize(
    ("at", "bytes_", "message"),
    [
        (8, struct.pack("<i", 2), "n_ctx=2"),
        (8, struct.pack("<i", -12), "n_ctx=-12"),
        (12, struct.pack("<i", 0), "n_vocab=0"),
        (12, struct.pack("<i", -7), "n_vocab=-7"),
        (12, struct.pack("<i", 2**31 - 1), "n_vocab=2147483647"),
        (16, struct.pack("<i", -1), "n_chunk=-1"),
        (16, struct.pack("<i", 2**31 - 1), "none of its 10737418235 rows is whole"),
        (8, struct.pack("<i", 2**31 - 1), "none of its"),
        (12, struct.pack("<i", 5), "bytes follow its last row"),
        (16, struct.pack("<i", 4), "bytes follow its last row"),
    ],
)
def test_headers_that_do_not_fit_the_file(path, at, bytes_, message):
    data = bytearray(DATA)
    data[at : at + len(bytes_)] = bytes_
    path.write_bytes(data)
    with pytest.raises(fx.SourceError, match=message) as error:
        fx.evaluate(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("length", [8, 15, 19, 20, 25, 20 + 4 * 60, 20 + 4 * 60 + 5])
def test_files_without_a_whole_row(path, length):
    path.write_bytes(DATA[:length])
    with pytest.raises(fx.SourceError, match=r"none of its 25 rows|invalid header"):
        fx.evaluate(path, on_bad_row="skip")


def test_no_chunk_is_no_row(path):
    path.write_bytes(DATA[:16] + struct.pack("<i", 0))
    result = fx.evaluate(path)
    assert result.rows.total == 0


@pytest.mark.parametrize(
    ("scale", "floor"),
    [
        (np.nan, -3.0), (np.inf, -3.0), (-1.0, -3.0), (1.0, np.nan), (1.0, -np.inf), (1.0, np.inf),
        (1.0, -3.0), (0.0, 0.25), (2.0**-13, -5.0),  # the largest log-probability is above 0
    ],
)  # fmt: skip
def test_a_row_that_no_writer_made_is_bad(path, scale, floor):
    data = bytearray(DATA)
    begin = 20 + 4 * 60 + 24 * 3
    data[begin : begin + 8] = struct.pack("<ff", scale, floor)
    path.write_bytes(data)
    with pytest.raises(fx.BadRowError, match=f"row 3: the row has the scale {scale} and the least log-prob.* {floor}"):
        fx.evaluate(path)
    rows = fx.evaluate(path, on_bad_row="skip").rows
    assert (rows.used, rows.bad_logits) == (24, 1)


def test_tokens_outside_the_vocabulary_are_bad_targets(path):
    data = bytearray(DATA)
    data[20 + 4 * 8 : 20 + 4 * 9] = struct.pack("<i", 7)
    path.write_bytes(data)
    with pytest.raises(fx.BadRowError, match="row 1: target 7 is outside the 7 classes"):
        fx.evaluate(path)
    assert fx.evaluate(path, on_bad_row="skip").rows.bad_target == 1
