"""``engine="ray"`` on a real local cluster: the same bits, clean errors, and workers that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

import dumps
import fastxent as fx
import histogram
from fastxent.engine import ray as engine
from fastxent.engine.loop import Loop
from tests.verbs import clicks, hidden, pairs

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:ray.*", "ignore::ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(engine, "UNIT_BYTES", 1)  # a task for each row group
    return [str(path) for path in dumps.files(tmp_path)]


def figures(result: fx.EvalResult) -> str:
    return json.dumps({**result.to_dict(), "timing": None})


def test_the_same_bits_as_here(paths):
    here = fx.evaluate(paths, **dumps.OPTIONS)
    told: list[tuple] = []
    there = fx.evaluate(paths, **dumps.OPTIONS, engine="ray", progress=lambda *counts: told.append(counts))
    assert there.state.to_bytes() == here.state.to_bytes()
    assert figures(there) == figures(here)
    assert told[-1] == (dumps.ROWS, dumps.ROWS, dumps.ROWS * dumps.CLASSES * 4, dumps.ROWS * dumps.CLASSES * 4)
    assert [rows for rows, *_ in told] == sorted(rows for rows, *_ in told)
    assert there.timing["tasks"] == len(told) > 20
    assert ray.is_initialized()  # what the user connected stays connected


def test_a_binary_dump(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "UNIT_BYTES", 1)
    pq.write_table(clicks.table(), tmp_path / "clicks.parquet", row_group_size=clicks.N // 7)
    options = {"by": "kind", "cluster": "user", "weight": "w"}
    here = fx.evaluate(tmp_path / "clicks.parquet", **options)
    there = fx.evaluate(tmp_path / "clicks.parquet", **options, engine="ray")
    assert there.timing["tasks"] > 6
    assert there.state.to_bytes() == here.state.to_bytes()
    assert figures(there) == figures(here)


def test_a_top_k_dump(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "UNIT_BYTES", 1)
    rng = np.random.default_rng(0)
    n, k = 60, 4
    ids = np.argsort(rng.random((n, 9)))[:, :k]
    logprobs = np.log(rng.dirichlet(np.ones(9), n)[:, :k])
    table = pa.table(
        {"ids": list(ids), "lp": list(logprobs), "target": rng.integers(0, 9, n), "g": rng.integers(0, 2, n)}
    )
    pq.write_table(table, tmp_path / "topk.parquet", row_group_size=20)
    options = {"logits": "lp", "ids": "ids", "n_classes": 9, "by": "g"}
    here = fx.evaluate(tmp_path / "topk.parquet", **options)
    there = fx.evaluate(tmp_path / "topk.parquet", **options, engine="ray")
    assert there.timing["tasks"] == 3
    assert there.state.to_bytes() == here.state.to_bytes()


def test_hidden_states_with_a_head(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "UNIT_BYTES", 1)
    model = hidden.Model()
    states = hidden.parquet(tmp_path / "hidden.parquet", model.hidden(), row_group_size=130)
    head = hidden.safetensors(tmp_path / "head.safetensors", {"lm_head.weight": model.weight})
    options = {"logits": "hidden", "head": head}
    here = fx.evaluate(states, **options)
    there = fx.evaluate(states, **options, engine="ray")
    assert there.timing["tasks"] >= 4
    assert there.state.to_bytes() == here.state.to_bytes()
    with pytest.raises(fx.ConfigError, match="head"):
        fx.evaluate(states, logits="hidden", head=model.weight, engine="ray")


def test_several_dumps(paths, tmp_path):
    base, other = (tmp_path / name for name in ("base.parquet", "other.parquet"))
    table = pa.concat_tables([pq.read_table(path) for path in paths])
    pq.write_table(table, base, row_group_size=200)
    pq.write_table(table, other, row_group_size=130)
    here, there = (fx.compare_many(base, {"x": other, "y": base}, **options) for options in ({}, {"engine": "ray"}))
    for name in ("x", "y"):
        assert json.dumps({**there[name].to_dict(), "timing": None}) == json.dumps(
            {**here[name].to_dict(), "timing": None}
        )


def test_shards_and_checkpoints_on_a_cluster(paths, tmp_path):
    whole = fx.evaluate(paths, **dumps.OPTIONS).state.to_bytes()

    def interrupt(rows, *_):
        if rows > 200:
            raise KeyboardInterrupt

    folder = tmp_path / "c"
    with pytest.raises(KeyboardInterrupt):
        fx.evaluate(paths, **dumps.OPTIONS, engine="ray", resume=folder, progress=interrupt)
    assert list(folder.glob("*.state"))
    result = fx.evaluate(paths, **dumps.OPTIONS, engine="ray", resume=folder)
    assert result.state.to_bytes() == whole
    assert 100 < result.timing["resumed_rows"] < dumps.ROWS
    assert fx.evaluate(paths, **dumps.OPTIONS, resume=folder).state.to_bytes() == whole  # one folder for all engines
    halves = [fx.evaluate(paths, **dumps.OPTIONS, engine="ray", shard=f"{k}/2").state for k in (1, 2)]
    assert fx.merge_states(halves).to_bytes() == whole


def test_the_first_bad_row_is_named(paths, tmp_path):
    for k in (3, 5):
        rows = pq.read_table(paths[k])
        target = rows["target"].to_numpy().copy()
        target[5:] = 99
        at = rows.schema.get_field_index("target")
        pq.write_table(rows.set_column(at, "target", [target]), paths[k], row_group_size=2)
    for _ in range(3):
        with pytest.raises(fx.BadRowError, match=r"part-3\.parquet, row group 2, row 5: target 99 is outside"):
            fx.evaluate(paths, **dumps.OPTIONS, engine="ray")


def workers() -> list[int]:
    """Processes of this machine that run a task of ours, by what Ray calls them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::_run" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_worker_killed_in_mid_run_changes_nothing(tmp_path):
    paths = [str(path) for path in dumps.files(tmp_path, dumps.table(60_000))]
    here = fx.evaluate(paths, **dumps.OPTIONS).state.to_bytes()
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while len(killed) < 3 and not over.wait(0.002):
            for pid in workers()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                time.sleep(0.5)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "UNIT_BYTES", 1 << 16)
        there = fx.evaluate(paths, **dumps.OPTIONS, engine="ray").state.to_bytes()
    over.set()
    killer.join()
    assert killed
    assert there == here


