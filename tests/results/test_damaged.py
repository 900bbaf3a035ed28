"""Damaged or hand-written JSON results: each is read, or refused with an error of one line."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fastxent as fx
import report_cases
from fastxent.cli.program import run
from fastxent.results.report import html

WRONG: list[Any] = [
    None, True, 0, -1, 1.5, 2**40, 10**30, 1e300, "", "x", "inf", "nan", [], [1], [None, "x"], {}, {"a": 1},
    {"value": "x"}, [[[]]], "\x1b[2J", [1, 2, 3],
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in a JSON document."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []:
        yield from places(inner, (*path, key))


def mutant(document: Any, where: list[tuple[Any, ...]], rng: random.Random) -> Any:
    """A copy in which one value is another, is gone, or is there twice."""
    found = copy.deepcopy(document)
    *path, last = rng.choice(where)
    holder = found
    for key in path:
        holder = holder[key]
    kind = rng.randrange(4)
    if kind == 0:
        del holder[last]
    elif kind == 1 and isinstance(holder, list):
        holder.append(holder[last])
    elif kind == 1:
        holder[f"{last}_"] = holder[last]
    else:
        holder[last] = copy.deepcopy(rng.choice(WRONG))
    return found


def document() -> Any:
    """An ordinary result with few bins and classes, so that mutants meet all its parts."""
    values = json.loads(report_cases.ordinary().to_json())
    histogram = values["nll_histogram"]
    histogram["counts"], histogram["edges"] = histogram["counts"][:5], histogram["edges"][:6]
    return values


@pytest.mark.parametrize("seed", range(3))
def test_a_mutant_is_read_or_refused(seed: int) -> None:
    rng, original = random.Random(seed), document()
    where = [path for path in places(original) if path]
    refused = 0
    for _ in range(150):
        text = json.dumps(mutant(original, where, rng))
        try:
            found = fx.EvalResult.from_json(text)
        except fx.StateError:
            refused += 1
        else:
            assert found.to_json()
            assert str(found)
            assert found.to_markdown()
    assert refused > 45


def test_a_mutant_that_is_read_can_be_drawn() -> None:
    rng, original = random.Random(7), document()
    where = [path for path in places(original) if path]
    drawn = 0
    while drawn < 8:
        text = json.dumps(mutant(original, where, rng))
        try:
            found = fx.EvalResult.from_json(text)
        except fx.StateError:
            continue
        assert html(found).startswith("<!doctype html>")
        drawn += 1


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("metrics", "accuracy", "value"), "x", "metrics.accuracy.value must be a number, got 'x'"),
        (("metrics", "accuracy", "ci95"), [1], "metrics.accuracy.ci95 must be a list of 2 values, got (1.0,)"),
        (("rows", "used"), 1.5, "rows.used must be a whole number, got 1.5"),
        (("rows", "bad"), 10**30, "is too large"),
        (("rows", "bad"), 5, "rows must add up"),
        (("files",), [3], "files.0 must be a text, got 3"),
        (("config", "bins"), "many", "bins must be a whole number, got 'many'"),
        (("config", "by"), 3, "by must be a list, got 3"),
        (("calibration", "count"), [1], "the columns of calibration must have the same length"),
        (("metrics",), {}, "metrics must not be empty"),
        (("versions",), None, "versions must be an object, got None"),
    ],
)
def test_the_command_says_what_is_wrong(
    path: tuple[str, ...], value: Any, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = document()
    holder = values
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    file = tmp_path / "figures.json"
    file.write_text(json.dumps(values))
    assert run(["report", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fastxent: error: {file}: ")
    assert told in line
    assert [found.name for found in tmp_path.iterdir()] == ["figures.json"]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "", "3", "[]", '{"schema": 3}', "NaN"])
def test_what_is_no_result(text: str) -> None:
    with pytest.raises(fx.StateError, match="cannot read the result"):
        fx.EvalResult.from_json(text)
