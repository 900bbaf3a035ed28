"""Compiled code finds the tokens that Python's readers find, also in broken lines, or leaves the line to them."""

from __future__ import annotations

import json
import random
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
from tests.io.responses.samples import FORMS, K, rows


def found(data: bytes, form: Form, compiled: bool) -> dict[str, list[Any]] | str:
    """The columns of a file as lists, or an error."""
    left: list[bytes] = []

    def by_line(line: bytes, number: int) -> dict[str, pa.Array] | None:
        if not line or line.isspace():
            return None
        left.append(line)
        try:
            return table_of(list(form.of_line(line, number)), form.numbered)
        except (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise SourceError(str(error)) from None

    names = [field.name for field in form.fields]
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
    make = rng.choice([*FORMS.values()])
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
