"""An evaluation on Spark: `mapInArrow` over the numbers of the work units. States are collected one by one.

    python examples/on_spark.py examples/digits.parquet

fastxent must be installed on the executors, which read the files themselves. Spark sends numbers and returns states.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

import fastxent as fx


def evaluate(spark: SparkSession, source: Any, **options: Any) -> fx.EvalResult:
    """`fastxent.evaluate` on the executors of ``spark``, one task per unit."""
    plan = fx.plan(source, **options)
    units = spark.sparkContext.broadcast(plan)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch["id"].to_pylist():
                yield pa.RecordBatch.from_pydict({"state": [units.value[number].run().to_bytes()]})

    numbers = spark.range(len(plan), numPartitions=len(plan))
    states = numbers.mapInArrow(run, "state binary").toLocalIterator(prefetchPartitions=True)
    return fx.merge_states(bytes(row.state) for row in states).result()


if __name__ == "__main__":
    session = SparkSession.builder.getOrCreate()
    print(evaluate(session, sys.argv[1]))
    session.stop()
