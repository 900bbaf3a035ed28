"""Instructions a call executes, by `perf stat`, where the machine counts them: exact where seconds are noisy.

A process that makes 2 calls and one that makes 12 differ by 10 calls, whatever else either of them does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_EVENT = "instructions:u"
_CALLS = (2, 12)
_CODE = """
import sys
from pathlib import Path
from bench.taker import prepared
call = prepared(sys.argv[1], int(sys.argv[2]), False, Path(sys.argv[4]))
for _ in range(int(sys.argv[3])):
    call()
"""


def ratios(sides: dict[str, Path], names: list[str], nbytes: int, data: Path) -> tuple[dict[str, float], str]:
    """({case: head's instructions over base's less 1}, what to tell): empty where they cannot be counted."""
    reason = unavailable()
    if reason:
        return {}, f"instructions are not counted: {reason}"
    found = {}
    for name in names:
        base, head = (_per_call(sides[side], name, nbytes, data) for side in ("base", "head"))
        found[name] = head / base - 1
    return found, f"instructions counted of {len(found)} cases"


def unavailable() -> str | None:
    """Why this machine cannot count instructions, or None."""
    if shutil.which("perf") is None:
        return "perf is not installed"
    done, text = _perf([sys.executable, "-c", ""], dict(os.environ), None)
    if done.returncode:
        return "perf stat is not permitted here"
    return None if counted(text) is not None else "this machine does not support the counter"


def counted(text: str) -> int | None:
    """The count in what ``perf stat -x,`` wrote; None where it says <not supported> or <not counted>."""
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[2].startswith("instructions") and fields[0].isdigit():
            return int(fields[0])
    return None


def _per_call(tree: Path, name: str, nbytes: int, data: Path) -> float:
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    counts = []
    for calls in _CALLS:
        command = [sys.executable, "-c", _CODE, name, str(nbytes), str(calls), str(data)]
        done, text = _perf(command, environment, tree)
        count = counted(text)
        if done.returncode or count is None:
            raise ValueError(f"perf stat counted nothing for {name}")
        counts.append(count)
    return (counts[1] - counts[0]) / (_CALLS[1] - _CALLS[0])


def _perf(
    command: list[str], environment: dict[str, str], folder: Path | None
) -> tuple[subprocess.CompletedProcess[bytes], str]:
    with tempfile.NamedTemporaryFile("r") as out:
        done = subprocess.run(
            ["perf", "stat", "-x,", "-e", _EVENT, "-o", out.name, "--", *command], env=environment, cwd=folder,
            check=False, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return done, out.read()
