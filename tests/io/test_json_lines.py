"""JSON lines as evaluation harnesses write them: columns, values, and lines that are not rows."""

from __future__ import annotations

import json
import math
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import fastxent as fx
from fastxent.cli.program import run
from fastxent.io import json_lines
from fastxent.io.inspect import describe
from fastxent.io.source import open_source
from tests.fuzzing import short_run
from tests.verbs.evaluated import figures


def sample(k: int) -> dict[str, Any]:
    """One object of lm-evaluation-harness, with the parts that no column holds."""
    return {
        "doc_id": k,
        "doc": {"question": f"q {k}\n", "subject": "abc"[k % 3], "choices": ["x", k], "gold": "A" if k % 2 else 1},
        "target": str(k % 4),
        "resps": [[[str(-1.5 * k), "False"]], k],
        "filter": "none" if k % 2 else "strict",
        "metrics": ["acc", "acc_norm"],
        "doc_hash": f"{k:064x}",
        "acc": float(k % 5 == 0),
        "acc_norm": None if k % 7 == 3 else int(k % 4 == 1),
        "exact_match": k % 6 == 0,
        "brier_score": [k % 2, [0.25, 0.75]],
    }


SAMPLES = [sample(k) for k in range(211)]


def written(path: Path, rows: list[Any], end: str = "\n") -> Path:
    path.write_text(end.join(json.dumps(row) for row in rows) + end, encoding="utf-8")
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return written(tmp_path / "samples_arc_2026.jsonl", SAMPLES)


def test_scores_of_a_harness(samples, monkeypatch):
    options = {"scores": ["acc", "acc_norm", "exact_match"], "by": ["doc.subject", "filter"], "cluster": "doc_id"}
    result = fx.evaluate(samples, **options)
    for name in options["scores"]:
        values = [row[name] for row in SAMPLES if row[name] is not None]
        assert result.metrics[name].value == pytest.approx(math.fsum(values) / len(values)), name
        assert result.score_rows[name].used == len(values)
    assert list(result.slices["doc.subject"]) == ["a", "b", "c"]
    assert result.slices["filter"]["strict"].rows.used == 106
    monkeypatch.setattr(json_lines, "_PIECE", 3000)  # several units, some of one line
    for how in ({}, {"threads": 3}, {"memory": "1MB"}):
        assert fx.evaluate(samples, **options, **how).state == result.state
    units = fx.plan(samples, **options)
    states = [pickle.loads(pickle.dumps(unit)).run() for unit in units]  # noqa: S301 - our own
    assert fx.merge_states(states).result().metrics == result.metrics


def test_columns_are_of_one_type(samples):
    schema = open_source(samples, logits=None, columns=["acc"]).schema
    assert {column.name: str(column.type) for column in schema} == {
        "doc_id": "int64", "doc": "struct<question: string, subject: string>", "target": "string", "filter": "string",
        "doc_hash": "string", "acc": "double", "acc_norm": "double", "exact_match": "bool",
        "metrics": "list<item: string>",
    }  # fmt: skip


