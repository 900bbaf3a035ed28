"""Records of benchmark runs: what is kept, that it names no machine, and that it is read again."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

import bench_records
from bench import records

DATE = "2026-01-02T03:04:05Z"


def test_a_record_is_one_small_file_that_reads_back(tmp_path: Path) -> None:
    report = bench_records.report()
    path = records.append(report, DATE, tmp_path)
    assert path.name == "20260102T030405Z-0123456.json"
    (kept,) = records.load(tmp_path)
    assert kept == records.record(report, DATE)
    assert kept["date"] == DATE
    assert kept["commit"] == report["machine"]["commit"]
    assert kept["startup"] == {"import": 0.003123, "import torch": 1.5, "cold evaluate": 13.38, "cached evaluate": 0.9}
    assert path.stat().st_size < 300 * (len(kept["cases"]) + len(kept["marks"])) + 2000


def test_a_case_keeps_its_ratios() -> None:
    kept = records.record(bench_records.report(), DATE)
    loss, evaluate = (next(c for c in kept["cases"] if c["job"] == job and c["threads"] == "all")
                      for job in ("loss", "evaluate"))  # fmt: skip
    assert loss == {
        "job": "loss", "classes": 1000, "dtype": "float32", "threads": "all", "bound": "read",
        "gb_per_second": 24.0, "ceiling": 0.8, "spread": 0.01234, "peers": {"torch": 10.0, "jax+optax": 6.0},
        "speed_up": 1.8,
    }  # fmt: skip
    assert records.name_of(loss) == "loss C=1000 float32"
    assert records.name_of(evaluate) == "evaluate C=1000 zstd"


def test_the_newest_comes_last_and_quick_runs_are_marked(tmp_path: Path) -> None:
    report = bench_records.report()
    records.append(report | {"quick": True}, "2026-03-01T00:00:00Z", tmp_path)
    records.append(report, "2026-02-01T00:00:00Z", tmp_path)
    assert [kept["quick"] for kept in records.load(tmp_path)] == [False, True]
    assert len(list(tmp_path.glob("*-quick.json"))) == 1


def test_the_fingerprint_tells_machines_apart_and_not_their_moods() -> None:
    report = bench_records.report()
    same = copy.deepcopy(report)
    same["machine"] |= {"system": "another kernel", "load_average": [9.0, 9, 9], "python": "3.13.0"}
    same["machine"]["memory"] += 1 << 20
    other = copy.deepcopy(report)
    other["machine"]["cpus"] = 64
    ids = [records.record(r, DATE)["machine"]["id"] for r in (report, same, other)]
    assert ids[0] == ids[1] != ids[2]


def test_nothing_in_a_record_names_the_machine() -> None:
    report = bench_records.report()
    report["machine"] |= {"system": "Linux-6.1-on-secret-host", "node": "secret-host", "user": "secret-user"}
    assert "secret" not in json.dumps(records.record(report, DATE))


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "something/else"}'])
def test_a_file_that_is_no_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(SystemExit, match=r"broken\.json: not a record"):
        records.load(tmp_path)


def test_the_records_that_are_kept_are_records() -> None:
    for kept in records.load():
        assert kept["cases"]
        assert kept["marks"]
        assert kept["machine"]["processor"]
