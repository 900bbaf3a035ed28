"""Top-k dumps made of full rows of log-probabilities, and the figures of the full rows by the book."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

FIELDS = ("nll", "rank", "entropy", "brier")  # a row has the least and the most of each


@dataclass
class Full:
    """Full rows: (n, C) log-probabilities in float64, as they are stored, and their targets."""

    logprobs: np.ndarray
    target: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, target: np.ndarray, dtype: str = "float64") -> Full:
        x = logits.astype(np.float64)
        found = x - np.log(np.exp(x - x.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True)) - x.max(axis=1)[:, None]
        return cls(found.astype(dtype).astype(np.float64), target)

    def figures(self) -> dict[str, np.ndarray]:
        """Each row's figures, one class after another."""
        found: dict[str, list[float]] = {name: [] for name in (*FIELDS, "confidence")}
        for row, t in zip(self.logprobs.tolist(), self.target.tolist(), strict=True):
            p = [math.exp(x) for x in row]
            found["nll"].append(0.0 - row[t])
            found["rank"].append(sum(x > row[t] or (x == row[t] and j < t) for j, x in enumerate(row)))
            found["entropy"].append(-math.fsum(q * x for q, x in zip(p, row, strict=True) if q))
            found["brier"].append(math.fsum((q - (j == t)) ** 2 for j, q in enumerate(p)))
            found["confidence"].append(max(p))
        return {name: np.array(values) for name, values in found.items()}

    def likeliest(self, i: int, k: int) -> list[int]:
        """The ids of row i that are listed: of equal ones those of the lowest ids."""
        return np.argsort(-self.logprobs[i], kind="stable")[:k].tolist()

    def top(
        self,
        sizes: list[int],
        *,
        other: bool = False,
        own: list[bool] | None = None,
        added: bool = False,
        dtype: str = "float64",
        rng: np.random.Generator | None = None,
    ) -> dict[str, pa.Array]:
        """A top-k dump. sizes: k of each row. own: rows whose target_logprob is known. added: the target joins a list
        that lacks it. rng: shuffles the lists."""
        ids, logprobs, rest = [], [], []
        for i, k in enumerate(sizes):
            some = self.likeliest(i, k)
            if added and self.target[i] not in some:
                some.append(int(self.target[i]))
            left = math.fsum(math.exp(x) for j, x in enumerate(self.logprobs[i]) if j not in some)
            rest.append(math.log(left) if left > 0.0 else -math.inf)
            if rng is not None:
                rng.shuffle(some)
            ids.append(some)
            logprobs.append([float(self.logprobs[i, j]) for j in some])
        number = pa.from_numpy_dtype(dtype)
        found = {
            "ids": pa.array(ids, pa.list_(pa.int32())), "lp": pa.array(logprobs, pa.list_(number)),
            "target": pa.array(self.target),
        }  # fmt: skip
        if other:
            found["other"] = pa.array(rest, number)
        if own is not None:
            given = -self.figures()["nll"]
            found["own"] = pa.array(given, number, mask=~np.array(own))
        return found


def options(dump: dict[str, pa.Array], **more: object) -> dict[str, object]:
    """The keywords that evaluate such a dump."""
    names = {"other": "other", "target_logprob": "own"}
    return {"logits": "lp", "ids": "ids", **{k: v for k, v in names.items() if v in dump}, **more}