VALUE = st.one_of(st.none(), st.floats(allow_nan=False), st.integers(-(2**60), 2**60))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(VALUE, st.text(max_size=5)), min_size=1, max_size=20), piece=st.integers(1, 200),
    end=st.sampled_from(["\n", "\r\n", "\n\n", "\n \n"]), cut=st.booleans(),
)  # fmt: skip
def test_numbers_and_text_come_back(tmp_path, rows, piece, end, cut):
    path = written(tmp_path / "x.jsonl", [{"x": x, "s": s, "ø": [s]} for x, s in rows], end)
    if cut:
        path.write_bytes(path.read_bytes().rstrip())  # no line end at the end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "_PIECE", piece)
        source = open_source(path, logits=None, columns=["x", "s"])
        units = list(source.units())
    found = [batch.columns for unit in units for batch in unit.read(7, 1 << 20, True)]
    assert [x for columns in found for x in columns["x"].to_pylist()] == [
        None if x is None else float(x) for x, _ in rows
    ]
    assert [s for columns in found for s in columns["s"].to_pylist()] == [s for _, s in rows]
    assert source.rows == len(rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"acc": 1.0}\n{"acc": "high"}\n', r"column 'acc' of .* must hold numbers, .* of one type"),
        ('{\n"acc": 1\n', "it is cut short"),
        ('{"acc": 1}\n[1]\n', "row 1 is not a JSON object; write one per line"),
        ('{"acc": 1}\n{"acc": \n', "row 1 is not a JSON object in one line"),
        ('{"acc": 1} {"acc": 2}\n', "row 0 is not a JSON object in one line"),
        ('{"acc": [1]}\n{"acc": ["a"]}', "column 'acc' of .* or lists of them, of one type"),
        ('{"b": 1}\n', "no column 'acc'"),
        ('{"acc": NaN}\n', "row 0: column 'acc' is nan"),
        ('{"a":' * 100_000 + "\n", "row 0 is not a JSON object in one line"),
        ('{"acc": 1e999}\n', r"rows 0\.\.0: .* in row 0$"),
        ('{"acc": 1, "acc": 0}\n', r"rows 0\.\.0: .* was specified twice in row 0$"),
    ],
)
def test_lines_that_are_no_rows(tmp_path, text, message):
    (tmp_path / "x.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(fx.FastxentError, match=message) as error:
        fx.evaluate(tmp_path / "x.jsonl", scores="acc")
    assert "\n" not in str(error.value)


def test_what_comes_after_the_first_lines_is_refused_where_it_does_not_fit(tmp_path):
    for late in ('{"acc": "high"}', "[1]", '{"acc": 1} {"acc": 2}', '{"acc": tru', "null", "\x00"):
        (tmp_path / "x.jsonl").write_text('{"acc": 1.0}\n' * 1000 + late + "\n", encoding="utf-8")
        with pytest.raises(
            fx.SourceError, match=r"x\.jsonl(, rows 0\.\.1000: |: row 1000 is not a JSON object)"
        ) as error:
            fx.evaluate(tmp_path / "x.jsonl", scores="acc")
        assert "\n" not in str(error.value)


def test_broken_files_are_refused_or_read(tmp_path):
    rng, path = random.Random(3), tmp_path / "x.jsonl"
    seed = "".join(json.dumps(row) + "\n" for row in SAMPLES[:20]).encode()
    outcomes = {"read": 0, "refused": 0}
    for _ in range(400):
        data = bytearray(seed)
        for _ in range(rng.choice([1, 1, 3])):
            data[rng.randrange(len(data))] = rng.choice(b'{}[],:"\\\n0aN\x00\xff')
        path.write_bytes(data[: rng.randrange(1, len(data))] if rng.random() < 0.1 else data)
        try:
            result = fx.evaluate(path, scores="acc", on_bad_row="skip")
        except fx.FastxentError as error:
            outcomes["refused"] += "\n" not in str(error) and str(path) in str(error)
            continue
        assert 0 < result.rows.total <= 22
        outcomes["read"] += 1
    assert sum(outcomes.values()) == 400
    assert min(outcomes.values()) > 50


def test_inspect_and_the_command_line(samples, capsys):
    found = describe(samples)
    assert (found.formats, found.rows, found.logits) == (["json lines"], 211, [])
    assert found.roles["scores"] == ["acc", "acc_norm", "exact_match"]
    assert run(["inspect", str(samples)]) == 0
    line = f"fastxent eval {samples} --scores acc,acc_norm,exact_match --cluster doc_id"
    assert line in capsys.readouterr().out
    assert run(line.split()[1:]) == 0
    assert "acc_norm" in capsys.readouterr().out
    assert run(["eval", str(samples)]) == 2
    assert "no column 'logits'" in capsys.readouterr().err


def test_inspect_proposes_log_probabilities(tmp_path, capsys):
    written(tmp_path / "x.jsonl", [{"token_logprob": -1.5, "n_bytes": 3, "document": "a"}] * 3)
    assert run(["inspect", str(tmp_path / "x.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert (
        f"fastxent eval {tmp_path / 'x.jsonl'} --target-logprob token_logprob --cluster document --n-bytes n_bytes"
        in shown
    )


@pytest.mark.parametrize("begin", ["\ufeff", "\ufeff \n", "\n\t "])
@pytest.mark.parametrize(
    "text", ['{"acc": 1}\n{"acc": 2}\n', '[{"acc": 1}, {"acc": 2}]', '[\n{"acc": 1},\n{"acc": 2}\n]']
)
def test_objects_behind_a_mark_of_byte_order_and_blanks(tmp_path, begin, text):
    (tmp_path / "x.json").write_text(begin + text, encoding="utf-8")
    source = open_source(tmp_path / "x.json", logits=None, columns=["acc"])
    assert [x for u in source.units() for b in u.read(9, 9, True) for x in b.columns["acc"].to_pylist()] == [1.0, 2.0]


def _dumps() -> dict[str, tuple[list[dict[str, object]], dict[str, object]]]:
    """Rows with lists, and the options to evaluate them with."""
    rng = np.random.default_rng(5)
    logits = np.log(rng.dirichlet(np.ones(6), 40)).round(6).tolist()
    target = rng.integers(0, 6, 40).tolist()
    tops = [sorted(range(6), key=lambda j, row=row: -row[j])[:3] for row in logits]
    topk = [[row[j] for j in top] for row, top in zip(logits, tops, strict=True)]
    rows = [*zip(target, logits, tops, topk, strict=True)]
    return {
        "logits": ([{"target": t, "logits": row} for t, row, _, _ in rows], {}),
        "ids": (
            [{"target": t, "topk_ids": ids, "topk_logprobs": values} for t, _, ids, values in rows],
            {"logits": "topk_logprobs", "ids": "topk_ids"},
        ),
        "tokens": (
            [{"target": f"t{t}", "tops": [f"t{j}" for j in ids], "lp": values} for t, _, ids, values in rows],
            {"logits": "lp", "ids": "tops"},
        ),
        "structs": (
            [
                {"label": t, "top": [{"id": j, "lp": x} for j, x in zip(ids, values, strict=True)]}
                for t, _, ids, values in rows
            ],
            {"logits": "top.lp", "ids": "top.id", "target": "label"},
        ),
        "documents": (
            [{"labels": target[k : k + 3], "logits": logits[k : k + 3]} for k in range(0, 40, 3)],
            {"target": "labels", "cluster": "document"},
        ),
        "labels": ([{"s": row, "labels": [int(x > -2) for x in row]} for row in logits],
                   {"logits": "s", "target": "labels", "task": "multilabel"}),
    }  # fmt: skip


@pytest.mark.parametrize("name", _dumps())
def test_lists_are_read_as_those_of_parquet(tmp_path, monkeypatch, name):
    monkeypatch.setattr(json_lines, "_PIECE", 500)  # several units
    rows, options = _dumps()[name]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    ours, theirs = (fx.evaluate(tmp_path / file, **options) for file in ("x.jsonl", "x.parquet"))
    assert ours.rows == theirs.rows
    assert figures(ours) == figures(theirs)
    (tmp_path / "x.jsonl").write_text(json.dumps(rows, indent=1))
    assert figures(fx.evaluate(tmp_path / "x.jsonl", **options)) == figures(theirs)


def test_a_list_that_changes_its_type_stops_only_runs_that_read_it(tmp_path):
    path = tmp_path / "x.jsonl"
    rows = [{"acc": k % 2, "doc": {"kind": "a", "answer": ["x"] if k < 1500 else "x"}, "ids": [k]} for k in range(1600)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert fx.evaluate(path, scores="acc", by="doc.kind").slices["doc.kind"]["a"].rows.used == 1600
    with pytest.raises(fx.FastxentError, match="a column must have one type in all lines") as error:
        fx.evaluate(path, scores="acc", by="doc.answer")
    assert "\n" not in str(error.value)


def test_lists_that_are_empty_or_of_several_types(tmp_path):
    path = tmp_path / "x.jsonl"
    for first, message in (
        ("[]", "every row is null or empty"),
        ('[1.5, "a"]', "'logits' .* of one type in all lines"),
        ("[[]]", "must hold a list per document"),
    ):
        path.write_text(f'{{"target": 0, "logits": {first}}}\n' * 3)
        with pytest.raises(fx.FastxentError, match=message) as error:
            fx.evaluate(path)
        assert "\n" not in str(error.value)


def test_mutated_lists_never_crash_hang_or_lose_rows():
    counts = short_run("tests.io.fuzz_json", 300, bounds=False)
    assert min(counts["refused"], counts["read"]) > 20
