"""Mutated Parquet files through the native reader: a seeded run of any length.

    python -m tests.io.parquet.fuzz_pages --count 100000 --seed 1

Each case takes a small file, breaks it (bits, bytes, ranges, lengths, truncation; in headers, levels, values,
footer or anywhere) and reads it. The reader may refuse it with a `SourceError` or read rows; whatever it reads
must have the rows the footer says. Of a page that carries a checksum, no changed byte may pass. Anything else
ends the run: another exception, a case of more than ten seconds, or memory beyond a fixed allowance.
With NUMBA_BOUNDSCHECK=1 kernels raise at the first index out of range. Runs of less than 10,000 cases leave out the
float types whose code would take longer to compile than the cases to run.
"""

from __future__ import annotations

import io
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastxent.errors import SourceError
from fastxent.io.parquet import slices, thrift
from fastxent.io.parquet.chunk import LogitsChunk, plan
from fastxent.io.parquet.footer import column_chunks
from fastxent.io.parquet.reader import read_rows, split
from fastxent.io.storage.local import LocalRanges, Ranges
from tests import fuzzing
from tests.io.held import held

MAX_PAGE = 64 << 20
SLICES = slices.LARGE, slices.WIDE, slices.SLICE
NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255)
DTYPES = ("float32", "float16", "float64")


@dataclass
class Seed:
    """A file as it should be."""

    data: bytes
    n_classes: int
    dtype: str
    rows: np.ndarray
    checksums: bool
    headers: list[int]  # positions of bytes of page headers
    bodies: list[int]  # and of page bodies
    levels: list[int]  # and of their first dozen bytes


def _table(rng: np.random.Generator, kind: str, n: int, n_classes: int, dtype: str) -> pa.Table:
    x = rng.normal(size=(n, n_classes)).astype(dtype)
    if kind == "binary":
        return pa.table({"logits": pa.array([row.tobytes() for row in x], pa.binary())})
    if kind == "fixed":
        return pa.table({"logits": pa.array([row.tobytes() for row in x], pa.binary(x.itemsize * n_classes))})
    rows: list[list[float | None] | None] = x.tolist()
    if kind == "ragged":
        rows[1], rows[3], rows[5] = None, [], [None] * n_classes
    return pa.table({"logits": pa.array(rows, pa.list_(pa.from_numpy_dtype(dtype)))})


def make_seeds(dtypes: Sequence[str]) -> list[Seed]:
    """Every encoding, page version, codec and kind of column, each at least once."""
    rng, pick = np.random.default_rng(0), random.Random(0)
    seeds = []
    for codec in ("none", "snappy", "zstd", "lz4", "gzip", "brotli"):
        for version in ("1.0", "2.0"):
            for kind in ("list", "ragged", "binary", "fixed"):
                for encoding in ("plain", "dictionary", "split"):
                    if encoding == "split" and kind == "binary":
                        continue
                    n_classes, dtype = pick.choice([2, 3, 10, 40]), pick.choice(dtypes)
                    table = _table(rng, kind, 30, n_classes, dtype)
                    checksums = pick.random() < 0.5
                    sink = io.BytesIO()
                    pq.write_table(
                        table, sink, compression=codec, data_page_version=version, write_page_checksum=checksums,
                        use_dictionary=encoding == "dictionary", data_page_size=pick.choice([200, 1 << 20]),
                        write_batch_size=8, store_schema=pick.random() < 0.5,
                        **({"column_encoding": "BYTE_STREAM_SPLIT"} if encoding == "split" else {}),
                    )  # fmt: skip
                    seeds.append(_seed(sink.getvalue(), n_classes, dtype, checksums))
    return seeds + _alike_seeds(rng)


def _alike_seeds(rng: np.random.Generator) -> list[Seed]:
    """Many equal pages, which are read in runs."""
    seeds = []
    for version in ("1.0", "2.0"):
        for kind in ("list", "binary", "fixed"):
            for checksums in (False, True):
                sink = io.BytesIO()
                pq.write_table(
                    _table(rng, kind, 64, 8, "float32"), sink, compression="none", data_page_version=version,
                    write_page_checksum=checksums, use_dictionary=False, data_page_size=1, write_statistics=False,
                    write_batch_size=32 if kind == "list" else 4,
                )  # fmt: skip
                seeds += [_seed(sink.getvalue(), 8, "float32", checksums)] * 3  # a fifth of all cases
    return seeds


def _seed(data: bytes, n_classes: int, dtype: str, checksums: bool) -> Seed:
    headers: list[int] = []
    bodies: list[int] = []
    levels: list[int] = []
    info = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0)
    at = info.dictionary_page_offset or info.data_page_offset
    end = at + info.total_compressed_size
    slots = thrift.new_header()
    while at < end:
        size = thrift.read_page_header(np.frombuffer(data, np.uint8)[at:end], slots)
        body = at + size + int(slots[thrift.COMPRESSED])
        headers += range(at, at + size)
        bodies += range(at + size, body)
        levels += range(at + size, min(body, at + size + 12))
        at = body
    rows = read(data, n_classes, dtype, random.Random(0))
    return Seed(data, n_classes, dtype, rows, checksums, headers, bodies, levels)


