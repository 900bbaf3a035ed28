"""What earlier versions wrote is read: a state, a checkpoint folder and a JSON result, to the same figures.

`tests/written` was made by version 0.1.0 from `dumps.table(200)` with `dumps.OPTIONS`: the whole state, the result, and
a run that was interrupted after 74 of the 200 rows.
"""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import dumps
import fastxent as fx
from fastxent.state.metrics import FROM_GRID
from fastxent.state.packed import unpack

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


def then(result, expected):
    """The figures that the earlier version had; what was not summed then is not known."""
    found = figures(result)
    for metrics, known in [(found["metrics"], expected["metrics"]), *(
        (part["metrics"], expected["slices"][column][label]["metrics"])
        for column, parts in found["slices"].items() for label, part in parts.items()
    )]:  # fmt: skip
        for name in list(metrics):
            if name not in known:
                value = metrics.pop(name)["value"]
                of_slice = metrics is not found["metrics"]
                if not (of_slice and name in FROM_GRID):  # a slice may have new rows alone
                    assert (value is None) == (of_slice or name in FROM_GRID), name
    unknown = [f"averages over classes are not known for slices of {column!r}" for column in found["slices"]]
    warnings = [warning.partition(":")[0] for warning in found["warnings"]]
    assert warnings[:-2] == unknown
    assert "did not count confused classes" in warnings[-2]
    assert warnings[-1].startswith("some rows come from a state of an earlier version, which has no fine grid")
    return {**found, "warnings": expected["warnings"]}


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
    assert without_intervals(then(state.result(), expected)) == without_intervals(expected)
    assert state.to_bytes() == data


def test_a_result(here, expected):
    assert figures(fx.EvalResult.from_json((here / "result.json").read_text(encoding="utf-8"))) == expected


def test_a_checkpoint_folder(here, expected):
    result = fx.evaluate("dump.parquet", resume="progress", **dumps.OPTIONS)
    assert result.timing["resumed_rows"] == 74
    assert without_intervals(then(result, expected)) == without_intervals(expected)


def test_the_dump_gives_the_same_sums_today(here):
    state = fx.evaluate("dump.parquet", **dumps.OPTIONS).state
    (_, today), (_, before) = unpack(state.to_bytes()), unpack((here / "whole.state").read_bytes())
    assert set(before) < set(today)
    for name, array in before.items():
        assert np.array_equal(array, today[name]), name


def test_old_rows_leave_what_they_did_not_count_unknown(here):
    old = fx.EvalState.from_bytes((here / "whole.state").read_bytes())
    new = fx.evaluate("dump.parquet", **dumps.OPTIONS).state
    assert new.result().confusion is not None
    for both in (old.merge(new), new.merge(old)):
        result = both.result()
        assert result.confusion is None
        assert result.rows.total == 400
        assert math.isfinite(result.metrics["macro_f1"].value)
        assert all(math.isnan(part.metrics["macro_f1"].value) for part in result.slices["kind"].values())
    assert old.merge(new) == new.merge(old)
