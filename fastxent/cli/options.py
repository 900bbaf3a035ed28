"""The options that commands share, in the groups the help shows them in."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from fastxent.cli.conditions import ConditionType
from fastxent.cli.leave import discard

Function = TypeVar("Function", bound=Callable[..., Any])
Setting = tuple[tuple[str, ...], dict[str, Any]]  # an option that `section` will add


class Option(click.Option):
    """An option that knows the heading it stands under in the help."""

    section = "Options"


class Quiet(click.Command):
    """A command whose help may go to a reader that leaves (``| head``)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and print the help or the version where they are asked for."""
        try:
            return super().parse_args(ctx, args)
        except BrokenPipeError:
            discard(sys.stdout)
            ctx.exit()


class Command(Quiet):
    """A command whose help groups its options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section under its heading, in order of first appearance."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", "Other"), []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)


def both(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """For the sources of a command that has a destination too, which takes the last path, or the only one."""
    if not value:
        raise click.UsageError("two paths are needed: SOURCE, what to read, and DEST, the file to write")
    return value


class Items(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """A comma list, or ``@FILE`` with one value per line, or a JSON list in place of either, where values may hold
    commas; each converted by ``item``."""

    name = "list"

    def __init__(self, item: Callable[[str], Any] = str, what: str = "values") -> None:
        self.item = item
        self.what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        if isinstance(value, list | tuple):
            return list(value)
        text = str(value)
        try:
            parts = self._lines(text[1:]) if text.startswith("@") else split(text)
        except (OSError, ValueError) as error:
            self.fail(f"cannot read {text[1:]!r}: {getattr(error, 'strerror', None) or error}", param, ctx)
        try:
            return [self.item(part) for part in parts]
        except ValueError:
            self.fail(f"invalid list of {self.what} {value!r}; expected values such as 1,2,3 or @FILE", param, ctx)

    def _lines(self, name: str) -> list[str]:
        """The values of a file. A number holds no comma, so that numbers may share a line."""
        text = Path(name).read_text(encoding="utf-8-sig")
        if (listed := _json_list(text)) is not None:
            return listed
        if self.item is not str:
            return [part for line in text.splitlines() for part in split(line)]
        lines = [line.strip() for line in text.strip("\r\n").split("\n")]
        if "" in lines[:-1]:
            raise ValueError(f"line {lines.index('') + 1} is empty; write one value per line, or a JSON list")
        return [line for line in lines if line]


def split(text: str) -> list[str]:
    """The values of a comma list, or of a JSON list.

    >>> split("a, b"), split('["a, b", "c"]')
    (['a', 'b'], ['a, b', 'c'])
    """
    listed = _json_list(text)
    return [part for piece in text.split(",") if (part := piece.strip())] if listed is None else listed


def joined(name: str) -> str:
    """One value as `split` reads it back.

    >>> joined("fold"), joined("a,b")
    ('fold', '["a,b"]')
    """
    plain = name and not name.startswith("@") and split(name) == [name]
    return name if plain else json.dumps([name], ensure_ascii=False)


def _json_list(text: str) -> list[str] | None:
    """A JSON list of texts and numbers, as texts; None if it is not one."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(value, str | bool) for value in found):
        return None
    return [value if isinstance(value, str) else str(value).lower() for value in found]


def yes_or_no(text: str) -> bool:
    """One entry of a class mask."""
    values = {"1": True, "true": True, "0": False, "false": False}
    if text.lower() not in values:
        raise ValueError(text)
    return values[text.lower()]


def flatten(ctx: click.Context, param: click.Parameter, value: Iterable[list[Any]]) -> list[Any] | None:
    """Join the lists of a repeated option."""
    return [item for items in value for item in items] or None


def section(title: str, *options: Setting) -> Callable[[Function], Function]:
    """Add ``options`` under the heading ``title``."""

    def decorate(function: Function) -> Function:
        for names, settings in reversed(options):
            kind = type("SectionOption", (Option,), {"section": title})
            function = click.option(*names, cls=kind, **settings)(function)
        return function

    return decorate


def option(*names: str, **settings: Any) -> Setting:
    """An option to be handed to `section`."""
    return names, {"show_default": True, **settings}


QUIET = option("--quiet", "-q", is_flag=True, show_default=False, help="Neither progress nor warnings.")
FORMAT = option("--format", "format_", type=click.Choice(["table", "json", "markdown", "none"]), default=None,
                show_default=False, help="Form of the printed result; a table by default.")  # fmt: skip


def columns(function: Function) -> Function:
    """What stands where in the dump."""
    return section(
        "Columns",
        option("--logits", default="logits", metavar="COLUMN", callback=_one_or_many,
               help="Scores: a list column, or 'logit_*' / 'a,b,c' for one column a class."),
        option("--target", default="target", metavar="COLUMN",
               help="Class ids, strings (with --classes), or lists of probabilities."),
        option("--input", type=click.Choice(["logits", "log_probs", "probs"]), default="logits",
               help="What the scores are."),
        option("--logits-dtype", type=click.Choice(["float16", "bfloat16", "float32", "float64"]), default=None,
               help="What binary or 16-bit integer scores hold, where the file does not say."),
        option("--classes", type=Items(), metavar="LIST|@FILE", default=None, show_default=False,
               help="Class names in order, for string targets and for display."),
        option("--by", multiple=True, type=Items(), metavar="COLUMN,...", callback=flatten, show_default=False,
               help="Figures for each value of these columns too."),
        option("--cluster", metavar="COLUMN", help="Rows that belong together (a document, a user): clustered errors."),
        option("--weight", metavar="COLUMN", help="Weights of rows."),
        option("--n-bytes", metavar="COLUMN", help="Bytes of text each row stands for: adds bits_per_byte."),
        option("--where", metavar="EXPR", help="Only rows for which this holds, as in \"kind == 'code'\"."),
    )(function)  # fmt: skip


def loss(function: Function) -> Function:
    """How a row is scored."""
    return section(
        "Loss",
        option("--ignore-index", type=int, default=-100, help="Target of rows to leave out."),
        option("--label-smoothing", type=float, default=0.0, metavar="EPS",
               help="Share of the target spread over all classes, 0 to 1."),
        option("--class-weight", type=Items(float, "numbers"), metavar="LIST|@FILE", default=None, show_default=False,
               help="One weight a class."),
        option("--class-mask", type=Items(yes_or_no, "0s and 1s"), metavar="LIST|@FILE", default=None,
               show_default=False, help="One 0 or 1 a class: 0 takes it out."),
        option("--temperature", type=float, default=1.0, help="Divides the logits."),
        option("--softcap", type=float, default=None, metavar="S",
               help="Logits become S·tanh(logit/S), before the temperature."),
        option("--clip-eps", type=float, default=None, metavar="EPS",
               help="Smallest probability of a target, with --input probs; without it 0 costs infinity."),
    )(function)  # fmt: skip


def figures(function: Function) -> Function:
    """What is reported."""
    return section(
        "Figures",
        option("--metrics", type=Items(), default="all", metavar="LIST", callback=_one_or_many,
               help="Which, as in cross_entropy,accuracy."),
        option("--top-k", type=Items(int, "whole numbers"), default="1,5", metavar="LIST",
               help="The k of top_k_accuracy."),
        option("--bins", type=int, default=15, help="Calibration bins of equal width."),
        option("--on-bad-row", type=click.Choice(["error", "skip"]), default="error",
               help="NaN or +inf logits, target out of range: stop, or count under rows.bad."),
    )(function)  # fmt: skip


def running(*extra: Setting) -> Callable[[Function], Function]:
    """What never changes a figure."""
    return section(
        "Running",
        option("--threads", type=click.IntRange(min=1), default=None, help="Threads; all processors if not given."),
        option("--memory", default="512MB", metavar="SIZE", help="Memory for rows in flight."),
        *extra,
        option("--progress/--no-progress", default=None, show_default=False,
               help="Progress on stderr; on a terminal if not given."),
        QUIET,
        option("--verbose", "-v", is_flag=True, show_default=False, help="Where the time went, on stderr."),
    )  # fmt: skip


def printing(function: Function) -> Function:
    """How a result comes out."""
    return section(
        "Output",
        FORMAT,
        option("--fail-if", multiple=True, type=ConditionType(), metavar="EXPR", show_default=False,
               help="Exit 1 if this holds: 'accuracy<90%', 'rows.bad>0', 'fold=*:accuracy.ci95.low<0.8'. Repeatable."),
    )(function)  # fmt: skip


def _one_or_many(ctx: click.Context, param: click.Parameter, value: str | list[str]) -> str | list[str]:
    items = (split(value) or [value]) if isinstance(value, str) else value
    return items[0] if len(items) == 1 else items
