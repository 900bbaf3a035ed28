"""Vectors for kernels: a Numba type of explicit width, and the arithmetic of softmax written once.

Kernels are written in vectors of 64 bytes of numbers (16 float32 or 8 float64), whatever the processor:
LLVM splits them into the widest registers there are. Two things follow. Wide registers are used where they
exist (left to itself LLVM prefers 256 bits on AVX-512 machines), and the order of additions in a row is fixed
by these files, not by the machine, so results agree bit for bit between processors.

Memory is addressed by integers (bytes), since rows may be unaligned and read-only. A ``tag`` names what lies
there; only its type matters: float32, float64, uint16 = float16 bits, int16 = bfloat16 bits (Numba has no
16-bit floats). `floats.FLOAT_TYPES` lists the tags.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

from fastxent.kernels.simd.vector import F32 as _F32, F64 as _F64, HALF as _HALF, I16 as _I16, I64 as _I64

LLVM = {types.float32: _F32, types.float64: _F64, types.int16: _I16}


class Vec(types.Type):
    """``lanes`` numbers in a register."""

    def __init__(self, elem: types.Type, lanes: int) -> None:
        self.elem, self.lanes = elem, lanes
        super().__init__(f"Vec({elem} x {lanes})")

    @property
    def ir(self) -> ir.VectorType:
        return ir.VectorType(LLVM[self.elem], self.lanes)


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vec) -> None:
        super().__init__(dmm, fe_type, fe_type.ir)


F32, F64 = Vec(types.float32, 16), Vec(types.float64, 8)

HALVES = Vec(types.int16, 32)  # bits of 32 halves


def compute_type(tag: types.Type) -> Vec:
    """The vector a tag's memory is computed in."""
    return F64 if tag == types.float64 else F32


def memory_type(tag: types.Type) -> ir.Type:
    return {types.float32: _F32, types.float64: _F64, types.uint16: _HALF, types.int16: _I16}[tag]


@intrinsic  # type: ignore[untyped-decorator]
def lanes(typingctx, tag):  # type: ignore[no-untyped-def]
    """Lanes of a vector, or of the tag's vectors: a constant for the compiler."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return _I64(tag.lanes if isinstance(tag, Vec) else compute_type(tag).lanes)

    return types.int64(tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def itemsize(typingctx, tag):  # type: ignore[no-untyped-def]
    """Bytes of one number in memory, a constant for the compiler."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return _I64({types.float32: 4, types.float64: 8}.get(tag, 2))

    return types.int64(tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def lowest(typingctx, tag):  # type: ignore[no-untyped-def]
    """The lowest finite number of the tag's compute type."""
    out = compute_type(tag).elem

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return ir.Constant(LLVM[out], float(np.finfo(out.name).min))

    return out(tag), codegen


_BINARY = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}


def _register(op: Any, instruction: str) -> None:
    @infer_global(op)
    class _Arithmetic(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args, kws):  # type: ignore[no-untyped-def]
            if len(args) == 2 and isinstance(args[0], Vec) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    @lower_builtin(op, Vec, Vec)  # type: ignore[untyped-decorator]
    def lower(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return getattr(builder, instruction)(*args)


for _op, _instruction in _BINARY.items():
    _register(_op, _instruction)
