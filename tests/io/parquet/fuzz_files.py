"""Whole Parquet files that lie, in every column and in the footer, through the readers of `fastxent.io`.

    python -m tests.io.parquet.fuzz_files --count 100000 --seed 1

Each case takes a small file with columns beside the logits and makes it contradict itself: numbers in the footer and
in page headers, row groups and chunks listed twice, left out or exchanged, bytes anywhere. It may be refused with an
error of `fastxent`, or read. What contradicts the pages, or a checksum, must not be read as anything but the rows that
were written. Anything else ends the run, as in `fuzz_pages`.
"""

from __future__ import annotations

import io
import os
import random
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastxent.errors import FastxentError
from fastxent.io.source import open_source
from tests import fuzzing
from tests.io.parquet import compact as c

ROWS, CLASSES = 30, 3
NAMES = ("target", "weight", "name", "kind", "ids", "pair")
HUGE = (0, 1, -1, 2, 3, 127, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1)
SOUND = ("numbers", "lists", "body")  # in these nothing but the rows that were written may be read


@dataclass
class Seed:
    data: bytes
    logits: str
    rows: list[Any]
    checksums: bool
    v2: bool


def make_seeds(folder: Path) -> list[Seed]:
    rng, pick, seeds = np.random.default_rng(0), random.Random(0), []
    x = rng.normal(size=(ROWS, CLASSES)).astype(np.float32)
    beside = {
        "target": pa.array([None if k % 7 == 3 else k % CLASSES for k in range(ROWS)]),
        "weight": rng.normal(size=ROWS),
        "name": pa.array([f"name {k % 5}" for k in range(ROWS)]),
        "kind": pa.array([f"kind {k % 4}" for k in range(ROWS)]).dictionary_encode(),
        "ids": pa.array([list(range(k % 4)) for k in range(ROWS)]),
        "pair": pa.array([{"a": k, "b": "x" * (k % 3)} for k in range(ROWS)]),
    }
    forms = {
        "logits": {"logits": list(x)},
        "l*": {f"l{k}": x[:, k] for k in range(CLASSES)},
        "score": {"score": x[:, 0]},
    }
    for logits, columns in forms.items():
        for v2 in (False, True):
            for checksums in (False, True):
                for codec in ("none", "snappy", "zstd"):
                    names = list(beside)
                    pick.shuffle(names)
                    sink = io.BytesIO()
                    pq.write_table(
                        pa.table({**columns, **{name: beside[name] for name in names}}), sink, row_group_size=16,
                        compression=codec, data_page_version="2.0" if v2 else "1.0", write_page_checksum=checksums,
                        use_dictionary=pick.random() < 0.6,
                    )  # fmt: skip
                    seeds.append(Seed(sink.getvalue(), logits, read(sink.getvalue(), logits, folder), checksums, v2))
    return seeds


def read(data: bytes, logits: str, folder: Path) -> list[Any]:
    """Every value of the file as a consumer gets it."""
    path = folder / "fuzz.parquet"
    path.write_bytes(data)
    rows: list[Any] = []
    for unit in open_source(path, logits=logits, columns=NAMES).units():
        for batch in unit.read(1 << 30, 100, whole=True):
            columns = [batch.columns[name].to_pylist() for name in NAMES]
            block = batch.whole()
            kept = [None if k in block.bad else row.tobytes() for k, row in enumerate(block.values)]
            rows += zip(kept, *columns, strict=True)
            if len(rows) > 1000:
                raise AssertionError("more rows than the file has")
    return rows


def mutate(seed: Seed, rng: random.Random) -> tuple[bytes, str]:
    """A copy that lies, and about what."""
    how = rng.choice(["numbers", "numbers", "lists", "header", "header", "body", "bytes", "cut"])
    data = seed.data
    if how == "numbers":
        for _ in range(rng.choice([1, 1, 2])):
            data = c.with_footer(data, lambda f: _number(f, rng))
    elif how == "lists":
        data = c.with_footer(data, lambda f: _lists(f, rng))
    elif how in ("header", "body"):
        data = c.with_page(data, lambda header, body: _page(header, body, how, seed.v2, rng))
        how = how if seed.checksums else f"{how} without checksum"
    elif how == "bytes":
        broken = bytearray(data)
        for _ in range(rng.choice([1, 1, 4])):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        data = bytes(broken)
    else:
        data = data[: rng.randrange(len(data))]
    return data, how


def _other(value: int, rng: random.Random) -> int:
    return rng.choice([value + 1, value - 1, value * 2, value // 2, value + rng.randrange(100), rng.choice(HUGE)])


def _number(f: c.Struct, rng: random.Random) -> None:
    """Another count, size, place or type of some chunk, row group or file."""
    group = rng.choice(c.groups(f))
    chunk = rng.choice(c.chunks(group))
    place, field = rng.choice(
        [(f, c.ROWS), (group, c.GROUP_ROWS)] + [(chunk, k) for k in (c.VALUES, c.SIZE, c.DATA, c.DICTIONARY, c.TYPE)]
    )
    if field not in place:
        return
    kind, value = place[field]
    theirs = rng.choice(c.chunks(rng.choice(c.groups(f)))).get(field)
    value = theirs[1] if place is chunk and theirs and rng.random() < 0.4 else _other(value, rng)
    bound = 1 << (31 if kind == c.I32 else 63)
    c.put(place, field, max(-bound, min(bound - 1, value)))


def _lists(f: c.Struct, rng: random.Random) -> None:
    """Row groups, chunks or names twice, left out, or exchanged."""
    members = rng.choice([c.groups(f), rng.choice(c.groups(f))[c.CHUNKS][1][1]])
    at, other = rng.sample(range(len(members)), 2)
    how = rng.random()
    if members is c.groups(f):
        if how < 0.5:
            members.append(members[at])
            if rng.random() < 0.5:
                c.put(f, c.ROWS, f[c.ROWS][1] + members[at][c.GROUP_ROWS][1])
        else:
            members.pop(at)
    elif how < 0.3:
        members[at], members[other] = members[other], members[at]
    elif how < 0.6:
        members[at] = members[other]
    elif how < 0.8:
        members.pop(at)
    else:
        c.put(members[at][3][1], c.PATH, (c.BINARY, [b"name", b"x"][: rng.randint(1, 2)]))


def _page(header: c.Struct, body: bytes, how: str, v2: bool, rng: random.Random) -> bytes:
    if how == "body":
        broken = bytearray(body or b"\0")
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        return bytes(broken)
    place = rng.choice([header, header[8 if v2 else 5][1]])
    field = rng.choice([k for k in place if place[k][0] == c.I32 and not (place is header and k == 4)])
    c.put(place, field, max(-(1 << 31), min((1 << 31) - 1, _other(place[field][1], rng))))
    return body


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = make_seeds(folder)

        def case(rng: random.Random) -> str:
            base = rng.choice(seeds)
            return _outcome(base, *mutate(base, rng), folder)

        return fuzzing.outcomes_of(case, count, seed)


def _outcome(base: Seed, data: bytes, how: str, folder: Path) -> str:
    try:
        rows = read(data, base.logits, folder)
    except FastxentError as error:
        if "\n" in str(error) or f"{folder}{os.sep}fuzz.parquet" not in str(error):
            raise
        return "refused"
    except UnicodeDecodeError:  # of a value that a consumer looks at
        return "read"
    if repr(rows) == repr(base.rows):
        return "unchanged"
    if how in SOUND:
        raise AssertionError("other rows than were written")
    if len(rows) != ROWS:
        raise AssertionError(f"{len(rows)} rows")
    return "read"


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
