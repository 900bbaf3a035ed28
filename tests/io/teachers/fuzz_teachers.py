"""Mutated sequences of DistillKit through `evaluate`: a seeded run of any length.

    python -m tests.io.teachers.fuzz_teachers --count 20000 --seed 1

Each case takes a small file and the file that names its compression, and breaks bytes, lists or names of one of them.
The reader may refuse it with an error of fastxent, or use and skip rows. Anything else ends the run, and so does a
metric that no row can have.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

import fastxent as fx
from tests import fuzzing
from tests.io.teachers.samples import BINNED, FITTED, PLAIN, raw, sequences, table

OPTIONS = {"logits": "topk_logprobs", "ids": "topk_ids", "on_bad_row": "skip", "threads": 1}
CONFIGS = (PLAIN, FITTED, BINNED, {**BINNED, "delta_encoding": True}, {**FITTED, "normalize_t": True})
VALUES: tuple[Any, ...] = (None, True, 0, -1, 1, 13, 57, 64, 1 << 40, 0.5, "", "float64", "sqrt", [], [[]], {}, [7, {}])


def config_of(given: dict[str, Any], rng: random.Random) -> bytes:
    """The file of a compression, which is broken in some cases."""
    config = copy.deepcopy(given)
    if rng.random() < 0.4:
        bins = [part for part in config["residual_bins"] if rng.random() < 0.5]
        inner = rng.choice([config, *bins])
        name = rng.choice(list(inner))
        if rng.random() < 0.2:
            del inner[name]
        else:
            inner[name] = rng.choice(VALUES)
    return (
        fuzzing_bytes(yaml.safe_dump(config).encode(), rng) if rng.random() < 0.1 else yaml.safe_dump(config).encode()
    )


def fuzzing_bytes(given: bytes, rng: random.Random, begin: int = 0) -> bytes:
    """Some bytes of a file changed."""
    data = bytearray(given)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(begin, len(data))
        data[at] = data[at] ^ 1 << rng.randrange(8) if rng.random() < 0.6 else rng.choice([0, 1, 127, 128, 255])
    return bytes(data)


def rows_of(config: dict[str, Any], rng: random.Random) -> pa.Table:
    """A few sequences, some of whose lists are broken."""
    made = sequences(config, rng.randrange(20), tuple(rng.randint(0, 4) for _ in range(rng.randint(1, 3))))
    rows = raw(made) if rng.random() < 0.2 else table(made)
    if rng.random() < 0.5:
        return rows
    name = rng.choice(rows.column_names)
    values = rows[name].to_pylist()
    at = rng.randrange(len(values))
    inner = values[at]
    how = rng.random()
    if how < 0.2 or not inner:
        values[at] = rng.choice([None, [], inner])
    elif how < 0.4 or name == "input_ids":
        values[at] = inner[: rng.randrange(len(inner))] if rng.random() < 0.5 else inner + inner[-1:]
    else:
        place = rng.randrange(len(inner))
        row = inner[place]
        inner[place] = rng.choice([None, [], row[:-1], row * 2, [None, *row[1:]], [255] * len(row), [0] * len(row)])
    return rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, rows.schema.field(name).type))


def read(path: Path, rng: random.Random) -> str:
    """What became of a file."""
    more = {"by": ["position"]} if rng.random() < 0.1 else {}
    result = fx.evaluate(path, **OPTIONS, **more)  # type: ignore[arg-type]
    counts, metrics = result.rows, result.metrics
    if counts.total != counts.used + counts.ignored + counts.bad:
        raise AssertionError("rows that do not add up")
    if counts.used:
        for name in ("accuracy", "coverage"):
            if not 0.0 <= metrics[name].value <= 1.0:
                raise AssertionError(f"{name} is {metrics[name].value}")
        low, high = metrics["entropy"].bounds or (metrics["entropy"].value,) * 2
        if not -2e-3 <= low <= high:
            raise AssertionError(f"an entropy from {low} to {high}")
    return "read in part" if counts.bad or counts.ignored else "read"


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    return fuzzing.outcomes_in_folder(_outcome, count, seed, before=30)


def _outcome(rng: random.Random, folder: Path) -> str:
    config = rng.choice(CONFIGS)
    path = folder / "data_0.parquet"
    pq.write_table(rows_of(config, rng), path, compression=rng.choice(["none", "snappy"]))
    if rng.random() < 0.3:
        path.write_bytes(fuzzing_bytes(path.read_bytes(), rng, 4))
    (folder / "compression_config.yaml").write_bytes(config_of(config, rng))
    return fuzzing.outcome(lambda: read(path, rng))


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
