"""Row kernels that are called by address.

A kernel that calls another by name has the code of the other linked into its own, and LLVM optimises it there once
more. A loop over chunks would so be compiled for each of the many row kernels. Called by address, one loop serves all.

The types of the arguments are written down once, for the caller and for the kernel: `row_types`, `emit_types`, …
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from fastxent.kernels.rows.arguments import Goals, Into, Output, Rows, Shape, Soft, Targets

Types = tuple[types.Type, ...]


def _typed(*examples: Any) -> Types:
    return tuple(numba.typeof(example) for example in examples)


_INT = types.int64
_IDS, _SHAPE, _SOFT = _typed(np.empty(0, np.int64), Shape(0.0, 0.0, 0, 0), Soft(0, 0, True))
_TARGETS, _INTO, _OUT, _GOALS = _typed(
    Targets(np.empty(0, np.int64), True, 0, 0),
    Into(np.empty((0, 0)), np.empty((0, 0), np.int64), np.empty(0, np.int8), 0, 0),
    Output(0, 0, True, np.empty((0, 0))),
    Goals(0, 0, 0, 0.0, True, 0),
)


def _rows(tag: types.Type) -> types.Type:
    return types.NamedTuple((_INT, _INT, _INT, _INT, tag), Rows)


def row_types(tag: types.Type) -> Types:
    """The arguments of a row kernel for numbers of a type: rows, targets, shape, soft, into."""
    return _rows(tag), _TARGETS, _SHAPE, _SOFT, _INTO


def emit_types(tag: types.Type) -> Types:
    """The arguments of an emit kernel: rows, out, into, ids, shape, soft."""
    return _rows(tag), _OUT, _INTO, _IDS, _SHAPE, _SOFT


def group_types(tag: types.Type) -> Types:
    """The arguments of what takes some tiles of few classes through all steps: see `fused.group_of`."""
    return _rows(tag), _INT, _TARGETS, _SHAPE, _GOALS, _INT


def divergence_types(tag: types.Type, tag_b: types.Type) -> Types:
    """The arguments of a divergences kernel: rows of both, shape, into of both, out, column."""
    return _rows(tag), _rows(tag_b), _SHAPE, _INTO, _INTO, *_typed(np.empty((0, 0)), 0)


def address(kernel: Any, argument_types: Types, returns: types.Type = types.none) -> int:
    """Return where the code of a kernel for these arguments begins. It is compiled if it has to be.

    The address is valid as long as the kernel exists.
    """
    if argument_types not in kernel.overloads:
        kernel.compile(argument_types)
    compiled = kernel.overloads[argument_types]
    if compiled.signature.return_type != returns:
        raise TypeError(f"{kernel.__name__} returns {compiled.signature.return_type}, not {returns}")
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


def calling(types_of: Callable[..., Types], rows: int = 1, returns: types.Type = types.none) -> Any:
    """Make what calls a kernel by its address: ``call(address, arguments)``, with the arguments as a tuple.

    types_of: function. The types of the arguments, by the tags of the first ``rows`` of them.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def call(typing_context: Any, address: Any, arguments: Any) -> Any:
        given = tuple(arguments.types)
        expected = types_of(*(of.types[-1] for of in given[:rows]))
        if given != expected:
            raise TypingError(f"a kernel is called with {given}, not with {expected}")

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            convention = context.call_conv
            function = builder.inttoptr(values[0], convention.get_function_type(returns, given).as_pointer())
            unpacked = cgutils.unpack_tuple(builder, values[1])
            status, found = convention.call_function(builder, function, returns, given, unpacked)
            with cgutils.if_unlikely(builder, status.is_error):
                convention.return_status_propagate(builder, status)
            return context.get_dummy_value() if returns == types.none else found

        return returns(address, arguments), generate

    return call


PAIR = types.UniTuple(types.float64, 2)
call_rows = calling(row_types)
call_emit = calling(emit_types)
call_group = calling(group_types, returns=PAIR)
call_divergences = calling(divergence_types, rows=2)
