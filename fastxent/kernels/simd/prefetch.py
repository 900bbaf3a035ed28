"""Prefetches of cache lines that will be read, and the fence after stores past the cache."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastxent.kernels.simd import elementary
from fastxent.kernels.simd.vector import I1 as _I1, I32 as _I32, I8 as _I8


def _prefetching(locality: int) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def prefetch(typingctx, address):  # type: ignore[no-untyped-def]
        """Ask for a cache line that will be read; never faults."""

        def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
            pointer = b.inttoptr(args[0], _I8.as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
            function = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
            b.call(function, [pointer, _I32(0), _I32(locality), _I32(1)])
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return prefetch


prefetch, prefetch_far = _prefetching(3), _prefetching(2)  # into the first-level cache, into the second


@intrinsic  # type: ignore[untyped-decorator]
def goes_on_in_page(typingctx):  # type: ignore[no-untyped-def]
    """Whether the processor fetches the rest of a page by itself once its first lines were asked for: a constant for
    the compiler. Intel's does, and gains 5 to 20 % where it is left to; of AMD's the far lines gained a quarter."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return _I1(not elementary.processor().startswith(("znver", "bdver", "btver", "amdfam")))

    return types.boolean(), codegen


@intrinsic  # type: ignore[untyped-decorator]
def fence(typingctx):  # type: ignore[no-untyped-def]
    """Make streaming stores of this thread visible before what follows."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        b.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen
