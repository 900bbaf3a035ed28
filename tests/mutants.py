"""Well-formed files that hold something else than what was written: for readers that must refuse or survive them."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

JUNK: list[Any] = [
    None, True, -1, 0, 1, 7, 2**31, 2**63 - 1, 2**63, 10**400, -0.5, 1e308, float("inf"), float("nan"), "", "x",
    "int:x", "float:1e5", "logits", "inf",
    [], [[]], [0], [None], ["a", "a"], {}, {"a": 1}, [[0, 2**24 - 1]], ["int:1"] * 3,
]  # fmt: skip
EXTREMES = [0, 1, -1, 2**31, 2**32 - 1, 2**53 + 1, 2**62, -(2**62), 2**63 - 1, -(2**63)]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in entries:
        yield from places(item, (*path, key))


def changed(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value with one or two of its parts replaced, removed, doubled or renamed."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 1, 2])):
        *above, key = rng.choice(list(places(value)))
        holder = value
        for step in above:
            holder = holder[step]
        how = rng.random()
        if how < 0.6:
            holder[key] = rng.choice(JUNK)
        elif how < 0.75:
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, holder[key])
        else:
            holder[rng.choice(["a", "rows", "logits", key + "x"])] = holder[key]
        if not value:
            break
    return value


def changed_arrays(arrays: dict[str, np.ndarray], rng: random.Random) -> dict[str, np.ndarray]:
    """The arrays with one of them of another content, type or shape, or none."""
    name = rng.choice(list(arrays))
    array = arrays[name].copy()
    how = rng.choice(["one", "one", "one", "type", "zeros", "order", "shape", "none", "renamed"])
    if how == "one" and array.size and array.dtype != np.float64:
        array.flat[rng.randrange(array.size)] = np.array(rng.choice(EXTREMES)).astype(array.dtype)
    elif how == "one" and array.size:
        array.flat[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, -np.inf, -1.0, 1e300])
    elif how == "type":
        array = array.astype(rng.choice([np.int64, np.uint8, np.float64]))
    elif how == "zeros":
        array[...] = 0
    elif how == "order":
        array = array[::-1].copy()
    elif how == "shape":
        array = rng.choice([array[:0], array.reshape(-1), array[None][:, :1], array.repeat(2, axis=0)])
    rest = {key: other for key, other in arrays.items() if key != name}
    return rest if how == "none" else {**rest, (name + "x" if how == "renamed" else name): array}


def text(value: Any) -> str:
    """A JSON value as text; NaN and infinities as Python writes them."""
    return json.dumps(value)
