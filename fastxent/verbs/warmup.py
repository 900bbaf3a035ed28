"""Compile the kernels of the common kinds of dump ahead of time.

Kernels compile on first use, for the dtypes they meet. The surest list of what `evaluate` uses is `evaluate` itself, so
it runs here over tiny files: Parquet of every dtype, few classes and many, one number per row, temperature,
probabilities, slices, clusters, weights and lists of classes, and a response of each kind of server.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.scoring.rounding import round_to
from fastxent.state import counted
from fastxent.verbs.evaluate import evaluate

CLASSES = (10, 1000)  # on either side of where row kernels change
_ROWS = 8
_LISTED = [{"id": 0, "token": "a", "logprob": -1.0}, {"id": 1, "token": "b", "logprob": -2.0}]
_ENTRY = {**_LISTED[0], "bytes": [97], "top_logprobs": _LISTED}
_RESPONSES: dict[str, dict[str, Any]] = {
    "chat completions": {"choices": [{"logprobs": {"content": [_ENTRY]}}]},
    "completions": {
        "choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0, "b": -2.0}]}}]
    },
    "llama.cpp": {"completion_probabilities": [_ENTRY]},
    "vLLM": {"prompt_token_ids": [0, 1], "prompt_logprobs": [None, {"1": {**_LISTED[0], "rank": 1}}]},
    "SGLang": {
        "meta_info": {
            "input_token_logprobs": [[None, 0, "a"], [-1.0, 1, "b"]],
            "input_top_logprobs": [None, [[-1.0, 1, "b"]]],
        }
    },
}
_MANY_ROWS = 400  # more scores than the first table of `state.cells` holds


def warm_up(progress: Callable[[str, int, int], None] | None = None) -> None:
    """Compile or load the kernels of `evaluate`; ``progress`` is called with (name, done, total) for each kind of dump.

    >>> warm_up()
    """
    kinds = list(_kinds())
    columns: dict[str, Any] = {"logits": "topk_logprobs", "ids": "topk_ids", "target_logprob": "target_logprob"}
    total = len(kinds) + len(_RESPONSES)
    with tempfile.TemporaryDirectory() as folder:
        for done, (name, dtype, n_classes, options) in enumerate(kinds):
            if progress is not None:
                progress(name, done, total)
            path = os.path.join(folder, "dump.parquet")
            _write(path, dtype, n_classes)
            state = evaluate(path, threads=1, **{"logits_dtype": dtype, **options}).state
            assert state is not None  # it was computed here
            state.merge(state)
        for done, (name, response) in enumerate(_RESPONSES.items(), len(kinds)):
            if progress is not None:
                progress(f"responses of {name}", done, total)
            path = os.path.join(folder, "responses.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump([response], file)  # an array, which takes one more kernel than lines
            evaluate(path, **columns, n_classes=2, threads=1)
    for dtype in ("float32", "float64"):
        counted.warm_up(dtype)


def _kinds() -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    for dtype in FLOAT_TYPES:
        for n_classes in CLASSES:
            yield f"{dtype}, {n_classes} classes", dtype, n_classes, {}
    for n_classes in CLASSES:
        yield f"temperature, {n_classes} classes", "float32", n_classes, {"temperature": 2.0}
        yield f"probabilities, {n_classes} classes", "float32", n_classes, {"input": "probs"}
    for dtype in ("float32", "float64"):
        for scores in ("logits", "probs"):
            yield f"{dtype} {scores}, one number per row", dtype, 1, {"input": scores}
    yield "slices, one number per row", "float32", 1, {"by": "group", "input": "probs"}
    yield "weights, one number per row", "float32", 1, {"weight": "weight", "input": "probs"}
    yield "labels", "float32", 10, {"target": "labels", "task": "multilabel"}
    yield "slices and clusters", "float32", 10, {"by": "name", "cluster": "group"}
    lists = {"logits": "logprobs", "ids": "ids", "n_classes": 2, "logits_dtype": None}
    yield "lists of the likeliest classes", "float32", 10, lists
    yield "weights", "float32", 10, {"weight": "weight", "by": "group", "cluster": "group"}


def _write(path: str, dtype: str, n_classes: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if n_classes == 1:
        rows = _MANY_ROWS
        logits = pa.array(round_to(np.linspace(0.1, 0.9, rows), dtype))
    else:
        rows = _ROWS
        values = np.tile(np.arange(n_classes) % 7, (rows, 1)).astype(np.float32)
        values /= values.sum(axis=1, keepdims=True)  # good as logits and as probabilities
        bits = round_to(values, dtype)
        offsets = pa.array(np.arange(0, bits.size + 1, n_classes, dtype=np.int32))
        logits = pa.ListArray.from_arrays(offsets, pa.array(bits.reshape(-1)))
    groups = pa.array(np.arange(rows) % 2)
    weights = pa.array(2.0 ** (60 * (np.arange(rows) % 2)))  # so far apart that sums of clusters need more words
    labels = pa.array([[0, 1] * (n_classes // 2)] * rows) if n_classes > 1 else pa.nulls(rows)
    columns = {"labels": labels, "logits": logits, "target": groups, "group": groups, "weight": weights}
    columns |= {"name": groups.cast(pa.string())}
    columns |= {"ids": pa.array([[0, 1]] * rows), "logprobs": pa.array([[-1.0, -2.0]] * rows)}
    pages = {"data_page_size": 1, "write_batch_size": 2 * n_classes, "compression": "none"}  # equal, so read as a run
    pq.write_table(pa.table(columns), path, use_dictionary=["group"], **pages)
