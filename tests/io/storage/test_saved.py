"""Folders that `save_to_disk` of Hugging Face's datasets writes."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest

import fastxent as fx
from fastxent.cli.program import run
from tests.fuzzing import short_run

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 4)).astype(np.float32), RNG.integers(0, 4, 60)
NAMES = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]


@functools.cache
def expected() -> Any:
    return fx.evaluate({"logits": X, "target": Y}).metrics


def saved(folder: Path, **state: Any) -> Path:
    """A dataset of two files, with a cache of `map` beside them."""
    folder.mkdir(parents=True)
    table = pa.table({"logits": list(X), "target": Y})
    for name, rows in zip([*NAMES, "cache-0123456789abcdef.arrow"], [(0, 35), (35, 25), (0, 60)], strict=True):
        with pa.ipc.new_stream(folder / name, table.schema) as writer:
            writer.write_table(table.slice(*rows), max_chunksize=20)
    content = {"_data_files": [{"filename": name} for name in NAMES], "_format_columns": ["target"], "_split": "test"}
    (folder / "state.json").write_text(json.dumps({**content, **state}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_the_files_of_a_dataset(tmp_path: Path) -> None:
    folder = saved(tmp_path / "sets" / "one")
    for source in (folder, tmp_path / "sets", f"{tmp_path}/**/*"):
        found = fx.evaluate(source)
        assert found.metrics == expected()
        assert found.rows.total == 60


def test_elsewhere(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(saved(tmp_path / "one")), "/saved", recursive=True)
    try:
        assert fx.evaluate("memory://saved").metrics == expected()
        memory.pipe("/saved/dataset_dict.json", b'{"splits": ["train"]}')
        with pytest.raises(fx.SourceError, match=r"saved: it holds the splits train; name one, as in .*saved/train"):
            fx.evaluate("memory://saved")
    finally:
        memory.rm("/saved", recursive=True)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_indices_files": [{"filename": "indices.arrow"}]}, r"chosen by indices; call dataset\.flatten_indices\(\)"),
        ({"_data_files": [{"filename": NAMES[0]}] * 2}, "lists a file twice"),
        ({"_data_files": [{"filename": "../x.arrow"}]}, r"lists '\.\./x\.arrow', which is missing"),
        ({"_data_files": [{"filename": ["x"]}]}, r"lists \['x'\], which is missing"),
        ({"_data_files": [3]}, "lists None, which is missing"),
        ({"_data_files": [{"filename": "state.json"}]}, "lists 'state.json', which is missing or not an .arrow file"),
        ({"_data_files": []}, "the folder holds no data files"),
    ],
)
def test_states_that_are_damaged(state: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(fx.SourceError, match=message) as error:
        fx.evaluate(saved(tmp_path / "one", **state))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000])
def test_states_that_are_not_json(text: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "one")
    (folder / "state.json").write_text(text, encoding="latin-1")
    with pytest.raises(fx.SourceError, match=r"one: state\.json is not JSON; save the dataset again"):
        fx.evaluate(folder)


@pytest.mark.parametrize("text", ["[1]", '{"a": 1}', '{"_data_files": {}}', None])
def test_another_state(text: str | None, tmp_path: Path) -> None:
    """It lists no data files: of a dataset it is damaged, and beside other files it is another program's."""
    folder = saved(tmp_path / "one")
    (folder / "state.json").unlink()
    if text is not None:
        (folder / "state.json").write_text(text)
    with pytest.raises(fx.SourceError, match=r"one: state\.json is missing or does not list data files; save the"):
        fx.evaluate(folder)
    (folder / "dataset_info.json").unlink()
    (folder / "cache-0123456789abcdef.arrow").unlink()
    assert fx.evaluate(folder).metrics == expected()


@pytest.mark.parametrize("text", ["[]", '{"split": ["train"]}', '{"splits": 3}', '{"splits": []}'])
def test_splits_that_are_damaged(text: str, tmp_path: Path) -> None:
    saved(tmp_path / "train")
    (tmp_path / "dataset_dict.json").write_text(text)
    with pytest.raises(fx.SourceError, match=r"dataset_dict\.json does not list splits; save the dataset again"):
        fx.evaluate(tmp_path)


def test_mutated_folders_lose_no_rows_and_double_none() -> None:
    counts = short_run("tests.io.storage.fuzz_saved", 300, bounds=False)
    assert min(counts["refused"], counts["read"]) > 50


def test_several_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        saved(tmp_path / split)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(fx.SourceError, match=r"it holds the splits train, test; name one, as in .*/train"):
        fx.evaluate(tmp_path)
    assert run(["inspect", str(tmp_path / "test")]) == 0
    line = f"fastxent eval {tmp_path / 'test'}"
    assert capsys.readouterr().out.endswith(f"run:\n  {line}\n")
    assert run(line.split()[1:]) == 0
