"""Rows as the kernels would score them, made by NumPy from random logits, and the configurations to score them for."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pyarrow as pa

from fastxent.options.config import EvalConfig
from fastxent.scoring.rows import BAD_LOGITS, BAD_TARGET, IGNORED, USED, ScoredRows

CLASSES = 7
CONFIGS = {
    "plain": {},
    "by": {"by": ("kind", "fold")},
    "cluster": {"cluster": "doc", "by": ("kind",)},
    "weight": {"weight": "w", "by": ("kind",)},
    "class_weight": {"class_weight": (0.5, 1.0, 2.0, 3.0, 0.25, 1.5, 0.125), "n_bytes": "size"},
    "everything": {
        "weight": "w",
        "class_weight": (0.5, 1.0, 2.0, 3.0, 0.25, 1.5, 0.0),
        "n_bytes": "size",
        "cluster": "doc",
        "by": ("kind", "fold"),
    },
}


def config(name: str) -> EvalConfig:
    return EvalConfig(n_classes=CLASSES, bins=10, top_k=(1, 3), **CONFIGS[name])


def logits_and_target(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((n, CLASSES)) * 2
    target = np.where(rng.random(n) < 0.5, logits.argmax(axis=1), rng.integers(0, CLASSES, n))
    return logits, target


def scored(logits: np.ndarray, target: np.ndarray, cfg: EvalConfig, seed: int = 0, dirty: bool = True) -> ScoredRows:
    """All numbers of a row follow from its logits, its target and its random companions; a tenth of the rows is not
    used if ``dirty``."""
    n = len(target)
    rng = np.random.default_rng([seed, 1])
    at = logits[np.arange(n), target][:, None]
    lse = np.log(np.exp(logits).sum(axis=1))
    p = np.exp(logits - lse[:, None])
    nll = lse - at[:, 0]
    class_weight = None if cfg.class_weight is None else np.array(cfg.class_weight)[target]
    status = rng.choice([USED, IGNORED, BAD_LOGITS, BAD_TARGET], n, p=[0.9, 0.05, 0.03, 0.02]).astype(np.int8)
    kind = rng.choice(["prose", "code", "null"], n)
    return ScoredRows(
        status=status if dirty else np.zeros(n, np.int8),
        target=target,
        loss=nll if class_weight is None else nll * class_weight,
        class_weight=class_weight,
        nll=nll,
        lse=lse,
        confidence=p.max(axis=1),
        predicted=logits.argmax(axis=1),
        rank=(logits > at).sum(axis=1),
        entropy=-(p * np.log(p)).sum(axis=1),
        brier=((p - np.eye(CLASSES)[target]) ** 2).sum(axis=1),
        weight=rng.choice([0.5, 1.0, 1.7, 3.1], n) if cfg.weight else None,
        n_bytes=rng.integers(1, 9, n).astype(float) if cfg.n_bytes else None,
        cluster=pa.array(rng.integers(0, max(n // 6, 1), n)) if cfg.cluster else None,
        by={
            name: {"kind": pa.array(kind, mask=kind == "null"), "fold": pa.array(rng.integers(0, 5, n))}[name]
            for name in cfg.by
        },
    )


def case(name: str, n: int = 400, seed: int = 0, dirty: bool = True) -> tuple[EvalConfig, ScoredRows]:
    cfg = config(name)
    return cfg, scored(*logits_and_target(n, seed), cfg, seed, dirty)


def take(rows: ScoredRows, index: np.ndarray) -> ScoredRows:
    """Some of the rows, in the given order."""
    chosen = {}
    for f in fields(rows):
        value = getattr(rows, f.name)
        if isinstance(value, np.ndarray):
            chosen[f.name] = value[index]
        elif isinstance(value, pa.Array):
            chosen[f.name] = value.take(pa.array(index, pa.int64()))
        elif isinstance(value, dict):
            chosen[f.name] = {name: column.take(pa.array(index, pa.int64())) for name, column in value.items()}
        else:
            chosen[f.name] = value
    return ScoredRows(**chosen)
