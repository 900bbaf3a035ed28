"""Real responses against figures computed apart: ``python tests/acceptance/responses.py FOLDER``, run by hand.

The folder holds JSON lines of servers and ``reference.json`` (figures in float64). Beside it, "topk" holds
``topk.parquet`` with bounds. Prints the largest relative differences, and how long `json.loads` takes beside `evaluate`
on a file of many copies.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import fastxent as fx

LISTS = {"logits": "topk_logprobs", "ids": "topk_ids", "target_logprob": "target_logprob", "n_classes": 49152}
NAMES = {"perplexity": "perplexity", "cross_entropy": "mean_nll", "accuracy": "token_is_listed_top1_share"}


def responses(folder: Path) -> float:
    """The largest relative difference from the reference."""
    worst = 0.0
    for name, truth in json.loads((folder / "reference.json").read_text()).items():
        if not (folder / name).exists():
            continue
        metrics = fx.evaluate(folder / name, **LISTS, cluster="request").metrics
        found = {truth[there]: metrics[here].value for here, there in NAMES.items()}
        found[truth["se_clustered_by_response"]] = metrics["cross_entropy"].stderr
        if len(truth["list_lengths"]) == 1:  # else the server has added tokens to the likeliest
            found[truth["listed_mass_mean"]] = metrics["covered_mass"].value
            found[truth["token_in_listed_share"]] = metrics["coverage"].value
        worst = max([worst, *(abs(value / wanted - 1) for wanted, value in found.items())])
        print(name, {here: metrics[here].value for here in NAMES})
    return worst


def bounds(folder: Path) -> float:
    """The largest difference of the bounds of the entropy from the reference."""
    truth = json.loads((folder / "reference.json").read_text())
    options = {"logits": "top_logprobs", "ids": "top_ids", "n_classes": truth["C"], "other": "other_logprob"}
    result = fx.evaluate(folder / "topk.parquet", **options, target_logprob="target_logprob").metrics
    found = dict(zip(("lower", "upper"), result["entropy"].bounds, strict=True))
    worst = abs(result["cross_entropy"].value - truth["mean_nll_exact"])
    for side, value in found.items():
        worst = max(worst, abs(value - truth["knowing_target_logprob_too"][f"entropy_{side}_bound_mean"]))
    exact = {"accuracy": "top1_accuracy", "coverage": "coverage_share", "covered_mass": "covered_mass_mean"}
    return max([worst, *(abs(result[name].value - truth[there]) for name, there in exact.items())])


def speed(folder: Path, copies: int) -> None:
    """Seconds of `json.loads` line by line, and of `evaluate`, on the same file."""
    data = (folder / "chat_completions.jsonl").read_bytes()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "chat.jsonl"
        path.write_bytes(data * copies)
        fx.evaluate(folder / "chat_completions.jsonl", **LISTS)
        for _ in range(2):
            start = time.perf_counter()
            with path.open("rb") as lines:
                for line in lines:
                    json.loads(line)
            plain = time.perf_counter() - start
            start = time.perf_counter()
            fx.evaluate(path, **LISTS)
            ours = time.perf_counter() - start
            size = len(data) * copies / 1e6
            print(f"{size:.0f} MB: json.loads {plain:.2f} s, evaluate {ours:.2f} s, {plain / ours:.2f}x")


def main(folder: Path) -> int:
    worst, apart = responses(folder), bounds(folder.parent / "topk")
    print(f"responses: within {worst:.1e} of the reference; bounds: within {apart:.1e}")
    speed(folder, 20)
    return int(worst > 1e-6 or apart > 1e-6)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
