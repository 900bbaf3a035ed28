"""Columns of one number per row, as any writer setting stores them: the same rows as from the table in memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
from fastxent.io.parquet.part import NativeUnit
from fastxent.io.source import open_source

ROWS = 3000
RNG = np.random.default_rng(5)
CHANCE = RNG.random(ROWS)
POSITIVE = (RNG.random(ROWS) < CHANCE).astype(np.int8)


def written(path, table, **options):
    """The units of the file, which are to be read natively."""
    pq.write_table(table, path, **options)
    units = list(open_source(str(path), logits="p").units())
    assert all(isinstance(unit, NativeUnit) for unit in units)
    return units


@settings(max_examples=60)
@given(
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    digits=st.sampled_from([2, 12]),  # few different scores, or many
    nulls=st.sampled_from([0.0, 0.2, 1.0]),
    nullable=st.booleans(),
    split=st.booleans(),
    writing=st.fixed_dictionaries(
        {
            "compression": st.sampled_from(["none", "snappy", "gzip", "zstd", "lz4", "brotli"]),
            "data_page_version": st.sampled_from(["1.0", "2.0"]),
            "use_dictionary": st.booleans(),
            "data_page_size": st.sampled_from([1, 900, 1 << 20]),
            "row_group_size": st.sampled_from([7, 1100, ROWS]),
        }
    ),
)
def test_any_writer(tmp_path_factory, dtype, digits, nulls, nullable, split, writing):
    mask = RNG.random(ROWS) < nulls if nullable else np.zeros(ROWS, bool)
    column = pa.array(np.round(CHANCE, digits).astype(dtype), mask=mask)
    table = pa.table([column, POSITIVE], pa.schema([pa.field("p", column.type, nullable), ("y", pa.int8())]))
    path = tmp_path_factory.mktemp("flat") / "dump.parquet"
    split = split and not writing["use_dictionary"]
    written(path, table, write_batch_size=64, use_byte_stream_split=["p"] if split else False, **writing)
    options = {"logits": "p", "target": "y", "input": "probs"}
    found, due = (fx.evaluate(source, on_bad_row="skip", **options) for source in (path, table))
    assert found.state.to_bytes(0) == due.state.to_bytes(0)
    assert found.rows.bad == mask.sum()
    if mask.any():
        message = f"row {int(mask.argmax())}: logits hold a null, in column 'p'"
        for source in (path, table):
            with pytest.raises(fx.BadRowError, match=message):
                fx.evaluate(source, threads=1, **options)


def test_a_row_group_is_shared_out(tmp_path, monkeypatch):
    monkeypatch.setattr("fastxent.io.parquet.part._LEAST_QUARTER", 1000)
    table = pa.table({"p": CHANCE, "y": POSITIVE})
    units = written(tmp_path / "dump.parquet", table, data_page_size=500, write_batch_size=50, use_dictionary=False)
    assert len(units) == 4
    assert [unit.where.first_row for unit in units] == np.cumsum([0, *(unit.rows for unit in units[:-1])]).tolist()
    options = {"logits": "p", "target": "y", "input": "probs"}
    found, due = (fx.evaluate(source, **options) for source in (tmp_path / "dump.parquet", table))
    assert found.state.to_bytes(0) == due.state.to_bytes(0)
