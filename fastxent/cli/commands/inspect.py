"""``fastxent inspect``: the contents of a dump, and the command that evaluates it."""

from __future__ import annotations

import click

from fastxent.cli import arguments
from fastxent.cli.arguments import local_files, source_of
from fastxent.cli.finish import Sinks
from fastxent.cli.options import Command, format_option, option, section
from fastxent.cli.output import chosen_format, deliver
from fastxent.cli.progress import progress_bar
from fastxent.errors import ColumnError
from fastxent.names import some


@click.command(cls=Command, short_help="Describe a dump, and print the eval command for it.", epilog="""\b
Examples:
  fastxent inspect dump.parquet
  fastxent inspect 'shards/*.parquet' --logits scores --format json""")  # fmt: skip
@arguments.SOURCES
@section(
    "Output",
    option("--logits", metavar="COLUMN", show_default="the likeliest", help="Column of scores to describe."),
    format_option("table", "json", "none"),
    arguments.output("output"),
)
def inspect(source: tuple[str, ...], logits: str | None, format_: str | None, output: str | None) -> int:
    """Describe a dump from its metadata and first rows.

    The description lists the schema, the layout, the numbers of rows and classes and the likely role of each column,
    and ends with the eval command to run.
    """
    from fastxent.cli.description import Shown
    from fastxent.io.inspect import describe

    format_ = chosen_format(format_, output)
    Sinks(format_, output).check([], lambda: local_files(source))
    found = describe(source_of(source), logits)
    named = [candidate for candidate in found.logits if logits in (None, candidate.name)]
    if logits is not None and not named:
        raise ColumnError(f"column {logits!r} does not hold logits; candidates: "
                          f"{some(candidate.name for candidate in found.logits) or 'none'}")  # fmt: skip
    chosen, scores = (named[0] if named else None), "logits"
    if chosen is None and "ids" in found.roles:
        from fastxent.io.sample import slice_columns

        found.roles["by"] = slice_columns(source_of(source), None, list(dict.fromkeys(found.roles["by"])), found.head)
    if chosen is not None:
        from fastxent.io.sample import label_kind, score_kind, slice_columns

        with progress_bar(None, "inspecting"):
            if found.roles["target"]:
                found.labels = label_kind(source_of(source), chosen, found.roles["target"][0])
            scores = score_kind(source_of(source), chosen, found.labels)
            found.roles["by"] = slice_columns(source_of(source), chosen, list(dict.fromkeys(found.roles["by"])))
    deliver(Shown(found, chosen, source, scores), format_, output)
    return 0
