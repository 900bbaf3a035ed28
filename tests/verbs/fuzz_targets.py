"""Mutated tables of targets through `evaluate`: a seeded run of any length.

    python -m tests.verbs.fuzz_targets --count 20000 --seed 1

Each case takes a dump without targets and a table of them by id, as CSV, JSON lines or Parquet, breaks rows of the
table, and some words or bytes of its file. The table may be refused with an error of fastxent. If it is read, each row
has the target that a plain reading of the file finds by its id. Anything else ends the run.
"""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import fastxent as fx
from tests import fuzzing
from tests.io.fuzz_npz import broken

N, C = 8, 3
LOGITS = np.random.default_rng(0).normal(size=(N, C))
LOSSES = np.log(np.exp(LOGITS).sum(axis=1))[:, None] - LOGITS
IDS = [f"a {k}.png" for k in range(N)]
WORDS = (",", "\n", "\r\n", "\n\n", "a 1.png", "a 10.png", "a", " ", "1", "2", "-1", "-100", "7", "0.5", "1e0", "nan",
         "NA", "null", "true", "é", "\x00", ":", "{", "}", "[", "name", "target", "")  # fmt: skip
Rows = list[tuple[Any, Any]]


def rows_of(rng: random.Random) -> Rows:
    """A table of ids and targets; in half of the tables some are missing, there twice, or no ids and targets."""
    rows: Rows = [(name, rng.randrange(C)) for name in [*IDS, *["more", "b 0.png"][: rng.choice([0, 0, 2])]]]
    rng.shuffle(rows)
    for _ in range(rng.choice([0, 0, 1, 2])):
        at, how = rng.randrange(len(rows)), rng.random()
        name, target = rows[at]
        if how < 0.2:
            del rows[at]
        elif how < 0.4:
            rows.insert(rng.randrange(len(rows) + 1), (name, rng.randrange(C)))
        elif how < 0.7:
            rows[at] = (rng.choice([None, "", "a 0.png", "A 0.png", "a 0.png ", "a\u00a00.png", "x" * 3000]), target)
        else:
            rows[at] = (name, rng.choice([None, -1, -100, C, 1 << 40, 255, 256]))
    return rows


def file_of(rows: Rows, form: str, rng: random.Random) -> bytes:
    """The table in some format."""
    if form == "csv":
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator=rng.choice(["\n", "\r\n"]))
        writer.writerows([("name", "target"), *rows])
        return text.getvalue().encode()
    if form == "jsonl":
        return "".join(json.dumps({"name": name, "target": target}) + "\n" for name, target in rows).encode()
    place, names = io.BytesIO(), pa.array([name for name, _ in rows], rng.choice([pa.string(), pa.large_string()]))
    targets = pa.array([target for _, target in rows], pa.int64())
    table = pa.table({"name": names.dictionary_encode() if rng.random() < 0.3 else names, "target": targets})
    pq.write_table(table, place, row_group_size=3, compression=rng.choice(["snappy", "zstd"]),
                   write_page_checksum=True)  # fmt: skip
    return place.getvalue()


def truth(data: bytes, form: str) -> dict[str, Any] | None:
    """The target of each id by a plain reading; None if ids are null or there twice."""
    rows: list[dict[Any, Any]]
    if form == "csv":
        lines = list(csv.reader(io.StringIO(data.decode().lstrip("\r\n"), newline="")))
        header = [name.strip() for name in lines[0]]
        rows = [dict(zip(header, [value or None for value in line], strict=True)) for line in lines[1:] if line]
    elif form == "jsonl":
        rows, text = [], data.decode().strip()
        while text:
            row, end = json.JSONDecoder().raw_decode(text)
            rows, text = [*rows, row], text[end:].strip()
    else:
        rows = pq.read_table(io.BytesIO(data)).to_pylist()
    names = [row.get("name") for row in rows]
    return (
        None
        if None in names or len(set(names)) < len(names)
        else dict(zip(names, (row.get("target") for row in rows), strict=True))
    )


def read(path: Path, form: str, rng: random.Random, told: bool) -> str:
    """What became of a table. told: it can also be read plainly, since its bytes are not broken."""
    result = fx.evaluate(
        {"logits": LOGITS, "name": np.array(IDS)}, targets=path, on="name", on_bad_row="skip", threads=1, jackknife=0,
        metrics="cross_entropy", memory=rng.choice(["1MB", "512MB"]),
    )  # fmt: skip
    counts = result.rows
    if counts.total != N or counts.total != counts.used + counts.ignored + counts.bad:
        raise AssertionError(f"rows that do not add up: {counts}")
    if not told:
        return "read with other bytes"
    found = truth(path.read_bytes(), form)
    if found is None or not set(IDS) <= set(found):
        raise AssertionError("read although ids are missing or there twice")
    targets = [_target(found[name]) for name in IDS]
    losses = [LOSSES[k, target] for k, target in enumerate(targets) if target is not None and 0 <= target < C]
    ignored = sum(target in (None, -100) for target in targets)
    if (counts.used, counts.ignored) != (len(losses), ignored):
        raise AssertionError(f"{counts} of targets {targets}")
    if losses and not math.isclose(result.metrics["cross_entropy"].value, np.mean(losses)):
        raise AssertionError(f"{result.metrics} instead of {np.mean(losses)}")
    return "read in part" if counts.bad or counts.ignored else "read"


def _target(value: Any) -> float | None:
    """A target as an index of `LOSSES`, or another number for what is none. NaN is ignored, as null and blanks are."""
    value = value.strip() if isinstance(value, str) else value
    number = math.nan if value in (None, "", "NA", "null") else float(value)
    if math.isnan(number):
        return None
    return int(number) if number.is_integer() else -1


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    return fuzzing.outcomes_in_folder(_outcome, count, seed, before=20)


def _outcome(rng: random.Random, folder: Path) -> str:
    form = rng.choice(["csv", "jsonl", "parquet"])
    data, how = file_of(rows_of(rng), form, rng), rng.random()
    words, bytes_too = how < 0.3 and form != "parquet", 0.3 <= how < 0.4
    if words:
        text = data.decode()
        for _ in range(rng.choice([1, 1, 2])):
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(WORDS) + text[at + rng.choice([0, 0, 1, 3]) :]
        data = text.encode()
    if bytes_too:
        data = broken(data, rng)
    path = folder / f"labels.{form}"
    path.write_bytes(data)
    return fuzzing.outcome(lambda: read(path, form, rng, not bytes_too))


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
