"""How exact each kernel is: the largest error in units in the last place, next to torch's own on the same rows.

As `tests/reference.py` measures: losses are held one by one, in units of the loss; rows of results (softmax, gradient)
by their worst number, in units of the row's largest; sums of terms of the order of 1, which may cancel (lse, entropy,
Brier), in units of 1 where they are smaller. "Beyond torch" is the largest distance by which a result was farther from
the truth than torch's: at most 1 is what is promised.

    python -m bench.accuracy
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import fastxent as fx
from bench.peers import installed, tensor
from tests import reference as ref

FAMILIES = {
    "random": "normal", "language model": "language model", "peaked": "peaked", "flat": "flat",
    "huge range": "ten thousands",
}  # fmt: skip
CLASSES = (2, 10, 1000, 32_000)
MANY = 1_000_000
_VALUES = 40_000  # logits of a family and number of classes; one row at the least


def rows(quick: bool) -> Iterator[tuple[str, np.ndarray, np.ndarray, str]]:
    """(family, logits, class ids, dtype)"""
    for dtype, kind in ref.DTYPES.items():
        for name, family in FAMILIES.items():
            many = (MANY,) if name in ("random", "peaked", "flat") and not quick else ()
            for classes in (*CLASSES, *many):
                n = max(1, _VALUES // classes)
                x = ref.rows_of(family, n, classes, kind, seed=classes)
                target = np.random.default_rng(classes).integers(classes, size=n)
                yield (f"{name}, 1M classes" if classes == MANY else name), x, target, dtype


def _ours(x: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    loss, grad = fx.cross_entropy_with_grad(x, target, reduction="none")
    record = fx.row_statistics(x, target)
    sign = (target % 2).astype(loss.dtype)
    return {
        "loss": fx.cross_entropy(x, target, reduction="none"), "loss with gradient": loss, "gradient": grad,
        "log_softmax": fx.log_softmax(x), "softmax": fx.softmax(x), "logsumexp": fx.logsumexp(x),
        "entropy": record.entropy.astype(loss.dtype), "brier": record.brier.astype(loss.dtype),
        "binary": fx.binary_cross_entropy_with_logits(x[:, 0], sign, reduction="none"),
    }  # fmt: skip


def _truth(x: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    log_p = ref.log_softmax(x)
    record = ref.row_statistics(x, target)
    loss = -np.take_along_axis(log_p, target[:, None], 1)[:, 0]
    one_hot = np.arange(x.shape[1]) == target[:, None]
    return {
        "loss": loss, "loss with gradient": loss, "gradient": np.where(one_hot, np.expm1(log_p), np.exp(log_p)),
        "log_softmax": log_p, "softmax": np.exp(log_p), "logsumexp": record.lse, "entropy": record.entropy,
        "brier": record.brier,
        "binary": ref.binary_cross_entropy(x[:, 0], target % 2, input="logits", reduction="none"),
    }  # fmt: skip


def _torch(x: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    import torch
    import torch.nn.functional as F

    leaf = tensor(x).requires_grad_()
    t = tensor(target)
    loss = F.cross_entropy(leaf, t, reduction="none")
    loss.sum().backward()
    with torch.no_grad():
        log_p = torch.log_softmax(leaf, -1)
        p = log_p.exp()
        results = {
            "loss": loss, "loss with gradient": loss, "gradient": leaf.grad, "log_softmax": log_p,
            "softmax": torch.softmax(leaf, -1), "logsumexp": torch.logsumexp(leaf, -1),
            "entropy": -torch.special.xlogy(p, p).sum(-1),
            "brier": ((p - F.one_hot(t, x.shape[1])) ** 2).sum(-1),
            "binary": F.binary_cross_entropy_with_logits(leaf[:, 0], (t % 2).to(leaf.dtype), reduction="none"),
        }  # fmt: skip
    return {name: value.detach().to(torch.float64).numpy() for name, value in results.items()}


_TERMS = {"gradient": 1.0, "log_softmax": 0.0, "softmax": 0.0, "logsumexp": 1.0, "entropy": 1.0, "brier": 1.0}


def _excess(kernel: str, result: np.ndarray, truth: np.ndarray, other: np.ndarray) -> float:
    """ulp by which ``result`` is farther from the truth than ``other`` is."""
    terms = _TERMS.get(kernel)
    if terms is not None and result.ndim == 1:
        return ref.excess(result[:, None], truth[:, None], other[:, None], result.dtype, terms=terms)
    return ref.excess(result, truth, other, result.dtype, terms=terms)


def accuracy(quick: bool = False) -> list[dict[str, Any]]:
    """[{kernel, dtype, family, ours, torch, beyond_torch}]: the largest of each over the rows of a family, in ulp."""
    worst: dict[tuple[str, str, str], dict[str, float]] = {}
    with_torch = installed("torch")
    for family, x, target, dtype in rows(quick):
        ours, truths = _ours(x, target), _truth(x, target)
        theirs = _torch(x, target) if with_torch else {}
        for kernel, result in ours.items():
            truth = truths[kernel]
            found = {"ours": _excess(kernel, result, truth, truth)}
            if with_torch:
                peer = theirs[kernel].astype(result.dtype)
                found["torch"] = _excess(kernel, peer, truth, truth)
                found["beyond_torch"] = _excess(kernel, result, truth, peer)
            kept = worst.setdefault((kernel, dtype, family), found)
            for name, value in found.items():
                kept[name] = max(kept[name], value)
    return [{"kernel": k, "dtype": d, "family": f, **values} for (k, d, f), values in worst.items()]


def by_kernel(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The worst family of each kernel and dtype."""
    worst: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in found:
        kept = worst.setdefault((entry["kernel"], entry["dtype"]), dict(entry))
        if entry["ours"] > kept["ours"]:
            kept["family"] = entry["family"]
        for name in ("ours", "torch", "beyond_torch"):
            if name in entry:
                kept[name] = max(kept[name], entry[name])
    return list(worst.values())


def show(console: Console, found: list[dict[str, Any]]) -> None:
    """Print the largest error of each kernel and dtype."""
    table = Table(title="Largest error in ulp against the truth in long double", title_justify="left", box=SIMPLE)
    for name in ("kernel", "dtype", "ours", "torch", "beyond torch", "worst rows"):
        table.add_column(name, justify="left" if name in ("kernel", "dtype", "worst rows") else "right")
    for entry in by_kernel(found):
        numbers = [f"{entry[k]:.3g}" if k in entry else "-" for k in ("ours", "torch", "beyond_torch")]
        style = "red" if entry.get("beyond_torch", 0) > 1 else None
        table.add_row(entry["kernel"], entry["dtype"], *numbers, entry["family"], style=style)
    console.print(table)


if __name__ == "__main__":
    show(Console(width=170, highlight=False), accuracy())
