"""Dumps to evaluate: the same logits in every layout, and what else can be done with each file.

Written with pyarrow's defaults, as dumps are, but for what the layout is named after.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.cpus import available_cpus
from bench.peers import Call, installed
from tests import reference as ref

LAYOUTS = ("none", "snappy", "zstd", "byte-stream-split", "fixed-size-binary", "arrow-ipc")
_GROUP = 64 << 20  # bytes of logits in a row group or record batch
_PAGE = 1 << 20


@lru_cache(maxsize=1)
def dump(classes: int, nbytes: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(logits, target, mean cross-entropy by the oracle's float64 formula)."""
    rng = np.random.default_rng(2)
    rows = max(1, nbytes // (4 * classes))
    x = rng.standard_normal((rows, classes), np.float32)
    x *= 3
    target = rng.integers(classes, size=rows)
    step = max(1, (32 << 20) // (8 * classes))
    losses = np.empty(rows)
    for a in range(0, rows, step):
        wide = x[a : a + step].astype(np.float64)
        log_p = ref.plain_log_softmax(wide)
        losses[a : a + step] = -log_p[np.arange(len(wide)), target[a : a + step]]
    return x, target, float(losses.mean())


def _column(x: np.ndarray, layout: str) -> pa.Array:
    rows, classes = x.shape
    if layout == "fixed-size-binary":
        return pa.Array.from_buffers(pa.binary(4 * classes), rows, [None, pa.py_buffer(x)])
    values = pa.array(x.reshape(-1))
    if layout == "arrow-ipc":
        return pa.FixedSizeListArray.from_arrays(values, classes)
    offsets = pa.array(np.arange(0, rows * classes + 1, classes, dtype=np.int64))
    return pa.LargeListArray.from_arrays(offsets, values)


def write(path: Path, x: np.ndarray, target: np.ndarray, layout: str, group: int = _GROUP) -> None:
    """One file of the layout; ``group``: bytes of logits in a row group. "binary": each logit is a row."""
    if layout == "binary":
        table = pa.table({"logits": x.reshape(-1), "target": (x.reshape(-1) > 1).astype(np.int8)})
        pq.write_table(table, path)
        return
    rows = max(1, group // (4 * x.shape[1]))
    if layout == "arrow-ipc":
        table = pa.table({"logits": _column(x, layout), "target": target})
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)
        return
    options: dict[str, Any] = {"compression": layout if layout in ("snappy", "zstd") else "none"}
    if layout == "byte-stream-split":
        options |= {"use_dictionary": False, "column_encoding": {"logits.list.element": "BYTE_STREAM_SPLIT"}}
    # a part at a time: one list<float> array holds 2^31 values, and a writer's memory is not what is measured
    parts = [(a, min(len(x), a + rows)) for a in range(0, len(x), rows)]
    schema = pa.schema([("logits", _type(x.shape[1], layout)), ("target", pa.int64())])
    with pq.ParquetWriter(path, schema, **options) as writer:
        for a, b in parts:
            part = pa.table({"logits": _column(x[a:b], layout), "target": target[a:b]}).cast(schema)
            writer.write_table(part, row_group_size=b - a)


def _type(classes: int, layout: str) -> pa.DataType:
    return pa.binary(4 * classes) if layout == "fixed-size-binary" else pa.list_(pa.float32())


def binary_dump(rows: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(probabilities, target, mean cross-entropy) of rows of one number each."""
    rng = np.random.default_rng(4)
    chance = 1.0 / (1.0 + np.exp(-rng.normal(-1.0, 1.5, rows)))
    positive = (rng.random(rows) < chance).astype(np.int8)
    chance = chance.astype(np.float32)
    right = np.where(positive == 1, chance, 1.0 - chance.astype(np.float64))
    return chance, positive, float(-np.log(right).mean())


def write_binary(path: Path, chance: np.ndarray, positive: np.ndarray) -> None:
    """A Parquet file of flat columns ``p`` and ``y``, with pyarrow's defaults."""
    pq.write_table(pa.table({"p": chance, "y": positive}), path)


def binary_peers(source: Path | dict[str, np.ndarray]) -> dict[str, Call]:
    """{name: call} that give the mean loss of a binary dump, and compute the Brier score as well."""
    if not isinstance(source, Path):
        return {"scikit-learn": partial(_sklearn_binary, source)} if installed("scikit-learn") else {}
    if not installed("duckdb"):
        return {}
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"SET threads = {available_cpus()}")
    loss = "avg(-CASE WHEN y = 1 THEN ln(p) ELSE ln(1 - p::DOUBLE) END)"
    query = f"SELECT {loss}, avg((p - y) * (p - y)) FROM '{source}'"
    return {"duckdb": lambda: connection.execute(query).fetchone()[0]}


def _sklearn_binary(columns: dict[str, np.ndarray]) -> float:
    from sklearn import metrics

    chance, positive = columns["p"].astype(np.float64), columns["y"]
    metrics.brier_score_loss(positive, chance)
    metrics.roc_auc_score(positive, chance)
    return float(metrics.log_loss(positive, chance))


# ---- what the file's speed is held against ---------------------------------------------------------------------


def readers(path: Path, layout: str) -> dict[str, Call]:
    """{name: call} that read the file and compute nothing, and pyarrow + torch, which computes the loss alone."""
    if layout == "arrow-ipc":
        return {"numpy sum over the map": lambda: _sum_of_map(path)}
    found: dict[str, Call] = {"pyarrow": lambda: pq.read_table(path)}
    if installed("polars"):
        import polars

        found["polars"] = lambda: polars.read_parquet(path)
    if installed("duckdb"):
        import duckdb

        connection = duckdb.connect()
        found["duckdb"] = lambda: connection.read_parquet(str(path)).to_arrow_table()
    if installed("arro3"):
        import arro3.io

        found["arro3"] = lambda: arro3.io.read_parquet(path).read_all()
    if installed("torch") and layout != "fixed-size-binary":
        found["pyarrow + torch"] = lambda: pyarrow_and_torch(path)
    return found


def pyarrow_and_torch(path: Path) -> float:
    """The mean loss by reading with pyarrow and computing with torch, row group by row group."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(available_cpus())
    total, rows = 0.0, 0
    with pq.ParquetFile(path) as file:
        for k in range(file.num_row_groups):
            table = file.read_row_group(k)
            n = table.num_rows
            values = table["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            logits, target = torch.tensor(values).reshape(n, -1), torch.tensor(table["target"].to_numpy())
            total += float(F.cross_entropy(logits, target, reduction="none").double().sum())
            rows += n
    return total / rows


def _sum_of_map(path: Path) -> float:
    with pa.memory_map(str(path)) as mapped:
        column = pa.ipc.open_file(mapped).read_all()["logits"]
        chunks = [chunk.flatten().to_numpy() for chunk in column.chunks]
        return float(sum(_pooled(lambda chunk: chunk.sum(), chunks)))


def _pooled(work: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    with ThreadPoolExecutor(available_cpus()) as pool:
        return list(pool.map(work, items))


class FileRead:
    """The file into memory that is there already, by all threads: what the page cache gives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memory = memoryview(np.ones(path.stat().st_size, np.uint8))

    def __call__(self) -> None:
        size, parts = len(self._memory), available_cpus() * 4
        edges = [size * k // parts for k in range(parts + 1)]
        handle = os.open(self._path, os.O_RDONLY)
        try:
            _pooled(lambda span: self._read(handle, *span), list(itertools.pairwise(edges)))
        finally:
            os.close(handle)

    def _read(self, handle: int, begin: int, end: int) -> None:
        while begin < end:
            begin += os.preadv(handle, [self._memory[begin:end]], begin)


def bare_decoding(x: np.ndarray, layout: str, folder: Path) -> Call | None:
    """The layout's codec and nothing else: pages of the same bytes decompressed by all threads.

    Byte-stream-split has no bare decoder to call; pyarrow's reading of it without lists comes closest.
    """
    if layout in ("snappy", "zstd"):
        codec = pa.Codec(layout)
        raw = memoryview(x.reshape(-1).view(np.uint8))
        pages = [(codec.compress(page), len(page)) for page in (raw[a : a + _PAGE] for a in range(0, len(raw), _PAGE))]
        return lambda: _pooled(lambda page: pa.Codec(layout).decompress(page[0], page[1]), pages)
    if layout == "byte-stream-split":
        flat = folder / "flat.parquet"
        schema = pa.schema([pa.field("x", pa.float32(), nullable=False)])
        table = pa.table([pa.array(x.reshape(-1))], schema=schema)
        pq.write_table(
            table, flat, compression="none", use_dictionary=False, column_encoding={"x": "BYTE_STREAM_SPLIT"},
            row_group_size=_GROUP // 4,
        )  # fmt: skip
        return lambda: pq.read_table(flat)
    return None
