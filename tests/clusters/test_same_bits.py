"""However it is run, an evaluation gives the same bytes: one dump, with weights, slices and clusters, every way."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
from dask.distributed import Client, LocalCluster

import dumps
import fastxent as fx
from examples import on_dask
from fastxent.engine import ray as engine

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:ray.*", "ignore::DeprecationWarning", "ignore::ResourceWarning"
)
FIGURES = ("rows", "metrics", "calibration", "per_class", "nll_histogram", "nll_quantiles", "slices")


def job_array(paths: list[str], folder: Path) -> dict:
    """Three processes, each a shard, and a fourth that merges their states; as a scheduler of jobs would start them."""
    program = [sys.executable, "-m", "fastxent"]
    flags = ["--by", "kind,doc", "--cluster", "doc", "--weight", "weight", "--label-smoothing", "0.1"]
    states = [str(folder / f"{k}.state") for k in (3, 1, 2)]
    for name in states:
        shard = ["--shard", f"{Path(name).stem}/3", "--state", name, "--format", "json"]
        subprocess.run([*program, "eval", *paths, *flags, *shard], check=True, capture_output=True, timeout=300)
    merge = [*program, "merge", *states, "--format", "json"]
    done = subprocess.run(merge, check=True, capture_output=True, timeout=300)
    return json.loads(done.stdout)


def ways(paths: list[str], folder: Path) -> Iterator[tuple[str, dict]]:
    shuffled = random.Random(5).sample(paths, len(paths))
    assert shuffled != paths
    yield "three threads", fx.evaluate(paths, **dumps.OPTIONS, threads=3).to_dict()
    yield "little memory", fx.evaluate(paths, **dumps.OPTIONS, memory="1MB").to_dict()
    yield "files shuffled", fx.evaluate(shuffled, **dumps.OPTIONS).to_dict()
    yield "job array", job_array(paths, folder)
    yield "Ray", fx.evaluate(paths, **dumps.OPTIONS, engine="ray").to_dict()
    yield "Ray, files shuffled", fx.evaluate(shuffled, **dumps.OPTIONS, engine="ray").to_dict()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield "Dask", on_dask.evaluate(client, paths, **dumps.OPTIONS, unit_size="1MB").to_dict()
        yield "Dask, files shuffled", on_dask.evaluate(client, shuffled, **dumps.OPTIONS, unit_size="1MB").to_dict()


def test_local_ray_dask_job_array_and_shuffled_files_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "UNIT_BYTES", 1 << 18)
    rows, paths = dumps.table(40_000), [str(tmp_path / f"part-{k}.parquet") for k in range(8)]
    for k, path in enumerate(paths):
        pq.write_table(rows.slice(5000 * k, 5000), path, row_group_size=1000 + 300 * k)
    expected = fx.evaluate(paths, **dumps.OPTIONS, threads=1).to_dict()
    assert len(expected["slices"]["doc"]) == 40
    assert expected["clusters"] == 40
    assert len(fx.plan(paths, **dumps.OPTIONS, unit_size="1MB")) > 2
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        for way, found in ways(paths, tmp_path):
            for part in FIGURES:
                assert json.dumps(found[part]) == json.dumps(expected[part]), f"{way}: {part}"
    finally:
        ray.shutdown()
