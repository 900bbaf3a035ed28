"""The options of an evaluation, declared once: `evaluate`, `transform` and `plan` take them all."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypedDict, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Names = str | Sequence[str] | None


class Options(TypedDict, total=False):
    """What is read and how it is scored; `evaluate` says what each one means."""

    logits: str | Sequence[str]
    target: str | None
    input: str
    metrics: str | Sequence[str]
    by: Names
    cluster: str | None
    weight: str | None
    where: str | None
    n_bytes: str | None
    ignore_index: int
    label_smoothing: float
    class_weight: Any
    temperature: float
    softcap: float | None
    class_mask: Any
    clip_eps: float | None
    classes: Sequence[str] | None
    logits_dtype: str | None
    top_k: int | Sequence[int]
    bins: int
    on_bad_row: str


DEFAULTS = Options(
    logits="logits", target="target", input="logits", metrics="all", by=None, cluster=None, weight=None, where=None,
    n_bytes=None, ignore_index=-100, label_smoothing=0.0, class_weight=None, temperature=1.0, softcap=None,
    class_mask=None, clip_eps=None, classes=None, logits_dtype=None, top_k=(1, 5), bins=15, on_bad_row="error",
)  # fmt: skip


def with_options(function: Callable[P, R]) -> Callable[P, R]:
    """For a function whose last parameter is ``**options: Unpack[Options]``: it gets every option, given or default,
    and shows them all, with their defaults, in its signature."""
    signature = inspect.signature(function)
    *own, _ = signature.parameters.values()
    kinds = {name: getattr(kind, "__forward_arg__", kind) for name, kind in Options.__annotations__.items()}
    shown = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kinds[name])
        for name, default in DEFAULTS.items()
    ]
    at = sum(p.kind is not inspect.Parameter.KEYWORD_ONLY for p in own)
    known = {*signature.parameters, *DEFAULTS}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        unknown = next((name for name in kwargs if name not in known), None)
        if unknown is not None:
            raise TypeError(f"{function.__name__}() got an unexpected keyword argument {unknown!r}")
        return function(*args, **{**DEFAULTS, **kwargs})  # type: ignore[arg-type]

    call.__signature__ = signature.replace(parameters=[*own[:at], *shown, *own[at:]])  # type: ignore[attr-defined]
    return call