def test_a_unit_that_kills_every_worker_is_named(paths, monkeypatch):
    monkeypatch.setattr(engine, "_RETRIES", 1)
    monkeypatch.setattr(engine, "_run", lambda unit: os._exit(1))
    with pytest.raises(
        fx.EngineError, match=r"cannot run <work unit \d+ of \d+: \d+ rows of .*>: its worker was lost 2 times"
    ):
        fx.evaluate(paths, **dumps.OPTIONS, engine="ray")


def test_what_cannot_go_together(paths, tmp_path):
    with pytest.raises(fx.ConfigError, match='per_row cannot be combined with engine="ray"'):
        fx.evaluate(paths, engine="ray", per_row=tmp_path / "rows.parquet")
    with pytest.raises(fx.ConfigError, match="engine='ray' needs files"):
        fx.evaluate({"logits": np.eye(2), "target": [0, 1]}, engine="ray")


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fastxent", *arguments], capture_output=True, text=True, timeout=240,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_a_cluster_of_its_own_is_started_and_ended(paths):
    done = program("eval", *paths, "--engine", "ray", "--threads", "1", "--format", "json", "--by", "kind")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert fx.EvalResult.from_json(done.stdout).metrics == fx.evaluate(paths, by="kind").metrics


def test_an_address_that_leads_nowhere_is_one_line(paths):
    done = program("eval", *paths, "--engine", "ray", RAY_ADDRESS="127.0.0.1:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("fastxent: error: cannot reach a Ray cluster at 127.0.0.1:1: ")


def test_a_recipe_of_its_own_runs_on_a_cluster(paths):
    ray.cloudpickle.register_pickle_by_value(histogram)  # workers cannot import it
    job = histogram.job(paths)
    here, _ = Loop(job.recipe, job.source.units(), row_bytes=job.row_bytes, threads=1, memory=1 << 28).run()
    there, timing = engine.run(
        job, job.pieces(), threads=None, memory=1 << 28, rows=job.source.rows, progress=None, ledger=None
    )
    assert there.to_bytes() == here.to_bytes()
    assert timing["tasks"] > 20


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_comparison_by_ids(tmp_path, monkeypatch, compression):
    """Rows that workers read where they lie, and rows from a temporary file."""
    monkeypatch.setattr(engine, "UNIT_BYTES", 1)
    monkeypatch.setattr("fastxent.io.scattered._LEAST", 1)
    a, b = pairs.both()
    b = b.append_column("id", a["id"]).take(np.random.default_rng(4).permutation(len(a)))
    pq.write_table(a, tmp_path / "a.parquet", row_group_size=90)
    pq.write_table(b, tmp_path / "b.parquet", row_group_size=100, compression=compression, use_dictionary=["id"])
    files, options = (tmp_path / "a.parquet", tmp_path / "b.parquet"), {"on": "id", "by": "kind", "id": "id"}
    here, there = (fx.compare(*files, **options, **more) for more in ({}, {"engine": "ray"}))
    assert there.timing["tasks"] > 3
    assert there.state.to_bytes() == here.state.to_bytes()
    assert not list(tmp_path.glob("fastxent-*"))
