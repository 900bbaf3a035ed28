"""What only a fresh process can tell: import, the first result with and without compiled kernels, peak memory.

python -m bench.startup
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import files
from bench.peers import installed

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits.parquet"

# Each prints JSON as its last line. The clock starts in a running interpreter, whose own start is no matter of ours.
_IMPORT = """
import json, time
start = time.perf_counter()
import {module}
print(json.dumps(time.perf_counter() - start))
"""
_EVALUATE = """
import json, sys, time
start = time.perf_counter()
import fastxent as fx
fx.evaluate(sys.argv[1])
print(json.dumps(time.perf_counter() - start))
"""
_ARRAY = """
import json, time
import numpy as np
logits, target = np.eye(10, dtype=np.float32), np.arange(10)
start = time.perf_counter()
import fastxent as fx
fx.cross_entropy(logits, target)
print(json.dumps(time.perf_counter() - start))
"""
# the peak of this process image alone: ru_maxrss would count the parent's memory before the exec as well
_MEMORY = """
import json, re, sys
import fastxent as fx
fx.evaluate(sys.argv[1], memory=int(sys.argv[2]))
print(json.dumps(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) * 1024))
"""


def fresh(code: str, *arguments: str, cache: str | None = None) -> Any:
    """What a new interpreter running ``code`` prints; ``cache``: where it finds and keeps compiled kernels."""
    environment = os.environ | ({"FASTXENT_CACHE_DIR": cache} if cache else {})
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def startup(rounds: int = 3) -> dict[str, float]:
    """Seconds: the best of some rounds, but for cold starts, which are one each with an empty cache."""
    found = {"import": min(fresh(_IMPORT.format(module="fastxent")) for _ in range(rounds))}
    if installed("torch"):
        found["import torch"] = min(fresh(_IMPORT.format(module="torch")) for _ in range(rounds))
    for name, code, arguments in (("evaluate", _EVALUATE, (str(DIGITS),)), ("cross_entropy", _ARRAY, ())):
        with tempfile.TemporaryDirectory() as cache:
            found[f"cold {name}"] = fresh(code, *arguments, cache=cache)
            found[f"cached {name}"] = min(fresh(code, *arguments, cache=cache) for _ in range(rounds))
    return found


def peak_memory(size: int, memory: int = 256_000_000) -> dict[str, int]:
    """Bytes: the peak of `evaluate` over a Parquet file that is one row group of ``size`` bytes of logits."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "one-group.parquet")
        x, target, _ = files.dump(1000, size)
        files.write(path, x, target, "none", group=size)
        for _ in range(2):  # the first may have to compile, which takes more memory than any file
            peak = fresh(_MEMORY, str(path), str(memory))
    return {"peak": peak, "memory": memory, "size": x.nbytes}


if __name__ == "__main__":
    for name_, seconds in startup().items():
        print(f"{name_:22} {seconds:7.3f} s")
