"""``fastxent inspect``: the contents of a dump, and the command that evaluates it."""

from __future__ import annotations

from dataclasses import replace

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
  fastxent inspect 'shards/*.parquet' --logits scores --format json
  fastxent inspect hidden.parquet --head model/:lm_head.weight""")  # fmt: skip
@arguments.SOURCES
@section(
    "Output",
    option("--logits", metavar="COLUMN", show_default="the likeliest", help="Column of scores to describe."),
    option("--head", metavar="FILE[:TENSOR]", help="Output head, of a dump of hidden states."),
    format_option("table", "json", "none"),
    arguments.output("output"),
)
def inspect(
    source: tuple[str, ...], logits: str | None, head: str | None, format_: str | None, output: str | None
) -> int:
    """Describe a dump from its metadata and first rows.

    The description lists the schema, the layout, the numbers of rows and classes and the likely role of each column,
    and ends with the eval command to run.
    """
    from fastxent.cli.description import Shown
    from fastxent.io.inspect import describe

    format_ = chosen_format(format_, output)
    Sinks(format_, output).check([], lambda: local_files(source))
    shape = None if head is None else _shape(head)
    found = describe(source_of(source), logits, None if shape is None else shape[1])
    if shape is not None and not found.logits:
        raise ColumnError(f"no column of {found.files[0]} holds lists of {shape[1]} numbers, as the head has them")
    named = [candidate for candidate in found.logits if logits in (None, candidate.name)]
    if logits is not None and not named:
        raise ColumnError(f"column {logits!r} does not hold logits; candidates: "
                          f"{some(candidate.name for candidate in found.logits) or 'none'}")  # fmt: skip
    chosen, scores = (named[0] if named else None), "logits"
    if chosen is not None and shape is not None:
        chosen = replace(chosen, n_classes=shape[0], width=shape[1])
    if chosen is None and "ids" in found.roles:
        from fastxent.io.sample import slice_columns

        found.roles["by"] = slice_columns(source_of(source), None, list(dict.fromkeys(found.roles["by"])), found.head)
    if chosen is not None:
        from fastxent.io.sample import label_kind, score_kind, slice_columns

        with progress_bar(None, "inspecting"):
            if found.roles["target"]:
                found.labels = label_kind(source_of(source), chosen, found.roles["target"][0])
            if head is None:
                scores = score_kind(source_of(source), chosen, found.labels)
            found.roles["by"] = slice_columns(source_of(source), chosen, list(dict.fromkeys(found.roles["by"])))
    deliver(Shown(found, chosen, source, scores, head), format_, output)
    return 0


def _shape(head: str) -> tuple[int, int]:
    """Return the numbers of classes and of states of an output head."""
    from fastxent.io.heads import check_shape
    from fastxent.io.named_tensors import named_tensor

    return check_shape(named_tensor("head", head))
