"""Mutated top-k dumps through `evaluate`: a seeded run of any length.

    python -m tests.verbs.fuzz_topk --count 20000 --seed 1

Each case takes a small Arrow or Parquet file of lists, of ids or of tokens, and breaks some of its bytes or its values.
The file may be refused with an error of fastxent, or its rows are used, ignored or bad. Anything else ends the run, and
so does a metric that no row can have.
"""

from __future__ import annotations

import io
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import fastxent as fx
from tests import fuzzing

OPTIONS = {"logits": "lp", "ids": "ids", "on_bad_row": "skip", "threads": 1}
NUMBERS = (0.0, -0.0, -1e-300, -1e4, -9999.0, -math.inf, math.inf, math.nan, 1e-4, 0.5, None)
IDS = (0, 1, 2, 5, -1, 99, 1 << 31, (1 << 62) + 3, None)


def table(rng: random.Random) -> pa.Table:
    """A few rows. In half of the tables some entries are what a row must not hold."""
    wild, ids, logprobs = rng.random() < 0.5, list[Any](), list[Any]()
    for _ in range(rng.randint(1, 6)):
        k = rng.randint(1, 4)
        weights = [rng.random() + 1e-3 for _ in range(k)]
        ids.append(rng.sample(range(6), k))
        logprobs.append([math.log(w / (sum(weights) + rng.random())) for w in weights])
        if wild and rng.random() < 0.5:
            lists, values = rng.choice([(ids, IDS), (logprobs, NUMBERS)])
            lists[-1][rng.randrange(k)] = rng.choice(values)
        if wild and rng.random() < 0.2:
            rng.choice([ids, logprobs])[-1] = rng.choice([None, [], [0]])
    return _columns(rng, ids, logprobs, texts=rng.random() < 0.4)


def _columns(rng: random.Random, ids: list[Any], logprobs: list[Any], *, texts: bool) -> pa.Table:
    n = len(ids)
    target: list[Any] = [rng.randrange(6) if rng.random() < 0.9 else None for _ in range(n)]
    kind: Any = pa.int64()
    if texts:
        kind = pa.string()
        ids = [None if row is None else [None if j is None else f"t{j}" for j in row] for row in ids]
        target = [None if t is None else f"t{t}" for t in target]
    return pa.table({
        "ids": pa.array(ids, pa.list_(kind)), "lp": pa.array(logprobs, pa.list_(pa.float32())),
        "target": pa.array(target, kind), "other": pa.array([rng.choice(NUMBERS[1:9]) for _ in range(n)], pa.float64()),
    })  # fmt: skip


def mutate(rows: pa.Table, rng: random.Random) -> tuple[bytes, str]:
    """(a file of the rows, in half of the cases with some broken bytes; the end of its name)."""
    place, form = io.BytesIO(), rng.choice(["arrow", "parquet"])
    if form == "parquet":
        pq.write_table(rows, place, compression=rng.choice(["none", "snappy"]), use_dictionary=rng.random() < 0.5)
    else:
        with pa.ipc.new_file(place, rows.schema) as writer:
            writer.write_table(rows)
    data = bytearray(place.getvalue())
    if rng.random() < 0.5:
        for _ in range(rng.choice([1, 1, 2, 5])):
            at = rng.randrange(8, len(data))
            data[at] = data[at] ^ 1 << rng.randrange(8) if rng.random() < 0.6 else rng.choice([0, 1, 127, 128, 255])
    return bytes(data), form


def read(path: Path, rng: random.Random) -> str:
    """What became of a file."""
    more: dict[str, Any] = {"other": "other"} if rng.random() < 0.5 else {}
    more |= {"n_classes": rng.choice([6, 7, 50])} if rng.random() < 0.7 else {}
    result = fx.evaluate(path, **OPTIONS, **more)  # type: ignore[arg-type]
    counts, metrics = result.rows, result.metrics
    if counts.total != counts.used + counts.ignored + counts.bad:
        raise AssertionError("rows that do not add up")
    if counts.used:
        for name in ("accuracy", "coverage", "mean_reciprocal_rank"):
            low, high = metrics[name].bounds or (metrics[name].value,) * 2
            if not 0.0 <= low <= high <= 1.0:
                raise AssertionError(f"{name} from {low} to {high}")
        for name in ("entropy", "cross_entropy", "brier_score"):
            low, high = metrics[name].bounds or (metrics[name].value,) * 2
            if not -2e-3 <= low <= high:
                raise AssertionError(f"{name} from {low} to {high}")
    return "read in part" if counts.bad or counts.ignored else "read"


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    return fuzzing.outcomes_in_folder(_outcome, count, seed, before=40)


def _outcome(rng: random.Random, folder: Path) -> str:
    data, form = mutate(table(rng), rng)
    path = folder / f"topk.{form}"
    path.write_bytes(data)
    return fuzzing.outcome(lambda: read(path, rng))


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
