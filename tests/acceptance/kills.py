"""Kill -9 at random moments, of the program as it is: every resumed run must end in the same bytes.

    python tests/acceptance/kills.py --count 50

makes a dump, evaluates it once without interruption, and then ``--count`` times: starts an evaluation that keeps
checkpoints, kills it at a random moment of its run (some of them twice or more), starts it again until it ends, and
compares the figures and the state, byte for byte. Exit code 1 if any differs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS, CLASSES, LINKS = 20_000, 1_000, 24


def make(folder: Path) -> list[str]:
    """A dump of ``LINKS`` files: copies of two, by hard links, since it is time that is wanted and not bytes."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        logits = pa.array((rng.normal(size=ROWS * CLASSES) * 3).astype(np.float32))
        table = pa.table(
            {
                "logits": pa.FixedSizeListArray.from_arrays(logits, CLASSES),
                "target": rng.integers(0, CLASSES, ROWS),
                "kind": rng.choice(["x", "y", "z"], ROWS),
                "document": rng.integers(0, 500, ROWS),
            }
        )
        codec = "zstd" if name == "a" else "none"
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=2500, compression=codec, use_dictionary=False)
    paths = []
    for k in range(LINKS):
        paths.append(folder / f"part-{k:02}.parquet")
        paths[-1].hardlink_to(folder / ("a.parquet" if k % 2 else "b.parquet"))
    return [str(path) for path in paths]


def command(paths: list[str], out: Path, resume: Path | None) -> list[str]:
    options = ["--by", "kind", "--cluster", "document", "--threads", "2", "--format", "json"]
    going_on = [] if resume is None else ["--resume", str(resume)]
    where = ["--output", f"{out}.json", "--state", f"{out}.state"]
    return [sys.executable, "-m", "fastxent", "eval", *paths, *options, *where, *going_on]


def figures(out: Path) -> bytes:
    found = json.loads(Path(f"{out}.json").read_text())
    return json.dumps({name: value for name, value in found.items() if name != "timing"}).encode()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp())
    paths = make(folder)
    for _ in range(2):  # the first compiles
        start = time.perf_counter()
        subprocess.run(command(paths, folder / "whole", None), check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
    expected = figures(folder / "whole"), (folder / "whole.state").read_bytes()
    print(f"uninterrupted: {seconds:.1f} s", flush=True)
    kills = wrong = 0
    for turn in range(options.count):
        resume, out = folder / f"resume-{turn}", folder / "out"
        killed = 0
        while True:
            child = subprocess.Popen(command(paths, out, resume), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            wait = rng.uniform(0, seconds) if killed == 0 or (killed < 4 and rng.random() < 0.4) else None
            try:
                _, told = child.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                child.communicate()
                killed += 1
                continue
            if killed:
                break
            shutil.rmtree(resume)  # it was over before it was killed: this one does not count
        kills += killed
        same = child.returncode == 0 and (figures(out), Path(f"{out}.state").read_bytes()) == expected
        wrong += not same
        states = len(list(resume.glob("*.state")))
        print(f"{turn + 1:3}: {killed} kills, {states} state files, {'same' if same else 'DIFFERENT'}", flush=True)
        if not same:
            print(told.decode())
        shutil.rmtree(resume)
    print(f"{options.count} runs, {kills} kills, {options.count - wrong} byte-identical")
    shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
