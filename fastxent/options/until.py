"""The options of a run that may stop before all rows are read."""

# Without `from __future__ import annotations`, as in `declared`.
from typing import Annotated, TypedDict

from fastxent.options.checks import optional, whole
from fastxent.options.conditions import stop_condition
from fastxent.options.option import Option


class UntilOptions(TypedDict, total=False):
    """The options of a run that stops before all rows are read."""

    until: Annotated[
        str | None,
        Option(
            None,
            optional(stop_condition),
            help="Stop early if this holds, as in 'cross_entropy.stderr<0.001'.",
            section="Metrics",
            metavar="EXPR",
            shown="read all rows",
        ),
    ]
    seed: Annotated[
        int,
        Option(
            0,
            whole("be an integer from 0 to 4294967295", low=0, high=2**32 - 1),
            help="Seed of the order in which --until reads parts of the source.",
            section="Metrics",
            metavar="N",
        ),
    ]
