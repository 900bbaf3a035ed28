"""Commands whose help has sections, and the flags of the printed result."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fastxent.cli.conditions import ConditionType
from fastxent.cli.leave import discard

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


QUIET = option("--quiet", "-q", is_flag=True, show_default=False, help="Hide progress and warnings.")
VERBOSE = option("--verbose", "-v", is_flag=True, show_default=False, help="Print the time of each step to stderr.")


def format_option(*forms: str) -> Setting:
    """Return the option of the printed result's form."""
    return option("--format", "format_", type=click.Choice(forms), default=None, show_default="table",
                  help="Form of the printed result.")  # fmt: skip


FORMAT = format_option("table", "json", "markdown", "none")


def printing(function: Function) -> Function:
    """Add the options of the printed result."""
    return section(
        "Output",
        FORMAT,
        option("--fail-if", multiple=True, type=ConditionType(), metavar="EXPR", show_default=False,
               help="Exit 1 if this holds, as in 'accuracy<90%' or 'kind=*:accuracy<0.8'."),
    )(function)  # fmt: skip
