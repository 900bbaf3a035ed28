"""Divided evaluations: units and shards that cover every row once, travel as bytes, and add up to the same bits."""

from __future__ import annotations

import copy
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dumps
import fastxent as fx
from fastxent.engine.shards import Shard
from fastxent.state.coverage import Coverage


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return [str(path) for path in dumps.files(tmp_path)]


def whole(paths: list[str], **options) -> bytes:
    return fx.evaluate(paths, **dumps.OPTIONS, **options).state.to_bytes()


# ---- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit_size", ["1MB", "256MB"])
def test_units_in_any_order_are_the_whole(paths, unit_size):
    units = fx.plan(paths, **dumps.OPTIONS, unit_size=unit_size)
    assert sum(unit.rows for unit in units) == dumps.ROWS
    random.Random(3).shuffle(units)
    states = [unit.run(threads=1 + k % 2) for k, unit in enumerate(units)]
    merged = fx.merge_states(state.to_bytes() if k % 2 else state for k, state in enumerate(states))
    assert merged.to_bytes() == whole(paths)


def many(paths: list[str], **options) -> list[fx.WorkUnit]:
    """A plan whose units are the row groups: `fx.plan` takes no size so small."""
    from fastxent.engine.units import work_units
    from fastxent.options.declared import DEFAULTS
    from fastxent.verbs.evaluation import Evaluation

    job = Evaluation.open(paths, {**DEFAULTS, **dumps.OPTIONS, **options})
    return work_units(job, job.pieces(), 1, 1 << 28)


