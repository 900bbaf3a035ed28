"""Options that take one of a few words, as types: a wrong word fails under mypy, and at run time in `one_of`."""

from __future__ import annotations

from typing import Literal

Input = Literal["logits", "log_probs", "probs"]
Reduction = Literal["mean", "sum", "none"]
BatchReduction = Literal["batchmean", "mean", "sum", "none"]
Task = Literal["multiclass", "binary", "multilabel", "likelihood", "scores"]
NamedTask = Literal["multiclass", "binary", "multilabel"]
OnBadRow = Literal["error", "skip"]
FloatName = Literal["float16", "bfloat16", "float32", "float64"]
Output = Literal["log_softmax", "softmax", "grad"]
Layout = Literal["binary", "list"]
OnOverflow = Literal["error", "inf"]
Engine = Literal["local", "ray"]
How = Literal["exact", "inner"]
