"""A real dump against figures computed apart: ``python tests/acceptance/smollm2.py FOLDER``, run by hand.

The folder holds ``smollm2.parquet`` (next-token logits of a language model) and ``smollm2.reference.json`` (figures in
float64, and the tolerance). Also: the same bits for any threads, memory and split into files, and gradient rows that
are those of the array function.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import fastxent as fx

OPTIONS = {"by": "kind", "cluster": "doc", "n_bytes": "n_bytes"}


def fixed(result: fx.EvalResult) -> str:
    found = result.to_dict()
    return json.dumps([found[name] for name in ("metrics", "calibration", "slices")])


def compare(metrics: dict[str, fx.Metric], expected: dict, clustered: bool) -> float:
    """The largest relative difference from the reference."""
    worst = 0.0
    for name, figure in expected.items():
        kinds = {"value": metrics[name].value, "stderr_clustered" if clustered else "stderr": metrics[name].stderr}
        worst = max([worst, *(abs(got / figure[kind] - 1) for kind, got in kinds.items() if kind in figure)])
    return worst


def main(folder: Path) -> int:
    reference = json.loads((folder / "smollm2.reference.json").read_text())
    dump = folder / "smollm2.parquet"
    result = fx.evaluate(dump, **OPTIONS)
    plain = fx.evaluate(dump, **{**OPTIONS, "cluster": None})
    worst = {
        "clustered": compare(result.metrics, reference["metrics"], True),
        "plain": compare(plain.metrics, reference["metrics"], False),
    }
    for value, part in reference["slices"]["kind"].items():
        worst[f"kind={value}"] = compare(result.slices["kind"][value].metrics, part["metrics"], True)
    for name, difference in worst.items():
        print(f"{name}: largest relative difference {difference:.2e}")
    failures = [name for name, d in worst.items() if not d <= reference["relative_tolerance"]]

    table = pq.read_table(dump)
    with tempfile.TemporaryDirectory() as place:
        files = []
        for k, begin in enumerate(range(0, len(table), math.ceil(len(table) / 7))):
            files.append(Path(place) / f"{k}.parquet")
            pq.write_table(table.slice(begin, math.ceil(len(table) / 7)), files[-1], row_group_size=9)
        runs = {
            "1 thread": fx.evaluate(dump, **OPTIONS, threads=1),
            "2 threads, little memory": fx.evaluate(dump, **OPTIONS, threads=2, memory="4MiB"),
            "seven files in another order": fx.evaluate([files[k] for k in (3, 0, 6, 1, 5, 2, 4)], **OPTIONS),
        }
        failures += [name for name, run in runs.items() if fixed(run) != fixed(result)]
        gradients = Path(place) / "grad.parquet"
        fx.transform(dump, gradients, output="grad", reduction="sum")
        column = pq.read_table(gradients)["grad"].combine_chunks()
        got = np.asarray(column.values).reshape(len(table), -1)
    logits = np.asarray(table["logits"].combine_chunks().values).reshape(len(table), -1)
    if not np.array_equal(got, fx.cross_entropy_with_grad(logits, table["target"], reduction="sum").grad):
        failures.append("gradients")
    print("failed: " + ", ".join(failures) if failures else "all as it should be")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
