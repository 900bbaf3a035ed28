"""Results for the tests of the report, made from random rows by the real state: ordinary, hostile, large."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa

from fastxent.options.config import EvalConfig
from fastxent.results.result import EvalResult
from fastxent.scoring.rows import USED, ScoredRows
from fastxent.state.evaluation import EvalState
from scored_cases import case

HOSTILE = [
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "\"'><b onmouseover=alert(1)>", "&amp;",
    "$\\frac{1}{0}$", "{{ 7 * 7 }}{% raw %}", "\x00\x1b[31m\x7f", "\u202eright to left", "\u4e2d\u6587 \U0001f600",
    "url(https://example.org/x)", "-->]]>", "", "n" * 5000,
]  # fmt: skip


def ordinary(**changes: object) -> EvalResult:
    """Everything at once: weights, clusters, two columns of slices, bad and ignored rows."""
    cfg, rows = case("everything", 600)
    return replace(EvalState.empty(cfg).add(rows).result({"seconds": 0.5, "threads": 2}, ["dump.parquet"]), **changes)


def hostile() -> EvalResult:
    """Names that look like markup, formulas, templates and control codes, at every place for a name."""
    cfg, rows = case("plain", 13 * 20, dirty=False)
    rows.by = {HOSTILE[0]: pa.array(HOSTILE * 20)}
    cfg = replace(cfg, by=(HOSTILE[0],), classes=tuple(HOSTILE[:7]), logits=HOSTILE[1], where=HOSTILE[2])
    result = EvalState.empty(cfg).add(rows).result(files=HOSTILE)
    return replace(result, warnings=tuple(HOSTILE), versions={HOSTILE[0]: HOSTILE[1]})


def broken() -> EvalResult:
    """Metrics that are infinite or undefined: a row with infinite loss, a slice with no used row, one with one row."""
    cfg, rows = case("by", 60)
    rows.loss[:3] = rows.nll[:3] = math.inf
    rows.status[:3] = USED
    rows.by["kind"] = pa.array(["one row", *["empty"] * 5, *["many"] * 54])
    rows.status[1:6] = 1
    return EvalState.empty(cfg).add(rows).result()


def large(rows: int = 1_000_000, classes: int = 1000, slices: int = 200) -> EvalResult:
    """A million rows of a thousand classes in two hundred slices."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, classes, rows)
    right = rng.random(rows) < 0.7
    confidence = np.where(right, rng.beta(6, 2, rows), rng.beta(3, 3, rows))
    nll = np.where(right, -np.log(confidence), rng.exponential(3, rows) + 1)
    scored = ScoredRows(
        status=np.full(rows, USED, np.int8),
        target=target,
        loss=nll,
        class_weight=None,
        nll=nll,
        lse=rng.normal(10, 1, rows),
        confidence=confidence,
        predicted=np.where(right, target, rng.integers(0, classes, rows)),
        rank=np.where(right, 0, rng.integers(1, 50, rows)),
        entropy=rng.exponential(1, rows),
        brier=rng.random(rows),
        weight=None,
        n_bytes=None,
        cluster=None,
        by={"language": pa.array(np.char.add("language ", rng.integers(0, slices, rows).astype(str)))},
    )
    cfg = EvalConfig(n_classes=classes, by=("language",))
    return EvalState.empty(cfg).add(scored).result(files=["large.parquet"])
