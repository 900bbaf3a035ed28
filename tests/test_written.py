"""What earlier versions wrote is read: a state, a checkpoint folder and a JSON result, to the same figures.

`tests/written` was made by version 0.1.0 from `dumps.table(200)` with `dumps.OPTIONS`: the whole state, the result, and
a run that was interrupted after 74 of the 200 rows.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

import dumps
import fastxent as fx

WRITTEN = Path(__file__).parent / "written"
OWN = ("timing", "files", "versions")  # of the run, not of its rows


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A copy of the folder, with the dump's time of writing as the checkpoints know it."""
    shutil.copytree(WRITTEN, tmp_path / "written")
    monkeypatch.chdir(tmp_path / "written")
    os.utime("dump.parquet", ns=(1_700_000_000_000_000_000,) * 2)
    return Path()


def figures(result):
    return {name: value for name, value in result.to_dict().items() if name not in OWN}


def without_intervals(value):
    """Figures without the intervals of metrics: of rates and perplexities they are narrower since, and named."""
    if isinstance(value, dict):
        return {name: without_intervals(part) for name, part in value.items() if name not in ("ci95", "method")}
    return value


@pytest.fixture
def expected():
    found = json.loads((WRITTEN / "result.json").read_text(encoding="utf-8"))
    return {name: value for name, value in found.items() if name not in OWN}


def test_a_state(here, expected):
    data = (here / "whole.state").read_bytes()
    state = fx.EvalState.from_bytes(data)
    assert without_intervals(figures(state.result())) == without_intervals(expected)
    assert state.to_bytes() == data


def test_a_result(here, expected):
    assert figures(fx.EvalResult.from_json((here / "result.json").read_text(encoding="utf-8"))) == expected


def test_a_checkpoint_folder(here, expected):
    result = fx.evaluate("dump.parquet", resume="progress", **dumps.OPTIONS)
    assert result.timing["resumed_rows"] == 74
    assert without_intervals(figures(result)) == without_intervals(expected)


def test_the_dump_gives_the_same_state_today(here):
    result = fx.evaluate("dump.parquet", **dumps.OPTIONS)
    assert result.state.to_bytes() == (here / "whole.state").read_bytes()