def test_units_travel_as_few_bytes_to_another_process(paths, tmp_path):
    units = many(paths)
    assert len(units) > 20
    sent = [pickle.dumps(unit) for unit in units]
    assert max(map(len, sent)) < 4096
    (tmp_path / "units").write_bytes(pickle.dumps(sent[1:]))
    script = """
import pickle, sys
for data in pickle.load(open(sys.argv[1] + "/units", "rb")):
    unit = pickle.loads(data)
    open(f"{sys.argv[1]}/{unit.index}.state", "wb").write(unit.run().to_bytes())
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    states = [path.read_bytes() for path in tmp_path.glob("*.state")]
    assert fx.merge_states([units[0].run(), *states]).to_bytes() == whole(paths)


def test_units_twice_or_missing_are_refused(paths):
    states = [unit.run() for unit in many(paths)]
    n = len(states)
    with pytest.raises(fx.StateError, match=f"missing: part 3 of {n};"):
        fx.merge_states(state for k, state in enumerate(states) if k != 2)
    with pytest.raises(fx.StateError, match=f"part 5 of {n} is there twice"):
        fx.merge_states([*states, states[4]][1:])
    merged = states[0].merge(states[1])
    with pytest.raises(fx.StateError, match=f"part 2 of {n} is there twice"):
        merged.merge(states[1])
    assert merged.merge(states[2]).result().warnings[-1] == f"these metrics are of parts 1-3 of {n} only"
    with pytest.raises(fx.StateError, match="at least one state, got none"):
        fx.merge_states([])


def test_a_refused_merge_leaves_the_state_alone(paths):
    first, second, *_ = (unit.run() for unit in many(paths)[:3])
    before = first.to_bytes()
    with pytest.raises(fx.StateError):
        first.absorb(first.merge(second))
    assert first.to_bytes() == before


def test_a_file_that_changed_since_the_plan_is_refused(paths):
    units = many(paths)
    pq.write_table(dumps.table(50, seed=1), paths[6])
    with pytest.raises(
        fx.SourceError,
        match=r"part-6\.parquet has changed since the plan was made: its size changed from \d+ to \d+ bytes",
    ):
        units[-1].run()
    os.utime(paths[0])  # a copy elsewhere has another time, and is the same file
    assert units[0].run().result().rows.total == 1


def formats(folder: Path) -> dict[str, list[str] | str]:
    rows = dumps.table(90)
    with pa.ipc.new_file(folder / "a.arrow", rows.schema) as writer:
        writer.write_table(rows, max_chunksize=17)
    with pa.ipc.new_file(folder / "b.arrow", rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(rows, max_chunksize=17)
    with pa.ipc.new_stream(folder / "a.stream", rows.schema) as writer:
        writer.write_table(rows, max_chunksize=17)
    pq.write_table(rows, folder / "delta.parquet", column_encoding={"doc": "DELTA_BINARY_PACKED"}, use_dictionary=False)
    (folder / "npy").mkdir()
    np.save(folder / "npy" / "logits.npy", np.array(rows["logits"].to_pylist(), np.float32))
    for name in ("target", "doc", "weight"):
        np.save(folder / "npy" / f"{name}.npy", rows[name].to_numpy())
    return {
        "ipc": str(folder / "a.arrow"), "compressed ipc": str(folder / "b.arrow"), "stream": str(folder / "a.stream"),
        "parquet": str(folder / "delta.parquet"), "npy": str(folder / "npy"),
        "mixed": [str(folder / "a.arrow"), str(folder / "a.stream"), str(folder / "delta.parquet")],
    }  # fmt: skip


def test_every_format_on_disk_can_be_planned(tmp_path):
    for name, source in formats(tmp_path).items():
        units = copy.deepcopy(fx.plan(source, by="doc", weight="weight"))
        whole = fx.evaluate(source, by="doc", weight="weight").state
        assert fx.merge_states(unit.run() for unit in units).to_bytes() == whole.to_bytes(), name


@pytest.mark.parametrize(("keyword", "value"), [("resume", "x"), ("shard", "1/2"), ("engine", "ray")])
def test_what_is_in_memory_cannot_be_divided(keyword, value, tmp_path):
    for source in (dumps.table(5), dumps.table(5).to_reader(), {"logits": np.eye(2), "target": [0, 1]}):
        with pytest.raises(fx.ConfigError, match=f"{keyword}.* needs files, but <.*> is in memory"):
            fx.evaluate(source, **{keyword: tmp_path / value if keyword == "resume" else value})
    with pytest.raises(fx.ConfigError, match="a plan needs files"):
        fx.plan(dumps.table(5))


def test_options_are_checked(paths):
    with pytest.raises(TypeError, match=r"plan\(\) got an unexpected keyword argument 'tempreature'"):
        fx.plan(paths, tempreature=2.0)
    with pytest.raises(fx.ConfigError, match=r"engine must be one of .* got 'spark'"):
        fx.evaluate(paths, engine="spark")
    with pytest.raises(fx.ConfigError, match="unit_size"):
        fx.plan(paths, unit_size="some")


# ---- shards ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 16, 200])
def test_shards_are_the_whole(paths, n):
    results = [fx.evaluate(paths, **dumps.OPTIONS, shard=f"{k}/{n}") for k in range(1, n + 1)]
    assert sum(result.rows.total for result in results) == dumps.ROWS
    random.Random(n).shuffle(results)
    assert fx.merge_states(result.state for result in results).to_bytes() == whole(paths)
    rows = [result.rows.total for result in results]
    assert n > 3 or max(rows) - min(rows) <= 2 * 79  # the largest row group


def test_shards_of_other_files_or_numbers_do_not_fit(paths):
    one, two = (fx.evaluate(paths, shard=f"{k}/2").state for k in (1, 2))
    other = fx.evaluate(paths[:-1], shard="2/2").state
    third = fx.evaluate(paths, shard="3/3").state
    for stranger in (other, third):
        with pytest.raises(fx.StateError, match=r"missing: .*2 different divisions"):
            fx.merge_states([one, stranger])
    assert fx.merge_states([two, one]).result().warnings == ()
    with pytest.raises(fx.StateError, match="part 1 of 2 is there twice"):
        fx.merge_states([one, one.merge(fx.EvalState.empty(one.config))])


def test_shards_and_undivided_states_do_not_mix(paths):
    one, two = (fx.evaluate(paths, shard=f"{k}/2").state for k in (1, 2))
    undivided = fx.evaluate(paths).state
    for states in ([one, two, undivided], [undivided, one, two], [one, undivided, two]):
        with pytest.raises(fx.StateError, match="shards cannot be merged with the states of whole runs"):
            fx.merge_states(states)
    assert fx.merge_states([fx.EvalState.empty(one.config), one, two]).to_bytes() == undivided.to_bytes()


@pytest.mark.parametrize("of", ["16777217", "99999999999999999999", "9" * 5000])
def test_more_shards_than_a_state_can_name_are_refused(of):
    with pytest.raises(fx.ConfigError, match="at most 16777216 shards"):
        Shard.parse(f"1/{of}")


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "-1/4", "1/0", "a/b", "1/2/3", "1.5/4"])
def test_shards_that_are_none(text, paths):
    with pytest.raises(fx.ConfigError, match="shard"):
        fx.evaluate(paths, shard=text)


def test_a_shard_is_written_as_it_is_read():
    assert str(Shard.parse(" 03/16 ")) == "3/16"


def test_coverage_survives_bytes_and_refuses_nonsense():
    config = fx.EvalConfig(n_classes=3)
    state = fx.EvalState.empty(config)
    state.coverage = Coverage({"a": (9, [(0, 2), (5, 5), (8, 8)]), "b": (2, [(1, 1)])})
    again = fx.EvalState.from_bytes(state.to_bytes())
    assert again.coverage == state.coverage
    assert again.coverage.missing() == (
        "missing: parts 4-5, 7-8 of 9; part 1 of 2 "
        "(the states are of 2 different divisions: of other files, or other n)"
    )
    for bad in ({"a": {"of": 3, "parts": [[0, 3]]}}, {"a": {"of": 1 << 60, "parts": [[0, 1 << 59]]}},
                {"a": {"of": 9, "parts": [[3, 4], [0, 1]]}}, {"a": {"of": 9, "parts": [[0, 8]]}},
                {"a": {"of": 9, "parts": [[0, 1], [2, 3]]}}, {"a": {"of": 9, "parts": [[0, True]]}}):  # fmt: skip
        with pytest.raises(ValueError):
            Coverage.from_dict(bad)
    assert Coverage.part("a", 0, 1) == Coverage()
