"""Numba's compiler, without two things that it does again and again. The code it makes is the same.

It translates a helper that is copied into its callers anew at each call, with all that the helper calls in turn, and
copies it twice through `copy.deepcopy`. What it copies does not depend on types: here it is kept, and copied once. And
it resolves a call anew at each place and in each round of type inference: here once for the same types in a function.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from numba.core import ir
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.inline_closurecall import InlineWorker, callee_ir_validator
from numba.core.typed_passes import NopythonTypeInference
from numba.core.untyped_passes import InlineInlinables

_translated: dict[Callable[..., Any], Any] = {}  # by function; Numba compiles one at a time


class _Copied(ir.Block):  # type: ignore[misc]
    """A block that is nobody else's, so that Numba need not copy it before it is changed."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Copied:
        return self


def _copied(node: Any) -> Any:
    """A copy of statements and of the expressions in them. Variables, constants and places are replaced, not changed:
    they are shared."""
    kind = type(node)
    if kind is list or kind is tuple:
        return kind([_copied(item) for item in node])
    if kind is dict:
        return {key: _copied(item) for key, item in node.items()}
    if not isinstance(node, ir.Inst):
        return node
    new = kind.__new__(kind)  # type: ignore[call-overload]
    vars(new).update({key: _copied(value) for key, value in vars(node).items()})
    return new


def _blocks_of(function_ir: Any) -> dict[int, _Copied]:
    """Copies of the blocks of a function, in a scope of their own, which is changed too."""
    scope = copy.copy(next(iter(function_ir.blocks.values())).scope)
    scope.localvars = copy.copy(scope.localvars)
    scope.localvars._con = scope.localvars._con.copy()
    scope.redefined = scope.redefined.copy()
    scope.var_redefinitions = scope.var_redefinitions.copy()
    for name, names in scope.var_redefinitions.items():
        scope.var_redefinitions[name] = set(names)
    blocks = {}
    for label, block in function_ir.blocks.items():
        blocks[label] = _Copied(scope, block.loc)
        blocks[label].body = _copied(block.body)
    return blocks


class _Worker(InlineWorker):  # type: ignore[misc]
    """Numba's, with helpers that are kept."""

    def __init__(self, state: Any) -> None:
        parts = state.typingctx, state.targetctx, state.locals, state.pipeline, state.flags
        super().__init__(*parts, validator=callee_ir_validator)
        self._compiler_pipeline = lambda state: _replaced(DefaultPassBuilder.define_untyped_pipeline(state))

    def run_untyped_passes(self, function: Callable[..., Any], enable_ssa: bool = False) -> Any:
        self.flags.enable_ssa = enable_ssa  # as Numba leaves them
        if function not in _translated:
            _translated[function] = super().run_untyped_passes(function, enable_ssa)
        translated = _translated[function].copy()
        translated.blocks = _blocks_of(translated)
        return translated

    def inline_ir(self, *given: Any, **named: Any) -> Any:
        result = super().inline_ir(*given, **named)
        for block in result[1].values():
            block.__class__ = ir.Block  # the caller's now
        return result


@register_pass(mutates_CFG=True, analysis_only=False)
class _Inline(InlineInlinables):  # type: ignore[misc]
    _name = "fastxent_inline"

    def _do_work(self, state: Any, work_list: Any, block: Any, i: int, call: Any, worker: Any) -> Any:
        return super()._do_work(state, work_list, block, i, call, _Worker(state))


class _Context:
    """Numba's typing context, while it infers the types of one function."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._resolved: dict[Any, tuple[Any, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def resolve_function_type(self, function: Any, args: Any, kws: Any) -> Any:
        """The signature of a call, or None. A function type notes which code serves a signature, and callees that are
        compiled meanwhile, under other options, note theirs there: so the note is made again."""
        called = self._context._lookup_global(function) or function
        notes = getattr(called, "_impl_keys", {})
        key = called, tuple(args), tuple(kws.items()) if kws else ()
        if key in self._resolved:
            signature, note = self._resolved[key]
            if note is not None:
                notes[signature.args] = note
            return signature
        signature = self._context.resolve_function_type(function, args, kws)
        if signature is not None:
            self._resolved[key] = signature, notes.get(signature.args)
        return signature


@register_pass(mutates_CFG=True, analysis_only=False)
class _Infer(NopythonTypeInference):  # type: ignore[misc]
    _name = "fastxent_infer"

    def run_pass(self, state: Any) -> Any:
        context = state.typingctx
        state.typingctx = _Context(context)
        try:
            return super().run_pass(state)
        finally:
            state.typingctx = context


_OWN = {InlineInlinables: _Inline, NopythonTypeInference: _Infer}


def _replaced(passes: PassManager) -> PassManager:
    """Numba's passes with those above in place of its own."""
    passes.passes = [(_OWN.get(step, step), about) for step, about in passes.passes]
    passes.finalize()
    return passes


class Compiler(CompilerBase):  # type: ignore[misc]
    """Numba's compiler of functions without Python objects, with the passes above."""

    def define_pipelines(self) -> list[PassManager]:
        return [_replaced(DefaultPassBuilder.define_nopython_pipeline(self.state))]
