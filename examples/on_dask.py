"""An evaluation on Dask: one future per work unit. States are merged as they arrive.

python examples/on_dask.py examples/digits.parquet             # on this machine
python examples/on_dask.py 's3://bucket/dump/*.parquet' tcp://scheduler:8786
"""

from __future__ import annotations

import sys
from typing import Any

import dask
from dask.distributed import Client, as_completed

import fastxent as fx


def run(unit: fx.WorkUnit) -> bytes:
    """Run a unit on a worker, which reads the rows itself and returns a few kilobytes."""
    return unit.run().to_bytes()


def evaluate(client: Client, source: Any, **options: Any) -> fx.EvalResult:
    """`fastxent.evaluate` on the cluster of ``client``. A unit whose worker dies is run again by Dask."""
    futures = client.map(run, fx.plan(source, **options))
    states = (state for _, state in as_completed(futures, with_results=True))
    return fx.merge_states(states).result()


def evaluate_delayed(source: Any, **options: Any) -> fx.EvalResult:
    """The same as a graph of `dask.delayed`, with the scheduler that Dask is set to."""
    states = dask.compute(*[dask.delayed(run)(unit) for unit in fx.plan(source, **options)])
    return fx.merge_states(states).result()


if __name__ == "__main__":
    with Client(*sys.argv[2:]) as client:
        print(evaluate(client, sys.argv[1]))
