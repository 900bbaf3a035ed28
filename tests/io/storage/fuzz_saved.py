"""Mutated folders of Hugging Face's datasets through `evaluate`: a seeded run of any length.

    python -m tests.io.storage.fuzz_saved --count 20000 --seed 1

Each case writes a folder as `save_to_disk` does, alone or as a split beside another, with a cache of `map` in it, and
breaks a JSON file, what its state lists, or a data file. It may be refused with an error of fastxent. If it is read,
its rows and the figure are those of the files that its state lists, unless bytes inside one of these were changed.
Anything else ends the run.
"""

from __future__ import annotations

import io
import json
import math
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import fastxent as fx
from tests import fuzzing
from tests.io.fuzz_npz import broken

ROWS = 12
X, Y = np.random.default_rng(0).normal(size=(ROWS, 3)), np.arange(ROWS) % 3
LOSSES = np.log(np.exp(X).sum(axis=1)) - X[np.arange(ROWS), Y]
FILES = {
    "data-00000-of-00002.arrow": (0, 7), "data-00001-of-00002.arrow": (7, 12), "cache-0123456789abcdef.arrow": (0, 12)
}  # fmt: skip
NAMES = [*FILES][:2]
INFO, STATE, SPLITS = "dataset_info.json", "state.json", "dataset_dict.json"


def stream(begin: int, end: int) -> bytes:
    """A data file of some rows."""
    place = io.BytesIO()
    table = pa.table({"logits": pa.array(X[begin:end].tolist()), "target": Y[begin:end]})
    with pa.ipc.new_stream(place, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    return place.getvalue()


DATA = {name: stream(*rows) for name, rows in FILES.items()}


def files_of(rng: random.Random, split: bool) -> dict[str, bytes]:
    """The files of a dataset, in some of which it lists other files than it has."""
    names: list[Any] = list(NAMES)
    if rng.random() < 0.3:
        other = rng.choice([*FILES, "", "..", "../one", STATE, "data-00002-of-00003.arrow", None, 3, ["x"], {}])
        names[rng.randrange(2)] = other
    rng.shuffle(names)
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0",
        "_split": "test",
    }
    if rng.random() < 0.1:
        state[rng.choice(["_indices_files", "_indices_data_files"])] = rng.choice([[{"filename": NAMES[0]}], [], None])
    info = {"features": {"logits": {}}, "splits": {"test": {"num_examples": ROWS}}}
    found = {**DATA, INFO: json.dumps(info).encode(), STATE: json.dumps(state).encode()}
    return (
        {f"test/{name}": data for name, data in found.items()} | {SPLITS: b'{"splits": ["test"]}'} if split else found
    )


def mutate(files: dict[str, bytes], rng: random.Random) -> set[str]:
    """Break some files in place; return those with other values."""
    damaged = set()
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        name = rng.choice([name for name in files for _ in range(1 if name.endswith("arrow") else 3)])
        if rng.random() < 0.15:
            del files[name]
        elif name.endswith("arrow") and rng.random() < 0.5:
            files[name] = files[name][: rng.randrange(len(files[name]))]
        else:
            files[name] = broken(files[name] or b"x", rng)
            damaged.add(name)
    return damaged


def truth(files: dict[str, bytes], folder: str) -> list[str] | None:
    """The data files that a folder has; None if it has no such list, or lists a file that is not there."""
    try:
        names = [f"{folder}{entry['filename']}" for entry in json.loads(files[f"{folder}{STATE}"])["_data_files"]]
    except (KeyError, TypeError, ValueError):
        return None
    return names if len(set(names)) == len(names) and set(names) <= set(files) else None


def read(path: Path, files: dict[str, bytes], damaged: set[str], split: bool, whole: bool) -> str:
    """What became of a folder."""
    result = fx.evaluate(path, on_bad_row="skip", threads=1, jackknife=0, metrics="cross_entropy")
    counts, inside = result.rows, "test/" if split else ""
    if counts.total != counts.used + counts.ignored + counts.bad or counts.total > 100_000:
        raise AssertionError(f"rows that do not add up: {counts}")
    if whole and SPLITS in files:
        raise AssertionError("a folder of splits was read as one dump")
    names = truth(files, inside)
    if names is None:
        if f"{inside}{INFO}" in files:
            raise AssertionError("a dataset was read without a list of its files")
        return "read without its state"
    if damaged & set(names):
        return "read with other values"
    if any(files[name] != DATA[Path(name).name] for name in names):
        raise AssertionError("a data file that was cut short was read")
    losses = np.concatenate([LOSSES[slice(*FILES[Path(name).name])] for name in names])
    if counts.used != len(losses) or not math.isclose(result.metrics["cross_entropy"].value, losses.mean()):
        raise AssertionError(f"{counts.used} rows of {len(losses)}, {result.metrics} of {losses.mean()}")
    return "read"


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    return fuzzing.outcomes_in_folder(_outcome, count, seed, before=20)


def _outcome(rng: random.Random, folder: Path) -> str:
    split, path = rng.random() < 0.3, folder / "saved"
    files = files_of(rng, split)
    damaged = mutate(files, rng)
    shutil.rmtree(path, ignore_errors=True)
    (path / "test").mkdir(parents=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    whole = split and rng.random() < 0.25
    return fuzzing.outcome(lambda: read(path / "test" if split and not whole else path, files, damaged, split, whole))


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