def read(data: bytes, n_classes: int, dtype: str, rng: random.Random) -> np.ndarray:
    """The first row group, as a consumer reads it: every value is touched."""
    schema = pq.ParquetFile(io.BytesIO(data)).schema
    whole = held(data, "fuzz", 0, len(data))
    infos = column_chunks(whole, 0)
    if not infos:
        raise SourceError("no row group")
    chunk = plan(schema, 0, infos[0], 0, n_classes, dtype, whole)
    if isinstance(chunk, str):
        raise SourceError(f"left to pyarrow: {chunk}")
    pieces, count = [np.empty((0, n_classes), dtype)], 0
    with _opened(data, chunk, rng) as source:
        for part in split(chunk, source, 300) if rng.random() < 0.2 else [chunk]:
            count += sum(_consume(part, source, rng, pieces))
    if count != infos[0].rows:
        raise AssertionError(f"{count} rows where the footer says {infos[0].rows}")
    return np.concatenate(pieces)


@contextmanager
def _opened(data: bytes, chunk: LogitsChunk, rng: random.Random) -> Iterator[Ranges]:
    """The bytes of the chunk, from memory or from a file whose pages may count as large."""
    if rng.random() < 0.4:
        yield held(data, "fuzz", chunk.begin, chunk.end)
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        slices.LARGE, slices.WIDE, slices.SLICE = rng.choice([(1, 1, 40), (300, 1, 1 << 20), SLICES])
        with closing(LocalRanges(file.name, chunk.begin, chunk.end)) as source:
            yield source


def _consume(part: LogitsChunk, source: Ranges, rng: random.Random, pieces: list[np.ndarray]) -> list[int]:
    counts = []
    for values, bad, _ in read_rows(part, source, rng.choice([1, 300, 1 << 20]), max_page=MAX_PAGE):
        counts.append(len(values))
        if any(not 0 <= k < len(values) for k in bad):
            raise AssertionError("a bad row outside its batch")
        if sum(counts) < 10_000:  # a footer may claim any number of null rows
            pieces.append(np.array(values))
        elif sum(counts) > 1_000_000:
            raise SourceError("more rows than the file can mean")
    return counts


def mutate(seed: Seed, rng: random.Random) -> tuple[bytes, str]:
    """A broken copy, and where it is broken."""
    data = bytearray(seed.data)
    where = rng.choice(["header", "header", "body", "body", "levels", "footer", "any", "cut", "length"])
    places: list[int] | range = range(len(data))
    if where in ("header", "length"):
        places = seed.headers
    elif where == "body":
        places = seed.bodies
    elif where == "levels":  # they come first
        places, where = seed.levels, "body"
    elif where == "footer":
        places = range(max(seed.bodies) + 1, len(data))
    if where == "cut":
        return bytes(data[: rng.randrange(len(data))]), where
    if where == "length":  # a varint that says far more than there is
        at = rng.choice(places)
        huge = rng.choice([b"\xfe\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x10", b"\xff" * 9 + b"\x01", b"\x80\x80\x40"])
        if rng.random() < 0.5:
            data[at : at + len(huge)] = huge
        else:
            data[at : at + 1] = huge
        return bytes(data), where
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = min(rng.choice(places), len(data) - 1)
        how = rng.random()
        if how < 0.4:
            data[at] ^= 1 << rng.randrange(8)
        elif how < 0.7:
            data[at] = rng.choice(NUMBERS) if rng.random() < 0.5 else rng.randrange(256)
        elif how < 0.9 or where == "body":
            for k in range(at, min(at + rng.randint(1, 8), len(data))):
                if where != "body" or k in seed.bodies:
                    data[k] = rng.choice([0, 255, rng.randrange(256)])
        else:
            del data[at : at + rng.randint(1, 4)]
    return bytes(data), where


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    seeds = make_seeds(DTYPES if count >= 10_000 else DTYPES[:1])
    return fuzzing.outcomes_of(lambda rng: _outcome(rng, rng.choice(seeds)), count, seed)


def _outcome(rng: random.Random, base: Seed) -> str:
    data, where = mutate(base, rng)
    try:
        rows = read(data, base.n_classes, base.dtype, rng)
    except SourceError as error:
        return "left to pyarrow" if str(error).startswith("left") else "refused"
    except (pa.ArrowException, OSError, ValueError):
        if where not in ("footer", "any", "cut", "header", "length") or _footer_is_sound(data):
            raise
        return "no footer"  # pyarrow's own verdict on it
    if rows.tobytes() == base.rows.tobytes():
        return "unchanged"
    if where == "body" and base.checksums:
        raise AssertionError("a damaged page passed its checksum")
    return "read"


def _footer_is_sound(data: bytes) -> bool:
    """Whether pyarrow opens the file: then no error but ours is right."""
    try:
        pq.ParquetFile(io.BytesIO(data)).metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
