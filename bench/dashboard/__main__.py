"""python -m bench.dashboard [FILE]"""

from __future__ import annotations

import sys
from pathlib import Path

from bench import records
from bench.dashboard.page import html
from fastxent.io.storage.atomic import write_atomic

if __name__ == "__main__":
    found = records.load()
    if not found:
        sys.exit("cannot draw the dashboard: bench/history/ is empty; run `make bench`")
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "out/dashboard.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, html(found))
    print(f"dashboard of {len(found)} runs: {path}")
