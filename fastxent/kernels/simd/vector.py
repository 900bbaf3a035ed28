"""An LLVM vector value with the operators of arithmetic, so that formulas read as formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

F32, F64, HALF = ir.FloatType(), ir.DoubleType(), ir.HalfType()
I1, I8, I16, I32, I64 = (ir.IntType(w) for w in (1, 8, 16, 32, 64))


class V:
    """Numbers in a register, and the builder that operates on them."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.b, self.v = builder, value
        self.lanes, self.elem = value.type.count, value.type.element

    def const(self, x: float) -> V:
        return V(self.b, ir.Constant(self.v.type, [x] * self.lanes))

    def _lift(self, x: Any) -> ir.Value:
        return x.v if isinstance(x, V) else self.const(x).v

    def __add__(self, o: Any) -> V:
        return V(self.b, self.b.fadd(self.v, self._lift(o)))

    def __sub__(self, o: Any) -> V:
        return V(self.b, self.b.fsub(self.v, self._lift(o)))

    def __mul__(self, o: Any) -> V:
        return V(self.b, self.b.fmul(self.v, self._lift(o)))

    def __truediv__(self, o: Any) -> V:
        return V(self.b, self.b.fdiv(self.v, self._lift(o)))

    def fma(self, a: Any, c: Any) -> V:
        """self·a + c, rounded once."""
        suffix = f"v{self.lanes}{'f64' if self.elem == F64 else 'f32'}"
        kind = ir.FunctionType(self.v.type, [self.v.type] * 3)
        function = cgutils.get_or_insert_function(self.b.module, kind, f"llvm.fma.{suffix}")
        return V(self.b, self.b.call(function, [self.v, self._lift(a), self._lift(c)]))

    def max(self, o: Any) -> V:
        """The larger; where self is NaN, o (a NaN is found in the sum, not in the maximum)."""
        other = self._lift(o)
        return V(self.b, self.b.select(self.b.fcmp_ordered(">", self.v, other), self.v, other))

    def where(self, mask: ir.Value, o: Any) -> V:
        """self where the mask holds, else o."""
        return V(self.b, self.b.select(mask, self.v, self._lift(o)))

    def __lt__(self, o: Any) -> ir.Value:
        return self.b.fcmp_ordered("<", self.v, self._lift(o))

    def bits(self) -> ir.Value:
        return self.b.bitcast(self.v, ir.VectorType(I64 if self.elem == F64 else I32, self.lanes))

    def from_bits(self, i: ir.Value) -> V:
        return V(self.b, self.b.bitcast(i, self.v.type))

    def part(self, begin: int, count: int) -> V:
        return V(self.b, shuffle(self.b, self.v, self.v, range(begin, begin + count)))

    def wide(self) -> list[V]:
        """As float64 vectors of eight."""
        if self.elem == F64:
            return [self]
        d = ir.VectorType(F64, 8)
        return [V(self.b, self.b.fpext(self.part(k, 8).v, d)) for k in (0, 8)]


def shuffle(b: ir.IRBuilder, x: ir.Value, y: ir.Value, lanes: Any) -> ir.Value:
    index = list(lanes)
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(index)), index))


def narrow(like: V, parts: list[V]) -> V:
    """The inverse of `V.wide`: rounds to the type of ``like``."""
    if like.elem == F64:
        return parts[0]
    b, f = like.b, ir.VectorType(F32, 8)
    low, high = (b.fptrunc(p.v, f) for p in parts)
    return V(b, shuffle(b, low, high, range(16)))


def fold(x: V, combine: Callable[[V, V], V]) -> ir.Value:
    """Fold the lanes in halves: a fixed order."""
    while x.lanes > 1:
        half = x.lanes // 2
        x = combine(x.part(0, half), x.part(half, half))
    return x.b.extract_element(x.v, I32(0))


def broadcast(b: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    kind = ir.VectorType(scalar.type, lanes)
    v = b.insert_element(ir.Constant(kind, ir.Undefined), scalar, I32(0))
    return shuffle(b, v, v, [0] * lanes)


def lane_mask(b: ir.IRBuilder, count: ir.Value, lanes: int) -> ir.Value:
    """Lanes below ``count`` (an int64)."""
    index = ir.Constant(ir.VectorType(I64, lanes), list(range(lanes)))
    return b.icmp_signed("<", index, broadcast(b, count, lanes))


def lanes_in(b: ir.IRBuilder, held: ir.Value) -> ir.Value:
    """How many lanes a mask holds: one move and one instruction beside the vectors' own."""
    kind = ir.IntType(held.type.count)
    count = cgutils.get_or_insert_function(b.module, ir.FunctionType(kind, [kind]), f"llvm.ctpop.i{kind.width}")
    return b.zext(b.call(count, [b.bitcast(held, kind)]), I64)
