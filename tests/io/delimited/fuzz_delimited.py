"""Mutated CSV and TSV files through `evaluate`: a seeded run of any length.

    python -m tests.io.delimited.fuzz_delimited --count 20000 --seed 1

Each case writes a small table, plain or compressed, and breaks some of its characters or bytes. The file may be refused
with an error of fastxent, or its rows are used, ignored or bad. Anything else ends the run, and so does a number of
rows that is not that of Python's reader.
"""

from __future__ import annotations

import csv
import gzip
import io
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv as arrow_csv

import fastxent as fx
from fastxent.io import delimited
from tests import fuzzing

WORDS = ('"', '""', ",", "\t", "\n", "\r", "\r\n", "\n\n", "NA", "nan", "inf", "-1", "1e400", "9" * 20, "007", "x", " ",
         "0.5", "", "\ufeff", "é", "true", "0x10", "[0]")  # fmt: skip


def table(rng: random.Random, narrow: bool) -> str:
    """A small table. narrow: it has one column, with nulls."""
    if narrow:
        place = io.BytesIO()
        values = [rng.choice([None, rng.random()]) for _ in range(rng.randrange(8))]
        arrow_csv.write_csv(pa.table({"p0": pa.array(values, pa.float64())}), place)
        return place.getvalue().decode()
    delimiter, lines = rng.choice(",,\t;"), io.StringIO(newline="")
    writer = csv.writer(lines, delimiter=delimiter, lineterminator=rng.choice(["\n", "\n", "\r\n"]),
                        quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))  # fmt: skip
    writer.writerow(["p0", "p1", "target", "kind"])
    for _ in range(rng.randrange(8)):
        p = round(rng.random(), 3)
        writer.writerow([p, 1 - p, rng.randrange(2), rng.choice(["a", "b,", 'c"', "d\ne", ""])])
    return lines.getvalue()


def mutate(rng: random.Random, narrow: bool) -> tuple[bytes, str | None]:
    """(a file, its text if that is plain)."""
    text, codec = table(rng, narrow), rng.choice([None, None, "gzip", "zstd"])
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(WORDS) + text[at + rng.choice([0, 0, 1, 3]) :]
    data = text.encode()
    if codec is None and rng.random() < 0.8:
        return data, text
    if codec is not None:
        data = gzip.compress(data, mtime=0) if codec == "gzip" else pa.Codec("zstd").compress(data).to_pybytes()
    found = bytearray(data)
    for _ in range(rng.choice([0, 1, 2])):
        if found:
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found[: rng.randrange(1, len(found) + 1)] if found and rng.random() < 0.2 else found), None


def read(path: Path, text: str | None, narrow: bool, rng: random.Random) -> str:
    """What became of a file."""
    more: dict[str, Any] = {"by": ["kind"]} if rng.random() < 0.5 else {}
    more = {"scores": "p0"} if narrow else {"logits": "p*", "input": "probs", **more}
    result = fx.evaluate(path, on_bad_row="skip", threads=1, **more)
    counts = result.rows
    if counts.total != counts.used + counts.ignored + counts.bad or counts.total > 100_000:
        raise AssertionError(f"rows that do not add up: {counts}")
    if text is not None:
        line = text.lstrip("\r\n\ufeff").splitlines()[0]
        delimiter = max(",\t;", key=line.count)
        found = list(csv.reader(io.StringIO(text.lstrip("\r\n\ufeff"), newline=""), delimiter=delimiter))
        rows = [row for row in found if row or len(found[0]) == 1]  # an empty line is a null of the one column
        if counts.total != len(rows) - 1:
            raise AssertionError(f"{counts.total} rows of {len(rows) - 1}: {text!r}")
    return "read in part" if counts.bad or counts.ignored else "read"


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        path.write_text("p0,p1,target,kind\n0.5,0.5,1,a\n")
        fx.evaluate(path, logits="p*", input="probs", by="kind")  # compiles what cases need
        return fuzzing.outcomes_of(lambda rng: _outcome(rng, path), count, seed)


def _outcome(rng: random.Random, path: Path) -> str:
    narrow = rng.random() < 0.2
    data, text = mutate(rng, narrow)
    delimited._PIECE = rng.choice([1, 40, 8 << 20])
    path.write_bytes(data or b"\n")
    return fuzzing.outcome(lambda: read(path, text, narrow, rng))


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
