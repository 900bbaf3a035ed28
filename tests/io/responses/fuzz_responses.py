"""Mutated responses of servers through the reader: a seeded run of any length.

    python -m tests.io.responses.fuzz_responses --count 20000 --seed 1

Each case takes a small file of one form, breaks it (bits, bytes, numbers, keys, structure, truncation) and evaluates
it. The reader may refuse it with an error of fastxent, or use and skip rows. Anything else ends the run: a signal,
another exception, a case of more than ten seconds, or memory beyond a fixed allowance. So does a figure that a row
cannot have.
"""

from __future__ import annotations

import copy
import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import fastxent as fx
from tests import fuzzing
from tests.io.responses.samples import FORMS, events, rows

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1 << 40,
    1 << 70,
    -0.5,
    -9999.0,
    1e300,
    "",
    "x",
    "\ud800",
    [],
    [[]],
    {},
    {"a": 1},
)
OPTIONS = {"logits": "topk_logprobs", "ids": "topk_ids", "target_logprob": "target_logprob", "on_bad_row": "skip"}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inside for found in places(item, (*path, key)))]


def restructured(line: dict[str, Any], rng: random.Random) -> str:
    """A line with some of its values replaced, removed or doubled."""
    value: Any = json.loads(json.dumps(line))
    for _ in range(rng.choice([1, 1, 2, 5])):
        path = rng.choice(places(value))
        if not path:
            continue
        inner = value
        for key in path[:-1]:
            inner = inner[key]
        how = rng.random()
        if how < 0.25:
            del inner[path[-1]]
        elif how < 0.4 and isinstance(inner, list):
            inner.append(copy.deepcopy(inner[path[-1]]))
        elif how < 0.5 and isinstance(inner, dict):
            inner[rng.choice(list(inner))] = copy.deepcopy(inner[path[-1]])
        else:
            inner[path[-1]] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(value, ensure_ascii=rng.random() < 0.5)


def mutate(lines: list[dict[str, Any]], rng: random.Random) -> bytes:
    """A broken copy of a file."""
    if rng.random() < 0.6:
        broken = rng.randrange(len(lines))
        text = "\n".join(restructured(v, rng) if k == broken else json.dumps(v) for k, v in enumerate(lines))
        return text.encode("utf-8", "surrogatepass")
    data = bytearray("\n".join(json.dumps(value) for value in lines).encode())
    if rng.random() < 0.3 and ("choices" in lines[0] or "completion_probabilities" in lines[0]):
        data = bytearray(events(lines, rng.random() < 0.7).encode())
    if rng.random() < 0.4:
        data = bytearray(json.dumps(lines, indent=rng.choice([None, 1])).encode())
    if rng.random() < 0.2:
        return bytes(data[: rng.randrange(1, len(data))])
    for _ in range(rng.choice([1, 1, 2, 5])):
        at, kind = rng.randrange(len(data)), rng.random()
        if kind < 0.5:
            data[at] = data[at] ^ 1 << rng.randrange(8) if kind < 0.25 else rng.choice(b'{}[]",:\\0\x00\xff\n')
        elif kind < 0.75:
            del data[at : at + rng.randrange(1, 9)]
        else:
            data[at:at] = data[at : at + rng.randrange(1, 40)]
    return bytes(data)


def read(path: Path, rng: random.Random) -> str:
    """What became of a file."""
    more = {"by": ["position"]} if rng.random() < 0.3 else {}
    result = fx.evaluate(path, **OPTIONS, **more, threads=1)  # type: ignore[arg-type]
    counts, metrics = result.rows, result.metrics
    if counts.total != counts.used + counts.ignored + counts.bad:
        raise AssertionError("rows that do not add up")
    if counts.used:
        for name in ("accuracy", "coverage"):
            if not 0.0 <= metrics[name].value <= 1.0:
                raise AssertionError(f"{name} is {metrics[name].value}")
        low, high = metrics["entropy"].bounds or (metrics["entropy"].value,) * 2
        if not -1e-3 <= low <= high:
            raise AssertionError(f"an entropy from {low} to {high}")
    return "read in part" if counts.bad or counts.ignored else "read"


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    seeds = [[make(response) for response in rows(k, 2)] for k in range(3) for make in FORMS.values()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "responses.jsonl"
        for lines in seeds:  # compiles what cases need
            path.write_text("\n".join(map(json.dumps, lines)))
            fx.evaluate(path, **OPTIONS, by="position")  # type: ignore[arg-type]
        return fuzzing.outcomes_of(lambda rng: _outcome(rng, seeds, path), count, seed)


def _outcome(rng: random.Random, seeds: list[list[dict[str, Any]]], path: Path) -> str:
    path.write_bytes(mutate(rng.choice(seeds), rng))
    return fuzzing.outcome(lambda: read(path, rng))


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
