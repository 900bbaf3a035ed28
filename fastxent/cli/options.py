"""The flags that commands share: those of the declared options, in their sections, and those of every run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click

from fastxent.cli.conditions import ConditionType
from fastxent.cli.items import Items, flag, flatten, one_or_many
from fastxent.cli.leave import discard
from fastxent.options.declared import OPTIONS, SECTIONS, Options
from fastxent.options.option import Option as Declared

Function = TypeVar("Function", bound=Callable[..., Any])
Setting = tuple[tuple[str, ...], dict[str, Any]]  # the names of a flag, and the keywords of click.option


class Option(click.Option):
    """An option with the heading that it has in the help."""

    section = "Options"

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Return the parts in brackets; click puts a default in words into parentheses too."""
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        return extra


class Quiet(click.Command):
    """A command that exits quietly if the reader of its help ends early (``| head``)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and print the help or version if it is asked for."""
        try:
            return super().parse_args(ctx, args)
        except BrokenPipeError:
            discard(sys.stdout)
            ctx.exit()


class Command(Quiet):
    """A command whose help groups its options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section under its heading, in the order of first use."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", "Other"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def option(*names: str, **settings: Any) -> Setting:
    """Return an option for `section`."""
    return names, {"show_default": True, **settings}


def section(title: str, *options: Setting) -> Callable[[Function], Function]:
    """Return the decorator that adds ``options`` to a command under the heading ``title``."""

    def decorate(function: Function) -> Function:
        for names, settings in reversed(options):
            kind = type("SectionOption", (Option,), {"section": title})
            function = click.option(*names, cls=kind, **settings)(function)
        return function

    return decorate


def choice(kind: Any) -> click.Choice[str]:
    """Return the click type of a `Literal` type."""
    return click.Choice(get_args(kind))


_ENTRIES: dict[type, Items] = {
    str: Items(), float: Items(float, "numbers"), int: Items(int, "integers"), bool: Items(flag, "0s and 1s"),
}  # fmt: skip


def declared(name: str, help: str | None = None) -> Setting:
    """Return the flag of a declared option; ``help`` replaces the declared help."""
    found, hint = OPTIONS[name], Options.__annotations__[name].__origin__
    settings: dict[str, Any] = {"default": found.default, "metavar": found.metavar, "help": help or found.help}
    if found.form == "value":
        settings["type"] = _type_of(hint)
    elif found.form == "names":
        settings["callback"] = one_or_many
    else:
        settings |= _list_of(found)
    return option(f"--{name.replace('_', '-')}", **settings)


def _list_of(found: Declared) -> dict[str, Any]:
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
    """Return the click type of an annotation, whatever else it allows."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kind = next(kind for kind in kinds if kind is not type(None))
    return choice(kind) if get_origin(kind) is Literal else kind


def scoring(function: Function) -> Function:
    """Add every declared option."""
    for title in reversed(SECTIONS):
        names = (name for name, found in OPTIONS.items() if found.section == title)
        function = section(title, *map(declared, names))(function)
    return function


QUIET = option("--quiet", "-q", is_flag=True, show_default=False, help="Show neither progress nor warnings.")


def format_option(*forms: str) -> Setting:
    """Return the option of the printed result's form."""
    return option("--format", "format_", type=click.Choice(forms), default=None, show_default="table",
                  help="Form of the printed result.")  # fmt: skip


FORMAT = format_option("table", "json", "markdown", "none")


def running(*extra: Setting) -> Callable[[Function], Function]:
    """Return the decorator that adds the options that never change a result, and ``extra`` ones."""
    return section(
        "Running",
        option("--threads", type=click.IntRange(min=1), default=None, metavar="N", show_default="all processors",
               help="Number of threads."),
        option("--memory", default="512MB", metavar="SIZE", help="Memory limit for data being processed."),
        *extra,
        option("--progress/--no-progress", default=None, show_default="on a terminal", help="Progress on stderr."),
        QUIET,
        option("--verbose", "-v", is_flag=True, show_default=False, help="Print the time of each step to stderr."),
    )  # fmt: skip


def printing(function: Function) -> Function:
    """Add the options of the printed result."""
    return section(
        "Output",
        FORMAT,
        option("--fail-if", multiple=True, type=ConditionType(), metavar="EXPR", show_default=False,
               help="Exit 1 if this holds, as in 'accuracy<90%' or 'kind=*:accuracy<0.8'."),
    )(function)  # fmt: skip
