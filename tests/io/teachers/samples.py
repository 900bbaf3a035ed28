"""Sequences as DistillKit writes them, made of random distributions; packed bit by bit."""

from __future__ import annotations

import math
import random
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

V, K = 50, 12
FORMATS = {"float16": "<e", "float32": "<f", "float64": "<d"}
PLAIN: dict[str, Any] = {
    "d": V, "k": K, "exact_k": K, "exact_dtype": "float32", "polynomial_terms": None, "term_dtype": "float32",
    "residual_bins": [], "delta_encoding": False, "error_diffusion": False, "normalize_t": False,
}  # fmt: skip
FITTED = {**PLAIN, "exact_k": 5, "polynomial_terms": [0, 1, "sqrt"]}
BINNED = {
    **PLAIN, "exact_k": 2, "exact_dtype": "float16", "polynomial_terms": [0, 2],
    "residual_bins": [
        {"scale_dtype": "float32", "element_bits": 5, "num_elements": 3},
        {"scale_dtype": "float16", "element_bits": 1, "num_elements": 4},
    ],
}  # fmt: skip


def packed(numbers: list[int], bits: int) -> list[int]:
    """Bytes of numbers of some bits each, the most significant bit first."""
    text = "".join(f"{x:0{bits}b}" for x in numbers)
    text += "0" * (-len(text) % 8)
    return [int(text[at : at + 8], 2) for at in range(0, len(text), 8)]


def value(x: float, dtype: str) -> tuple[list[int], float]:
    """(the bytes of a number, what they hold)."""
    if dtype == "bfloat16":
        data = struct.pack("<f", x)[2:]
        return list(data), struct.unpack("<f", b"\0\0" + data)[0]
    data = struct.pack(FORMATS[dtype], x)
    return list(data), struct.unpack(FORMATS[dtype], data)[0]


def compressed(logprobs: list[float], config: dict[str, Any], rng: random.Random) -> tuple[list[int], list[float]]:
    """(bytes, what they mean) of a list: its first numbers, and any coefficients and residuals behind them."""
    found, meant = [], []
    for x in logprobs[: config["exact_k"]]:
        data, held = value(x, config["exact_dtype"])
        found += data
        meant.append(held)
    places = config["k"] - config["exact_k"]
    tail = [0.0] * places
    for j, term in enumerate(config["polynomial_terms"] or ()):
        data, held = value(meant[-1] - 1 if j == 0 else -0.01 * rng.random(), config["term_dtype"])
        found += data
        tail = [y + held * (math.sqrt(t) if term == "sqrt" else t**term) for t, y in enumerate(tail)]
    begin = 0
    for part in config["residual_bins"]:
        bits, n = part["element_bits"], part["num_elements"]
        data, scale = value(0.05 * rng.random(), part["scale_dtype"])
        whole = [rng.randrange(1 << bits) for _ in range(n)]
        found += data + packed(whole, bits)
        for i, x in enumerate(whole):
            tail[begin + i] += scale * (2 * x - 1 if bits == 1 else x - 2 ** (bits - 1))
        begin += n
    return found, meant + tail


class Sequence:
    """The ids of a sequence, and of each but the first the likeliest ids, what their log-probabilities are meant to be,
    and the bytes of both."""

    def __init__(self, length: int, config: dict[str, Any], rng: random.Random) -> None:
        self.tokens = [rng.randrange(V) for _ in range(length)]
        self.ids, self.logprobs, self.bytes, self.packed = [], list[list[float]](), list[list[int]](), []
        for _ in self.tokens[1:]:
            weights = sorted((rng.random() ** 6 + 1e-4 for _ in range(V)), reverse=True)
            ids = rng.sample(range(V), config["k"])
            data, meant = compressed([math.log(w / sum(weights)) for w in weights[: config["k"]]], config, rng)
            self.ids.append(ids)
            self.logprobs.append(meant)
            self.bytes.append(data)
            self.packed.append(packed(ids, 6))


def sequences(config: dict[str, Any], seed: int = 0, lengths: tuple[int, ...] = (4, 1, 9, 2)) -> list[Sequence]:
    rng = random.Random(seed)
    return [Sequence(length, config, rng) for length in lengths]


def table(found: list[Sequence], **more: Any) -> pa.Table:
    lists = pa.list_(pa.list_(pa.uint8()))
    return pa.table({
        "input_ids": pa.array([x.tokens for x in found], pa.list_(pa.uint64())),
        "compressed_logprobs": pa.array([x.bytes for x in found], lists),
        "bytepacked_indices": pa.array([x.packed for x in found], lists), **more,
    })  # fmt: skip


def raw(found: list[Sequence]) -> pa.Table:
    return pa.table({
        "input_ids": [x.tokens for x in found], "token_ids": [x.ids for x in found],
        "top_values": pa.array([x.logprobs for x in found], pa.list_(pa.list_(pa.float32()))),
    })  # fmt: skip


def written(folder: Path, rows: pa.Table, config: dict[str, Any] | None, name: str = "data_0.parquet") -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(rows, folder / name, row_group_size=3)
    if config is not None:
        (folder / "compression_config.yaml").write_text(yaml.safe_dump(config))
    return folder / name
