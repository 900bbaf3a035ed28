"""Mutated JSON lines with lists through `evaluate`: a seeded run of any length.

    python -m tests.io.fuzz_json --count 20000 --seed 1

Each case takes rows of logits, of top-k lists or of documents, and breaks values, keys or bytes of their file. It may
be refused with an error of fastxent, or its rows are used, ignored or bad. Anything else ends the run, and so does a
number of rows that does not add up.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import fastxent as fx
from tests import fuzzing
from tests.io.responses.fuzz_responses import mutate

LP = [-0.5, -1.5, -2.5]
KINDS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"target": 1, "logits": [0.5, -1.0, 2.0]}, {}),
    ({"target": 2, "ids": [1, 2, 7], "lp": LP}, {"logits": "lp", "ids": "ids"}),
    ({"target": "b", "tops": ["a", "b", "c"], "lp": LP}, {"logits": "lp", "ids": "tops"}),
    (
        {"target": 1, "top": [{"id": k, "lp": x} for k, x in enumerate(LP)]},
        {"logits": "top.lp", "ids": "top.id"},
    ),
    ({"labels": [0, 1], "logits": [LP, LP], "kind": {"a": "x"}}, {"target": "labels", "by": "kind.a"}),
    ({"labels": [0, 1, 1], "s": LP}, {"logits": "s", "target": "labels", "task": "multilabel"}),
    ({"lp": [-0.5, None, -2.0], "doc": 1}, {"target_logprob": "lp"}),
)


def case(rng: random.Random, folder: Path) -> str:
    """What became of a file."""
    row, options = rng.choice(KINDS)
    path = folder / "x.jsonl"
    path.write_bytes(mutate([row] * rng.randrange(1, 6), rng))

    def read() -> str:
        rows = fx.evaluate(path, **options, on_bad_row="skip", threads=1).rows
        if rows.total != rows.used + rows.ignored + rows.bad:
            raise AssertionError("rows that do not add up")
        return "read in part" if rows.bad or rows.ignored else "read"

    return fuzzing.outcome(read)


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    return fuzzing.outcomes_in_folder(case, count, seed, 60)


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
