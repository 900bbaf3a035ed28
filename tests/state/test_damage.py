"""State files that are damaged or forged: an error of one line, in little memory and time, never a traceback."""

from __future__ import annotations

import hashlib
import random
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastxent as fx
import mutants
from fastxent.cli.merging import merged
from fastxent.state import packed
from fastxent.state.evaluation import EvalState
from scored_cases import CONFIGS, case, config

MUTANTS = 30  # of each configuration


def signed(payload: bytes, size: int | None = None, level: int = 1) -> bytes:
    """A state file of this payload, with a checksum that holds."""
    body = struct.pack("<Q", len(payload) if size is None else size) + zlib.compress(payload, level)
    return packed.MAGIC + bytes([packed.VERSION]) + hashlib.sha256(body).digest() + body


def forged(header: Any, arrays: dict[str, np.ndarray]) -> bytes:
    """`pack` for headers that are no headers."""
    listing = [[name, array.dtype.newbyteorder("<").str, list(array.shape)] for name, array in arrays.items()]
    text = mutants.text({**header, "arrays": listing} if isinstance(header, dict) else header).encode()
    raw = [np.ascontiguousarray(array).tobytes() for array in arrays.values()]
    return signed(b"".join([struct.pack("<Q", len(text)), text, *raw]))


@contextmanager
def at_most(nbytes: float) -> Iterator[None]:
    """Fail if the block takes more memory than that."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < nbytes
    finally:
        tracemalloc.stop()


def check_mutants(header: Any, arrays: dict[str, np.ndarray], count: int, *, texts: float, seed: int) -> None:
    """Check that damaged states are refused in one line and in little memory, or are whole states.

    texts: float from 0 to 1. The share of mutants whose header is changed; the others have changed arrays.
    """
    rng = random.Random(seed)
    made = read = refused = 0
    for _ in range(count):
        text = rng.random() < texts
        try:
            data = forged(mutants.changed(header, rng) if text else header,
                          arrays if text else mutants.changed_arrays(arrays, rng))  # fmt: skip
        except (LookupError, TypeError):  # the second change did not fit what the first had left
            continue
        made += 1
        with at_most(50e6):
            try:
                state = EvalState.from_bytes(data)
            except fx.StateError as error:
                refused += "\n" not in str(error) and len(str(error)) < 300
                continue
            result = state.merge(EvalState.empty(state.config)).result()
            assert fx.EvalResult.from_json(result.to_json()) == result
        read += 1
    assert refused > count / 2
    assert refused + read == made


def parts(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return packed.unpack(EvalState.empty(config(name)).add(case(name, 60)[1]).to_bytes())


@pytest.mark.parametrize("name", CONFIGS)
def test_mutants_are_refused_or_are_states(name):
    header, arrays = parts(name)
    check_mutants(header, arrays, MUTANTS, texts=0.6, seed=12)


PAYLOADS = [b"", b"\0" * 7, b"\0" * 8, b"\xff" * 8, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 4) + b"null"]


@pytest.mark.parametrize("payload", [*PAYLOADS, struct.pack("<Q", 100_000) + b"[" * 100_000])
def test_payloads_that_are_not_states_are_refused(payload):
    for size in (None, 0, 1, 2**40, 2**64 - 1):
        with pytest.raises(fx.StateError):
            EvalState.from_bytes(signed(payload, size))


def test_a_file_cannot_decompress_to_more_than_its_size_allows():
    header, arrays = parts("plain")
    bomb = {**arrays, "classes|ids": np.zeros(40_000_000, np.int64)}
    data = forged(header, bomb)
    assert len(data) < 2_000_000
    with at_most(20e6), pytest.raises(fx.StateError, match="more than a file of its size can"):
        EvalState.from_bytes(data)
    text = b"[" + b"0," * 100_000_000 + b"0]"
    data = signed(struct.pack("<Q", len(text)) + text)
    with at_most(20e6), pytest.raises(fx.StateError, match="header has an impossible size"):
        EvalState.from_bytes(data)


def test_claims_of_a_configuration_take_no_memory():
    """A state of a row of 10**12 classes, or of part 1 to 10**7 of a shard, is as small as what it holds."""
    header, arrays = parts("plain")
    header["config"]["n_classes"] = 10**12
    arrays = {name: array for name, array in arrays.items() if not name.startswith("confusion|")}  # of few classes
    header["coverage"] = {f"{k}": {"of": 1 << 24, "parts": [[0, (1 << 24) - 2]]} for k in range(50)}
    data = packed.pack(header, arrays)
    with at_most(20e6):
        state = EvalState.from_bytes(data)
        assert state.to_bytes() == data
        assert state.result().rows.total == 60
        assert len(state.merge(EvalState.empty(state.config)).coverage.divisions) == 50
        assert "missing: part 16777216 of 16777216" in str(state.coverage.missing())
        with pytest.raises(fx.StateError, match="parts 1-16777215 of 16777216 are there twice"):
            fx.merge_states([data, data])


def test_many_empty_bins_are_read_back():
    """What the options allow is never refused, however well it compresses."""
    cfg = fx.EvalConfig(n_classes=7, by=("k",), bins=10_000)
    rows = case("plain", 40, dirty=False)[1]
    rows.by = {"k": pa.array(range(40))}
    data = EvalState.empty(cfg).add(rows).to_bytes()
    assert EvalState.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize("given", [None, 3, "x.state", b"", [b""]])
def test_what_is_not_a_state_is_not_merged(given):
    with pytest.raises((fx.StateError, fx.ConfigError), match="state"):
        fx.merge_states([given])


@pytest.mark.parametrize("name", CONFIGS)
def test_mutants_of_results_are_refused_or_can_be_shown(name):
    result = EvalState.empty(config(name)).add(case(name, 60)[1]).result(timing={"seconds": 1.0}, files=["a"])
    values = result.to_dict()
    rng = random.Random(5)
    refused = 0
    for _ in range(4 * MUTANTS):
        try:
            text = mutants.text(mutants.changed(values, rng))
        except (LookupError, TypeError):
            continue
        try:
            found = fx.EvalResult.from_json(text)
        except fx.StateError as error:
            refused += "\n" not in str(error) and len(str(error)) < 300
            continue
        assert fx.EvalResult.from_json(found.to_json()) == found
        assert repr(found)
        assert found.to_markdown()
        assert found.to_arrow().num_rows
    assert refused > MUTANTS


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"schema": "fastxent/eval/1", "rows": ' + "[" * 900 + "]" * 900 + "}", "NaN"]
)
def test_json_that_is_no_result_is_refused(text):
    with pytest.raises(fx.StateError):
        fx.EvalResult.from_json(text)


def test_a_result_nested_deeply_is_refused():
    values = EvalState.empty(config("plain")).add(case("plain", 9)[1]).result().to_json(None)
    refused = []
    for depth in (10, 400, 900, 5000):
        text = values.replace('"timing": null', f'"timing": {{"a": {"[" * depth}{"]" * depth}}}')
        try:
            fx.EvalResult.from_json(text).to_json()
        except fx.StateError:
            refused.append(depth)
    assert 5000 in refused
    assert 10 not in refused


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_a_device_is_not_read_to_its_end(path):
    with pytest.raises(fx.StateError):
        merged(("/dev/null",))  # imports what it needs
    with at_most(1e6), pytest.raises(fx.StateError, match=f"{path}: not a saved state"):
        merged((path,))
