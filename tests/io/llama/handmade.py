"""A slow writer of llama.cpp's log-probability files, from the description of the format alone."""

from __future__ import annotations

import math
import struct

import numpy as np

FLOOR = 16.0


def row(logits: np.ndarray) -> bytes:
    """One row, as the tool writes it."""
    largest = max(logits)
    floor = max(min(logits), largest - FLOOR)
    lse = largest + math.log(sum(math.exp(x - largest) for x in logits))
    scale = np.float32((largest - floor) / 65535)
    codes = [round((x - floor) / float(scale)) if scale and x > floor else 0 for x in logits]
    codes = [min(code, 65535) for code in codes] + [0] * (len(codes) % 2)
    return struct.pack("<ff", scale, floor - lse) + struct.pack(f"<{len(codes)}H", *codes)


def write(tokens: np.ndarray, logits: np.ndarray) -> bytes:
    """A file. tokens: (chunks, n_ctx). logits: (chunks, rows of a chunk, classes)."""
    chunks, context = tokens.shape
    head = b"_logits_" + struct.pack("<iii", context, logits.shape[2], chunks)
    head += struct.pack(f"<{tokens.size}i", *tokens.ravel().tolist())
    return head + b"".join(row(each) for chunk in logits for each in chunk)


def read(data: bytes) -> dict[str, np.ndarray]:
    """The rows of a file, one number at a time."""
    context, classes, chunks = struct.unpack_from("<iii", data, 8)
    tokens = struct.unpack_from(f"<{chunks * context}i", data, 20)
    at, found = 20 + 4 * len(tokens), []
    columns: dict[str, list[int]] = {"target": [], "token": [], "position": [], "chunk": []}
    for chunk in range(chunks):
        for position in range(context // 2, context - 1):
            scale, floor = (np.float32(x) for x in struct.unpack_from("<ff", data, at))
            codes = struct.unpack_from(f"<{classes}H", data, at + 8)
            found.append([scale * np.float32(code) + floor for code in codes])
            at += 8 + 2 * (classes + classes % 2)
            place = chunk * context + position
            values = {"target": tokens[place + 1], "token": tokens[place], "position": position, "chunk": chunk}
            for name, value in values.items():
                columns[name].append(value)
    assert at == len(data)
    logits = np.array(found, np.float32).reshape(-1, classes)
    return {"logits": logits, **{name: np.array(values, np.int32) for name, values in columns.items()}}


def example(chunks: int = 5, context: int = 12, classes: int = 7, seed: int = 0) -> bytes:
    """A small file whose rows are of every kind: flat, masked, peaked."""
    rng = np.random.default_rng(seed)
    rows = context - 1 - context // 2
    logits = rng.normal(size=(chunks, rows, classes)) * rng.choice([0.0, 1.0, 30.0], (chunks, rows, 1))
    return write(rng.integers(0, classes, (chunks, context)), logits)
