"""The keywords that array functions share, declared once as in `fastxent.options.declared`."""

# Without `from __future__ import annotations`: the declarations are read from the annotations at run time.
import functools
from collections import namedtuple
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from fastxent.options.checks import real
from fastxent.options.choices import FloatName
from fastxent.options.declared import IgnoreIndex, InputKind, LabelSmoothing, ShapeOptions, TargetOptions
from fastxent.options.option import Option, check_input, declarations


def _later(name: str, value: Any) -> Any:
    """Leave the value to the check that needs the logits' shape."""
    return value


class ArrayOptions(TypedDict, total=False):
    """The layout of the logits."""

    axis: Annotated[int, Option(-1, _later)]
    dtype: Annotated[FloatName | None, Option(None, _later)]


class NllOptions(TargetOptions, ArrayOptions, total=False):
    """The keywords of `nll_loss`."""

    weight: Annotated[Any, Option(None, _later)]
    sample_weight: Annotated[Any, Option(None, _later)]
    base: Annotated[float | None, Option(None, _later)]


class CrossEntropyOptions(NllOptions, ShapeOptions, total=False):
    """The keywords of `cross_entropy`."""

    z_loss: Annotated[float, Option(0.0, real(), inputs=("logits",))]
    input: InputKind


class StatisticsOptions(ShapeOptions, ArrayOptions, total=False):
    """The keywords of `row_statistics`."""

    ignore_index: IgnoreIndex
    input: InputKind


class BinaryOptions(TypedDict, total=False):
    """The keywords of `binary_cross_entropy`."""

    weight: Annotated[Any, Option(None, _later)]
    dtype: Annotated[FloatName | None, Option(None, _later)]


class BinaryLogitsOptions(BinaryOptions, total=False):
    """The keywords of `binary_cross_entropy_with_logits`."""

    pos_weight: Annotated[Any, Option(None, _later)]
    label_smoothing: LabelSmoothing


@functools.cache
def _declared(kind: Any) -> tuple[type, tuple[tuple[str, Option], ...], tuple[tuple[str, Option], ...]]:
    """Return a frozen type with a field per option of a TypedDict, the declarations, and those that need an input."""
    found = declarations(kind)
    some = [(name, option) for name, option in found.items() if option.inputs] if "input" in found else []
    return namedtuple(kind.__name__, found), tuple(found.items()), tuple(some)


def checked(kind: Any, options: Mapping[str, Any]) -> Any:
    """Return the options of a TypedDict as one frozen value; those with one entry per class are not checked yet."""
    value_type, found, some = _declared(kind)
    values = value_type._make(  # type: ignore[attr-defined]
        [
            value if (value := options[name]) is option.default or option.per_class else option.check(name, value)
            for name, option in found
        ]
    )
    check_input(some, values)
    return values
