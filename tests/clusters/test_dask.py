"""The example of an evaluation on Dask, on a real local cluster of processes."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator

import dask
import pyarrow.parquet as pq
import pytest
from dask.distributed import Client, LocalCluster

import dumps
import fastxent as fx
from examples import on_dask

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        yield client


def figures(result: fx.EvalResult) -> str:
    return json.dumps({**result.to_dict(), "timing": None, "files": None})


def test_futures_give_the_same_bits(client, tmp_path):
    paths = [str(path) for path in dumps.files(tmp_path)]
    found = on_dask.evaluate(client, paths, **dumps.OPTIONS, unit_size="1MB")
    assert figures(found) == figures(fx.evaluate(paths, **dumps.OPTIONS))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_delayed_gives_the_same_bits(tmp_path, scheduler):
    paths = [str(path) for path in dumps.files(tmp_path)]
    with dask.config.set(scheduler=scheduler):
        found = on_dask.evaluate_delayed(paths, **dumps.OPTIONS)
    assert figures(found) == figures(fx.evaluate(paths, **dumps.OPTIONS))


def test_errors_are_our_own(client, tmp_path):
    rows = dumps.table(90)
    at = rows.schema.get_field_index("target")
    paths = [str(path) for path in dumps.files(tmp_path, rows.set_column(at, "target", [[99] * 90]))]
    with pytest.raises(fx.BadRowError, match="target 99 is outside the 23 classes"):
        on_dask.evaluate(client, paths, **dumps.OPTIONS)


def test_a_worker_killed_in_mid_run_changes_nothing(tmp_path):
    rows, paths = dumps.table(12_000), [str(tmp_path / f"part-{k:02}.parquet") for k in range(40)]
    for path in paths:
        pq.write_table(rows, path)
    here = fx.evaluate(paths, **dumps.OPTIONS)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster:
        victim = cluster.workers[0].pid
        unfinished: list[int] = []
        over = threading.Event()

        def kill() -> None:
            while not over.wait(0.002):
                states = [task.state for task in list(cluster.scheduler.tasks.values())]
                if states.count("memory") >= 10:
                    unfinished.append(len(states) - states.count("memory"))
                    os.kill(victim, signal.SIGKILL)
                    return

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with Client(cluster) as client:
                there = on_dask.evaluate(client, paths, **dumps.OPTIONS, unit_size="1MB")
        finally:
            over.set()
            killer.join()
        assert unfinished[0] > 10  # it was killed in the middle
        assert victim not in [worker.pid for worker in cluster.workers.values()]
    assert figures(there) == figures(here)
