"""The example of an evaluation on Spark, on a real local one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

import dumps
import fastxent as fx
from examples import on_spark

_OTHERS = ("DeprecationWarning", "ResourceWarning", "UserWarning", "FutureWarning")  # Spark's own, of Python and pandas
pytestmark = pytest.mark.filterwarnings(*(f"ignore::{kind}" for kind in _OTHERS))


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    os.environ.update(PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.python.worker.reuse": "true",
    }
    session = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
    yield session
    session.stop()


def test_map_in_arrow_gives_the_same_bits(spark, tmp_path: Path):
    paths = [str(path) for path in dumps.files(tmp_path, dumps.table(30_000))]
    here = fx.evaluate(paths, **dumps.OPTIONS)
    assert len(fx.plan(paths, **dumps.OPTIONS, unit_size="1MB")) > 2
    there = on_spark.evaluate(spark, paths, **dumps.OPTIONS, unit_size="1MB")
    for result in (here, there):
        assert result.rows.used == 30_000
    strip = {"timing": None, "files": None}
    assert json.dumps({**there.to_dict(), **strip}) == json.dumps({**here.to_dict(), **strip})
