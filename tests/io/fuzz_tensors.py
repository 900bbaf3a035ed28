"""Mutated ``.safetensors`` files through `evaluate`, as rows and as heads: a seeded run of any length.

    python -m tests.io.fuzz_tensors --count 20000 --seed 1

Each case writes a folder of exllamav3 (a file for each row of tokens, the targets elsewhere), a head in one file, or a
model in two with an index, and breaks bytes, words of a header or of the index, or an end, or removes a file. It may be
refused with an error of fastxent. If it is read, the figure is that of a plain reading of the same files. Anything else
ends the run.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import fastxent as fx
from tests import fuzzing
from tests.io.fuzz_npz import broken
from tests.io.safetensor_files import safetensors

N, D, C = 12, 4, 5
RNG = np.random.default_rng(0)
STATES, WEIGHT, BIAS = (RNG.normal(size=shape).astype(np.float32) for shape in ((N, D), (C, D), (C,)))
LOGITS, TARGETS = (STATES @ WEIGHT.T).astype(np.float16).reshape(3, 1, N // 3, C), np.arange(N) % C
KINDS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2, "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U16": "<u2", "U8": "<u1",
}  # fmt: skip
WORDS = (*KINDS, "logits", "lm_head.weight", "lm_head.bias", "norm", "dtype", "shape", "one.safetensors", "../x", "0",
         "1", "4", "5", "-1", "40", "80", "1e2", "9" * 20, "[", "]", "{", "}", ",", ":", '"', "null", " ")  # fmt: skip
INDEX = "model.safetensors.index.json"


def files_of(rng: random.Random, kind: str, folder: Path) -> None:
    """A folder as it should be."""
    dtype = rng.choice([np.float16, np.float32, ml_dtypes.bfloat16])
    weight, norm = WEIGHT.astype(dtype), np.ones((2, D), dtype)
    if kind == "rows":
        for k, logits in enumerate(LOGITS):
            safetensors(folder / f"row_{k:06d}.safetensors", {"logits": logits})
    elif kind == "head":
        more = {"norm": norm} if rng.random() < 0.5 else {}
        safetensors(folder / "model.safetensors", {**more, "lm_head.weight": weight, "lm_head.bias": BIAS})
    else:
        safetensors(folder / "one.safetensors", {"norm": norm})
        safetensors(folder / "two.safetensors", {"lm_head.bias": BIAS, "lm_head.weight": weight})
        names = {"norm": "one", "lm_head.weight": "two", "lm_head.bias": "two"}
        index = {"metadata": {}, "weight_map": {name: f"{file}.safetensors" for name, file in names.items()}}
        (folder / INDEX).write_text(json.dumps(index))


def mutate(folder: Path, rng: random.Random) -> None:
    """Break some files."""
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        path = rng.choice(sorted(folder.iterdir()))
        data, how = path.read_bytes(), rng.random()
        if how < 0.05 and len(list(folder.iterdir())) > 1:
            path.unlink()
        elif how < 0.15:
            path.write_bytes(data[: rng.randrange(len(data) + 1)])
        elif how < 0.35:
            path.write_bytes(broken(data or b"x", rng))
        else:
            path.write_bytes(reworded(data, rng, path.suffix == ".json"))


def reworded(data: bytes, rng: random.Random, bare: bool) -> bytes:
    """The JSON in a file with another word in the place of one of its words; the length before it is right."""
    begin = 0 if bare else 8
    end = len(data) if bare else 8 + int.from_bytes(data[:8], "little")
    text = data[begin:end].decode("latin-1")
    words = [word for word in WORDS if word in text]
    if not words:
        return data
    word = rng.choice(words)
    places = [at for at in range(len(text)) if text.startswith(word, at)]
    at = rng.choice(places)
    found = (text[:at] + rng.choice(WORDS) + text[at + len(word) :]).encode("latin-1")
    return found if bare else len(found).to_bytes(8, "little") + found + data[end:]


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    """A plain reading of a file."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:end])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] in KINDS:
            first, last = entry["data_offsets"]
            values = np.frombuffer(data[end + first : end + last], KINDS[entry["dtype"]])
            found[name] = values.reshape(entry["shape"]).astype(np.float64)
    return found


def logits_of(folder: Path, kind: str, bias: bool) -> np.ndarray:
    """The logits that the files of a folder mean."""
    if kind == "rows":
        return np.concatenate([tensors_of(p)["logits"].reshape(-1, C) for p in sorted(folder.iterdir())])
    if kind == "head":
        found = tensors_of(folder / "model.safetensors")
        matrices = [name for name, values in found.items() if values.ndim == 2]
        head = found["lm_head.weight"] if "lm_head.weight" in found else found[matrices[0]]
        offsets = found["lm_head.bias"] if bias else 0
    else:
        shards = json.loads((folder / INDEX).read_text())["weight_map"]
        head = tensors_of(folder / shards["lm_head.weight"])["lm_head.weight"]
        offsets = tensors_of(folder / shards["lm_head.bias"])["lm_head.bias"] if bias else 0
    return STATES.astype(np.float64) @ head.T + offsets


def read(folder: Path, kind: str, rng: random.Random) -> str:
    """What became of a folder."""
    how: dict[str, Any] = {"on_bad_row": "skip", "threads": 1, "jackknife": 0, "metrics": "cross_entropy"}
    bias = kind != "rows" and rng.random() < 0.5
    if kind == "rows":
        result = fx.evaluate(folder, targets={"target": TARGETS}, **how)
    else:
        more = {"bias": f"{folder}:lm_head.bias"} if bias else {}
        result = fx.evaluate({"hidden": STATES, "target": TARGETS}, logits="hidden", head=str(folder), **more, **how)
    counts, logits = result.rows, logits_of(folder, kind, bias)
    if counts.total != N or counts.total != counts.used + counts.ignored + counts.bad:
        raise AssertionError(f"rows that do not add up: {counts}")
    if counts.bad or not np.isfinite(logits).all() or np.abs(logits).max() > 1e30:
        return "read in part"
    top = logits.max(axis=1)
    losses = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - logits[np.arange(N), TARGETS]
    found, expected = result.metrics["cross_entropy"].value, losses.mean()
    if not math.isclose(found, expected, rel_tol=1e-5, abs_tol=1e-5 * np.abs(logits).max()):
        raise AssertionError(f"{found} instead of {expected}")
    return "read"


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    return fuzzing.outcomes_in_folder(_outcome, count, seed, before=30)


def _outcome(rng: random.Random, folder: Path) -> str:
    kind, path = rng.choice(["rows", "head", "model"]), folder / "files"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    files_of(rng, kind, path)
    mutate(path, rng)
    return fuzzing.outcome(lambda: read(path, kind, rng))


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
