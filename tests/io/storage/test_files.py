"""Which files a path or a glob means, where links lead in a circle, and what is told about them."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.cli.program import run
from fastxent.io.inspect import describe
from fastxent.io.storage.doubts import doubts
from fastxent.io.storage.files import File, find_files

DUMP = Path(__file__).resolve().parents[3] / "examples" / "digits.parquet"


def tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def names(root: Path, pattern: str) -> list[str]:
    return [os.path.relpath(file.path, root) for file in find_files(f"{root}/{pattern}")]


@pytest.mark.parametrize("pattern", ["", "**", "**/*", "**/*.parquet", "**/[xy].*"])
def test_links_that_lead_in_a_circle_are_followed_once(pattern: str, tmp_path: Path) -> None:
    tree(tmp_path, "x.parquet", "a/b/y.parquet", "other/z.md")
    for link in ("loop", "a/up", "a/b/top", "a/b/again"):  # 2^40 paths
        (tmp_path / link).symlink_to(tmp_path, target_is_directory=True)
    assert sorted(names(tmp_path, pattern)) == ["a/b/y.parquet", "x.parquet"]


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    tree(tmp_path, "elsewhere/y.parquet", "dump/x.parquet")
    (tmp_path / "dump" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert names(tmp_path, "dump/**/*.parquet") == ["dump/more/y.parquet", "dump/x.parquet"]
    assert names(tmp_path, "dump") == ["dump/more/y.parquet", "dump/x.parquet"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("d/**", ["d/a/b/2.parquet", "d/a/c.parquet/part-0", "d/1.parquet"]),
        ("d/**/*.parquet", ["d/a/b/2.parquet", "d/a/c.parquet/part-0", "d/1.parquet"]),
        ("d/**/b", ["d/a/b/2.parquet"]),
        ("**/b/*", ["d/a/b/2.parquet"]),
        ("d/*/b/**", ["d/a/b/2.parquet"]),
        ("d/**/*.md", ["d/a/notes.md"]),
        ("d/*.parquet", ["d/1.parquet"]),
    ],
)
def test_globs(pattern: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(
        tmp_path, "d/1.parquet", "d/a/b/2.parquet", "d/a/c.parquet/part-0", "d/a/c.parquet/_SUCCESS", "d/a/notes.md",
        "d/.hidden/3.parquet", "d/_tmp/4.parquet", "d/a/.5.parquet",
    )  # fmt: skip
    assert names(tmp_path, pattern) == sorted(found)
    monkeypatch.chdir(tmp_path)
    assert [file.name for file in find_files(pattern)] == sorted(found)


# ---- what may not be meant -------------------------------------------------------------------------------------------


def test_the_same_file_twice_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = DUMP.read_bytes()
    first = tmp_path / "a.parquet"
    first.write_bytes(data)
    assert fx.evaluate(first).warnings == ()
    message = f"{first} is named twice: its rows count twice; name each file once"
    for source in ([first, first], [first, f"{tmp_path}/*.parquet"], [tmp_path, tmp_path]):
        assert fx.evaluate(source).warnings == (message,)
    os.link(first, tmp_path / "b.parquet")
    (tmp_path / "c.parquet").symlink_to(first)
    message = (
        f"{first} is named twice, also as {tmp_path}/b.parquet (and 1 more): its rows count twice; name each file once"
    )
    assert fx.evaluate(tmp_path).warnings == (message,)
    assert fx.transform(tmp_path, tmp_path / "out.arrow").warnings == (message,)
    (tmp_path / "out.arrow").unlink()
    assert describe(tmp_path).warnings == [message]
    with pytest.warns(UserWarning, match="is named twice"):
        fx.plan(tmp_path)
    assert run(["inspect", str(tmp_path)]) == 0
    assert message in capsys.readouterr().out


def test_arrays_of_one_file_are_no_file_twice(tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", np.eye(4))
    np.save(tmp_path / "target.npy", np.arange(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fx.evaluate(tmp_path).warnings == ()
        fx.plan(tmp_path)


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        (["d/train-00000-of-00002.parquet", "d/train-00001-of-00002.parquet"], ""),
        (["d/train-00000-of-00001.parquet", "d/test-00000-of-00001.parquet"], "test (d/test-"),
        (["d/train/0.parquet", "d/validation/0.parquet"], "train (d/train/0.parquet), validation (d/validation/0"),
        (["test/d/train/0.parquet", "test/d/train/1.parquet"], ""),
        (["d/split=train/0.parquet", "d/split=test/0.parquet"], ""),
        (["d/gsm8k_dev.parquet", "d/gsm8k_val.parquet"], ""),
        (["d/training.arrow", "d/Test.arrow"], "test (d/Test.arrow), train (d/training.arrow)"),
        (["d/latest.parquet", "d/trainer.parquet"], ""),
        (["/x/train/a.parquet", "test/a.parquet"], "test (test/a.parquet), train (/x/train"),
    ],
)
def test_several_splits_are_told(paths: list[str], told: str) -> None:
    found = doubts([File(path, path) for path in paths])
    assert len(found) == bool(told)
    assert told in "".join(found)
    assert not found or found[0].startswith("the files belong to several splits, ")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
def test_file_names_that_are_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    table = pq.read_table(DUMP, columns=["logits", "target"])
    pq.write_table(table, tmp_path / "plain.parquet")
    with pa.ipc.new_file(str(tmp_path / "plain.arrow"), table.schema) as writer:
        writer.write_table(table)
    np.save(tmp_path / "logits.npy", np.array(table["logits"].to_pylist(), np.float32))
    np.save(tmp_path / "target.npy", table["target"].to_numpy())
    expected = fx.evaluate(DUMP).metrics["cross_entropy"]
    moved = {"plain.parquet": b"a\xff.parquet", "plain.arrow": b"a\xff.arrow", "logits.npy": b"logits.npy"}
    for name, other in {**moved, "target.npy": b"target.npy"}.items():
        os.rename(os.fsencode(tmp_path / name), folder + b"/" + other)
    for name in moved.values():
        assert fx.evaluate(os.fsdecode(folder + b"/" + name)).metrics["cross_entropy"] == expected, name
    path = os.fsdecode(folder + b"/a\xff.parquet")
    assert run(["eval", path, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == [path]
