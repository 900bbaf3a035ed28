"""CSV and TSV files: columns, values, headers, compression, and text that is no table."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from pyarrow import csv as arrow_csv

import fastxent as fx
from fastxent.cli.program import run
from fastxent.io import delimited
from fastxent.io.inspect import describe
from fastxent.io.source import open_source
from fastxent.kernels.delimited_text import records
from tests.fuzzing import short_run

N, C = 400, 4
RNG = np.random.default_rng(0)
P, Y = RNG.dirichlet(np.ones(C), N), RNG.integers(0, C, N)
W, G = RNG.random(N), RNG.integers(0, 3, N)
PROBS: dict[str, Any] = {"logits": "[0-9]*", "input": "probs"}
NAMES = [f'no. {k}, "x"\ny' for k in range(N)]


def frame() -> pd.DataFrame:
    """What `predict_proba` gives, with columns beside it."""
    return pd.DataFrame(P).assign(target=Y, w=W, g=G, name=NAMES)


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data).to_pybytes()


FILES = {
    "a.csv": lambda text: text.encode(),
    "crlf.csv": lambda text: text.replace("\n", "\r\n").encode(),
    "bom.csv": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "a.csv.gz": lambda text: gzip.compress(text.encode()),
    "two.csv.gz": lambda text: gzip.compress(text[:999].encode()) + gzip.compress(text[999:].encode()),
    "a.csv.zst": lambda text: zstd(text.encode()),
    "noname": lambda text: text.encode(),
}


@functools.cache
def expected() -> fx.EvalResult:
    return fx.evaluate({"x": P, "target": Y, "w": W, "g": G}, logits="x", input="probs", weight="w", by="g")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("piece", [1500, 8 << 20])
def test_what_pandas_writes(name: str, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name](frame().to_csv(index="crlf" not in name)))
    monkeypatch.setattr(delimited, "_PIECE", piece)
    for how in ({}, {"threads": 3}):
        found = fx.evaluate(path, **PROBS, weight="w", by="g", cluster="name", **how)
        assert found.rows.used == N
        assert [found.metrics[k].value for k in found.metrics] == [expected().metrics[k].value for k in found.metrics]
        assert {k: s.metrics["accuracy"].value for k, s in found.slices["g"].items()} == {
            k: s.metrics["accuracy"].value for k, s in expected().slices["g"].items()
        }
    units = [pickle.loads(pickle.dumps(u)) for u in fx.plan(path, **PROBS, weight="w", by="g")]  # noqa: S301 - our own
    assert fx.merge_states([unit.run() for unit in units]).result().metrics == expected().metrics


def test_shards_in_hive_folders_and_tabs(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f"part={k}").mkdir()
        rows = frame().iloc[k::3]
        rows.to_csv(tmp_path / f"part={k}" / "x.tsv", sep="\t", index=False)
    found = fx.evaluate(tmp_path, **PROBS, by="part")
    assert found.metrics == fx.evaluate({"x": P, "target": Y}, logits="x", input="probs").metrics
    assert [found.slices["part"][k].rows.total for k in range(3)] == [134, 133, 133]


def test_binary_probability_with_text_targets(tmp_path: Path) -> None:
    labels = np.where(Y > 1, "spam", "ham")
    pd.DataFrame({"id": range(N), "label": labels, "score": P[:, 0]}).to_csv(tmp_path / "x.csv", index=False)
    options: dict[str, Any] = {"logits": "score", "input": "probs", "target": "label", "classes": ("ham", "spam")}
    truth = fx.evaluate({"score": P[:, 0], "label": list(labels)}, **options)
    assert fx.evaluate(tmp_path / "x.csv", **options).metrics == truth.metrics


def test_compare_by_position_and_by_id(tmp_path: Path) -> None:
    a, b = tmp_path / "a.csv", tmp_path / "b.csv.gz"
    frame().to_csv(a)
    frame().to_csv(b)
    base = {"x": P, "target": Y}
    against = fx.compare(base, base, logits="x", input="probs").metrics
    assert fx.compare(a, b, **PROBS).metrics == against
    frame().iloc[::-1].to_csv(b)
    assert fx.compare(a, b, **PROBS, on="index").metrics == against
    fx.convert(a, tmp_path / "x.parquet", logits="[0-9]*")
    assert fx.evaluate(tmp_path / "x.parquet", input="probs", weight="w", by="g").metrics == expected().metrics


# ---- values ----------------------------------------------------------------------------------------------------------


def columns_of(path: Path, *names: str) -> dict[str, list[Any]]:
    source = open_source(path, logits=None, columns=names)
    batches = [batch.columns for unit in source.units() for batch in unit.read(7, 1 << 20, True)]
    return {name: [value for batch in batches for value in batch[name].to_pylist()] for name in names}


def test_types_follow_from_the_first_records_and_values_stay_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.csv"
    rows = [
        ("n", "x", "id", "zip", "flag", "day", "empty", "big"),
        (1, 0.5, 9007199254740993, "01234", "True", "2024-01-31", "", 1 << 63),
        (2, "NA", 9007199254740992, "1234", "", "2024-02-01", "", 3),
        (0.25, 1, 3, "7", "False", '"', "7", 5),
        ("", "+1e3", -5, "x", "TRUE", " a ", "", 5),
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    monkeypatch.setattr(delimited, "_LOOK", 130)  # up to row 1
    monkeypatch.setattr(delimited, "_PIECE", 60)
    assert columns_of(path, *map(str, rows[0])) == {
        "n": [1, 2, 0.25, None], "x": [0.5, None, 1.0, 1000.0], "id": [9007199254740993, 9007199254740992, 3, -5],
        "zip": ["01234", "1234", "7", "x"], "flag": [True, None, False, True],
        "day": ["2024-01-31", "2024-02-01", '"', " a "], "empty": [None, None, 7.0, None],
        "big": [str(1 << 63), "3", "5", "5"],
    }  # fmt: skip


FIELD = st.text(alphabet='ab",\n\r\t;é ', max_size=6)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(FIELD, FIELD, st.integers(-(2**60), 2**60)), min_size=1, max_size=12),
    piece=st.integers(1, 90), end=st.sampled_from(["\n", "\r\n"]), cut=st.booleans(),
)  # fmt: skip
@example(rows=[("\r", '"', 1)], piece=7, end="\n", cut=True)
def test_text_and_numbers_come_back(
    tmp_path: Path, rows: list[tuple[str, str, int]], piece: int, end: str, cut: bool
) -> None:
    place = io.StringIO(newline="")
    csv.writer(place, lineterminator=end, quoting=csv.QUOTE_NONNUMERIC).writerows([("a", "b", "x"), *rows])
    text = place.getvalue().removesuffix(end) if cut else place.getvalue()
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_PIECE", piece)
        found = columns_of(path, "a", "b", "x")
        assert open_source(path, logits=None).rows == len(rows)
    texts = [(a, b, x) for a, b, x in rows]
    number = {column: _is_text([row[k] for row in texts]) for k, column in enumerate("ab")}
    assert found["x"] == [x for _, _, x in rows]
    for k, column in enumerate("ab"):
        if number[column]:
            assert found[column] == [row[k] for row in texts]


def _is_text(values: list[str]) -> bool:
    """Whether a column of these is text, and not of nulls."""
    return any(value.strip() for value in values)


@settings(deadline=None)
@given(text=st.text(alphabet='a",\n\r', max_size=30), blank=st.booleans())
@example(text='"\n"', blank=False)
@example(text='a"\n"', blank=False)
@example(text="\n\r\n\r", blank=True)
def test_records_are_those_of_pythons_reader(text: str, blank: bool) -> None:
    data = np.frombuffer(text.encode(), np.uint8)
    count, end, _ = records(data, np.uint8(ord(",")), 1 << 62, True, blank)
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row or blank]
    assert count == len(rows)
    assert end == len(data) or not text[end:].strip("\r\n")
    cut, last, _ = records(data, np.uint8(ord(",")), 1 << 62, False, blank)
    assert cut in (count, count - 1)
    again, _, _ = records(data[last:], np.uint8(ord(",")), 1 << 62, True, blank)
    assert cut + again == count


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.none() | st.floats(0.1, 9.0), max_size=9), piece=st.integers(1, 60))
@example(values=[1.0, None, 3.0], piece=1)
@example(values=[None, None], piece=3)
def test_nulls_of_a_single_column_are_empty_lines(tmp_path: Path, values: list[float | None], piece: int) -> None:
    path = tmp_path / "x.csv"
    arrow_csv.write_csv(pa.table({"nll": pa.array(values, pa.float64())}), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_PIECE", piece)
        assert columns_of(path, "nll") == {"nll": values}
        assert open_source(path, logits=None).rows == len(values)
        if any(values):
            found = fx.evaluate(path, scores="nll", on_bad_row="skip")
            known = [value for value in values if value is not None]
            assert found.rows.total == len(values)
            assert found.metrics["nll"].value == pytest.approx(sum(known) / len(known), rel=1e-15)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_empty_lines_before_the_names_are_no_rows(line_end: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(line_end.join(["", "", "nll", "1.0", "", "3.0"]).encode())
    assert columns_of(tmp_path / "x.csv", "nll") == {"nll": [1.0, None, 3.0]}
    (tmp_path / "x.csv").write_bytes(line_end.join(["", "a,b", "", "1,2", "", "3,4", ""]).encode())
    assert columns_of(tmp_path / "x.csv", "a", "b") == {"a": [1, 3], "b": [2, 4]}


@pytest.mark.parametrize("null", ["", '""', "NA", "N/A", "null", "None", " NULL "])
@pytest.mark.parametrize("early", [True, False])
def test_nulls_among_scores_are_bad_rows_and_text_is_kept(
    null: str, early: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rows = tmp_path / "x.csv", ["0.5,0.25,1,NA", f"{null},1e30,0,None", " 3 ,+2,0,b", f"1,{null},1,"]
    path.write_text("\n".join(["p0,p1,target,kind", *(rows if early else ["0.5,0.25,1,b"] * 3 + rows)]) + "\n")
    monkeypatch.setattr(delimited, "_LOOK", 200 if early else 40)
    found = fx.evaluate(path, logits="p*", on_bad_row="skip", by="kind")
    assert (found.rows.used, found.rows.bad_logits) == (2 if early else 5, 2)
    assert {key: group.rows.total for key, group in found.slices["kind"].items()} == {
        "NA": 1, "None": 1, "b": 1 if early else 4, None: 1,
    }  # fmt: skip
    used = {"logits": [[0.5, 0.25]] * (1 if early else 4) + [[3.0, 2.0]], "target": [1] * (1 if early else 4) + [0]}
    assert found.metrics == fx.evaluate({key: np.array(value) for key, value in used.items()}).metrics
    with pytest.raises(fx.BadRowError, match=rf"row {1 if early else 4}: logits hold a null, in column 'p0'"):
        fx.evaluate(path, logits="p*")


# ---- headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (",0,1\n0,0.5,0.5\n", ["index", "0", "1"]),
        ("0,1\n0.5,0.5\n", ["0", "1"]),
        ("1;2\n0.5;0.5\n", ["1", "2"]),
        ("label, p\n1,0.5\n", ["label", "p"]),
        ("file,0,1\na.png,0.1,0.9\n", ["file", "0", "1"]),
        ("2\t0.1\t0.9\n1\t0.2\t0.8\n", ["f0", "f1", "f2"]),
        ("cat,0.1,0.9\ndog,0.2,0.8\n", ["f0", "f1", "f2"]),
        ("id,2019\n1,5\n", ["id", "2019"]),
        ('"a,b",c\n1,2\n', ["a,b", "c"]),
        ("a,b\n", ["a", "b"]),
    ],
)
def test_headers(text: str, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    found = describe(tmp_path / "x.csv")
    assert found.schema.names == names
    assert found.rows == text.count("\n") - (names[0] != "f0")


@pytest.mark.parametrize("text", ["0.0,1.0\n0.5,0.5\n", "1,0\n0.5,0.5\n", "3,7\n1,2\n", "q,0.1\n5,1.5\n"])
def test_a_first_line_that_may_be_a_row(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(fx.SourceError, match=r"x\.csv: its first line may hold names or a row"):
        describe(tmp_path / "x.csv")


# ---- what is refused -------------------------------------------------------------------------------------------------

OPTIONS: dict[str, Any] = {"logits": "p*", "target": "t", "input": "probs", "weight": "w"}
ROW = "0.5,0.5,1,1\n"


@pytest.mark.parametrize(
    ("late", "message"),
    [
        (
            "0.5,x,1,1\n",
            r"column 'p1' must hold numbers, because its first rows hold no text, got 'x' in .*x\.csv, row 8",
        ),
        ("0.5,0.5,1,1,1\n", "row 8: Expected 4 columns, got 5: 0.5,0.5,1,1,1"),
        ("0.5,0.5,1\n", "row 8: Expected 4 columns, got 3"),
        (
            "0.5,0.5,one,1\n",
            r"column 't' must hold numbers, because its first rows hold no text, got 'one' in .*x\.csv, row 8",
        ),
        ("0.5,0.5,01,1\n", r"'t' must hold numbers without leading zeros, got '01' in .*x\.csv, row 8"),
        ('0.5,0.5,1,"1\n', "a quote is not closed at its end"),
        ("0.5,,1,1\n", "row 8: logits hold a null, in column 'p1'"),
        ("0.5,nan,1,1\n", "row 8: "),
        ("0.5,0.5,1,\n", "row 8: column 'w' is null"),
        ("0.5,0.5,9007199254740993.0,1\n", "row 8: target 9007199254740992"),
        ("0.5,0.5,99999999999999999999,1\n", "'t' must hold whole numbers of 64 bits"),
    ],
)
def test_a_record_that_does_not_fit(late: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.csv").write_text("p0,p1,t,w\n" + ROW * 8 + late + ROW)
    monkeypatch.setattr(delimited, "_LOOK", 40)
    for piece in (1, 8 << 20):
        monkeypatch.setattr(delimited, "_PIECE", piece)
        with pytest.raises(fx.FastxentError, match=message) as error:
            fx.evaluate(tmp_path / "x.csv", **OPTIONS)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "x.csv.gz",
            gzip.compress(b"a,b\n" + b"1,2\n" * 999, mtime=0)[:-20],
            r"x\.csv\.gz: .*check that the file is complete",
        ),
        ("x.csv.gz", gzip.compress(b"\x00" * 50, mtime=0), "gzip-compressed"),
        ("x.json.gz", gzip.compress(b'{"a": 1, "b": 2}\n', mtime=0), "gzip-compressed"),
        ("x.csv", b"a\x00b,c\n1,2\n", "unknown format"),
        ("x.csv", "a,b\n1,é\n".encode("utf-16"), "the text is UTF-16; .* convert it with: iconv -f UTF-16 "),
        ("x.csv", b"\n\n", "it has no columns"),
        ("x.csv", b"a,b\n1,\xff\n", r"x\.csv, row 0, column 'b': invalid UTF8 data; save the file as UTF-8"),
        ("x.csv", b"a,a,b\n1,2,3\n", "different names"),
    ],
)
def test_text_that_is_no_table(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(fx.FastxentError, match=message) as error:
        fx.evaluate(tmp_path / name, logits="b", target="a", input="probs")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rows", [0, 300_000])
@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_a_line_without_an_end_is_not_read_to_its_end(rows: int, name: str, tmp_path: Path) -> None:
    data = b"a,b\n" + rows * b"0,0.5\n" + b"1" * (70 << 20)
    (tmp_path / name).write_bytes(gzip.compress(data, 1) if name.endswith("gz") else data)
    with pytest.raises(fx.SourceError, match=r"a record is longer than 32 MB, the most that is read; check its quotes"):
        fx.evaluate(tmp_path / name, logits="b", target="a", input="probs", metrics="accuracy")


@pytest.mark.parametrize("index", [True, False])
def test_inspect_ends_in_a_line_that_runs(index: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame().drop(columns="name").to_csv(tmp_path / "x.csv", index=index)
    assert run(["inspect", str(tmp_path / "x.csv")]) == 0
    line = f"fastxent eval {tmp_path / 'x.csv'} --logits '[0-9]*' --input probs"
    assert capsys.readouterr().out.endswith(f"run:\n  {line}\n")
    assert run(["eval", str(tmp_path / "x.csv"), "--logits", "[0-9]*", "--input", "probs"]) == 0


def test_inspect_of_one_probability_and_of_a_table_without_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pd.DataFrame({"id": range(N), "click": Y % 2, "pctr": P[:, 0]}).to_csv(tmp_path / "ctr.csv", index=False)
    assert run(["inspect", str(tmp_path / "ctr.csv")]) == 0
    line = f"fastxent eval {tmp_path / 'ctr.csv'} --logits pctr --input probs --target click"
    assert capsys.readouterr().out.endswith(f"run:\n  {line}\n")
    assert run(line.split()[1:]) == 0
    np.savetxt(tmp_path / "lgb.tsv", np.c_[Y, P], delimiter="\t", fmt=["%d", *["%.9g"] * C])
    assert describe(tmp_path / "lgb.tsv").logits == []
    found = fx.evaluate(tmp_path / "lgb.tsv", logits="f[1-9]", target="f0", input="probs")
    plain = fx.evaluate({"x": P, "target": Y}, logits="x", input="probs")
    assert found.metrics["accuracy"] == plain.metrics["accuracy"]


def test_mutated_tables_never_crash_hang_or_give_more_rows() -> None:
    counts = short_run("tests.io.delimited.fuzz_delimited", 300, bounds=False)
    assert min(counts["refused"], counts["read"]) > 50
