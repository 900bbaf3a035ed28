"""Names with half of a surrogate pair, as JSON may escape them and command lines pass bytes: no name of a column."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from tests.pairwise import pairwise

HALF = "\ude00"
X = np.array([[0.1, 0.9], [0.3, 0.2], [1.0, 0.0]], np.float32)
ENTRY = {
    "token": "A",
    "logprob": -0.2,
    "top_logprobs": [{"token": "A", "logprob": -0.2}, {"token": "B", "logprob": -2}],
}
RESPONSE = {"choices": [{"logprobs": {"content": [ENTRY]}}]}
TOPK = {"logits": "topk_logprobs", "ids": "topk_ids"}


def write_safetensors(path: Path, *names: str) -> None:
    arrays = {name: X if k == 0 else np.array([1, 0, 1]) for k, name in enumerate(names)}
    header, at = {}, 0
    for name, array in arrays.items():
        kind = "F32" if array.dtype == np.float32 else "I64"
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in arrays.values()))


@pytest.mark.parametrize("inner", [{HALF: 1}, {"usage": {HALF: 1}}, {"usage": [{HALF: 1}]}])
def test_fields_of_responses_are_left_out(inner: dict[str, Any], tmp_path: Path) -> None:
    for name, value in (("a", RESPONSE), ("b", {**RESPONSE, **inner})):
        (tmp_path / f"{name}.jsonl").write_text((json.dumps(value) + "\n") * 3)
    expected, found = (fx.evaluate(tmp_path / f"{name}.jsonl", **TOPK, threads=1) for name in "ab")
    assert found.metrics == expected.metrics
    assert found.rows.used == 3


@pytest.mark.parametrize("inner", [{HALF: 1}, {"u": {HALF: 1}}, {"u": [{HALF: 1}]}, {"g": HALF}])
def test_rows_in_json_are_refused(inner: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text((json.dumps({"p": 0.5, "target": 1, **inner}) + "\n") * 3)
    with pytest.raises(fx.SourceError, match=r"a\.jsonl, rows 0\.\.2: .*surrogate pair") as error:
        fx.evaluate(tmp_path / "a.jsonl", logits="p", input="probs")
    assert "\n" not in str(error.value)


def test_arrays_of_such_a_name_are_no_columns(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", "logits", "target", HALF)
    dump = {"logits": X, "target": np.array([1, 0, 1])}
    expected = fx.evaluate(dump).metrics
    assert fx.evaluate(tmp_path / "a.safetensors").metrics == expected
    assert fx.evaluate({**dump, HALF: [1, 2, 3]}).metrics == expected
    write_safetensors(tmp_path / "b.safetensors", HALF, "target")
    with pytest.raises(fx.ColumnError, match=r"no column 'logits' in .*; columns: target"):
        fx.evaluate(tmp_path / "b.safetensors")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, dict[str, Any]]]:
    """A source of each kind, and its options."""
    folder = tmp_path_factory.mktemp("unicode")
    pq.write_table(pa.table({"logits": list(X), "target": [1, 0, 1]}), folder / "a.parquet")
    np.savez(folder / "a.npz", logits=X, target=[1, 0, 1])
    (folder / "a.jsonl").write_text('{"p": 0.5, "target": 1, "u": {"k": 1}}\n' * 3)
    (folder / "a.csv").write_text("p,target\n0.5,1\n")
    (folder / "r.jsonl").write_text((json.dumps(RESPONSE) + "\n") * 3)
    probs = {"logits": "p", "input": "probs"}
    kinds = {"a.parquet": {}, "a.npz": {}, "a.jsonl": probs, "a.csv": probs, "r.jsonl": TOPK}
    return {name: (folder / name, options) for name, options in kinds.items()} | {"arrays": ({"logits": X}, {})}


@pytest.mark.parametrize(
    ("kind", "option", "name"),
    pairwise(
        ["a.parquet", "a.npz", "a.jsonl", "a.csv", "r.jsonl", "arrays"],
        [
            "logits",
            "target",
            "weight",
            "by",
            "cluster",
            "ids",
            "id",
            "scores",
            "n_bytes",
            "where",
            "metrics",
            "classes",
        ],
        [HALF, f"u.{HALF}", f"*{HALF}", f"{HALF}.k"],
    ),
)
def test_options_of_such_a_name_are_one_clear_error(sources: Any, kind: str, option: str, name: str) -> None:
    source, options = sources[kind]
    with pytest.raises(fx.FastxentError) as error:
        fx.evaluate(source, **{**options, **({"worst": 3} if option == "id" else {}), option: name})
    assert "\n" not in str(error.value)


def test_literals_of_conditions() -> None:
    with pytest.raises(fx.FastxentError, match=r"invalid text '.ude00'; expected valid Unicode"):
        fx.evaluate({"logits": X, "target": [1, 0, 1], "g": ["a", "b", "c"]}, where="g == '\\ude00'")


@pytest.mark.skipif(sys.platform == "win32", reason="bytes of a command line")
def test_the_command_line_names_the_bytes(sources: Any) -> None:
    command = [sys.executable, "-m", "fastxent", "eval", str(sources["a.parquet"][0]), "--by", b"a\xff"]
    done = subprocess.run([os.fsencode(part) for part in command], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.decode().startswith("fastxent: error: no column 'a\\udcff' in ")
