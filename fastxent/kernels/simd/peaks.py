"""The largest number of many, two vectors at a time, without widening half precision."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastxent.kernels.simd.types import HALVES, Vec, compute_type, memory_type
from fastxent.kernels.simd.vector import F32 as _F32, HALF as _HALF, I16 as _I16, I32 as _I32, fold, V


def _extremes(tag: types.Type) -> types.UniTuple:
    """What `peak` keeps: of float32 and float64 two vectors of the largest numbers so far. Of halves (largest, least)
    of their bits: the largest as signed integers is the largest number that is not negative, the least as unsigned
    ones, where there is none, the largest of the negative. One operation for 16 numbers, where widening takes three.
    """
    return types.UniTuple(HALVES if memory_type(tag) in (_HALF, _I16) else compute_type(tag), 2)


@intrinsic  # type: ignore[untyped-decorator]
def no_peak(typingctx, tag):  # type: ignore[no-untyped-def]
    """What `peak` starts from."""
    out = _extremes(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        least = (-(1 << 15), -1) if out.dtype is HALVES else 2 * (float(np.finfo(out.dtype.elem.name).min),)
        values = [ir.Constant(out.dtype.ir, [x] * out.dtype.lanes) for x in least]
        return context.make_tuple(b, sig.return_type, values)

    return out(tag), codegen


def _higher(b: ir.IRBuilder, kind: Vec, one: list[ir.Value], other: list[ir.Value]) -> list[ir.Value]:
    """What `peak` keeps of both."""
    if kind is not HALVES:
        return [V(b, x).max(V(b, m)).v for x, m in zip(one, other, strict=True)]
    signs = zip(one, other, (b.icmp_signed(">", one[0], other[0]), b.icmp_unsigned("<", one[1], other[1])), strict=True)
    return [b.select(held, x, m) for x, m, held in signs]


@intrinsic  # type: ignore[untyped-decorator]
def peak(typingctx, found, address, tag):  # type: ignore[no-untyped-def]
    """``found`` with two vectors' worth of numbers at an address; NaN is passed over."""
    kind = found.dtype

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        before = [b.extract_value(args[0], k) for k in (0, 1)]
        pointer = b.inttoptr(args[1], kind.ir.as_pointer())
        if kind is HALVES:
            loaded = [b.load(pointer, align=1)] * 2
        else:
            loaded = [b.load(b.gep(pointer, [_I32(k)]), align=1) for k in (0, 1)]
        return context.make_tuple(b, sig.return_type, _higher(b, kind, loaded, before))

    return found(found, types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def higher(typingctx, found, more):  # type: ignore[no-untyped-def]
    """What `peak` would have found in the numbers of both."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        one, other = ([b.extract_value(a, k) for k in (0, 1)] for a in args)
        return context.make_tuple(b, sig.return_type, _higher(b, found.dtype, one, other))

    return found(found, found), codegen


@intrinsic  # type: ignore[untyped-decorator]
def peak_of(typingctx, found, tag):  # type: ignore[no-untyped-def]
    """The largest number that `peak` met; of halves, NaN where there was one without a sign."""
    kind = found.dtype

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        first, second = (b.extract_value(args[0], k) for k in (0, 1))
        if kind is not HALVES:
            return fold(V(b, first).max(V(b, second)), lambda x, y: x.max(y))

        # in each lane the one that counts, as an integer that is larger where the number is
        negative = b.icmp_signed("<", first, ir.Constant(HALVES.ir, [0] * 32))
        turned = ir.Constant(HALVES.ir, [0x7FFF] * 32)
        keys = b.select(negative, b.xor(second, turned), first)
        largest = ir.FunctionType(_I16, [HALVES.ir])
        key = b.call(cgutils.get_or_insert_function(b.module, largest, "llvm.vector.reduce.smax.v32i16"), [keys])
        bits = b.select(b.icmp_signed("<", key, _I16(0)), b.xor(key, _I16(0x7FFF)), key)
        if tag == types.uint16:
            return b.fpext(b.bitcast(bits, _HALF), _F32)
        return b.bitcast(b.shl(b.zext(bits, _I32), _I32(16)), _F32)

    return compute_type(tag).elem(found, tag), codegen
