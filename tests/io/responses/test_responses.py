"""Responses of servers: every form gives the same rows, and what is no response is an error that names its line."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.cli.program import run
from fastxent.io import json_lines
from fastxent.io.responses import lines
from fastxent.io.source import open_source
from tests.io.responses.samples import (
    BARE,
    FORMS,
    NUMBERED,
    TOKENS,
    bare,
    chat,
    events,
    legacy,
    responses_api,
    rows,
    sglang,
    vllm,
    written,
)
from tests.verbs.evaluated import figures

OPTIONS = {"logits": "topk_logprobs", "ids": "topk_ids", "target_logprob": "target_logprob", "n_classes": len(TOKENS)}
NAMES = ["request", "position", "token", "n_bytes", "target", "target_logprob", "topk_ids", "topk_logprobs"]


def table(source: object, names: list[str]) -> dict[str, list]:
    found: dict[str, list] = {name: [] for name in names}
    for unit in open_source(source, logits=None, columns=names).units():
        for batch in unit.read(7, 1 << 20, whole=True):
            for name in names:
                found[name] += batch.columns[name].to_pylist()
    return found


@pytest.mark.parametrize("form", FORMS)
def test_the_rows_of_every_form(tmp_path: Path, form: str, monkeypatch):
    monkeypatch.setattr(json_lines, "_PIECE", 3000)  # several units
    path = written(tmp_path / "x.jsonl", form)
    found = table(path, NAMES)
    numbered = form in NUMBERED
    tokens = [(k, place, row) for k, response in enumerate(rows(0, 20)) for place, row in enumerate(response)]
    first = (
        1 if form in ("legacy", "legacy_choice", "vllm", "vllm_flat", "vllm_outputs", "sglang") else 0
    )  # of a prompt, which is not predicted
    assert found["request"] == [k for k, _, _ in tokens]
    assert found["position"] == [place + first for _, place, _ in tokens]
    assert found["token"] == [TOKENS[row.id] for _, _, row in tokens]
    assert found["n_bytes"] == [len(TOKENS[row.id].encode()) for _, _, row in tokens]
    assert found["target"] == [row.id if numbered else TOKENS[row.id] for _, _, row in tokens]
    assert found["target_logprob"] == [row.logprob for _, _, row in tokens]
    for (_, _, row), ids, logprobs in zip(tokens, found["topk_ids"], found["topk_logprobs"], strict=True):
        some = [j for j in row.top if j in ids or TOKENS[j] in ids]
        assert set(row.top) - set(some) <= {row.id}  # a last token that may have been added
        assert dict(zip(ids, logprobs, strict=True)) == {
            (j if numbered else TOKENS[j]): row.logprobs[j] for j in some
        }  # fmt: skip
        assert len(some) == len(row.top) or form.startswith("legacy")


@pytest.mark.parametrize("form", ["chat", "chat_ids", "legacy", "vllm"])
def test_evaluated(tmp_path: Path, form: str, monkeypatch):
    path = written(tmp_path / "x.jsonl", form)
    truth = [row for response in rows(0, 20) for row in response]
    result = fx.evaluate(path, **OPTIONS, cluster="request", n_bytes="n_bytes", by="position")
    nll = [-row.logprob for row in truth]
    assert result.rows.used == len(truth)
    assert result.clusters == 20
    assert result.metrics["cross_entropy"].value == pytest.approx(math.fsum(nll) / len(nll))
    right = [row.top[0] == row.id for row in truth]
    assert result.metrics["accuracy"].value == pytest.approx(sum(right) / len(right))
    low, high = result.metrics["entropy"].bounds
    entropy = math.fsum(-math.exp(x) * x for row in truth for x in row.logprobs) / len(truth)
    assert low < entropy < high
    likelihood = fx.evaluate(path, target_logprob="target_logprob")
    assert likelihood.metrics["cross_entropy"].value == result.metrics["cross_entropy"].value
    monkeypatch.setattr(json_lines, "_PIECE", 2000)
    split = fx.evaluate(path, **OPTIONS, cluster="request", n_bytes="n_bytes", by="position", threads=2, memory="2MB")
    assert figures(split) == figures(result)
    units = fx.plan(path, **OPTIONS, cluster="request", n_bytes="n_bytes", by="position", unit_size="1MB")
    states = [pickle.loads(pickle.dumps(unit)).run() for unit in units]  # noqa: S301 - made in this test
    assert figures(fx.merge_states(states).result()) == figures(result)


LAID_OUT = {
    "an array": json.dumps,
    "an array over lines": lambda values: json.dumps(values, indent=1),
    "an array with other line ends": lambda values: json.dumps(values, indent=2).replace("\n", "\r\n"),
    "objects over lines": lambda values: "\n".join(json.dumps(value, indent=2) for value in values) + "\n",
}


@pytest.mark.parametrize("name", LAID_OUT)
def test_json_that_is_not_in_lines(tmp_path: Path, monkeypatch, name: str):
    values = [chat(response) for response in rows(0, 20)]
    path = tmp_path / "x.json"
    path.write_text(LAID_OUT[name](values), newline="")
    truth = table(written(tmp_path / "x.jsonl", "chat"), NAMES)
    assert table(path, NAMES) == truth
    monkeypatch.setattr(json_lines, "_PIECE", 3000)
    assert table(path, NAMES) == truth
    plain = tmp_path / "plain.json"
    plain.write_text(LAID_OUT[name]([{"acc": 1, "text": 'a,\n"]}'}, {"acc": 0, "text": "["}]))
    assert fx.evaluate(plain, scores="acc", by="text").metrics["acc"].value == 0.5


@pytest.mark.parametrize("form", ["chat", "chat_ids", "native", "legacy"])
def test_streams_of_events(tmp_path: Path, monkeypatch, form: str):
    values = [FORMS[form](response) for response in rows(0, 20)]
    truth, path = table(written(tmp_path / "x.jsonl", form), NAMES), tmp_path / "x.txt"
    for done in (True, False):
        path.write_text(events(values, done))
        assert table(path, NAMES) == truth
    path.write_bytes(b"\xef\xbb\xbf" + events(values).replace("\n", "\r\n").encode())
    monkeypatch.setattr(json_lines, "_PIECE", 3000)
    assert table(path, NAMES) == truth
    split = fx.evaluate(path, **OPTIONS, cluster="request", by="id", threads=2)
    assert (split.clusters, len(split.slices["id"])) == (20, 20)


def test_events_that_are_broken(tmp_path: Path):
    path = tmp_path / "x.txt"
    for text, message in [
        ("data: {\n\n", "an event is not a JSON object, got '{'"),
        ("data: 7\n", "an event is not a JSON object, got '7'"),
        ('data: {"choices": [1]}\n', "a choice of an event is not an object with an index"),
        ('data: {"choices": 1}\n', "the choices of an event are not a list"),
        ("data: [DONE]\n", "no column 'target_logprob'"),
    ]:
        path.write_text(text)
        with pytest.raises(fx.FastxentError, match=message):
            fx.evaluate(path, **OPTIONS)


def test_a_byte_order_mark_is_no_part_of_json(tmp_path: Path):
    path = tmp_path / "x.json"
    for text in (
        '{"acc": 1}\n{"acc": 0}\n',
        '[{"acc": 1}, {"acc": 0}]',
        '[\n{"acc": 1},\n{"acc": 0}\n]',
        '{\n"acc": 1}\n{"acc": 0}',
    ):
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert fx.evaluate(path, scores="acc").metrics["acc"].value == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}, {"a": 2}', "it is cut short"),
        ('[{"a": 1}, {"a": ', "it is cut short"),
        ('[{"a": 1}] [{"a": 2}]', "it holds more than one array"),
        ('[{"a": 1}]}', "it holds more than one array"),
        ("[1, 2]", "it holds more than one array|row 0 is not a JSON object"),
        ('{\n"a": 1}}\n', "it holds more than one array"),
        ('{\n"a": 1\n}\n{\n"a": ', "it is cut short"),
        ('[[{"a": 1}]]', "row 0 is not a JSON object"),
        ("[]", "no column 'a'"),
        ("[ ", "it is cut short"),
    ],
)
def test_json_that_is_broken(tmp_path: Path, text: str, message: str):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(fx.FastxentError, match=message):
        fx.evaluate(path, scores="a")


def test_columns_beside_the_tokens(tmp_path: Path):
    found = table(written(tmp_path / "x.jsonl", "batch_api"), ["custom_id", "request"])
    assert set(found["custom_id"]) == {"c"}
    result = fx.evaluate(written(tmp_path / "y.jsonl", "chat"), **OPTIONS, by=["model", "usage.total_tokens"])
    assert list(result.slices["model"]) == ["m"]
    assert sum(part.rows.used for part in result.slices["usage.total_tokens"].values()) == result.rows.used


def test_inspect_ends_in_a_line_that_runs(tmp_path: Path, capsys):
    for form in FORMS:
        path = written(tmp_path / f"{form}.jsonl", form, requests=5)
        assert run(["inspect", str(path)]) == 0
        line = capsys.readouterr().out.splitlines()[-1].strip()
        assert "--ids topk_ids --target-logprob target_logprob --cluster request --n-bytes n_bytes" in line
        assert run([*line.split()[1:], "-q"]) == 0, form
        assert "coverage" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["chat_ids", "legacy"])
def test_converted_to_parquet(tmp_path: Path, form: str, capsys):
    path, dest = written(tmp_path / "x.jsonl", form), tmp_path / "x.parquet"
    assert run(["convert", str(path), str(dest)]) == 0
    assert "lists           topk_ids, and topk_logprobs of float32" in capsys.readouterr().out
    stored = pq.read_table(dest)
    assert stored.schema.field("topk_logprobs").type == pa.list_(pa.float32())
    assert stored["topk_ids"].to_pylist() == table(path, ["topk_ids"])["topk_ids"]
    assert stored["target_logprob"].to_pylist() == table(path, ["target_logprob"])["target_logprob"]
    a, b = (fx.evaluate(source, **OPTIONS, cluster="request").metrics for source in (path, dest))
    assert a["cross_entropy"] == b["cross_entropy"]
    assert a["entropy"].bounds == pytest.approx(b["entropy"].bounds, rel=1e-5)
    done = fx.convert(path, tmp_path / "y.arrow", dtype="float64", keep=["request", "topk_ids", "topk_logprobs"])
    assert done.layout == "top-k lists"
    assert figures(fx.evaluate(tmp_path / "y.arrow", **OPTIONS | {"target_logprob": None}, target=None)) == figures(
        fx.evaluate(path, **OPTIONS | {"target_logprob": None}, target=None)
    )
    for more, message in (({"layout": "list"}, "layout='list' is for rows"), ({"dtype": "bfloat16"}, "bfloat16")):
        with pytest.raises(fx.ConfigError, match=message):
            fx.convert(path, tmp_path / "z.parquet", **more)
    with pytest.raises(fx.ColumnError, match="no column 'logits'"):
        fx.convert(dest, tmp_path / "z.parquet")


def test_a_response_without_log_probabilities_is_an_ignored_row(tmp_path: Path):
    (one,), none = rows(0, 1), [{"error": "timeout"}, {"choices": []}, {"choices": [{"index": 0, "logprobs": None}]}]
    for form in (chat, legacy):
        path = tmp_path / "x.jsonl"
        path.write_text("\n".join(json.dumps(value) for value in [form(one), *none, form(one)]))
        result = fx.evaluate(path, **OPTIONS)
        assert (result.rows.used, result.rows.ignored) == (2 * len(one), 3)


@pytest.mark.parametrize("form", BARE)
def test_responses_without_lists_are_read_as_likelihoods(tmp_path: Path, form: str, capsys, monkeypatch):
    path, truth = tmp_path / "x.jsonl", rows(0, 20)
    path.write_text("\n".join(json.dumps(bare(form, response, k % 2 == 0)) for k, response in enumerate(truth)))
    names = ["request", "token", "target_logprob"]
    found = table(path, names)
    tokens = [(k, row) for k, response in enumerate(truth) for row in response]
    assert found == dict(
        zip(names, map(list, zip(*((k, TOKENS[row.id], row.logprob) for k, row in tokens), strict=True)), strict=True)
    )
    monkeypatch.setattr(
        lines, "_READERS", dict.fromkeys(lines._READERS, lambda text, at, end, w, v, line, out: (at, line))
    )
    assert table(path, names) == found  # as Python reads it
    monkeypatch.undo()
    assert run(["inspect", str(path)]) == 0
    line = capsys.readouterr().out.splitlines()[-1].strip()
    assert line.endswith("x.jsonl --target-logprob target_logprob --cluster request --n-bytes n_bytes")
    assert run([*line.split()[1:], "-q"]) == 0
    assert "20 clusters (request)" in capsys.readouterr().out
    metrics = fx.evaluate(path, target_logprob="target_logprob").metrics
    assert metrics["cross_entropy"].value == pytest.approx(-math.fsum(row.logprob for _, row in tokens) / len(tokens))
    with pytest.raises(fx.ColumnError, match="no column 'topk_ids'"):
        fx.evaluate(path, **OPTIONS)


def test_a_list_in_a_later_line_is_read(tmp_path: Path):
    """Lines whose lists are null are bad rows beside it, as long as ids are evaluated."""
    path, (one,) = tmp_path / "x.jsonl", rows(0, 1)
    path.write_text(json.dumps(bare("chat", one, True)) + "\n" + json.dumps(chat(one)))
    result = fx.evaluate(path, **OPTIONS, on_bad_row="skip")
    assert (result.rows.used, result.rows.bad) == (len(one), len(one))


@pytest.mark.parametrize("form", ["chat_choice", "legacy_choice"])
def test_a_choice_without_log_probabilities_is_an_ignored_row(tmp_path: Path, form: str):
    (one,), path = rows(0, 1), tmp_path / "x.jsonl"
    lines = [FORMS[form](one), {"error": "timeout"}, {"logprobs": None}]
    path.write_text("\n".join(map(json.dumps, lines)))
    result = fx.evaluate(path, **OPTIONS)
    assert (result.rows.used, result.rows.ignored) == (len(one), 2)


def test_text_in_utf_16_is_named(tmp_path: Path):
    for name, text in (("x.jsonl", json.dumps(chat(rows(0, 1)[0]))), ("x.csv", "p_0,p_1,y\n0.5,0.5,1\n")):
        (tmp_path / name).write_text(text, encoding="utf-16")
        with pytest.raises(fx.SourceError, match=r"UTF-16; .* iconv -f UTF-16 -t UTF-8 FILE"):
            fx.evaluate(tmp_path / name, **OPTIONS)


def test_responses_inside_lines_that_people_make(tmp_path: Path):
    """Those around a name that servers have too are read by compiled code, and others by Python."""
    (one, other), path = rows(0, 2), tmp_path / "x.jsonl"
    for name in ("output", "my answer"):
        for make in (chat, responses_api):
            path.write_text("\n".join(json.dumps({"question": "x", name: make(row)}) for row in (one, other)))
            result = fx.evaluate(path, **OPTIONS, by="question")
            assert result.slices["question"]["x"].rows.used == len(one) + len(other)


def test_outputs_that_are_numbers_are_no_responses(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"acc": 1, "prompt_logprobs": [null, -1.5], "outputs": [{"logprobs": [-0.5]}]}\n' * 2)
    assert fx.evaluate(path, scores="acc").metrics["acc"].value == 1.0


def test_completions_that_list_one_token_and_the_own_one(tmp_path: Path):
    """Where the own token is not the likeliest, servers list two; it is the last of every list."""
    tops = [{"a": -0.1}, {"b": -0.2, "a": -3.0}, {"c": -0.3}]
    held = {"tokens": ["a", "a", "c"], "token_logprobs": [-0.1, -3.0, -0.3], "top_logprobs": tops}
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"choices": [{"logprobs": held}]}))
    result = fx.evaluate(path, **OPTIONS)
    assert result.rows.used == 3
    assert result.metrics["accuracy"].value == result.metrics["coverage"].value == 2 / 3
    assert result.metrics["cross_entropy"].value == pytest.approx(3.4 / 3, rel=1e-15)


def test_a_position_without_a_list_is_an_ignored_row(tmp_path: Path):
    (one,), path = rows(0, 1), tmp_path / "x.jsonl"
    path.write_text(_break(vllm(one), ["prompt_logprobs", 2], None))
    result = fx.evaluate(path, **OPTIONS)
    assert (result.rows.used, result.rows.ignored) == (len(one) - 1, 1)


def _break(value: object, place: list, new: object) -> str:
    inner = value
    for key in place[:-1]:
        inner = inner[key]  # type: ignore[index]
    inner[place[-1]] = new  # type: ignore[index]
    return json.dumps(value)


CONTENT = ["choices", 0, "logprobs", "content", 0]
LISTS = ["choices", 0, "logprobs", "top_logprobs"]
FIRST = str(rows(0, 1)[0][0].id)
META = ["meta_info", "input_top_logprobs", 1]


@pytest.mark.parametrize(
    ("form", "place", "new", "message"),
    [
        (chat, [*CONTENT, "top_logprobs", 0, "logprob"], 0.5, "x.jsonl, line 2, token 0: log-probability 0 is 0.5"),
        (chat, [*CONTENT, "top_logprobs", 0, "logprob"], "a", "line 2: .* all lines must be responses of chat"),
        (chat, [*CONTENT, "top_logprobs"], [], "line 2, token 0: it lists no class above the cut; target_logprob"),
        (chat, [*CONTENT, "logprob"], 1.0, "line 2, token 0: column 'target_logprob' is 1.0"),
        (legacy, ["choices", 0, "logprobs", "tokens"], ["x"], "line 2: it has 1 tokens, but . lists"),
        (legacy, ["choices"], 7, "line 2: it is not a response of completions: TypeError"),
        (vllm, ["prompt_token_ids"], [0, 99, 99, 99, 99, 99], "line 2: it is not a response of vLLM: KeyError '99'"),
        (vllm, ["prompt_logprobs", 1], {"x": {"logprob": -1.0}}, "line 2: "),
        (sglang, [*META, 0, 1], "b", "line 2: .* all lines must be responses of SGLang"),
        (sglang, META, [[-1.0, 2]], "line 2: not enough values"),
        (sglang, META, None, "line 2, token 1: its list is null"),
        (vllm, ["prompt_logprobs", 1, FIRST, "logprob"], False, "line 2: a log-probability is true or false"),
        (sglang, [*META, 0, 0], True, "line 2: a log-probability is true or false"),
        (sglang, META[:-1], [None, [[-1.0, 2, "x"]]], "line 2: it has .* tokens, but 2 lists"),
        (legacy, [*LISTS, 1], {}, "line 2, token 1: its list is null"),
        (legacy, LISTS, [None], "line 2: it has .* tokens, but 1 lists"),
    ],
)
def test_broken_responses(tmp_path: Path, form, place, new, message):
    (good,) = rows(0, 1)
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(form(good)) + "\n" + _break(form(good), place, new) + "\n")
    with pytest.raises(fx.FastxentError, match=message) as caught:
        fx.evaluate(path, **OPTIONS)
    assert "\n" not in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made in this test
    assert str(again) == str(caught.value)


def test_plain_json_lines_stay_json_lines(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"acc": 1, "choices": ["a", "b"]}\n{"acc": 0, "choices": []}\n')
    assert fx.evaluate(path, scores="acc").metrics["acc"].value == 0.5


def test_choices_beside_prompts_are_told(tmp_path: Path):
    (one,), path = rows(0, 1), tmp_path / "x.jsonl"
    path.write_text(json.dumps({**chat(one), **vllm(one)}))
    result = fx.evaluate(path, **OPTIONS)
    assert result.rows.used == len(one)
    assert any("prompt_logprobs are read, and the logprobs of choices are not" in text for text in result.warnings)
