"""The declaration of an option beside its name and type, and functions with declared options as keywords."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

from fastxent.errors import ConfigError
from fastxent.options.checks import Check, shown

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Option:
    """The declaration of an option, beside its name and type.

    default: value. Used if the option is not given.
    check: (name, value) -> value. Returns the plain form of a valid value and raises ConfigError otherwise.
    help: str. The line of the command line's help, at most 70 characters; "" for an option without a flag.
    section: str. The heading in the help; "" for an option without a flag.
    metavar: str or None. The placeholder of the value in the help.
    flag: str or None. The flag, if it is not the name with dashes.
    shown: str or None. The default in words, for the help, if None stands for a default that depends on the run.
    form: str. The value of the flag: "value"; "names", one name or a comma list; "list", a comma list or @FILE;
        "repeated", a comma list that may be given several times; "fitted", a number, or @FILE from calibrate; "file",
        a file to write; "switch", no value, and "--no-" before the name for the opposite.
    entries: type. The type of the entries of a list.
    per_class: bool. Whether the list has one entry per class.
    inputs: values of the option ``input`` that this one goes with; empty for all.
    """

    default: Any
    check: Check
    help: str = ""
    section: str = ""
    metavar: str | None = None
    flag: str | None = None
    shown: str | None = None
    form: Literal["value", "names", "list", "repeated", "fitted", "file", "switch"] = "value"
    entries: type = str
    per_class: bool = False
    inputs: tuple[str, ...] = ()


def declarations(kind: Any) -> dict[str, Option]:
    """Return the declaration of each option of a TypedDict."""
    return {name: hint.__metadata__[0] for name, hint in kind.__annotations__.items()}


def check_input(declared: Iterable[tuple[str, Option]], given: Any) -> None:
    """Raise ConfigError for an option that does not go with the option ``input``.

    given: object with an attribute per option. Checked values.
    """
    for name, option in declared:
        if not option.inputs or given.input in option.inputs:
            continue
        value = getattr(given, name)
        if value is not option.default and (option.default is None or value != option.default):
            needed = " or ".join(map(repr, option.inputs))
            raise ConfigError(f"{name} requires input={needed}, got {name}={shown(value)} and input={given.input!r}")


def taking(kind: Any, *, checks: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return the decorator of functions whose last parameter is ``**options: Unpack[kind]``.

    The function receives every option, given or default, and shows all of them in its signature.

    checks: bool. The function receives the checked values; those of a list per class are checked for its entries only.
    """
    declared = declarations(kind)
    defaults = {name: option.default for name, option in declared.items()}
    types = {name: hint.__origin__ for name, hint in kind.__annotations__.items()}

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        *own, _ = signature.parameters.values()
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[name])
            for name, default in defaults.items()
        ]
        at = sum(p.kind is not inspect.Parameter.KEYWORD_ONLY for p in own)
        known = {*signature.parameters, *defaults}

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not kwargs.keys() <= known:
                unknown = next(name for name in kwargs if name not in known)
                raise TypeError(f"{function.__name__}() got an unexpected keyword argument {unknown!r}")
            given: dict[str, Any] = {**defaults, **kwargs}
            if checks:
                given |= {name: option.check(name, given[name]) for name, option in declared.items()}
            return function(*args, **given)

        call.__signature__ = signature.replace(parameters=[*own[:at], *options, *own[at:]])  # type: ignore[attr-defined]
        return call

    return decorate
