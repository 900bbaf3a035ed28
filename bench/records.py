"""The history of `make bench`: one small file a run under bench/history/, kept in git, so that it survives machines.

A record holds ratios and what they were measured on, rounded to four digits, and nothing that names a machine: of the
machine it keeps what speed depends on, and a fingerprint of that. Seconds and GB/s compare only between runs of one
fingerprint; fractions of the ceiling and ratios to a peer are closest to meaning the same elsewhere. A quick run is
marked as one, and never compared with a full one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "history"
SCHEMA = "fastxent/bench/1"
_GB = 1e9
_DIGITS = 4


def record(report: dict[str, Any], date: str) -> dict[str, Any]:
    """What is kept of the figures that `bench.table` saves; ``date``: when the run began, ISO 8601 in UTC."""
    about = report["machine"]
    return {
        "schema": SCHEMA,
        "date": date,
        "commit": about["commit"],
        "changed": about["changed_since_commit"],
        "quick": report["quick"],
        "seconds": round(report["seconds"]),
        "load": _short(about["load_average"][0]),
        "fastxent": about["fastxent"],
        "machine": machine(about),
        "versions": {"python": about["python"], **about["versions"]},
        "ceilings": {name: _short(value / _GB) for name, value in report["ceilings"].items()},
        "cases": [_case(found) for found in report["cases"]],
        "marks": [_short(mark) for mark in report["marks"]],
        "startup": _short(report["startup"]),
        "peak_memory": report["peak_memory"],
    }


def machine(about: dict[str, Any]) -> dict[str, Any]:
    """What makes two runs comparable in seconds, under a fingerprint that is the same on a machine of the same make."""
    kept = {
        "processor": about["processor"],
        "cpus": about["cpus"],
        "memory_gb": round(about["memory"] / _GB),
        "caches": about["caches"],
        "flags": about["flags"],
    }
    text = json.dumps(kept, sort_keys=True)
    flags = kept.pop("flags")
    return {"id": hashlib.sha256(text.encode()).hexdigest()[:8], **kept, "vectors": _widest(flags)}


def append(report: dict[str, Any], date: str, folder: Path = FOLDER) -> Path:
    """Write the record of a run beside the others, and say where. Runs never share a file, so branches merge."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = record(report, date)
    stamp = "".join(c for c in date if c.isalnum())
    path = folder / f"{stamp}-{kept['commit'][:7] or 'unknown'}{'-quick' if kept['quick'] else ''}.json"
    path.write_text(_text(kept), encoding="utf-8")
    return path


def load(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Every record, oldest first; a file that is none is an error that names it."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise SystemExit(f"{path}: not a record of `make bench`: {error}") from None
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise SystemExit(f"{path}: not a record of `make bench`: its schema is not {SCHEMA!r}")
        found.append(values)
    return sorted(found, key=lambda kept: kept["date"])


def name_of(case: dict[str, Any]) -> str:
    """What a case is called, whatever the number of processors: on all of them, unless it says one thread."""
    if case["job"] == "evaluate":
        return f"evaluate C={case['classes']} {case['layout']}"
    one = ", one thread" if case["threads"] == "one" else ""
    return f"{case['job']} C={case['classes']} {case['dtype']}{one}"


def _case(found: dict[str, Any]) -> dict[str, Any]:
    rate = found["gb_per_second"]
    kept = {
        "job": found["job"],
        "classes": found["classes"],
        "dtype": found.get("dtype", "float32"),
        "threads": "one" if found["threads"] == 1 else "all",
        "layout": found.get("layout"),
        "bound": found["bound"],
        "gb_per_second": rate,
        "ceiling": found["fraction_of_ceiling"],
        "spread": found.get("spread"),
        "peers": {name: rate / theirs for name, theirs in found["peers_gb_per_second"].items()},
        "speed_up": found.get("speed_up"),
    }
    return {name: _short(value) for name, value in kept.items() if value is not None}


def _short(value: Any) -> Any:
    """The same with every float rounded to four digits."""
    if isinstance(value, dict):
        return {name: _short(entry) for name, entry in value.items()}
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _widest(flags: Iterable[str]) -> str:
    """The widest vectors among the processor's flags."""
    there = set(flags)
    return next((name for name in ("avx512f", "avx2", "sve", "neon") if name in there), "none")


def _text(kept: dict[str, Any]) -> str:
    """JSON with a line for each field, and for each entry of a list: differences stay readable, and the file small."""
    fields = []
    for name, value in kept.items():
        if isinstance(value, list):
            body = "[" + ",".join(f"\n  {json.dumps(entry, allow_nan=False)}" for entry in value) + "\n ]"
        else:
            body = json.dumps(value, allow_nan=False)
        fields.append(f" {json.dumps(name)}: {body}")
    return "{\n" + ",\n".join(fields) + "\n}\n"
