"""The flags of declared options: names, types, defaults and help follow from the declarations in `fastxent.options`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click

from fastxent.cli.arguments import destination
from fastxent.cli.items import Fitted, Items, flag, flatten, one_or_many
from fastxent.cli.options import QUIET, VERBOSE, Function, Setting, option, section
from fastxent.options.option import Option, declarations

_ENTRIES: dict[type, Items] = {
    str: Items(), float: Items(float, "numbers"), int: Items(int, "integers"), bool: Items(flag, "0s and 1s"),
}  # fmt: skip


def declared(kind: Any, *titles: str, hidden: Sequence[str] = ()) -> Callable[[Function], Function]:
    """Return the decorator that adds the options of a verb to a command.

    kind: TypedDict. The keywords of the verb.
    titles: the sections that are added.
    hidden: options that the command refuses; the help leaves them out.
    """

    def decorate(function: Function) -> Function:
        for title in reversed(titles):
            function = section(title, *flags(kind, title, hidden))(function)
        return function

    return decorate


def running(kind: Any) -> Callable[[Function], Function]:
    """Return the decorator that adds the options of a verb that never change a result, and those about messages."""
    return section("Running", *flags(kind, "Running"), QUIET, VERBOSE)


def flags(kind: Any, title: str, hidden: Sequence[str] = ()) -> list[Setting]:
    """Return the flags of the options of a verb in one section."""
    types = kind.__annotations__
    found = {name: declaration for name, declaration in declarations(kind).items() if declaration.section == title}
    return [_flag(name, declaration, types[name].__origin__, name in hidden) for name, declaration in found.items()]


def _flag(name: str, found: Option, hint: Any, hidden: bool = False) -> Setting:
    """Return the flag of an option. Its name and that of the keyword are the same, but for dashes."""
    given = found.flag or f"--{name.replace('_', '-')}"
    settings: dict[str, Any] = {"default": found.default, "metavar": found.metavar, "help": found.help}
    settings["hidden"] = hidden
    if found.form == "value":
        settings["type"] = _type_of(hint)
    elif found.form == "names":
        settings["callback"] = one_or_many
    elif found.form == "fitted":
        settings["type"] = Fitted()
    elif found.form == "file":
        settings["callback"] = destination
    elif found.form == "switch":
        given = f"{given}/--no-{given[2:]}"
    else:
        settings |= _list_of(found)
    if found.shown is not None:
        settings["show_default"] = found.shown
    return option(given, name, **settings)


def _list_of(found: Option) -> dict[str, Any]:
    """Return the keywords of click.option for a list."""
    settings: dict[str, Any] = {"type": _ENTRIES[found.entries], "show_default": found.default is not None}
    if found.form == "repeated":
        settings |= {"multiple": True, "callback": flatten}
    elif isinstance(found.default, str):
        settings["callback"] = one_or_many
    elif found.default is not None:
        settings["default"] = ",".join(map(str, found.default))
    return settings


def _type_of(hint: Any) -> Any:
    """Return the click type of an annotation: str if it allows text, whatever else it allows."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kind = str if str in kinds else next(kind for kind in kinds if kind is not type(None))
    return click.Choice(get_args(kind)) if get_origin(kind) is Literal else kind
