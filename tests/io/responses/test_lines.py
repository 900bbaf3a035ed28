"""Compiled code finds the tokens that Python's readers find, also in broken lines, or leaves the line to them."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from fastxent.errors import SourceError
from fastxent.io.responses import lines
from fastxent.io.responses.forms import Form, find_form
from fastxent.io.responses.rows import table_of
from tests.io.responses.fuzz_responses import mutate
from tests.io.responses.samples import BARE, FORMS, K, Row, bare, rows


def found(data: bytes, form: Form, compiled: bool) -> dict[str, list[Any]] | str:
    """The columns of a file as lists, or an error."""
    left: list[bytes] = []
    names = [field.name for field in form.fields]

    def by_line(line: bytes, number: int) -> dict[str, pa.Array] | None:
        if not line or line.isspace():
            return None
        left.append(line)
        try:
            table = table_of(list(form.of_line(line, number)), form.numbered)
            return {name: table[name] for name in names}
        except (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise SourceError(str(error)) from None

    try:
        if compiled:
            columns, end = lines.columns_of(np.frombuffer(data, np.uint8), form, 5, names, by_line)
            assert len(set(map(len, columns.values()))) == 1
        else:
            tables, end = [], 5
            for line in data.split(b"\n"):
                table = by_line(line, end)
                if table is not None:
                    tables.append(table)
                    end += 1
            columns = {name: pa.concat_arrays([table[name] for table in tables]) for name in tables[0]}
    except SourceError as error:
        return str(error)
    return {"lines": [end], **{name: column.to_pylist() for name, column in columns.items()}}


def compare(seed: str) -> bool:
    """Whether a broken file is read as by Python; whether it can be read."""
    rng = random.Random(seed)
    make: Callable[[list[Row]], dict[str, Any]] = rng.choice([*FORMS.values()])
    if rng.random() < 0.2:
        make = functools.partial(bare, rng.choice(BARE), null=rng.random() < 0.5)
    good = [make(response) for response in rows(rng.randrange(3), 2)]
    form = find_form(good)
    assert form is not None
    data = mutate(good, rng) + b"\n" + json.dumps(good[0]).encode()
    if data.startswith((b"[", b":")):
        return False
    one, other = found(data, form, True), found(data, form, False)
    assert one == other
    return not isinstance(one, str)


@settings(max_examples=150)
@given(seed=st.integers())
def test_the_same_rows_as_python_of_broken_lines(seed):
    compare(f"lines {seed}")


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_good_lines_are_not_left_to_python(make, monkeypatch):
    good = [make(response) for response in rows(0, 5)]
    form = find_form(good)
    assert form is not None
    data = b"\n \n".join(json.dumps(value).encode() for value in good)

    def left(line: bytes, number: int) -> None:
        assert line.isspace()

    columns, end = lines.columns_of(np.frombuffer(data, np.uint8), form, 0, ["target", "topk_ids"], left)
    assert (end, [*columns]) == (5, ["request", "choice", "position", "target", "topk_ids"])
    assert {len(ids) for ids in columns["topk_ids"].to_pylist()} <= {K - 1, K, K + 1}
